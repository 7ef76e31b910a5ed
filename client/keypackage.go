package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/wire"
)

// groupSuite is the cipher suite of all groups and packages.
const groupSuite = mls.X25519_AES128GCM_SHA256_Ed25519

// The lifetimes of key packages. One that was fetched may be used in a Welcome until it
// expires, so its private keys are kept a little longer than that.
const (
	keyPackageSkew  = time.Hour           // for clock differences
	keyPackageLife  = 90 * 24 * time.Hour // from now on
	keyPackageRenew = 30 * 24 * time.Hour // a last-resort package with less than this left is replaced
	keyPackageGrace = 7 * 24 * time.Hour
	// lastResortGrace is the time that the private keys of a last-resort package are kept after
	// its first use: others may have fetched it before it was replaced.
	lastResortGrace = 7 * 24 * time.Hour
)

// addKeyPackages makes packages and stores their private parts, sealed, before the public ones
// are published.
func (k keeper) addKeyPackages(tx *tx, count int, lastResort bool) error {
	now := k.c.now()
	for range count {
		expires := now.Add(keyPackageLife)
		p, err := mls.NewKeyPackage(groupSuite, k.c.identity, mls.KeyPackageOptions{
			NotBefore: now.Add(-keyPackageSkew), NotAfter: expires, LastResort: lastResort})
		if err != nil {
			return fmt.Errorf("make key package: %w", err)
		}
		private, err := p.MarshalBinary()
		if err != nil {
			return fmt.Errorf("save key package: %w", err)
		}
		ref := hex.EncodeToString(p.Ref())
		if err := tx.KeyPackages.Add(home.KeyPackage{Ref: ref, Private: private, LastResort: lastResort, Expires: expires}); err != nil {
			return err
		}
	}
	return nil
}

// keyPackage returns the package with that ref and its private keys; nil if there is none.
func (t *tx) keyPackage(ref string) (*mls.KeyPackage, error) {
	row, err := t.KeyPackages.Get(ref)
	if err != nil || row == nil {
		return nil, err
	}
	p, err := mls.LoadKeyPackage(row.Private)
	if err != nil {
		return nil, fmt.Errorf("load key package: %w", err)
	}
	return p, nil
}

// publication is a key package to be published.
type publication struct {
	ref          string
	message      []byte
	isLastResort bool
	expires      time.Time
}

// unpublished returns the packages that the server is not known to have.
func (t *tx) unpublished() (out []publication, err error) {
	rows, err := t.KeyPackages.Unpublished()
	for _, row := range rows {
		p, err := mls.LoadKeyPackage(row.Private)
		if err != nil {
			return nil, fmt.Errorf("load key package: %w", err)
		}
		out = append(out, publication{row.Ref, p.Message(), row.LastResort, row.Expires})
	}
	return out, err
}

// nextForget returns the time until private keys of a used package have to be erased, at most
// keyPackagesCheck; 0 if they are due.
func (t *tx) nextForget(now time.Time) (time.Duration, error) {
	first, err := t.KeyPackages.FirstUsed()
	if err != nil || first.IsZero() {
		return keyPackagesCheck, err
	}
	return min(max(first.Add(lastResortGrace).Sub(now), 0), keyPackagesCheck), nil
}

// keyPackagesCheck is the interval at which a connected client checks its key packages for those
// that expire.
const keyPackagesCheck = 24 * time.Hour

// fillKeyPackages fills the pool on the server up to Options.KeyPackages. The first time it
// replaces the packages of an earlier home of the same device, since their private keys are
// gone. available is the server's last count, or -1 to request it.
func (e errands) fillKeyPackages(ctx context.Context, by service, available int64) error {
	isFirst, err := e.prepareKeyPackages(ctx)
	if err != nil {
		return err
	}
	// Twice: first the unpublished ones, which also returns the server's count, and then the
	// missing ones.
	for range 2 {
		fresh, err := read(ctx, e.c.db, (*tx).unpublished)
		if err != nil {
			return err
		}
		if len(fresh) > 0 || available < 0 {
			if available, err = e.publish(ctx, by, isFirst, fresh); err != nil {
				return err
			}
			isFirst = false
		}
		missing := int64(e.c.options.KeyPackages) - available
		if missing < int64(e.c.options.KeyPackages+1)/2 {
			return nil
		}
		if err := e.c.db.update(ctx, func(tx *tx) error { return e.c.keeper.addKeyPackages(tx, int(missing), false) }); err != nil {
			return err
		}
	}
	return nil
}

// prepareKeyPackages makes the first pool of a home, replaces a last-resort package that was
// used or is about to expire, and deletes expired ones and those that were used long ago.
func (e errands) prepareKeyPackages(ctx context.Context) (isFirst bool, err error) {
	now := e.c.now()
	err = e.c.db.update(ctx, func(tx *tx) error {
		// An old package that never reached the server would be refused there.
		if err := tx.KeyPackages.Forget(now.Add(-keyPackageGrace), now.Add(-lastResortGrace), now.Add(keyPackageRenew)); err != nil {
			return err
		}
		published, err := tx.Counters.Get(e.c.traits.pool)
		if err != nil {
			return err
		}
		isFirst = published == 0
		// At first only the unpublished ones count: a home that changes doors needs packages
		// for each.
		lastResorts, err := tx.KeyPackages.Count(true, now.Add(keyPackageRenew), isFirst)
		if err != nil {
			return err
		}
		if lastResorts == 0 {
			if err := e.c.keeper.addKeyPackages(tx, 1, true); err != nil {
				return err
			}
		}
		packages, err := tx.KeyPackages.Count(false, now.Add(keyPackageRenew), isFirst)
		if err == nil && isFirst && packages == 0 {
			err = e.c.keeper.addKeyPackages(tx, e.c.options.KeyPackages, false)
		}
		return err
	})
	return isFirst, err
}

// publish sends packages to the server and records those, and no others, as published. After a
// crash in between the same ones are sent again.
func (e errands) publish(ctx context.Context, by service, isFirst bool, fresh []publication) (available int64, err error) {
	available, err = by.publish(ctx, fresh, isFirst)
	if err != nil {
		return 0, fmt.Errorf("publish key packages: %w", err)
	}
	err = e.c.db.update(ctx, func(tx *tx) error {
		var refs []string
		for _, p := range fresh {
			refs = append(refs, p.ref)
		}
		if err := tx.KeyPackages.Published(refs); err != nil {
			return err
		}
		return tx.Counters.Set(e.c.traits.pool, 1)
	})
	return available, err
}

// forgetPool records that the server has deleted this device with its key packages. If the account
// is let in again, the device begins like a new one.
func (e errands) forgetPool(ctx context.Context) error {
	return e.c.db.update(ctx, func(tx *tx) error {
		if published, err := tx.Counters.Get(e.c.traits.pool); err != nil || published == 0 {
			return err
		}
		if err := tx.Counters.Set(e.c.traits.pool, 0); err != nil {
			return err
		}
		return tx.Settings.Set(xrpcDeviceSetting, "") // it registers before it subscribes, or nothing is sent to it
	})
}

// fetchedPackage is a verified key package of another device.
type fetchedPackage struct {
	Device       string `json:"device"`         // as the server names it
	Name         string `json:"name,omitempty"` // and its account, by the certificate; "" without one
	Ref          string `json:"ref"`
	SignatureKey []byte `json:"signature_key"`
	Message      []byte `json:"message"`
}

// fetchKeyPackages takes one package of each of the account's devices. Packages that are not
// the account's are left out and reported in refused, which wraps ErrKeyPackage; err concerns
// the request.
func (e errands) fetchKeyPackages(ctx context.Context, by service, account string) (packages []fetchedPackage, refused, err error) {
	items, err := by.fetch(ctx, account)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch key packages: %w", err)
	}
	for _, item := range items {
		p, err := e.checkKeyPackage(account, item)
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		packages = append(packages, p)
	}
	return packages, refused, nil
}

// checkKeyPackage decides whether to trust a package that the server returned for account: a
// device that is added with it reads all messages.
func (e errands) checkKeyPackage(account string, item offeredPackage) (fetchedPackage, error) {
	refuse := func(err error) (fetchedPackage, error) {
		return fetchedPackage{}, fmt.Errorf("%w: device %q of %s: %w", ErrKeyPackage, item.device, account, err)
	}
	now := e.c.now()
	info, err := keypackage.ValidateWithin(item.message, now, e.c.options.LifetimeMax)
	if err != nil {
		return refuse(err)
	}
	ref := hex.EncodeToString(info.Ref)
	switch {
	case mls.Suite(info.Suite) != groupSuite:
		return refuse(errors.New("unexpected cipher suite"))
	case string(info.Identity) != account:
		return refuse(errors.New("credential of another account"))
	case item.ref != "" && item.ref != ref:
		return refuse(errors.New("hash does not match"))
	}
	var message wire.Message
	if err := wire.Unmarshal(item.message, &message); err != nil {
		return refuse(err)
	}
	data, _ := wire.FindExtension(message.KeyPackage.Leaf.Extensions, CertificateExtension)
	v, err := judgeLeaf(account, info.SignatureKey, data, now)
	if err == nil && v.DeviceID != "" && v.DeviceID != item.device && !isServerName(item.device) {
		err = fmt.Errorf("%w: issued for another device", ErrCertificate)
	}
	if err == nil {
		err = e.c.authority.requireCertificate(v, true)
	}
	if err != nil {
		return refuse(err)
	}
	return fetchedPackage{Device: item.device, Name: v.DeviceID, Ref: ref, SignatureKey: slices.Clone(info.SignatureKey), Message: item.message}, nil
}

// isServerName reports whether the server has made up a device's name, because it uses XRPC: a
// UUID, or "". Only its certificate then identifies the device.
func isServerName(device string) bool { return device == "" || uuids.MatchString(device) }

// uuids matches UUIDs in their usual form, such as newMessageID makes.
var uuids = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// is reports whether the package is of the account's device of that name.
func (p *fetchedPackage) is(device string) bool {
	return p.Device == device || p.Name == device
}

// name returns the account's name for the package's device, or else the server's.
func (p *fetchedPackage) name() string {
	if p.Name != "" {
		return p.Name
	}
	return p.Device
}
