package directory

import (
	"context"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// PoolStatus counts an account's key packages.
type PoolStatus struct {
	store.PoolCounts
	Wanted  int64 // if fewer are available, more should be published
	Devices []store.PoolDevice
}

// PublishedPackage is a package as its owner sees it.
type PublishedPackage = store.PublishedPackage

// KeyPackageCounts counts the caller's packages, of one device by any of its names or of all
// (""). An unknown device has none.
func (s *Service) KeyPackageCounts(ctx context.Context, who ds.Caller, device string) (store.PoolCounts, error) {
	var counts store.PoolCounts
	err := s.store.View(ctx, func(tx *store.Tx) error {
		var owner ds.DeviceID
		if device != "" {
			devices, err := tx.Devices.Of(who.Account)
			if err != nil {
				return err
			}
			if owner, err = ownerOf(devices, device); err != nil {
				return nil // it has none
			}
		}
		var err error
		counts, err = tx.Packages.PoolCounts(who.Account, owner, 0)
		return err
	})
	return counts, err
}

// KeyPackageStatus counts the caller's packages of a suite, or of any (0).
func (s *Service) KeyPackageStatus(ctx context.Context, who ds.Caller, suite int64) (PoolStatus, error) {
	out := PoolStatus{Wanted: keyPackagesWanted}
	err := s.store.View(ctx, func(tx *store.Tx) error {
		var err error
		if out.PoolCounts, err = tx.Packages.PoolCounts(who.Account, "", suite); err != nil {
			return err
		}
		out.Devices, err = tx.Packages.PoolDevices(who.Account, suite, devicesMax)
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
		list, err = tx.Packages.Published(who.Account, suite, beforeMS, afterID, limit)
		return err
	})
	return list, err
}

// Synced is the outcome of a sync of a device's packages.
type Synced struct {
	Device    ds.DeviceID
	Refs      []string // in hex
	Orphaned  []string // those that were deleted
	Available int64
}

// SyncKeyPackages deletes the unclaimed packages of a device that has no keys for them any
// more: all but those with the local refs. Refusals: invalid_request.
func (s *Service) SyncKeyPackages(ctx context.Context, who ds.Caller, device string, local []string) (Synced, error) {
	has := make(map[string]bool, len(local))
	for _, ref := range local {
		has[ref] = true
	}
	var out Synced
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		out = Synced{}
		devices, err := lockDevices(tx, who.Account)
		if err != nil {
			return err
		}
		if out.Device, err = ownerOf(devices, device); err != nil {
			return err
		}
		owner := ds.Device{Account: who.Account, ID: out.Device}
		refs, err := tx.Packages.FreeRefs(owner)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			if has[ref] {
				out.Refs = append(out.Refs, ref)
			} else {
				out.Orphaned = append(out.Orphaned, ref)
			}
		}
		if _, err := tx.Packages.DeleteFree(owner, out.Orphaned, "its key package was deleted"); err != nil {
			return err
		}
		out.Available, err = tx.Packages.Available(owner)
		return err
	})
	return out, err
}

// Replenishment counts the accounts and devices that were asked to publish more key packages.
type Replenishment struct {
	Targets, Devices, Told int64
}

// RequestReplenish asks accounts to publish more key packages: the targets, or those of a
// conversation without targets, or the caller's own without either. Only devices that are low
// are notified, and an account at most once in ten minutes. Accounts that share no
// conversation with the caller are ignored.
func (s *Service) RequestReplenish(ctx context.Context, who ds.Caller, targets []ds.AccountID, conversation ds.ConversationID) (Replenishment, error) {
	targets = distinct(targets)
	var out Replenishment
	var events []store.Event
	told := map[ds.AccountID]bool{} // by the limiter, however often this runs
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		out, events = Replenishment{}, nil
		accounts, err := tx.Conversations.Acquainted(who.Account, targets, conversation, replenishMax)
		if err != nil {
			return err
		}
		for _, account := range accounts {
			devices, err := tx.Packages.PoolDevices(account, 0, devicesMax)
			if err != nil {
				return err
			}
			out.Targets++
			out.Devices += int64(len(devices))
			isDue, isKnown := told[account]
			if !isKnown {
				isDue = s.limits.TakeN(nil, limits.Replenishes, string(account), "", 1) == nil
				told[account] = isDue
			}
			for _, d := range devices {
				if isDue && d.Available < keyPackagesLow {
					events = append(events, store.Event{Account: account, Recipient: d.ID, Kind: ds.KeyPackagesLow, Event: ds.DeviceEvent{Available: d.Available}})
				}
			}
		}
		out.Told = int64(len(events))
		return tx.Logs.AppendEvents(events)
	})
	if err != nil {
		return Replenishment{}, err
	}
	for _, e := range events {
		s.wake(e.Account)
	}
	return out, nil
}
