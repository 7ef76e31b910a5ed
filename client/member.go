package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/mls"
)

// Member is a device of an account, as its leaf in an MLS group shows it.
type Member struct {
	// Account is the DID in the leaf's credential.
	Account string `json:"account,omitempty"`
	// Device is the account's name for the device, from its certificate; "" without one.
	Device string `json:"device,omitempty"`
	// Verified reports that the account's own key has certified this leaf. A server
	// can forge unverified members only.
	Verified bool `json:"verified,omitempty"`
	// Fingerprint is the fingerprint of the leaf's signature key, for people to compare.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Trusted reports that a person has verified the account (Client.Verify), as of now.
	Trusted bool `json:"-"`
}

func fingerprint(leafKey []byte) string {
	sum := sha256.Sum256(append([]byte("waxwing fingerprint v1\x00"), leafKey...))
	return hex.EncodeToString(sum[:16])
}

// basicCredential is the credential type with a DID as the identity (RFC 9420, section 5.3).
const basicCredential = 1

// judge checks the certificate in a leaf.
func (a authority) judge(leaf *mls.Leaf) (verdict, error) {
	if leaf.CredentialType != basicCredential {
		return verdict{}, fmt.Errorf("%w: unsupported credential type", ErrCertificate)
	}
	var data []byte
	if at := slices.IndexFunc(leaf.Extensions, func(e mls.Extension) bool { return e.Type == CertificateExtension }); at >= 0 {
		data = leaf.Extensions[at].Data
	}
	return judgeLeaf(string(leaf.Credential), leaf.SignatureKey, data, a.c.now())
}

// memberOf describes a leaf that is in a group: a fault in its certificate was handled when it
// was added, and makes it unverified here.
func (a authority) memberOf(leaf mls.Leaf) Member {
	v, err := a.judge(&leaf)
	m := Member{Account: string(leaf.Credential), Fingerprint: fingerprint(leaf.SignatureKey)}
	if err == nil {
		m.Device, m.Verified = v.DeviceID, v.Verified
	}
	return m
}

// credentialHook decides about each leaf that is added to a group or changes in it.
// It uses only the two leaves and the clock.
//
// A leaf with a wrong certificate is never admitted. One without a certificate, whose account's
// DID is a key and so should have one, is refused where the server alone could have made it: in
// a Welcome and an external commit. A member may add one (that member answers for it); it is
// flagged as unverified.
//
// Where the DID is not a key a certificate cannot be checked, and a server could enter by an
// external commit under the name of any such account. It is admitted only with the signature
// key of its former leaf.
func (a authority) credentialHook(change mls.CredentialChange) error {
	if change.New == nil {
		return nil
	}
	v, err := a.judge(change.New)
	if err != nil {
		return err
	}
	if change.Old != nil {
		if !bytes.Equal(change.Old.Credential, change.New.Credential) {
			return fmt.Errorf("%w: account of the leaf changed", ErrCertificate)
		}
		old, err := a.judge(change.Old)
		if err == nil && old.DeviceID != "" && old.DeviceID != v.DeviceID {
			return fmt.Errorf("%w: device of the leaf changed", ErrCertificate)
		}
	}
	switch change.Kind {
	case mls.CredentialWelcome:
		return a.requireCertificate(v, false)
	case mls.CredentialExternalCommit:
		if err := a.requireEntry(v, &change); err != nil {
			return &refusedJoin{who: a.memberOf(*change.New), why: err}
		}
	}
	return nil
}

// requireEntry refuses a leaf of an external commit that has neither a certificate nor, where
// there can be none, its previous key.
func (a authority) requireEntry(v verdict, change *mls.CredentialChange) error {
	hasOldKey := change.Old != nil && bytes.Equal(change.Old.SignatureKey, change.New.SignatureKey)
	if v.Verified || v.Expected || hasOldKey || a.c.options.AllowUnverified {
		return a.requireCertificate(v, false)
	}
	return fmt.Errorf("%w: %s joined with a new key that cannot be verified", ErrUncertified, v.Account)
}

// refusedJoin is the error of an external commit that is not followed: the joiner and the
// cause.
type refusedJoin struct {
	who Member
	why error
}

// Error returns the cause.
func (r *refusedJoin) Error() string { return r.why.Error() }

// Unwrap returns the cause, which wraps ErrUncertified.
func (r *refusedJoin) Unwrap() error { return r.why }

// requireCertificate refuses a leaf that an honest device would have certified. An expired
// certificate suffices for a leaf that has been a member for long: it was valid when the leaf
// was added.
func (a authority) requireCertificate(v verdict, mustBeFresh bool) error {
	switch {
	case v.Verified || !v.Expected || a.c.options.AllowUnverified:
		return nil
	case v.Expired && !mustBeFresh:
		return nil
	case v.Expired:
		return fmt.Errorf("%w: expired", ErrCertificate)
	}
	return fmt.Errorf("%w: %s", ErrUncertified, v.Account)
}

// speaksFor reports whether the contents of a device that are not texts count as its account's: any
// member can add a device in the name of another account, but only the account can certify it.
func (a authority) speaksFor(leaf *mls.Leaf) bool {
	v, err := a.judge(leaf)
	return err == nil && a.requireCertificate(v, false) == nil
}

func (a authority) loadOptions() mls.LoadOptions {
	return mls.LoadOptions{Hook: a.credentialHook, Now: a.c.now, Padding: mls.PadBuckets, Limits: a.limits()}
}

// limits returns the limits of all groups.
func (a authority) limits() mls.Limits { return mls.Limits{Lifetime: a.c.options.LifetimeMax} }

// KnownDevice is a device that this home has seen in a group.
type KnownDevice struct {
	Member
	// FirstSeen is the time at which this home first saw it in a group.
	FirstSeen time.Time `json:"first_seen"`
}

// knownAccount is a row of devices: the observed devices of one account.
type knownAccount struct {
	Account    string        `json:"account"`
	Devices    []KnownDevice `json:"devices"`
	VerifiedAt time.Time     `json:"verified_at,omitzero"` // when a person verified the account
	Pinned     []string      `json:"pinned,omitempty"`     // fingerprints that this covers, without certificates

	Name  named `json:"name,omitzero"`  // that it has given itself
	Alias named `json:"alias,omitzero"` // that this account has given it
	// AliasChange numbers the changes of aliases in this home.
	AliasChange int64 `json:"alias_change,omitempty"`
}

// devicesPerAccountMax bounds the devices that are remembered of one account.
const devicesPerAccountMax = 256

// meet remembers members, and makes the room of the account's own devices if one of them is another
// device of it, and there are aliases to share.
func (k keeper) meet(tx *tx, conv *conversation, members []Member, now time.Time) error {
	if err := tx.meet(conv.id, members, now); err != nil {
		return err
	}
	if k.isOwnRoom(conv.id) {
		k.met(conv)
	}
	if _, aliases := k.c.book.counts(); aliases == 0 || !slices.ContainsFunc(members, func(m Member) bool { return m.Account == k.c.account.DID() }) {
		return nil
	}
	return k.makeOwnRoom(tx)
}

// meet remembers members on first sight. It reports an unverified device of a known account,
// since it may be the account's or the server's, and a known device with another key.
func (t *tx) meet(conversation string, members []Member, now time.Time) error {
	for _, m := range members {
		known, err := t.known(m.Account)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(known.Devices, func(d KnownDevice) bool { return d.Fingerprint == m.Fingerprint })
		if at >= 0 && known.Devices[at].Member == m || len(known.Devices) >= devicesPerAccountMax {
			continue
		}
		if at >= 0 {
			known.Devices[at].Member = m
		} else {
			if why := keyChange(known.Devices, m); why != "" {
				if err := t.report(Event{Type: EventKeyChange, Conversation: conversation, Time: now, From: m,
					Code: problemKeyChange, Problem: why}); err != nil {
					return err
				}
			}
			known.Devices = append(known.Devices, KnownDevice{Member: m, FirstSeen: now})
		}
		if err := t.saveKnown(known); err != nil {
			return err
		}
	}
	return nil
}

// keyChange returns a message about a device with an unknown key; "" for a new device that its
// account has certified.
func keyChange(known []KnownDevice, m Member) string {
	isKnown := slices.ContainsFunc(known, func(d KnownDevice) bool { return d.Device != "" && d.Device == m.Device })
	switch {
	case len(known) == 0:
		return ""
	case !m.Verified:
		return m.Account + " has a new unverified device"
	case isKnown:
		return "device " + m.Device + " of " + m.Account + " has a new verified key"
	}
	return ""
}

func (t *tx) saveKnown(known knownAccount) error { return t.People.Set(known.Account, known) }

func (t *tx) known(account string) (known knownAccount, err error) {
	if found, err := t.People.Get(account, &known); err != nil || !found {
		return knownAccount{Account: account}, err
	}
	return known, nil
}

// Devices returns the devices of an account that this home has seen, in the order of first
// sight, with their fingerprints for people to compare.
func (c *Client) Devices(ctx context.Context, account string) ([]KnownDevice, error) {
	known, err := read(ctx, c.db, func(tx *tx) (knownAccount, error) { return tx.known(account) })
	for i := range known.Devices {
		known.Devices[i].Trusted = c.authority.isTrusted(known.Devices[i].Member)
	}
	return known.Devices, err
}

// Self returns this device as others see it.
func (c *Client) Self() Member {
	return Member{Account: c.account.DID(), Device: c.options.DeviceID, Verified: true,
		Fingerprint: fingerprint(c.identity.Key.Public())}
}

// identityRecord is the setting "identity": the account and device of this home.
type identityRecord struct {
	Account      string    `json:"account"`
	Device       string    `json:"device"`
	SignatureKey []byte    `json:"signature_key"`
	Certificate  []byte    `json:"certificate"`
	NotAfter     time.Time `json:"not_after"`
}

// loadIdentity reads or makes the device's signature key and its certificate, and renews the
// certificate in time. New leaves carry the renewed one.
func (c *Client) loadIdentity(tx *tx) error {
	var r identityRecord
	found, err := tx.Settings.Get("identity", &r)
	if err != nil {
		return err
	}
	if found && (r.Account != c.account.DID() || c.options.DeviceID != "" && r.Device != c.options.DeviceID) {
		return fmt.Errorf("%w: created for another account or device", ErrHome)
	}
	var key mls.SignatureKey
	if found {
		if err := key.UnmarshalBinary(r.SignatureKey); err != nil {
			return fmt.Errorf("load signature key: %w", err)
		}
	} else {
		if key, err = mls.NewSignatureKey(groupSuite); err != nil {
			return fmt.Errorf("make signature key: %w", err)
		}
		r = identityRecord{Account: c.account.DID(), Device: c.options.DeviceID}
		if r.Device == "" {
			r.Device = "dev_" + randomID()
		}
		if r.SignatureKey, err = key.MarshalBinary(); err != nil {
			return fmt.Errorf("save signature key: %w", err)
		}
	}
	if now := c.now(); now.Add(certificateLife / 2).After(r.NotAfter) {
		r.NotAfter = now.Add(certificateLife).Truncate(time.Second)
		r.Certificate, err = issueCertificate(c.account, r.Device, key.Public(), r.NotAfter)
		if err != nil {
			return err
		}
		if err := tx.Settings.Set("identity", r); err != nil {
			return err
		}
	}
	c.options.DeviceID = r.Device
	c.identity = mls.Identity{Credential: []byte(r.Account), Key: key,
		Extensions: []mls.Extension{{Type: CertificateExtension, Data: r.Certificate}}}
	return nil
}

// hasLeaf reports whether a device with that signature key is in the group, and hasAccount
// whether any device of the account is.
func hasLeaf(g *mls.Group, signatureKey []byte) bool {
	return slices.ContainsFunc(g.Members(), func(l mls.Leaf) bool { return bytes.Equal(l.SignatureKey, signatureKey) })
}

func hasAccount(g *mls.Group, account string) bool {
	return slices.ContainsFunc(g.Members(), func(l mls.Leaf) bool { return string(l.Credential) == account })
}

// reportGroup reports e with all members of a conversation's group, which it remembers.
func (k keeper) reportGroup(tx *tx, conv *conversation, e Event) error {
	e.Members = nil
	for _, leaf := range conv.group.Members() {
		e.Members = append(e.Members, k.c.authority.memberOf(leaf))
	}
	if err := k.meet(tx, conv, e.Members, e.Time); err != nil {
		return err
	}
	return tx.saveChange(conv, e, nil)
}

// membersChanged compares two states of a group: it returns the members that are only in the
// second, and those only in the first.
func (a authority) membersChanged(before, after *mls.Group) (added, gone []Member) {
	old, fresh := before.Members(), after.Members()
	in := func(list []mls.Leaf, l mls.Leaf) bool {
		return slices.ContainsFunc(list, func(other mls.Leaf) bool {
			return bytes.Equal(other.SignatureKey, l.SignatureKey) && bytes.Equal(other.Credential, l.Credential)
		})
	}
	for _, l := range fresh {
		if !in(old, l) {
			added = append(added, a.memberOf(l))
		}
	}
	for _, l := range old {
		if !in(fresh, l) {
			gone = append(gone, a.memberOf(l))
		}
	}
	return added, gone
}
