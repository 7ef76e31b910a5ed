package chat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/client"
)

// deviceItem is a device as a JSON line.
type deviceItem struct {
	Device        string   `json:"device"`
	Fingerprint   string   `json:"fingerprint"`
	This          bool     `json:"this"`
	Lost          bool     `json:"lost"`
	Conversations []string `json:"conversations"`
}

// Devices prints the devices of this account that were met in conversations, this one
// first.
func (t *Terminal) Devices(ctx context.Context, asJSON bool) error {
	devices, err := t.client.OwnDevices(ctx)
	if err != nil {
		return err
	}
	if !asJSON {
		return t.print(deviceLines(devices)...)
	}
	for _, d := range devices {
		if err := t.printJSON(itemOfDevice(d)); err != nil {
			return err
		}
	}
	return nil
}

func itemOfDevice(d client.OwnDevice) deviceItem {
	return deviceItem{d.Device, d.Fingerprint, d.This, d.Lost, append([]string{}, d.Conversations...)}
}

// deviceLines lists an account's own devices for people.
func deviceLines(devices []client.OwnDevice) []string {
	var out []string
	for _, d := range devices {
		line := fmt.Sprintf("%s  %s  in %d conversations", cmp.Or(d.Device, "(no name)"), d.Fingerprint, len(d.Conversations))
		switch {
		case d.This:
			line += "  (this one)"
		case d.Lost:
			line += "  (removed)"
		}
		out = append(out, line)
	}
	return out
}

// AddDevice brings a device of this account, or with "" all of them, into the
// conversations of this one, and waits until it is in all of them.
func (t *Terminal) AddDevice(ctx context.Context, device string, wait time.Duration) error {
	if device == t.client.DeviceID() {
		return mistake("%s is this device", device)
	}
	if err := t.client.AddDevice(ctx, device); err != nil {
		return err
	}
	asked := time.Now()
	return t.until(ctx, wait, func() (bool, string, error) {
		isIn, what, err := t.deviceIsIn(ctx, device)
		if later := (notYet{}); errors.As(err, &later) && time.Since(asked) > addAgain {
			asked = time.Now()
			if err := t.client.AddDevice(ctx, device); err != nil {
				return false, "", err
			}
		}
		return isIn, what, err
	})
}

// addAgain is the interval at which the server is asked again for a device without keys: it may
// be about to publish them.
const addAgain = time.Second

// deviceIsIn reports whether a device of this account, "" for some other one, is in all
// conversations that this one is in. The error is notYet while the server has no keys of
// it.
func (t *Terminal) deviceIsIn(ctx context.Context, device string) (bool, string, error) {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return false, "", err
	}
	for _, c := range all {
		if c.Phase != client.Removed && slices.Contains(c.Inviting, t.self) {
			return false, "the device to be added", nil
		}
	}
	devices, err := t.client.OwnDevices(ctx)
	if err != nil {
		return false, "", err
	}
	for _, d := range devices[1:] {
		isMissing := func(conv string) bool { return !slices.Contains(d.Conversations, conv) }
		if (device == "" || d.Device == device) && !d.Lost && !slices.ContainsFunc(devices[0].Conversations, isMissing) {
			return true, "", nil
		}
	}
	return false, "", notYet{fmt.Errorf("the server has no keys of %s: open a chat on it once", cmp.Or(device, "another device of this account"))}
}

// RemoveDevice declares a device of this account lost, and waits until it is out of all
// conversations.
func (t *Terminal) RemoveDevice(ctx context.Context, device string, wait time.Duration) error {
	if err := t.removeDevice(ctx, device); err != nil {
		return err
	}
	return t.until(ctx, wait, func() (bool, string, error) {
		devices, err := t.client.OwnDevices(ctx)
		isIn := slices.ContainsFunc(devices, func(d client.OwnDevice) bool { return d.Device == device && len(d.Conversations) > 0 })
		return !isIn, "the device to be removed from the conversations", err
	})
}

// removeDevice declares a known device lost; an unknown name is a Mistake.
func (t *Terminal) removeDevice(ctx context.Context, device string) error {
	devices, err := t.client.OwnDevices(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(devices, func(d client.OwnDevice) bool { return d.Device == device })
	switch {
	case i < 0 || device == "":
		return mistake("no device %q of this account is known: waxwing chat devices, or /devices", device)
	case devices[i].This:
		return mistake("%s is this device: leave its conversations, or remove it from another one", device)
	}
	return t.client.RemoveDevice(ctx, device)
}

func (t *Terminal) doDevices(ctx context.Context, words []string) (reply, error) {
	const how = "/devices lists, /devices add [DEVICE] and /devices remove DEVICE change"
	switch {
	case len(words) == 0:
		devices, err := t.client.OwnDevices(ctx)
		return reply{title: "Devices of this account", lines: append(deviceLines(devices), "", how)}, err
	case words[0] == "add" && len(words) <= 2:
		device := ""
		if len(words) == 2 {
			device = words[1]
		}
		return reply{lines: []string{cmp.Or(device, "every device of this account") + " is to be added"}}, t.client.AddDevice(ctx, device)
	case words[0] == "remove" && len(words) == 2:
		return reply{lines: []string{words[1] + " is to be removed"}}, t.removeDevice(ctx, words[1])
	}
	return reply{}, mistake(how)
}
