package core

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/wire"
)

// Upload is a key package as XRPC publishes it: with what its publisher says of it.
type Upload struct {
	Body       []byte // a KeyPackage, alone or in an MLSMessage
	Suite      int64  // 0: one that nobody knows
	ExpiresMS  int64
	LastResort bool
	Problem    string // why it could not even be read; else ""
}

// Uploaded is what became of a list of uploads. One that was there already counts as
// neither good nor bad.
type Uploaded struct {
	Added    int64
	Problems []UploadProblem
}

// UploadProblem is what was wrong with the upload at Index.
type UploadProblem struct {
	Index int
	Text  string
}

// UploadKeyPackages adds packages to the pool. Device is whose they are: the id or the
// UUID of a registered device; with "" it is the device with the signature key that is in
// the package, or the only one that there is, or else one that only has packages. When
// one upload is not good, none is stored and the problems say why. Generation is that
// of the API that the caller was seen to speak, or 0. Refusals: invalid_request,
// rate_limited, limit_exceeded.
func (s *Service) UploadKeyPackages(ctx context.Context, who ds.Caller, device string, generation int, uploads []Upload) (Uploaded, error) {
	list, infos, problems := s.judgeUploads(who, uploads)
	if len(problems) > 0 {
		return Uploaded{Problems: problems}, nil
	}
	if r := s.limits.TakeN(limits.KeyPackageUploads, string(who.Account), "", int64(len(list))); r != nil {
		return Uploaded{}, r
	}
	var added, stored int64
	settle, err := s.chargePackages(who.Account, list)
	if err != nil {
		return Uploaded{}, err
	}
	defer func() { settle(stored, err) }()
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		devices, err := lockDevices(tx, who.Account)
		if err != nil {
			return err
		}
		owner, err := ownerOf(devices, device)
		if err != nil {
			return err
		}
		byDevice := map[ds.Device][]ds.KeyPackage{}
		for i, p := range list {
			p.Device = ds.Device{Account: who.Account, ID: owner}
			if owner == "" {
				p.Device.ID = keyHolder(devices, infos[i].SignatureKey)
			}
			byDevice[p.Device] = append(byDevice[p.Device], p)
		}
		if added, stored, err = addKeyPackages(tx, byDevice); err != nil {
			return err
		}
		if err := withinPool(tx, who.Account, added); err != nil {
			return err
		}
		for d := range byDevice {
			if err := tx.TouchDevice(d, generation); err != nil {
				return err
			}
		}
		return nil
	})
	s.generations.forget(who.Account)
	return Uploaded{Added: added}, err
}

// withinPool refuses what has just been added where the account has too many packages
// now: the transaction is given up. A list of nothing new is welcome.
func withinPool(tx *store.Tx, account ds.AccountID, added int64) error {
	if added == 0 {
		return nil
	}
	counts, err := tx.PoolCounts(account, "", 0)
	if err == nil && counts.Available > keyPackagesFreeMax {
		return ds.Refuse(ds.LimitExceeded, "an account has at most %d unclaimed key packages", keyPackagesFreeMax)
	}
	return err
}

// addKeyPackages says how many packages were new, and their bytes.
func addKeyPackages(tx *store.Tx, byDevice map[ds.Device][]ds.KeyPackage) (added, bytes int64, err error) {
	for device, list := range byDevice {
		ids := make([]string, len(list))
		for i, p := range list {
			ids[i] = p.Ref
		}
		n, size, err := tx.AddKeyPackages(list, ids)
		if err != nil {
			return 0, 0, err
		}
		if err := tx.TrimKeyPackages(device, keyPackagesMax); err != nil {
			return 0, 0, err
		}
		added, bytes = added+n, bytes+size
	}
	return added, bytes, nil
}

var refuseNoDevice = ds.Refuse(ds.InvalidRequest, "the account has no such device")

// ownerOf finds a device by what a client calls it: our id, alone or behind the account
// and '#', or the device's own UUID. "" is left as it is.
func ownerOf(devices []store.Registration, name string) (ds.DeviceID, error) {
	if name == "" {
		return "", nil
	}
	if d := findDevice(devices, name, ""); d != nil {
		return d.Device.ID, nil
	}
	return "", refuseNoDevice
}

// keyHolder is the device whose packages are signed with that key. One that is not
// registered is named by its key.
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

func packageBytes(list []ds.KeyPackage) (size int64) {
	for _, p := range list {
		size += int64(len(p.Body))
	}
	return size
}

// judgeUploads checks a list. What is good comes with what it says of itself.
func (s *Service) judgeUploads(who ds.Caller, uploads []Upload) (list []ds.KeyPackage, infos []keypackage.Info, problems []UploadProblem) {
	for i, u := range uploads {
		p, info, err := s.judgeUpload(who, u)
		if err != nil {
			problems = append(problems, UploadProblem{i, err.Error()})
			continue
		}
		list, infos = append(list, p), append(infos, info)
	}
	return list, infos, problems
}

// messageHeader is what stands before a KeyPackage in an MLSMessage (RFC 9420, section 6).
var messageHeader = []byte{0, byte(wire.MLS10), 0, byte(wire.KeyPackageFormat)}

// judgeUpload checks one upload. A package that came without the MLSMessage around it is
// stored with it, for the readers of the gateway, and marked by its encoding.
func (s *Service) judgeUpload(who ds.Caller, u Upload) (ds.KeyPackage, keypackage.Info, error) {
	none := keypackage.Info{}
	nowMS := s.now().UnixMilli()
	switch {
	case u.Problem != "":
		return ds.KeyPackage{}, none, errors.New(u.Problem)
	case len(u.Body) == 0:
		return ds.KeyPackage{}, none, errors.New("the key package is empty")
	case len(u.Body) > keyPackageBytesMax:
		return ds.KeyPackage{}, none, errors.New("key package too large")
	case u.Suite == 0:
		return ds.KeyPackage{}, none, errors.New("cipherSuite is not known here")
	case u.ExpiresMS <= nowMS:
		return ds.KeyPackage{}, none, errors.New("the key package has expired")
	case u.ExpiresMS > nowMS+keyPackageAhead.Milliseconds():
		return ds.KeyPackage{}, none, errors.New("expires is more than 90 days ahead")
	}
	raw, encoding := u.Body, ds.Base64
	if !bytes.HasPrefix(raw, messageHeader) {
		raw, encoding = append(bytes.Clone(messageHeader), raw...), ds.Binary
	}
	p, info, err := s.judgeKeyPackage(who, raw)
	if err != nil {
		return p, info, err
	}
	if p.Suite != u.Suite {
		return p, info, errors.New("the key package is of another cipher suite than cipherSuite says")
	}
	p.Encoding, p.LastResort, p.ExpiresMS = encoding, p.LastResort || u.LastResort, min(p.ExpiresMS, u.ExpiresMS)
	return p, info, nil
}

// PublishedForm is an MLS key package as its publisher wrote it: alone, or in an
// MLSMessage.
func PublishedForm(p ds.KeyPackage) []byte {
	if p.Encoding == ds.Binary {
		return bytes.TrimPrefix(p.Body, messageHeader)
	}
	return p.Body
}

// Synced is what is left of a device's packages after a sync.
type Synced struct {
	Device    ds.DeviceID
	Refs      []string // in hex
	Orphaned  []string // those that were deleted
	Available int64
}

// SyncKeyPackages deletes those unclaimed packages of a device which it has no keys for
// any more: all but the ones whose refs it names. Refusals: invalid_request.
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
		refs, err := tx.FreeRefs(owner)
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
		if _, err := tx.DeleteFreePackages(owner, out.Orphaned, "its key package was deleted"); err != nil {
			return err
		}
		out.Available, err = tx.AvailableKeyPackages(owner)
		return err
	})
	return out, err
}
