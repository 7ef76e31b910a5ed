package chat

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"waxwing.im/waxwing/client"
)

// people finds and names persons.
type people struct {
	sdk     *client.Client
	self    string // the DID of the account
	contact func(account string) client.Contact
}

// nameEndMin is the least number of characters of a DID that name a person.
const nameEndMin = 4

// person returns the DID that a word names: itself, an alias, a name, or a part of one that is
// known. An alias comes first, since others choose their names.
func (p people) person(ctx context.Context, word string) (string, error) {
	if strings.HasPrefix(word, "did:") {
		return word, nil
	}
	found, err := p.candidates(ctx, word)
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", mistake("%q is not a known person: want a DID, as printed by waxwing did, or the name of one who is known", word)
	case len(found) > 1:
		return "", mistake("%q may be %s: give the DID, or what is shown of it", word, p.either(found))
	}
	return found[0], nil
}

// candidatesShown is the number of accounts that an ambiguous name lists.
const candidatesShown = 5

// either lists accounts for a choice.
func (p people) either(accounts []string) string {
	var out []string
	for _, account := range accounts[:min(len(accounts), candidatesShown)] {
		out = append(out, fmt.Sprintf("%s (%s)", p.called(account), short(account)))
	}
	if more := len(accounts) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("%d others", more))
	}
	return strings.Join(out, " or ")
}

// candidates returns the accounts that a word may mean.
func (p people) candidates(ctx context.Context, word string) ([]string, error) {
	claimed, onlyClaimed := strings.CutPrefix(word, markClaimed)
	var found, all []string
	for _, c := range p.sdk.Contacts().List() {
		all = append(all, c.Account)
		if c.Alias != "" && strings.EqualFold(c.Alias, word) {
			return []string{c.Account}, nil
		}
		if c.Name != "" && strings.EqualFold(shownName(c.Name), claimed) {
			found = append(found, c.Account)
		}
	}
	if onlyClaimed {
		return found, nil
	}
	list, err := p.sdk.Conversations(ctx)
	if err != nil {
		return nil, err
	}
	for _, account := range append(accountsOf(list), all...) {
		if isPartOf(word, account) && !slices.Contains(found, account) {
			found = append(found, account)
		}
	}
	slices.Sort(found)
	return found, nil
}

// isPartOf reports whether a word is the short form of a DID, or its end.
func isPartOf(word, did string) bool {
	begin, end, isShort := strings.Cut(strings.ReplaceAll(word, "...", "…"), "…")
	if !isShort {
		begin, end = "", word
	}
	return len(begin)+len(end) >= nameEndMin && strings.HasSuffix(did, end) &&
		(begin == "" || strings.HasPrefix(specific(did), begin))
}

// nameWordsMax is the number of words that a name can have.
const nameWordsMax = 32

// leadingPerson returns the person that the first words name, as many of them as make a name, and
// the words behind it; at least keep of them.
func (p people) leadingPerson(ctx context.Context, words []string, keep int) (did string, rest []string, err error) {
	var known []client.Contact
	if len(words) > keep+1 && !strings.HasPrefix(words[0], "did:") {
		known = p.sdk.Contacts().List()
	}
	for n := min(len(words)-keep, nameWordsMax); n > 1 && len(known) > 0; n-- {
		name := strings.Join(words[:n], " ")
		if slices.ContainsFunc(known, func(c client.Contact) bool {
			return strings.EqualFold(c.Alias, name) || strings.EqualFold(shownName(c.Name), strings.TrimPrefix(name, markClaimed))
		}) {
			did, err = p.person(ctx, name)
			return did, words[n:], err
		}
	}
	did, err = p.person(ctx, words[0])
	return did, words[1:], err
}

func (p people) persons(ctx context.Context, words []string) ([]string, error) {
	var out []string
	for len(words) > 0 {
		did, rest, err := p.leadingPerson(ctx, words, 0)
		if err != nil {
			return nil, err
		}
		out, words = append(out, did), rest
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

// The marks at names. Every name has one behind it, except our own.
const (
	markVerified   = " ✓"
	markUnverified = " ?"
	markDevice     = " ??"
	markClaimed    = "~" // before a name that the person has chosen
	markAlike      = " ≈"
)

// marksHelp explains the marks.
var marksHelp = []string{
	"✓   you have compared safety numbers with this person (/verify)",
	"?   you have not: it may be someone else",
	"??  nor has the account confirmed this device: the server may have made it",
	"~   before a name: the person has chosen it, you have not (/alias)",
	"≈   the name looks like that of another person; the DID follows",
}

// nameOf returns the name of a member with a mark for how certain it is.
func (p people) nameOf(m client.Member) string { return p.called(m.Account) + p.markOf(m) }

func (p people) markOf(m client.Member) string {
	switch {
	case m.Account == p.self:
		return ""
	case m.Trusted:
		return markVerified
	case !m.Verified:
		return markDevice
	}
	return markUnverified
}

// accountMark returns the mark of an account in a conversation: that of its least certain
// device there.
func (p people) accountMark(c client.Conversation, account string) string {
	mark := markUnverified
	for _, m := range c.Members {
		if m.Account != account {
			continue
		}
		if !m.Trusted {
			return p.markOf(m)
		}
		mark = markVerified
	}
	return mark
}

// called returns the name of an account: its alias, else the name that it has chosen, else its
// short DID. The latter follows a name that looks like another one.
func (p people) called(account string) string {
	if account == p.self {
		return "me"
	}
	c := p.contact(account)
	name := printable(c.Alias)
	if name == "" && shownName(c.Name) != "" {
		name = markClaimed + shownName(c.Name)
	}
	switch {
	case name == "":
		return short(account)
	case c.Resembles != "":
		return name + markAlike + short(account)
	}
	return name
}

// labelOf returns the alias of an account, or else the name that it has chosen, for programs; "" for
// neither.
func (p people) labelOf(account string) string { return p.contact(account).Label() }

// shownName returns a name that a person has chosen, without what looks like our marks.
func shownName(name string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if strings.ContainsRune("✓✔☑✅🗸√≈~", r) {
			return -1
		}
		return r
	}, printable(name)))
}

func (p people) allCalled(accounts []string) string {
	var out []string
	for _, a := range accounts {
		out = append(out, p.called(a))
	}
	return strings.Join(out, ", ")
}

// The parts that are shown of a DID, and of other identifiers.
const (
	shortBegin = 8
	shortEnd   = 6
	nameShown  = 8
)

// specific returns a DID without what all DIDs or all keys begin with.
func specific(did string) string { return strings.TrimPrefix(strings.TrimPrefix(did, "did:"), "key:") }

// short returns the form in which a DID is shown everywhere, and which commands accept for it: of
// a long one the beginning and the end.
func short(did string) string {
	did = specific(did)
	if len(did) <= shortBegin+shortEnd+3 {
		return printable(did)
	}
	return printable(did[:shortBegin]) + "…" + printable(did[len(did)-shortEnd:])
}

// colourOf returns the colour of an account: one of those that terminals have by name, and which
// their owners make readable.
func colourOf(account string) string {
	colours := []int{31, 32, 33, 34, 35, 36, 91, 92, 94, 95, 96}
	sum := fnv.New32a()
	sum.Write([]byte(account))
	return fmt.Sprintf("\x1b[%dm", colours[sum.Sum32()%uint32(len(colours))])
}

// memberLines lists the accounts of a conversation, each with its DID and its devices.
func (p people) memberLines(c client.Conversation) []string {
	var out []string
	for _, account := range accountsOf([]client.Conversation{{Members: c.Members}}) {
		line := p.called(account) + p.accountMark(c, account)
		if account == p.self {
			line = p.myself()
		} else if of := p.contact(account); of.Alias != "" && shownName(of.Name) != "" {
			line += ", who goes by " + markClaimed + shownName(of.Name)
		}
		out = append(out, line+roleMark(c, account), account)
		for _, m := range c.Members {
			if m.Account == account {
				out = append(out, "    "+deviceName(m)+"  "+m.Fingerprint)
			}
		}
	}
	for _, account := range c.Inviting {
		out = append(out, p.called(account)+markUnverified+", to be invited", account)
	}
	for _, account := range c.Removing {
		out = append(out, p.called(account)+", to be removed")
	}
	out = append(out, "", cmp.Or(p.phaseNote(c), "all is well"), "")
	return append(out, marksHelp...)
}

// myself names the own account.
func (p people) myself() string {
	if name := p.contact(p.self).Name; name != "" {
		return "me (" + printable(name) + ")"
	}
	return "me"
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
