package directory

import (
	"context"
	"errors"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Claim selects the key packages that a caller requests: of each owner either up to Count, the
// oldest first over all its devices, or one for each device.
type Claim struct {
	Owners    []ds.AccountID // duplicates count once
	Count     int            // at most 10
	PerDevice bool           // in place of Count
	OnlyMLS   bool           // omits opaque packages
	Suite     int64          // 0: any
	// CountPairs also counts claims under the limit of each pair of caller and owner.
	CountPairs bool
}

// ClaimKeyPackages returns packages, each one-time one to one caller only, ordered by account
// and device if they are one for each device. If an owner or a device has no one-time package
// its newest last-resort one is returned, if any; unknown accounts have none. Every limit is
// checked before the first package is taken, and a call that fails counts under none.
// Refusals: invalid_request, rate_limited.
func (s *Service) ClaimKeyPackages(ctx context.Context, who ds.Caller, in Claim) ([]ds.KeyPackage, error) {
	in.Owners, in.Count = distinct(in.Owners), min(max(in.Count, 0), keyPackageCountMax)
	if len(in.Owners) > claimDevicesMax {
		return nil, ds.Refuse(ds.InvalidRequest, "at most %d accounts", claimDevicesMax)
	}
	for _, owner := range in.Owners {
		if !ds.IsValidAccount(string(owner)) {
			return nil, ds.Refuse(ds.InvalidRequest, "an account has 1 to %d bytes of UTF-8 without NUL", ds.AccountBytesMax)
		}
	}
	var b limits.Bill
	outcome := error(errNoneGiven) // until packages are claimed
	defer func() { b.Settle(s.limits, outcome) }()
	if err := s.chargeClaim(&b, who, in); err != nil {
		s.metrics.claims.WithLabelValues(claimRefused).Inc()
		return nil, err
	}
	pools, err := s.poolsFor(ctx, in)
	if err != nil {
		return nil, err
	}
	// In one transaction: a fault must not use up packages that were not returned.
	list, err := s.claim(ctx, who, func(tx *store.Tx) (list []ds.KeyPackage, err error) {
		if err := tx.Packages.LockPools(in.Owners); err != nil {
			return nil, err
		}
		for _, pool := range pools {
			if list, err = takeFrom(tx, list, pool, in, who.Account); err != nil {
				return nil, err
			}
		}
		return list, nil
	})
	if err != nil {
		if ctx.Err() != nil {
			outcome = nil // a caller that goes away meanwhile may have used them up
		}
		return nil, err
	}
	outcome = nil
	if len(list) == 0 {
		s.metrics.claims.WithLabelValues(claimNone).Inc()
	}
	return list, nil
}

// errNoneGiven is the outcome of a claim until packages are claimed.
var errNoneGiven = errors.New("no packages were handed out")

func distinct(list []ds.AccountID) []ds.AccountID {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// chargeClaim counts a claim under all its limits.
func (s *Service) chargeClaim(b *limits.Bill, who ds.Caller, in Claim) error {
	now, each := s.now(), int64(1)
	if !in.PerDevice {
		each = int64(max(in.Count, 1))
	}
	if r := b.Take(who.Meter, s.limits, limits.KeyPackageFetches, string(who.Account), "", each*int64(len(in.Owners)), now); r != nil {
		return r
	}
	for _, owner := range in.Owners {
		if in.CountPairs {
			if r := b.Take(who.Meter, s.limits, limits.KeyPackagePairs, string(who.Account), string(owner), each, now); r != nil {
				return r
			}
		}
		if r := b.Take(who.Meter, s.limits, limits.KeyPackageTargets, string(owner), "", each, now); r != nil {
			return r
		}
	}
	return nil
}

// poolsFor returns the pools that a claim takes from: those of accounts, or of devices with
// packages.
func (s *Service) poolsFor(ctx context.Context, in Claim) ([]store.Pool, error) {
	pools := make([]store.Pool, 0, len(in.Owners))
	if !in.PerDevice {
		for _, owner := range in.Owners {
			pools = append(pools, store.Pool{Account: owner, Suite: in.Suite, OnlyMLS: in.OnlyMLS})
		}
		return pools, nil
	}
	most := min(devicesMax, claimDevicesMax/max(len(in.Owners), 1))
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		pools, err = tx.Packages.DevicePools(in.Owners, in.Suite, in.OnlyMLS, most)
		return err
	})
	return pools, err
}

// takeFrom appends what a claim takes from a pool to list.
func takeFrom(tx *store.Tx, list []ds.KeyPackage, pool store.Pool, in Claim, by ds.AccountID) ([]ds.KeyPackage, error) {
	count := in.Count
	if in.PerDevice {
		count = 1
	}
	for n := range count {
		p, err := tx.Packages.Claim(pool, by)
		if errors.Is(err, store.ErrNotFound) || err == nil && p.LastResort && n > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if list = append(list, p); p.LastResort {
			break
		}
	}
	return list, nil
}

// claim runs one claim in a transaction, together with the events for owners with pools that
// have just become low.
func (s *Service) claim(ctx context.Context, who ds.Caller, take func(*store.Tx) ([]ds.KeyPackage, error)) ([]ds.KeyPackage, error) {
	var list []ds.KeyPackage
	var events []store.Event
	var left []int64
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if list, err = take(tx); err != nil {
			return err
		}
		events, left, err = lowPools(tx, list)
		if err != nil {
			return err
		}
		return tx.Logs.AppendEvents(events)
	})
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		s.wake(e.Account)
	}
	s.metrics.claimed(list, left, len(events))
	return list, nil
}

// lowPools makes an event for each device with a pool that this claim took below the
// threshold, or emptied. sizes are those of all pools of the claim.
func lowPools(tx *store.Tx, claimed []ds.KeyPackage) (events []store.Event, sizes []int64, err error) {
	taken := map[ds.Device]int64{}
	var devices []ds.Device
	for _, p := range claimed {
		if taken[p.Device] == 0 {
			devices = append(devices, p.Device)
		}
		if !p.LastResort {
			taken[p.Device]++
		}
	}
	slices.SortFunc(devices, func(a, b ds.Device) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	for _, device := range slices.Compact(devices) {
		left, err := tx.Packages.Available(device)
		if err != nil {
			return nil, nil, err
		}
		sizes = append(sizes, left)
		before := left + taken[device]
		if before >= keyPackagesLow && left < keyPackagesLow || before > 0 && left == 0 {
			events = append(events, store.Event{Account: device.Account, Recipient: device.ID, Kind: ds.KeyPackagesLow,
				Event: ds.DeviceEvent{Available: left}})
		}
	}
	return events, sizes, nil
}
