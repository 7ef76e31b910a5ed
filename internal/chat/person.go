package chat

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"waxwing.im/waxwing/client"
)

// nameEndMin is the least number of characters at the end of a DID that name a person.
const nameEndMin = 4

// person returns the DID that a word names: itself, or the one known account that ends so.
func (t *Terminal) person(ctx context.Context, word string) (string, error) {
	if strings.HasPrefix(word, "did:") {
		return word, nil
	}
	end := strings.TrimPrefix(word, "…")
	var found []string
	if len(end) >= nameEndMin {
		all, err := t.client.Conversations(ctx)
		if err != nil {
			return "", err
		}
		for _, account := range accountsOf(all) {
			if strings.HasSuffix(account, end) {
				found = append(found, account)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", mistake("%q is not a known account: want a DID, as printed by waxwing did", word)
	case 1:
		return found[0], nil
	}
	return "", mistake("%q is the end of several known DIDs: give more of it", word)
}

func (t *Terminal) persons(ctx context.Context, words []string) ([]string, error) {
	var out []string
	for _, word := range words {
		did, err := t.person(ctx, word)
		if err != nil {
			return nil, err
		}
		out = append(out, did)
	}
	return out, nil
}

// accountsOf returns all accounts of some conversations, once each.
func accountsOf(all []client.Conversation) []string {
	var out []string
	add := func(account string) {
		if account != "" && !slices.Contains(out, account) {
			out = append(out, account)
		}
	}
	for _, c := range all {
		add(c.Peer)
		for _, m := range c.Members {
			add(m.Account)
		}
		for _, account := range c.Inviting {
			add(account)
		}
	}
	return out
}

// The marks after names. Every name has one, except our own.
const (
	markVerified   = " ✓"
	markUnverified = " (unverified)"
	markDevice     = " (unverified device)"
)

// nameOf returns the name of a member with a mark for how certain it is.
func (t *Terminal) nameOf(m client.Member) string {
	switch {
	case m.Account == t.self:
		return "me"
	case m.Trusted:
		return short(m.Account) + markVerified
	case !m.Verified:
		return short(m.Account) + markDevice
	}
	return short(m.Account) + markUnverified
}

// accountMark returns the mark of an account in a conversation: that of its least certain
// device there.
func (t *Terminal) accountMark(c client.Conversation, account string) string {
	mark := markUnverified
	for _, m := range c.Members {
		if m.Account != account {
			continue
		}
		if !m.Trusted {
			return strings.TrimPrefix(t.nameOf(m), short(account))
		}
		mark = markVerified
	}
	return mark
}

func shorts(accounts []string) string {
	var out []string
	for _, a := range accounts {
		out = append(out, short(a))
	}
	return strings.Join(out, ", ")
}

// short returns the end of a DID, which differs between accounts where the beginning does
// not.
func short(did string) string {
	if len(did) <= nameShown {
		return printable(did)
	}
	return "…" + printable(did[len(did)-nameShown:])
}

// nameShown is the number of characters shown of a name or an identifier.
const nameShown = 8

// memberLines lists the accounts of a conversation, each with its devices.
func (t *Terminal) memberLines(c client.Conversation) []string {
	var accounts, out []string
	for _, m := range c.Members {
		if !slices.Contains(accounts, m.Account) {
			accounts = append(accounts, m.Account)
		}
	}
	for _, account := range accounts {
		line := account
		if account == t.self {
			line += " (me)"
			if c.Role != "" {
				line += ", " + c.Role
			}
		} else {
			line += t.accountMark(c, account)
		}
		out = append(out, line)
		for _, m := range c.Members {
			if m.Account == account {
				out = append(out, "    "+deviceName(m)+"  "+m.Fingerprint)
			}
		}
	}
	for _, account := range c.Inviting {
		out = append(out, account+markUnverified+", to be invited")
	}
	for _, account := range c.Removing {
		out = append(out, account+", to be removed")
	}
	return append(out, cmp.Or(phaseNote(c), "all is well"))
}

func deviceName(m client.Member) string {
	switch {
	case m.Device == "":
		return "a device without a name, unverified"
	case !m.Verified:
		return m.Device + ", unverified"
	}
	return m.Device
}
