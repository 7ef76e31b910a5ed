package directory

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/wire"
)

// Publication is a list of key packages for pools of the caller's account.
//
// A caller with a device publishes for that one; the oldest packages of a full pool are
// dropped, and each call is counted. A caller without one publishes for the device that Device
// names; the account may then hold few unclaimed packages, and each package is counted.
type Publication struct {
	Packages []Upload
	// Revoke voids the previous packages in the pool of the caller's device.
	Revoke bool
	// Device is the id or the UUID of a registered device. With "" each package is for the
	// device with its signature key, or for the only one, or else for an unregistered device
	// named by that key.
	Device     string
	Generation int // of the API that the caller was seen to use, or 0
}

// Upload is a key package to be published. One that is not opaque is validated (RFC 9420,
// section 10.1) and must be the caller's own.
type Upload struct {
	Body     []byte           // a KeyPackage, alone or in an MLSMessage; or a text
	IsOpaque bool             // Body is a text, stored unchanged
	Metadata *PackageMetadata // nil: the publisher claims nothing
	Problem  string           // the reason why the door could not parse it, or ""
}

// PackageMetadata is the metadata that the publisher of a key package claims.
type PackageMetadata struct {
	Suite      int64
	ExpiresMS  int64
	LastResort bool
}

// Published is the outcome of a publication. With problems, nothing was stored.
type Published struct {
	Added     int64 // packages that were never published before
	Available int64 // one-time packages in the pool of the caller's device
	Problems  []UploadProblem
}

// UploadProblem is the reason why the upload at Index is refused.
type UploadProblem struct {
	Index int
	Text  string
}

// judged is a valid upload.
type judged struct {
	ds.KeyPackage
	id           string // its ref, so that the same one again is the same row, or a random one
	signatureKey []byte // nil: opaque
}

// PublishKeyPackages adds packages to pools. If one is invalid, none is stored and the
// problems are returned. Opaque packages are refused if the service accepts MLS ones only.
// Refusals: invalid_request, rate_limited, limit_exceeded.
func (s *Service) PublishKeyPackages(ctx context.Context, who ds.Caller, in Publication) (Published, error) {
	isOwn := who.Device != ""
	if isOwn { // before packages are validated, which is expensive
		if r := s.limits.TakeN(who.Meter, limits.KeyPackagePublish, string(who.Account), string(who.Device), 1); r != nil {
			return Published{}, r
		}
	}
	list, problems := s.judgeUploads(who, in.Packages)
	if len(problems) > 0 {
		return Published{Problems: problems}, nil
	}
	if !isOwn {
		if r := s.limits.TakeN(who.Meter, limits.KeyPackageUploads, string(who.Account), "", int64(len(list))); r != nil {
			return Published{}, r
		}
	}
	list = newestPackages(list)
	settle, err := s.chargePackages(who, list)
	if err != nil {
		return Published{}, err
	}
	var out Published
	var stored int64
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		out, stored = Published{}, 0
		var err error
		pools := map[ds.Device][]judged{who.AsDevice(): list}
		if !isOwn {
			if pools, err = poolsOf(tx, who.Account, in.Device, list); err != nil {
				return err
			}
		} else if in.Revoke {
			if err := tx.Packages.Revoke(who.AsDevice()); err != nil {
				return err
			}
		}
		for device, list := range pools {
			added, bytes, err := addToPool(tx, device, list)
			if err != nil {
				return err
			}
			out.Added, stored = out.Added+added, stored+bytes
		}
		if isOwn {
			out.Available, err = tx.Packages.Available(who.AsDevice())
			return err
		}
		if err := withinPool(tx, who.Account, out.Added); err != nil {
			return err
		}
		for device := range pools {
			if err := tx.Devices.Touch(device, in.Generation); err != nil {
				return err
			}
		}
		return nil
	})
	settle(stored, err)
	if !isOwn {
		s.generations.forget(who.Account)
	}
	return out, err
}

// poolsOf divides packages by their devices: the named one, or with "" the holders of their
// keys. It locks the account's devices.
func poolsOf(tx *store.Tx, account ds.AccountID, name string, list []judged) (map[ds.Device][]judged, error) {
	devices, err := lockDevices(tx, account)
	if err != nil {
		return nil, err
	}
	owner, err := ownerOf(devices, name)
	if err != nil {
		return nil, err
	}
	pools := map[ds.Device][]judged{}
	for _, p := range list {
		device := ds.Device{Account: account, ID: owner}
		if owner == "" {
			device.ID = keyHolder(devices, p.signatureKey)
		}
		pools[device] = append(pools[device], p)
	}
	return pools, nil
}

// addToPool adds packages to the pool of a device, which keeps up to keyPackagesMax of the
// newest, and returns the number of new ones and their bytes.
func addToPool(tx *store.Tx, device ds.Device, list []judged) (added, bytes int64, err error) {
	packages, ids := make([]ds.KeyPackage, len(list)), make([]string, len(list))
	for i, p := range list {
		packages[i], ids[i] = p.KeyPackage, p.id
		packages[i].Device = device
	}
	if added, bytes, err = tx.Packages.Publish(packages, ids); err != nil {
		return 0, 0, err
	}
	return added, bytes, tx.Packages.Trim(device, keyPackagesMax)
}

// chargePackages counts key packages against the storage limit of the caller. The caller
// passes to settle the bytes of the new ones, or the error if nothing was stored.
func (s *Service) chargePackages(who ds.Caller, list []judged) (settle func(stored int64, err error), refusal error) {
	var b limits.Bill
	charge := func(bytes int64) *ds.Refusal {
		return b.Take(who.Meter, s.limits, limits.StoredBytes, string(who.Account), "", bytes, s.now())
	}
	if r := charge(bytesOf(list)); r != nil {
		return nil, r
	}
	return func(stored int64, err error) {
		if err == nil {
			charge(stored) // not more than before, so that it is not refused
		}
		b.Settle(s.limits, err)
	}, nil
}

func bytesOf(list []judged) (size int64) {
	for _, p := range list {
		size += int64(len(p.Body))
	}
	return size
}

// newestPackages omits packages that would be dropped at once: a pool keeps up to
// keyPackagesMax of the newest and one last-resort one, however many a request has.
func newestPackages(list []judged) []judged {
	if len(list) <= keyPackagesMax {
		return list
	}
	room := map[bool]int{false: keyPackagesMax, true: 1} // by LastResort
	from := len(list)
	for i := len(list) - 1; i >= 0; i-- {
		if room[list[i].LastResort] == 0 {
			continue
		}
		room[list[i].LastResort]--
		from--
		list[from] = list[i]
	}
	return list[from:]
}

// withinPool refuses newly added packages if the account now has too many: the transaction is
// rolled back. A list without new ones is never refused.
func withinPool(tx *store.Tx, account ds.AccountID, added int64) error {
	if added == 0 {
		return nil
	}
	counts, err := tx.Packages.PoolCounts(account, "", 0)
	if err == nil && counts.Available > keyPackagesFreeMax {
		return ds.Refuse(ds.LimitExceeded, "an account has at most %d unclaimed key packages", keyPackagesFreeMax)
	}
	return err
}

var refuseNoDevice = ds.Refuse(ds.InvalidRequest, "the account has no such device")

// ownerOf finds a device by name: our id, alone or after the account and '#', or the device's
// own UUID. "" is returned unchanged.
func ownerOf(devices []store.Registration, name string) (ds.DeviceID, error) {
	if name == "" {
		return "", nil
	}
	if d := FindDevice(devices, name, ""); d != nil {
		return d.Device.ID, nil
	}
	return "", refuseNoDevice
}

// keyHolder returns the device with that signature key, or the only one. Else it returns the
// name of an unregistered device, made from the key.
func keyHolder(devices []store.Registration, key []byte) ds.DeviceID {
	for _, d := range devices {
		if bytes.Equal(d.SignatureKey, key) {
			return d.Device.ID
		}
	}
	if len(devices) == 1 {
		return devices[0].Device.ID
	}
	sum := sha256.Sum256(key)
	return ds.DeviceID("key-" + hex.EncodeToString(sum[:8]))
}

// messageHeader precedes a KeyPackage in an MLSMessage (RFC 9420, section 6).
var messageHeader = []byte{0, byte(wire.MLS10), 0, byte(wire.KeyPackageFormat)}

// IsKeyPackage reports whether bytes begin like an MLSMessage with a KeyPackage.
func IsKeyPackage(raw []byte) bool { return bytes.HasPrefix(raw, messageHeader) }

// judgeUploads validates a list, and returns the valid uploads and the problems of the others.
func (s *Service) judgeUploads(who ds.Caller, uploads []Upload) (list []judged, problems []UploadProblem) {
	for i, u := range uploads {
		p, err := s.judgeUpload(who, u)
		if err != nil {
			problems = append(problems, UploadProblem{i, err.Error()})
			continue
		}
		list = append(list, p)
	}
	return list, problems
}

// judgeUpload validates one upload. A package that is not in an MLSMessage is stored in one,
// since readers of texts expect that, and marked by its encoding.
func (s *Service) judgeUpload(who ds.Caller, u Upload) (judged, error) {
	m, nowMS := u.Metadata, s.now().UnixMilli()
	switch {
	case u.Problem != "":
		return judged{}, errors.New(u.Problem)
	case len(u.Body) > keyPackageBytesMax:
		return judged{}, errors.New("key package too large")
	case u.IsOpaque && s.onlyMLS:
		return judged{}, errors.New("not an MLS key package")
	case u.IsOpaque:
		return judged{KeyPackage: ds.KeyPackage{Encoding: ds.Text, Body: u.Body}, id: "opaque-" + rand.Text()}, nil
	case len(u.Body) == 0:
		return judged{}, errors.New("the key package is empty")
	case m != nil && m.ExpiresMS <= nowMS:
		return judged{}, errors.New("the key package has expired")
	case m != nil && m.ExpiresMS > nowMS+keyPackageAhead.Milliseconds():
		return judged{}, errors.New("expires is more than 90 days ahead")
	}
	raw, encoding := u.Body, ds.Base64
	if !IsKeyPackage(raw) {
		raw, encoding = append(bytes.Clone(messageHeader), raw...), ds.Binary
	}
	info, err := keypackage.Validate(raw, s.now())
	switch {
	case err != nil:
		return judged{}, fmt.Errorf("key package: %w", err)
	case string(info.Identity) != string(who.Account):
		return judged{}, errors.New("the key package belongs to another account")
	case m != nil && m.Suite != int64(info.Suite):
		return judged{}, errors.New("the key package is of another cipher suite than cipherSuite says")
	}
	p := ds.KeyPackage{Body: raw, Encoding: encoding, Suite: int64(info.Suite), LastResort: info.LastResort, Ref: hex.EncodeToString(info.Ref),
		ExpiresMS: info.NotAfter.UnixMilli()}
	if m != nil {
		p.LastResort, p.ExpiresMS = p.LastResort || m.LastResort, min(p.ExpiresMS, m.ExpiresMS)
	}
	return judged{p, p.Ref, info.SignatureKey}, nil
}

// PublishedForm returns an MLS key package in the form in which it was published: alone, or in
// an MLSMessage.
func PublishedForm(p ds.KeyPackage) []byte {
	if p.Encoding == ds.Binary {
		return bytes.TrimPrefix(p.Body, messageHeader)
	}
	return p.Body
}
