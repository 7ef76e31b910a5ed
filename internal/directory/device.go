package directory

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Registration is a device that its owner registers.
type Registration struct {
	Name         string
	UUID         string // the device's own permanent id, if it has one
	SignatureKey []byte
	PushToken    string // "": it has none, or keeps the one it has
	Generation   int    // of the API that it uses: 0 unknown, 1 A, 2 B
	Uploads      []Upload
}

// Device is a registered device as its owner sees it.
type Device = store.Registration

var (
	refuseManyDevices = (&ds.Refusal{Code: ds.LimitExceeded, Message: fmt.Sprintf("an account has at most %d devices", devicesRegistered)}).Because(ds.TooManyDevices)
	refuseKeyTaken    = (&ds.Refusal{Code: ds.InvalidRequest, Message: "another device of the account has this signature key"}).Because(ds.Taken)
	refusePackages    = (&ds.Refusal{Code: ds.InvalidRequest, Message: "none of the key packages is good"}).Because(ds.BadKeyPackages)
	refuseForeign     = ds.Refuse(ds.Forbidden, "the device is another account's")
	refuseUnknown     = ds.Refuse(ds.NotFound, "the account has no such device")
)

// RegisterDevice registers a device of the caller's account with its first key packages;
// invalid ones are omitted. The same UUID or the same signature key again is the same device,
// which starts over: it keeps its id, and data that only its former state could use is
// deleted, except that of packages it names again. The device waits to be added in the
// account's conversations.
//
// It returns the device, the conversations of the account, and the additions that their
// members were not notified of yet. Refusals: TooManyDevices, Taken, BadKeyPackages,
// rate_limited.
func (s *Service) RegisterDevice(ctx context.Context, who ds.Caller, in Registration) (Device, []ds.ConversationID, []Addition, error) {
	list, _ := s.judgeUploads(who, in.Uploads)
	if len(list) == 0 {
		return Device{}, nil, nil, refusePackages
	}
	settle, err := s.chargePackages(who, list)
	if err != nil {
		return Device{}, nil, nil, err
	}
	var stored int64
	var d Device
	var conversations []ds.ConversationID
	var fresh []Addition
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		devices, err := lockDevices(tx, who.Account)
		if err != nil {
			return err
		}
		isKnown := false
		if d, isKnown, err = decideDevice(devices, who.Account, in); err != nil {
			return err
		}
		if stored, err = register(tx, d, isKnown, list); err != nil {
			return err
		}
		if conversations, err = tx.Conversations.IDs(who.Account, registeredConversationsMax); err != nil {
			return err
		}
		fresh, err = tx.Devices.OpenAdditions(d.Device, conversations, newAdditionIDs(len(conversations)))
		return err
	})
	settle(stored, err)
	s.generations.forget(who.Account)
	if err != nil {
		return Device{}, nil, nil, err
	}
	return d, conversations, fresh, nil
}

// lockDevices lists the devices of an account. No other transaction changes them or the
// account's key packages until this one ends.
func lockDevices(tx *store.Tx, account ds.AccountID) ([]Device, error) {
	if err := tx.Devices.LockAccount(account); err != nil {
		return nil, err
	}
	return tx.Devices.Of(account)
}

// decideDevice returns the device of a registration with its new values, and reports whether
// it was registered before.
func decideDevice(devices []Device, account ds.AccountID, in Registration) (d Device, isKnown bool, err error) {
	byUUID := slices.IndexFunc(devices, func(d Device) bool { return in.UUID != "" && d.UUID == in.UUID })
	byKey := slices.IndexFunc(devices, func(d Device) bool { return bytes.Equal(d.SignatureKey, in.SignatureKey) })
	switch {
	case byUUID >= 0 && byKey >= 0 && byUUID != byKey:
		return Device{}, false, refuseKeyTaken
	case byUUID >= 0 || byKey >= 0:
		d, isKnown = devices[max(byUUID, byKey)], true
	case len(devices) >= devicesRegistered:
		return Device{}, false, refuseManyDevices
	default:
		d.Device = ds.Device{Account: account, ID: newDeviceID()}
	}
	d.Name, d.SignatureKey, d.Generation = in.Name, in.SignatureKey, max(d.Generation, in.Generation)
	if in.UUID != "" {
		d.UUID = in.UUID
	}
	if in.PushToken != "" {
		d.PushToken = in.PushToken
	}
	return d, isKnown, nil
}

// register writes a device with its packages, and returns the bytes of the new ones.
func register(tx *store.Tx, d Device, isKnown bool, list []judged) (stored int64, err error) {
	if isKnown {
		refs := make([]string, len(list))
		for i, p := range list {
			refs[i] = p.Ref
		}
		if err := tx.Devices.Reset(d.Device, refs, "the device registered again"); err != nil {
			return 0, err
		}
	}
	if err := tx.Devices.Register(d); err != nil {
		return 0, err
	}
	_, stored, err = addToPool(tx, d.Device, list)
	return stored, err
}

// newDeviceID makes a random UUID (RFC 9562, section 5.4).
func newDeviceID() ds.DeviceID {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return ds.DeviceID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// Devices lists the caller's registered devices, last seen first.
func (s *Service) Devices(ctx context.Context, who ds.Caller) ([]Device, error) {
	var list []Device
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		list, err = tx.Devices.Of(who.Account)
		return err
	})
	return list, err
}

// DeviceNames holds the names by which a client may select one of its devices: our id or its
// own UUID, if there is any, or else the name that it was registered with. Without any name it
// selects the device seen last.
type DeviceNames struct {
	ID, UUID, Name string
}

// SetPushToken changes the push token of a device, or removes it with "". To remove a token
// the device must be named, unless it is the only one. Refusals: not_found, forbidden for a
// device of another account.
func (s *Service) SetPushToken(ctx context.Context, who ds.Caller, names DeviceNames, token string) (ds.Device, error) {
	var device ds.Device
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		devices, err := tx.Devices.Of(who.Account)
		if err != nil {
			return err
		}
		d := FindDevice(devices, names.ID, names.UUID)
		if d == nil && names.ID == "" && names.UUID == "" {
			d = guessDevice(devices, names.Name, token != "")
		}
		if d == nil {
			return missingDevice(tx, names.ID)
		}
		device = d.Device
		return tx.Devices.SetPushToken(device, token)
	})
	return device, err
}

// FindDevice returns the device that an id or a UUID identifies; nil if there is none.
func FindDevice(devices []Device, id, uuid string) *Device {
	for i := range devices {
		d := &devices[i]
		name := string(d.Device.ID)
		if id != "" && (id == name || id == string(d.Device.Account)+"#"+name || id == d.UUID) || id == "" && uuid != "" && uuid == d.UUID {
			return d
		}
	}
	return nil
}

// guessDevice returns the device for a request without an id: the one of that name, or the
// only one; else the one seen last, if a mistake is harmless.
func guessDevice(devices []Device, name string, isHarmless bool) *Device {
	for i := range devices {
		if name != "" && devices[i].Name == name {
			return &devices[i]
		}
	}
	if len(devices) == 1 || len(devices) > 1 && isHarmless {
		return &devices[0]
	}
	return nil
}

// missingDevice returns the refusal of a device that the account does not have: refuseForeign
// if another account has it.
func missingDevice(tx *store.Tx, id string) error {
	isForeign, err := tx.Devices.Has(ds.DeviceID(id))
	if err != nil {
		return err
	}
	if isForeign {
		return refuseForeign
	}
	return refuseUnknown
}

// DeletedDevice is the outcome of the deletion of a device.
type DeletedDevice struct {
	Device      ds.Device // zero: there was none
	KeyPackages int64     // unclaimed ones, deleted with it
}

// DeleteDevice deletes a device of the caller's account with all its data. An unknown device
// is not an error. Refusals: forbidden for a device of another account.
func (s *Service) DeleteDevice(ctx context.Context, who ds.Caller, names DeviceNames) (DeletedDevice, error) {
	var out DeletedDevice
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		out = DeletedDevice{}
		devices, err := lockDevices(tx, who.Account)
		if err != nil {
			return err
		}
		d := FindDevice(devices, names.ID, names.UUID)
		if d == nil {
			if err := missingDevice(tx, names.ID); !errors.Is(err, refuseUnknown) {
				return err
			}
			return nil
		}
		out.Device = d.Device
		_, out.KeyPackages, err = tx.Devices.Delete(d.Device, "the device was deleted")
		return err
	})
	s.generations.forget(who.Account)
	return out, err
}
