package core

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// nameBytes returns the bytes that a list of accounts keeps alive.
func nameBytes(accounts []ds.AccountID) int {
	n := 0
	for _, account := range accounts {
		n += requestNameBytes + len(account)
	}
	return n
}

// recipientBytes returns the bytes that recipients and their enteredBy keep alive.
func recipientBytes(to []Recipient) int {
	n := 0
	for _, r := range to {
		n += 3*requestNameBytes + len(r.Device.Account) + len(r.Device.ID) + len(r.KeyPackageRef)
	}
	return n
}

// knownPackages holds the directory's data about the key packages of one change.
type knownPackages struct {
	owners     map[string]ds.Device // by ref
	publishers map[ds.AccountID]bool
}

// findRecipients returns the recipients of a Welcome.
func (s *Service) findRecipients(ctx context.Context, b Bundle) ([]Recipient, error) {
	refs := welcomeRefs(b.Welcome)
	if len(refs)+len(b.Packages) == 0 {
		return nil, nil
	}
	asked, accounts := slices.Clone(refs), make([]ds.AccountID, len(b.Packages))
	for i, p := range b.Packages {
		asked, accounts[i] = append(asked, strings.ToLower(p.Ref)), p.Account
	}
	var known knownPackages
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		if known.owners, err = tx.Packages.Owners(asked); err != nil {
			return err
		}
		known.publishers, err = tx.Packages.Publishers(distinct(accounts))
		return err
	})
	if err != nil {
		return nil, err
	}
	return recipientsOf(b, refs, known)
}

// readWelcome parses a Welcome, alone or in an MLSMessage; it returns nil if it is invalid.
func readWelcome(data []byte) *wire.Welcome {
	var m wire.Message
	if err := wire.Unmarshal(data, &m); err == nil && m.Welcome != nil {
		return m.Welcome
	}
	w := new(wire.Welcome)
	if err := wire.Unmarshal(data, w); err != nil || len(w.Secrets) == 0 {
		return nil
	}
	return w
}

// welcomeRefs returns the refs of the key packages that a Welcome is for, once each.
func welcomeRefs(welcome []byte) []string {
	w := readWelcome(welcome)
	if w == nil {
		return nil
	}
	refs := make([]string, 0, len(w.Secrets))
	for i := range w.Secrets {
		refs = append(refs, hex.EncodeToString(w.Secrets[i].NewMember))
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// recipientsOf finds the recipients of a Welcome by the key packages that it names, if the
// directory or the caller knows their owners. If some are unknown, each account to be added
// that has no recipient yet gets one, for any of its devices.
func recipientsOf(b Bundle, refs []string, known knownPackages) ([]Recipient, error) {
	if len(refs) > recipientsMax {
		return nil, ds.Refuse(ds.InvalidRequest, "the welcome is for too many devices").Because(ds.BadCommit)
	}
	said := map[string]ds.AccountID{}
	for _, p := range b.Packages {
		ref := strings.ToLower(p.Ref)
		owner, isKnown := known.owners[ref]
		if isKnown && owner.Account != p.Account || !isKnown && known.publishers[p.Account] {
			return nil, ds.Refuse(ds.InvalidRequest, "%s has published no key package %.64s", p.Account, p.Ref).Because(ds.NoKeyPackage)
		}
		if _, isNamed := slices.BinarySearch(refs, ref); !isNamed {
			return nil, ds.Refuse(ds.InvalidRequest, "the welcome is not for the key package %.64s", p.Ref).Because(ds.BadCommit)
		}
		said[ref] = p.Account
	}
	var list []Recipient
	found, unknown := map[ds.AccountID]bool{}, 0
	for _, ref := range refs {
		device, isKnown := known.owners[ref]
		if !isKnown {
			device = ds.Device{Account: said[ref]}
		}
		if device.Account == "" {
			unknown++
			continue
		}
		found[device.Account] = true
		list = append(list, Recipient{Device: device, KeyPackageRef: ref})
	}
	named := len(list)
	for _, account := range b.Add {
		if unknown > 0 && !found[account] {
			found[account] = true
			list = append(list, Recipient{Device: ds.Device{Account: account}})
		}
	}
	if unknown > 0 && len(list) == named {
		return nil, ds.Refuse(ds.InvalidRequest, "the welcome is for a key package that nobody has published").Because(ds.NoKeyPackage)
	}
	return list, nil
}

// enteredBy returns the devices and key packages of a Welcome's recipients.
func enteredBy(to []Recipient) (e store.Entered) {
	for _, r := range to {
		if r.Device.ID != "" {
			e.Devices, e.Packages = append(e.Devices, r.Device), append(e.Packages, r.KeyPackageRef)
		}
	}
	return e
}
