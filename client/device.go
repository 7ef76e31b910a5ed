package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// OwnDevice is a device of this client's account.
type OwnDevice struct {
	KnownDevice
	// This reports that it is the device of this client.
	This bool
	// Lost reports that RemoveDevice was called for it.
	Lost bool
	// Conversations are those with the device in their group, as far as this device knows.
	Conversations []string
}

// OwnDevices returns the devices of this account that this home has seen in groups: itself first
// and the others in the order of first sight. It omits a device that has no conversation in
// common with this one yet.
func (c *Client) OwnDevices(ctx context.Context) ([]OwnDevice, error) {
	all, err := c.db.conversations(ctx)
	if err != nil {
		return nil, err
	}
	known, err := c.Devices(ctx, c.account.DID())
	if err != nil {
		return nil, err
	}
	in := map[string][]string{} // conversations by fingerprint
	for _, conv := range all {
		if conv.group == nil || conv.phase == Removed || c.keeper.isOwnRoom(conv.id) {
			continue
		}
		for _, leaf := range conv.group.Members() {
			if string(leaf.Credential) == c.account.DID() {
				f := fingerprint(leaf.SignatureKey)
				in[f] = append(in[f], conv.id)
			}
		}
	}
	own := OwnDevice{KnownDevice: KnownDevice{Member: c.Self()}, This: true}
	own.Trusted, own.Conversations = true, in[own.Fingerprint]
	out := []OwnDevice{own}
	for _, d := range known {
		if d.Fingerprint == own.Fingerprint {
			out[0].FirstSeen = d.FirstSeen
			continue
		}
		out = append(out, OwnDevice{KnownDevice: d, Lost: c.authority.isLost(d.Device), Conversations: in[d.Fingerprint]})
	}
	return out, nil
}

// AddDevice adds another device of this account to all conversations that this device is in,
// with the key packages that it has published; "" stands for all of the account's devices. A
// new device also joins on its own where the server holds the necessary GroupInfo and a device
// of the account is in the group; AddDevice is for conversations where it does not, and to undo
// RemoveDevice.
func (c *Client) AddDevice(ctx context.Context, device string) error {
	if device == c.options.DeviceID {
		return errors.New("add device: cannot add this device itself")
	}
	return c.db.update(ctx, func(tx *tx) error {
		for _, seen := range tx.conversations() {
			if seen.phase != Joined || seen.info.Leave != nil {
				continue
			}
			conv := tx.conversation(seen.id)
			isWanted := slices.ContainsFunc(conv.info.Wanted, func(w wanted) bool { return w.Account == c.account.DID() && w.Device == device })
			if !isWanted {
				info := conv.editInfo()
				info.Wanted = append(info.Wanted, wanted{Account: c.account.DID(), Device: device, Own: true})
			}
			tx.wake(conv.id)
		}
		return c.authority.setLost(tx, slices.DeleteFunc(c.authority.lostDevices(), func(d string) bool { return d == device || device == "" }))
	})
}

// RemoveDevice declares a device of this account lost: its leaf is removed from all groups, now
// and wherever it appears again, its sessions end, and its key packages are voided. A holder of
// the account's key can still make another device; a device with an Account that signs by a
// hardware token holds no such key.
func (c *Client) RemoveDevice(ctx context.Context, device string) error {
	if device == "" || device == c.options.DeviceID {
		return errors.New("remove device: missing device or this device itself")
	}
	return c.db.update(ctx, func(tx *tx) error {
		for _, conv := range tx.conversations() {
			tx.wake(conv.id)
		}
		tx.wake(choreRevoke)
		lost := c.authority.lostDevices()
		if !slices.Contains(lost, device) {
			lost = append(lost, device)
		}
		if err := c.authority.setLost(tx, lost); err != nil {
			return err
		}
		revoke, err := setting[[]string](tx, "revoke")
		if err != nil {
			return err
		}
		return tx.Settings.Set("revoke", append(revoke, device))
	})
}

// isLost reports whether a device of our account was declared lost.
func (a authority) isLost(device string) bool {
	a.c.peopleMu.RLock()
	defer a.c.peopleMu.RUnlock()
	return slices.Contains(a.c.lost, device)
}

func (a authority) lostDevices() []string {
	a.c.peopleMu.RLock()
	defer a.c.peopleMu.RUnlock()
	return slices.Clone(a.c.lost)
}

func (a authority) setLost(tx *tx, lost []string) error {
	tx.after = append(tx.after, func() {
		a.c.peopleMu.Lock()
		a.c.lost = lost
		a.c.lostChanges.Add(1)
		a.c.peopleMu.Unlock()
	})
	return tx.Settings.Set("lost", lost)
}

// revokeLost ends the sessions of lost devices and voids their key packages. It is repeated
// until the server has confirmed it.
func (e errands) revokeLost(ctx context.Context, by service) error {
	revoke, err := read(ctx, e.c.db, func(tx *tx) ([]string, error) { return setting[[]string](tx, "revoke") })
	if err != nil {
		return err
	}
	for _, device := range revoke {
		err := by.revoke(ctx, device)
		if r := asRefusal(err); r != nil && !r.mayPass() && r.Code != codeUnauthorized {
			err = nil // the device is unknown to the server, or the server cannot revoke it
		}
		if err != nil {
			return fmt.Errorf("revoke device: %w", err)
		}
		if err := e.c.db.update(ctx, func(tx *tx) error {
			left, err := setting[[]string](tx, "revoke")
			if err != nil {
				return err
			}
			return tx.Settings.Set("revoke", slices.DeleteFunc(left, func(d string) bool { return d == device }))
		}); err != nil {
			return err
		}
	}
	return nil
}
