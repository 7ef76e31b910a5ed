package client

import (
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SafetyNumber is a number of 60 decimal digits that people compare, in person or over a line
// that they trust, to verify that they mean the same account.
//
// It is computed by SHA-512 over the text "waxwing safety number v1" and, each after a NUL, its
// subject: the DID of the account, or the two DIDs of a pair, the smaller one first. For an
// account with a DID that is not a key it also covers the fingerprints of the devices that this
// home has seen, sorted. The first 60 bytes of the hash are split into twelve parts of 5 bytes,
// each a big-endian number; its remainder by 100 000 gives five digits.
//
// A number that a Client has made also holds its subject, for Verify. The zero value is not a
// valid number.
type SafetyNumber struct {
	digits  string
	account string // its account, or the other one of a pair
	pinned  string // the fingerprints that it covers, sorted, each followed by a blank
}

const (
	safetyDomain = "waxwing safety number v1"
	safetyGroups = 12
	safetyDigits = 5
)

func safetyNumber(of ...string) SafetyNumber {
	sum := sha512.Sum512([]byte(safetyDomain + "\x00" + strings.Join(of, "\x00")))
	var out strings.Builder
	for i := range safetyGroups {
		var wide [8]byte
		copy(wide[3:], sum[5*i:5*i+5])
		fmt.Fprintf(&out, "%0*d", safetyDigits, binary.BigEndian.Uint64(wide[:])%100_000)
	}
	return SafetyNumber{digits: out.String()}
}

// String returns the digits in groups of five.
func (n SafetyNumber) String() string {
	var groups []string
	for i := 0; i+safetyDigits <= len(n.digits); i += safetyDigits {
		groups = append(groups, n.digits[i:i+safetyDigits])
	}
	return strings.Join(groups, " ")
}

// Equal reports whether two numbers have the same digits, regardless of their origin.
func (n SafetyNumber) Equal(other SafetyNumber) bool { return n.digits == other.digits }

// Devices returns the fingerprints of the devices that the number covers, sorted; none where
// the DID is a key, which covers all that it has certified.
func (n SafetyNumber) Devices() []string { return strings.Fields(n.pinned) }

// ParseSafetyNumber parses a typed number; blanks and dashes between digits are ignored. The
// result is for Equal only, since its subject is unknown.
func ParseSafetyNumber(text string) (SafetyNumber, error) {
	digits := strings.NewReplacer(" ", "", "-", "", "\t", "", "\n", "").Replace(text)
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' }
	if len(digits) != safetyGroups*safetyDigits || strings.ContainsFunc(digits, func(r rune) bool { return !isDigit(r) }) {
		return SafetyNumber{}, fmt.Errorf("a safety number has %d digits", safetyGroups*safetyDigits)
	}
	return SafetyNumber{digits: digits}, nil
}

// SafetyNumber returns the number of one account, which may be the own one: the same on all
// devices. The error wraps ErrAccount if it is not a DID, or ErrUnknownDevices.
func (c *Client) SafetyNumber(ctx context.Context, account string) (SafetyNumber, error) {
	return c.authority.numberOf(ctx, account, account)
}

// SharedSafetyNumber returns the number of this account and another one together: each of the
// two people reads the same one on their own device. Errors are those of SafetyNumber.
func (c *Client) SharedSafetyNumber(ctx context.Context, account string) (SafetyNumber, error) {
	self := c.account.DID()
	return c.authority.numberOf(ctx, account, min(self, account), max(self, account))
}

// numberOf returns the number of some accounts, of which account is to be verified by it.
func (a authority) numberOf(ctx context.Context, account string, all ...string) (SafetyNumber, error) {
	pinned, err := a.pinnable(ctx, account)
	if err != nil {
		return SafetyNumber{}, err
	}
	out := safetyNumber(append(all, pinned...)...)
	out.account = account
	for _, f := range pinned {
		out.pinned += f + " "
	}
	return out, nil
}

// pinnable returns the fingerprints that a number of the account covers beside its DID: none
// where that is a key.
func (a authority) pinnable(ctx context.Context, account string) ([]string, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	if key, _ := keyOfDID(account); key.isKnown() {
		return nil, nil
	}
	devices, err := a.c.Devices(ctx, account)
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, ErrUnknownDevices
	}
	return fingerprints(devices), nil
}

func fingerprints(devices []KnownDevice) []string {
	var out []string
	for _, d := range devices {
		out = append(out, d.Fingerprint)
	}
	slices.Sort(out)
	return out
}

// trusted is the cached state of an account that a person has verified.
type trusted struct {
	since  time.Time
	pinned []string // fingerprints, where the account cannot certify its devices
}

// Trust holds the information of a home about an account.
type Trust struct {
	Account string
	// Verified reports that a person has compared the account's safety number (Verify), at the
	// time Since.
	Verified bool
	Since    time.Time
	// Unpinned are devices that this does not cover: unverified ones that were not known when
	// the number was compared.
	Unpinned []KnownDevice
	// Devices are all known devices, in the order of first sight.
	Devices []KnownDevice
}

// Verify records that a person has compared a safety number, made by SafetyNumber or
// SharedSafetyNumber of this client: from now on Member.Trusted is set for the devices of its
// account. Where the DID is a key that covers every device that the account has certified;
// elsewhere only the devices that the number covers, not those seen since. It needs no network.
func (c *Client) Verify(ctx context.Context, compared SafetyNumber) error {
	if compared.account == "" {
		return errNotOurNumber
	}
	return c.authority.setTrust(ctx, compared.account, c.now(), compared.Devices())
}

var errNotOurNumber = errors.New("verify: safety number was not made by SafetyNumber or SharedSafetyNumber")

// Unverify undoes Verify.
func (c *Client) Unverify(ctx context.Context, account string) error {
	return c.authority.setTrust(ctx, account, time.Time{}, nil)
}

func (a authority) setTrust(ctx context.Context, account string, since time.Time, pinned []string) error {
	return a.c.db.update(ctx, func(tx *tx) error {
		known, err := tx.known(account)
		if err != nil {
			return err
		}
		known.VerifiedAt, known.Pinned = since, pinned
		tx.after = append(tx.after, func() { a.remember(known) })
		return tx.saveKnown(known)
	})
}

// remember updates the cache with the record of an account.
func (a authority) remember(known knownAccount) {
	a.c.peopleMu.Lock()
	defer a.c.peopleMu.Unlock()
	if a.c.people == nil {
		a.c.people = map[string]trusted{}
	}
	if known.VerifiedAt.IsZero() {
		delete(a.c.people, known.Account)
		return
	}
	a.c.people[known.Account] = trusted{since: known.VerifiedAt, pinned: known.Pinned}
}

// loadPeople reads the trusted accounts and the names.
func (a authority) loadPeople(tx *tx) error {
	var all []knownAccount
	err := tx.People.Each(func(read func(any) error) error {
		var known knownAccount
		err := read(&known)
		all = append(all, known)
		return err
	})
	for _, known := range all {
		a.remember(known)
		a.c.book.set(known)
	}
	return err
}

// isTrusted reports whether a person has verified the account of a device, and that covers it.
func (a authority) isTrusted(m Member) bool {
	if m.Account == a.c.account.DID() {
		return m.Verified
	}
	a.c.peopleMu.RLock()
	defer a.c.peopleMu.RUnlock()
	t, ok := a.c.people[m.Account]
	return ok && (m.Verified || slices.Contains(t.pinned, m.Fingerprint))
}

// isVerified reports whether a person has verified an account.
func (a authority) isVerified(account string) bool {
	a.c.peopleMu.RLock()
	defer a.c.peopleMu.RUnlock()
	_, ok := a.c.people[account]
	return ok
}

// withTrust fills in Trusted, which is never stored: it reflects the current state.
func (a authority) withTrust(e Event) Event {
	for _, m := range []*Member{&e.From, &e.By} {
		if m.Account != "" {
			m.Trusted = a.isTrusted(*m)
		}
	}
	for _, list := range [][]Member{e.Members, e.Gone} {
		for i := range list {
			list[i].Trusted = a.isTrusted(list[i])
		}
	}
	return e
}

// Trust returns the information about an account, whether or not it was seen.
func (c *Client) Trust(ctx context.Context, account string) (Trust, error) {
	out := Trust{Account: account}
	devices, err := c.Devices(ctx, account)
	if err != nil {
		return out, err
	}
	c.peopleMu.RLock()
	t, ok := c.people[account]
	c.peopleMu.RUnlock()
	out.Verified, out.Since, out.Devices = ok, t.since, devices
	for _, d := range devices {
		if ok && !d.Trusted {
			out.Unpinned = append(out.Unpinned, d)
		}
	}
	return out, nil
}
