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
	// This is set for the device that asks.
	This bool
	// Lost: RemoveDevice was called for it.
	Lost bool
	// Conversations are those in whose group it is, as far as this device can see.
	Conversations []string
}

// OwnDevices are the devices of this account that this home has met in groups, itself
// first and the others in the order of first sight. A device that is in no common
// conversation yet is not known here.
func (c *Client) OwnDevices(ctx context.Context) ([]OwnDevice, error) {
	own := OwnDevice{KnownDevice: KnownDevice{Member: c.Self()}, This: true}
	own.Trusted = true
	var known []KnownDevice
	in := map[string][]string{} // conversations by fingerprint
	err := c.db.update(ctx, func(tx *tx) error {
		all, err := tx.conversations()
		if err != nil {
			return err
		}
		for _, conv := range all {
			if conv.group == nil || conv.phase == Removed {
				continue
			}
			for _, leaf := range conv.group.Members() {
				if string(leaf.Credential) == c.account.DID() {
					f := fingerprint(leaf.SignatureKey)
					in[f] = append(in[f], conv.id)
				}
			}
		}
		account, err := tx.known(c.account.DID())
		known = account.Devices
		return err
	})
	if err != nil {
		return nil, err
	}
	own.Conversations = in[own.Fingerprint]
	out := []OwnDevice{own}
	for _, d := range known {
		d.Trusted = c.authority.isTrusted(d.Member)
		if d.Fingerprint == own.Fingerprint {
			out[0].FirstSeen = d.FirstSeen
			continue
		}
		out = append(out, OwnDevice{KnownDevice: d, Lost: c.authority.isLost(d.Device), Conversations: in[d.Fingerprint]})
	}
	return out, nil
}

// AddDevice brings another device of this account into all conversations that this
// device is in, by the key packages that it has published; "" stands for all of the
// account's devices. A new device also comes in by itself, where the server holds what
// is needed for that and a device of the account is in the group; this is for
// conversations where it does not, and to take a RemoveDevice back.
func (c *Client) AddDevice(ctx context.Context, device string) error {
	if device == c.options.DeviceID {
		return errors.New("add device: it is this one")
	}
	var ids []string
	err := c.db.update(ctx, func(tx *tx) error {
		ids = nil
		all, err := tx.conversations()
		if err != nil {
			return err
		}
		for _, seen := range all {
			if seen.phase != Joined || seen.info.Leave != nil {
				continue
			}
			conv, err := tx.conversation(seen.id)
			if err != nil {
				return err
			}
			isWanted := slices.ContainsFunc(conv.info.Wanted, func(w wanted) bool { return w.Account == c.account.DID() && w.Device == device })
			if !isWanted {
				info := conv.editInfo()
				info.Wanted = append(info.Wanted, wanted{Account: c.account.DID(), Device: device, Own: true})
			}
			ids = append(ids, conv.id)
		}
		return c.authority.setLost(tx, slices.DeleteFunc(c.authority.lostDevices(), func(d string) bool { return d == device || device == "" }))
	})
	for _, id := range ids {
		c.wake(id)
	}
	return err
}

// RemoveDevice says that a device of this account is lost: its leaf is taken out of all
// groups, now and wherever it comes up again, its sessions end, and its key packages
// are voided. Whoever has the account's key can still make another device; a device
// whose Account signs by a hardware token holds no such key.
func (c *Client) RemoveDevice(ctx context.Context, device string) error {
	if device == "" || device == c.options.DeviceID {
		return errors.New("remove device: not another device")
	}
	var ids []string
	err := c.db.update(ctx, func(tx *tx) error {
		all, err := tx.conversations()
		if err != nil {
			return err
		}
		ids = nil
		for _, conv := range all {
			ids = append(ids, conv.id)
		}
		lost := c.authority.lostDevices()
		if !slices.Contains(lost, device) {
			lost = append(lost, device)
		}
		if err := c.authority.setLost(tx, lost); err != nil {
			return err
		}
		var revoke []string
		if _, err := tx.Settings.Get("revoke", &revoke); err != nil {
			return err
		}
		return tx.Settings.Set("revoke", append(revoke, device))
	})
	if err != nil {
		return err
	}
	c.wake(choreRevoke)
	for _, id := range ids {
		c.wake(id)
	}
	return nil
}

// isLost says whether a device of our account was declared lost.
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

// revokeLost ends the sessions of lost devices and voids their key packages. It is
// done again until the server has agreed.
func (e errands) revokeLost(ctx context.Context, by service) error {
	var revoke []string
	if err := e.c.db.update(ctx, func(tx *tx) error { _, err := tx.Settings.Get("revoke", &revoke); return err }); err != nil {
		return err
	}
	for _, device := range revoke {
		err := by.revoke(ctx, device)
		if r := asRefusal(err); r != nil && !r.mayPass() && r.Code != codeUnauthorized {
			err = nil // it does not know the device, or cannot do that
		}
		if err != nil {
			return fmt.Errorf("revoke device: %w", err)
		}
		if err := e.c.db.update(ctx, func(tx *tx) error {
			var left []string
			if _, err := tx.Settings.Get("revoke", &left); err != nil {
				return err
			}
			return tx.Settings.Set("revoke", slices.DeleteFunc(left, func(d string) bool { return d == device }))
		}); err != nil {
			return err
		}
	}
	return nil
}
