package core

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/wire"
)

// PublishKeyPackages adds packages to the pool of the caller's device and answers
// how many one-time packages it now holds. A string that is base64 of an MLS
// KeyPackage is validated (RFC 9420, section 10.1) and must be the caller's own;
// one that is not good refuses the whole list, by index. Any other string is kept
// as it is, unless the service takes MLS packages only. Refusals: invalid_request,
// rate_limited.
func (s *Service) PublishKeyPackages(ctx context.Context, who ds.Caller, packages []string) (int64, error) {
	return s.changeKeyPackages(ctx, who, false, packages)
}

// RotateKeyPackages is PublishKeyPackages after, with revoke, voiding what the
// device's pool still holds.
func (s *Service) RotateKeyPackages(ctx context.Context, who ds.Caller, revoke bool, replacement []string) (int64, error) {
	return s.changeKeyPackages(ctx, who, revoke, replacement)
}

func (s *Service) changeKeyPackages(ctx context.Context, who ds.Caller, revoke bool, packages []string) (int64, error) {
	if r := s.limits.TakeN(limits.KeyPackagePublish, string(who.Account), string(who.Device), 1); r != nil {
		return 0, r
	}
	list, ids := make([]ds.KeyPackage, len(packages)), make([]string, len(packages))
	for i, text := range packages {
		var err error
		if list[i], ids[i], err = s.readKeyPackage(who, text); err != nil {
			return 0, &ds.Refusal{Code: ds.InvalidRequest, Message: err.Error(), Index: i, HasIndex: true}
		}
	}
	list, ids = newestPackages(list, ids)
	device := who.AsDevice()
	var available, stored int64
	settle, err := s.chargePackages(who.Account, list)
	if err != nil {
		return 0, err
	}
	defer func() { settle(stored, err) }()
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if revoke {
			if err := tx.RevokeKeyPackages(device); err != nil {
				return err
			}
		}
		var err error
		if _, stored, err = tx.AddKeyPackages(list, ids); err != nil {
			return err
		}
		if err := tx.TrimKeyPackages(device, keyPackagesMax); err != nil {
			return err
		}
		available, err = tx.AvailableKeyPackages(device)
		return err
	})
	return available, err
}

// chargePackages counts key packages against what their account may store. With settle the
// caller says how many bytes of them were new, or that nothing was stored.
func (s *Service) chargePackages(account ds.AccountID, list []ds.KeyPackage) (settle func(stored int64, err error), refusal error) {
	var b bill
	charge := func(bytes int64) *ds.Refusal {
		return b.take(s.limits, limits.StoredBytes, string(account), "", bytes, s.now())
	}
	if r := charge(packageBytes(list)); r != nil {
		return nil, r
	}
	return func(stored int64, err error) {
		if err == nil {
			charge(stored) // not more than before, so that it is not refused
		}
		b.settle(s.limits, err)
	}, nil
}

// newestPackages leaves out what would be gone at once: a pool keeps so many of the
// newest and one for last, however many a request brings.
func newestPackages(list []ds.KeyPackage, ids []string) ([]ds.KeyPackage, []string) {
	if len(list) <= keyPackagesMax {
		return list, ids
	}
	room := map[bool]int{false: keyPackagesMax, true: 1} // by whether it is for last
	from := len(list)
	for i := len(list) - 1; i >= 0; i-- {
		if room[list[i].LastResort] == 0 {
			continue
		}
		room[list[i].LastResort]--
		from--
		list[from], ids[from] = list[i], ids[i]
	}
	return list[from:], ids[from:]
}

// readKeyPackage judges one published string. The id of an MLS package is its ref,
// so that the same one published again is the same row.
func (s *Service) readKeyPackage(who ds.Caller, text string) (ds.KeyPackage, string, error) {
	if len(text) > keyPackageBytesMax {
		return ds.KeyPackage{}, "", errors.New("key package too large")
	}
	p := ds.KeyPackage{Device: who.AsDevice(), Encoding: ds.Text, Body: []byte(text)}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text || len(raw) < 4 || raw[0] != 0 || raw[1] != byte(wire.MLS10) || raw[2] != 0 || raw[3] != byte(wire.KeyPackageFormat) {
		if s.strictPackages {
			return p, "", errors.New("not an MLS key package")
		}
		return p, "opaque-" + rand.Text(), nil
	}
	if p, _, err = s.judgeKeyPackage(who, raw); err != nil {
		return p, "", err
	}
	p.Encoding = ds.Base64
	return p, p.Ref, nil
}

// judgeKeyPackage judges an MLSMessage that is to be a good KeyPackage of the caller's
// account. The device is the caller's, the encoding left to be said.
func (s *Service) judgeKeyPackage(who ds.Caller, raw []byte) (ds.KeyPackage, keypackage.Info, error) {
	info, err := keypackage.Validate(raw, s.now())
	if err != nil {
		return ds.KeyPackage{}, info, fmt.Errorf("key package: %w", err)
	}
	if string(info.Identity) != string(who.Account) {
		return ds.KeyPackage{}, info, errors.New("the key package belongs to another account")
	}
	return ds.KeyPackage{Device: who.AsDevice(), Body: raw, Suite: int64(info.Suite), LastResort: info.LastResort,
		Ref: hex.EncodeToString(info.Ref), ExpiresMS: info.NotAfter.UnixMilli()}, info, nil
}

// ClaimKeyPackages hands out up to count packages (at most 10) of an account, the
// oldest first over all its devices, each to one caller only. When there is no
// one-time package at all, the newest last-resort one is given, if any. An unknown
// account has none. Refusals: invalid_request, rate_limited.
func (s *Service) ClaimKeyPackages(ctx context.Context, who ds.Caller, owner ds.AccountID, count int) ([]ds.KeyPackage, error) {
	if count < 0 {
		return nil, ds.Refuse(ds.InvalidRequest, "count must not be negative")
	}
	count = min(count, keyPackageCountMax)
	if err := s.takeClaims(who, owner, int64(max(count, 1))); err != nil {
		return nil, err
	}
	return s.claim(ctx, who, func(tx *store.Tx) ([]ds.KeyPackage, error) {
		var list []ds.KeyPackage
		for range count {
			p, err := tx.ClaimKeyPackage(owner, "", who.Account)
			if errors.Is(err, store.ErrNotFound) {
				break
			}
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		if len(list) == 0 && count > 0 {
			p, err := tx.LastResortKeyPackage(owner, "")
			if err == nil {
				list = append(list, p)
			} else if !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
		}
		return list, nil
	})
}

// ClaimKeyPackagePerDevice hands out one package for each device of an account: a
// one-time one, else the last-resort one. Devices without any are left out.
func (s *Service) ClaimKeyPackagePerDevice(ctx context.Context, who ds.Caller, owner ds.AccountID) ([]ds.KeyPackage, error) {
	if err := s.takeClaims(who, owner, 1); err != nil {
		return nil, err
	}
	return s.claim(ctx, who, func(tx *store.Tx) ([]ds.KeyPackage, error) {
		devices, err := tx.KeyPackageDevices(owner, devicesMax)
		if err != nil {
			return nil, err
		}
		var list []ds.KeyPackage
		for _, device := range devices {
			p, err := tx.ClaimKeyPackage(owner, device, who.Account)
			if errors.Is(err, store.ErrNotFound) {
				p, err = tx.LastResortKeyPackage(owner, device)
			}
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		return list, nil
	})
}

func (s *Service) takeClaims(who ds.Caller, owner ds.AccountID, n int64) error {
	if !ds.IsValidAccount(string(owner)) {
		return ds.Refuse(ds.InvalidRequest, "user_id must be 1 to 512 bytes of UTF-8 without NUL")
	}
	if r := s.limits.TakeN(limits.KeyPackageFetches, string(who.Account), "", n); r != nil {
		return r
	}
	if r := s.limits.TakeN(limits.KeyPackageTargets, string(owner), "", n); r != nil {
		return r
	}
	return nil
}

// claim runs one claim in a transaction, together with the event that tells an
// owner whose pool has just become low.
func (s *Service) claim(ctx context.Context, who ds.Caller, take func(*store.Tx) ([]ds.KeyPackage, error)) ([]ds.KeyPackage, error) {
	var list []ds.KeyPackage
	var events []store.Event
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if list, err = take(tx); err != nil {
			return err
		}
		events, err = lowPools(tx, list)
		if err != nil {
			return err
		}
		return tx.AppendEvents(events)
	})
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		s.wakes.wake(ds.AccountLog(e.Account), unknownHead)
	}
	s.metrics.keyPackagesClaimed.Add(float64(len(list)))
	return list, nil
}

// lowPools makes an event for each device whose pool crossed the threshold by this
// claim, or ran empty.
func lowPools(tx *store.Tx, claimed []ds.KeyPackage) ([]store.Event, error) {
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
	var events []store.Event
	for _, device := range slices.Compact(devices) {
		left, err := tx.AvailableKeyPackages(device)
		if err != nil {
			return nil, err
		}
		before := left + taken[device]
		if before >= keyPackagesLow && left < keyPackagesLow || before > 0 && left == 0 {
			events = append(events, store.Event{Account: device.Account, Recipient: device.ID, Kind: ds.KeyPackagesLow,
				Event: ds.DeviceEvent{Available: left}})
		}
	}
	return events, nil
}
