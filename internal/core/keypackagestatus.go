package core

import (
	"context"
	"errors"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// PoolStatus is what there is of an account's key packages.
type PoolStatus struct {
	store.PoolCounts
	Wanted  int64 // with fewer that are available, more should be published
	Devices []store.PoolDevice
}

// PublishedPackage is a package as its owner may follow it.
type PublishedPackage = store.PublishedPackage

// KeyPackageCounts counts the caller's packages, of one device by any of its names or of
// all (""). A device that is not there has none.
func (s *Service) KeyPackageCounts(ctx context.Context, who ds.Caller, device string) (store.PoolCounts, error) {
	var counts store.PoolCounts
	err := s.store.View(ctx, func(tx *store.Tx) error {
		var owner ds.DeviceID
		if device != "" {
			devices, err := tx.Devices(who.Account)
			if err != nil {
				return err
			}
			if owner, err = ownerOf(devices, device); err != nil {
				return nil // it has none
			}
		}
		var err error
		counts, err = tx.PoolCounts(who.Account, owner, 0)
		return err
	})
	return counts, err
}

// KeyPackageStatus is what there is of the caller's packages of a suite, or of any (0).
func (s *Service) KeyPackageStatus(ctx context.Context, who ds.Caller, suite int64) (PoolStatus, error) {
	out := PoolStatus{Wanted: keyPackagesWanted}
	err := s.store.View(ctx, func(tx *store.Tx) error {
		var err error
		if out.PoolCounts, err = tx.PoolCounts(who.Account, "", suite); err != nil {
			return err
		}
		out.Devices, err = tx.PoolDevices(who.Account, suite, devicesMax)
		return err
	})
	return out, err
}

// PublishedPackages lists the caller's packages of a suite, or of any (0), the newest
// first: at most limit after the one that was published at beforeMS and has that id.
func (s *Service) PublishedPackages(ctx context.Context, who ds.Caller, suite, beforeMS int64, afterID string, limit int) ([]PublishedPackage, error) {
	var list []PublishedPackage
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		list, err = tx.PublishedPackages(who.Account, suite, beforeMS, afterID, limit)
		return err
	})
	return list, err
}

// ClaimForAccounts hands out one MLS package, of a suite or of any (0), for each device of
// each account: a one-time one, else the last-resort one. Every limit is asked before
// the first package is taken, so that a refused caller has used up none. Refusals:
// invalid_request, rate_limited.
func (s *Service) ClaimForAccounts(ctx context.Context, who ds.Caller, owners []ds.AccountID, suite int64) (map[ds.AccountID][]ds.KeyPackage, error) {
	owners = distinct(slices.Clone(owners))
	if len(owners) > claimDevicesMax {
		return nil, ds.Refuse(ds.InvalidRequest, "at most %d accounts", claimDevicesMax)
	}
	var b bill
	outcome := error(errLate) // until packages are handed out: who gets none takes nothing from others
	defer func() { b.settle(s.limits, outcome) }()
	if err := s.chargeClaims(&b, who, owners); err != nil {
		return nil, err
	}
	var holders []ds.Device
	most := min(devicesMax, claimDevicesMax/max(len(owners), 1))
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		holders, err = tx.KeyPackageHolders(owners, suite, most)
		return err
	})
	if err != nil {
		return nil, err
	}
	found := make(map[ds.AccountID][]ds.KeyPackage, len(owners))
	for _, owner := range owners {
		found[owner] = nil
	}
	// In one transaction: a fault must not use up packages that nobody was handed.
	list, err := s.claim(ctx, who, func(tx *store.Tx) ([]ds.KeyPackage, error) { return claimOfEach(tx, holders, suite, who.Account) })
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		found[p.Device.Account] = append(found[p.Device.Account], p)
	}
	outcome = nil
	return found, nil
}

// chargeClaims counts a claim of packages of many accounts.
func (s *Service) chargeClaims(b *bill, who ds.Caller, owners []ds.AccountID) error {
	now := s.now()
	if r := b.take(s.limits, limits.KeyPackageFetches, string(who.Account), "", int64(len(owners)), now); r != nil {
		return r
	}
	for _, owner := range owners {
		if r := b.take(s.limits, limits.KeyPackagePairs, string(who.Account), string(owner), 1, now); r != nil {
			return r
		}
		if r := b.take(s.limits, limits.KeyPackageTargets, string(owner), "", 1, now); r != nil {
			return r
		}
	}
	return nil
}

func claimOfEach(tx *store.Tx, devices []ds.Device, suite int64, by ds.AccountID) ([]ds.KeyPackage, error) {
	var list []ds.KeyPackage
	for _, device := range devices {
		p, isFound, err := claimOf(tx, device, suite, by)
		if err != nil {
			return nil, err
		}
		if isFound {
			list = append(list, p)
		}
	}
	return list, nil
}

func claimOf(tx *store.Tx, device ds.Device, suite int64, by ds.AccountID) (p ds.KeyPackage, isFound bool, err error) {
	p, err = tx.ClaimDevicePackage(device, suite, by)
	if errors.Is(err, store.ErrNotFound) {
		return p, false, nil
	}
	return p, err == nil, err
}

// Replenishment is who was asked to publish more key packages.
type Replenishment struct {
	Targets, Devices, Told int64
}

// RequestReplenish asks accounts to publish more key packages: those of a conversation
// when none is named, or the caller's own without either. Only devices that are low are
// told, and an account at most once in ten minutes. Accounts that share no conversation
// with the caller are passed over.
func (s *Service) RequestReplenish(ctx context.Context, who ds.Caller, targets []ds.AccountID, conversation ds.ConversationID) (Replenishment, error) {
	targets = distinct(slices.Clone(targets))
	var out Replenishment
	var events []store.Event
	told := map[ds.AccountID]bool{} // by the limiter, however often this runs
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		out, events = Replenishment{}, nil
		accounts, err := tx.Acquainted(who.Account, targets, conversation, replenishMax)
		if err != nil {
			return err
		}
		for _, account := range accounts {
			devices, err := tx.PoolDevices(account, 0, devicesMax)
			if err != nil {
				return err
			}
			out.Targets++
			out.Devices += int64(len(devices))
			isDue, isKnown := told[account]
			if !isKnown {
				isDue = s.limits.TakeN(limits.Replenishes, string(account), "", 1) == nil
				told[account] = isDue
			}
			for _, d := range devices {
				if isDue && d.Available < keyPackagesLow {
					events = append(events, store.Event{Account: account, Recipient: d.ID, Kind: ds.KeyPackagesLow, Event: ds.DeviceEvent{Available: d.Available}})
				}
			}
		}
		out.Told = int64(len(events))
		return tx.AppendEvents(events)
	})
	if err != nil {
		return Replenishment{}, err
	}
	for _, e := range events {
		s.wakes.wake(ds.AccountLog(e.Account), unknownHead)
	}
	return out, nil
}
