package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Contact is an account with the names that people have for it.
type Contact struct {
	// Account is its DID.
	Account string
	// Name is the name that the account has given itself: a claim, which nothing proves.
	Name string
	// Alias is the name that this account has given it (Contacts.SetAlias).
	Alias string
	// Trusted reports that a person has verified the account (Client.Verify).
	Trusted bool
	// Resembles is another known account whose name looks like that of this one; "" if there is
	// none. The name alone then does not tell the two apart.
	Resembles string
}

// Label returns the name to show: the alias, or else the name that the account has given itself;
// "" if it has neither.
func (c Contact) Label() string { return cmp.Or(c.Alias, c.Name) }

// The bounds of the names in a home.
const (
	// namesMax bounds the accounts whose own names are kept; further ones have none.
	namesMax = 1 << 16
	// aliasesMax bounds the accounts that have an alias.
	aliasesMax = 4096
)

// ErrAliasTaken reports an alias that looks like the one of another account.
var ErrAliasTaken = errors.New("alias is in use")

// named is a name and the time at which it was given, in Unix milliseconds by the clock of the
// device that did. Of two the later one holds, so that all devices come to the same.
type named struct {
	Text string `json:"text,omitempty"`
	At   int64  `json:"at"`
}

// namedAtMax is the last time that a name can have.
const namedAtMax = 1 << 53

func (n named) isNewer(than named) bool {
	return n.At > 0 && n.At < namedAtMax && cmp.Or(cmp.Compare(n.At, than.At), cmp.Compare(n.Text, than.Text)) > 0
}

// after returns text as the name that follows n.
func (n named) after(text string, now time.Time) named {
	return named{text, max(now.UnixMilli(), n.At+1)}
}

// addressBook holds the names in memory. It changes once a transaction is committed.
type addressBook struct {
	self string

	mu      sync.RWMutex
	names   map[string]names           // by account; guarded by mu
	alike   map[string]map[string]bool // accounts by the skeletons of their names and aliases; guarded by mu
	aliases int                        // guarded by mu
	own     named                      // of the own account; guarded by mu
}

// names holds the names of one account, and their skeletons.
type names struct{ name, alias, nameSkeleton, aliasSkeleton string }

func newAddressBook(self string) *addressBook {
	return &addressBook{self: self, names: map[string]names{}, alike: map[string]map[string]bool{}}
}

// set updates the names of an account.
func (b *addressBook) set(known knownAccount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, now := b.names[known.Account], names{name: known.Name.Text, alias: known.Alias.Text}
	now.nameSkeleton, now.aliasSkeleton = skeleton(now.name), skeleton(now.alias)
	for _, key := range []string{before.nameSkeleton, before.aliasSkeleton} {
		if delete(b.alike[key], known.Account); len(b.alike[key]) == 0 {
			delete(b.alike, key)
		}
	}
	for _, key := range []string{now.nameSkeleton, now.aliasSkeleton} {
		if b.alike[key] == nil && key != "" {
			b.alike[key] = map[string]bool{}
		}
		if key != "" {
			b.alike[key][known.Account] = true
		}
	}
	if b.names[known.Account] = now; now == (names{}) {
		delete(b.names, known.Account)
	}
	b.aliases += min(len(now.alias), 1) - min(len(before.alias), 1)
	if known.Account == b.self {
		b.own = known.Name
	}
}

func (b *addressBook) get(account string) names {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.names[account]
}

// counts returns how many accounts have a name or an alias, and how many an alias.
func (b *addressBook) counts() (all, aliases int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.names), b.aliases
}

// ownName returns the name that the own account has given itself; At is 0 if it never has.
func (b *addressBook) ownName() named {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.own
}

// resembling returns an account other than the given one with a name or an alias of that skeleton;
// "" for none. With onlyAliases names do not count.
func (b *addressBook) resembling(account, skeleton string, onlyAliases bool) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := ""
	for other := range b.alike[skeleton] {
		if other != account && (!onlyAliases || b.names[other].aliasSkeleton == skeleton) && (out == "" || other < out) {
			out = other
		}
	}
	return out
}

// skeletonOfMe is that of a name which would be taken for the own account's.
var skeletonOfMe = skeleton("me")

// Contacts gives access to the names of accounts. Names are known of the accounts that this home
// has met in a group.
type Contacts struct{ c *Client }

// Contacts returns the names that this home knows.
func (c *Client) Contacts() Contacts { return Contacts{c} }

// Get returns the names of an account, from memory; those of an unknown one are empty.
func (p Contacts) Get(account string) Contact {
	n := p.c.book.get(account)
	out := Contact{Account: account, Name: n.name, Alias: n.alias, Trusted: p.c.authority.isVerified(account)}
	switch self := p.c.account.DID(); {
	case account == self || n == (names{}):
	case n.alias == "" && n.nameSkeleton == skeletonOfMe:
		out.Resembles = self
	default:
		out.Resembles = p.c.book.resembling(account, cmp.Or(n.aliasSkeleton, n.nameSkeleton), n.alias != "")
	}
	return out
}

// List returns the accounts that have a name or an alias, by their labels.
func (p Contacts) List() []Contact {
	p.c.book.mu.RLock()
	var accounts []string
	for account := range p.c.book.names {
		accounts = append(accounts, account)
	}
	p.c.book.mu.RUnlock()
	out := make([]Contact, 0, len(accounts))
	for _, account := range accounts {
		out = append(out, p.Get(account))
	}
	slices.SortFunc(out, func(a, b Contact) int {
		return cmp.Or(cmp.Compare(a.Label(), b.Label()), cmp.Compare(a.Account, b.Account))
	})
	return out
}

// SetName sets the name of the own account, "" for none. It is sent, encrypted, to every
// conversation that this device is in, and later to accounts and devices that join one: at once
// where there are few members, else before the next message of this device. Other devices of the
// account adopt it. The error wraps ErrName if text cannot be a name.
func (p Contacts) SetName(ctx context.Context, text string) error {
	name, err := checkName(text)
	if err != nil {
		return err
	}
	return p.c.db.update(ctx, func(tx *tx) error {
		known, err := tx.known(p.c.account.DID())
		if err != nil || known.Name.Text == name {
			return err
		}
		known.Name = known.Name.after(name, p.c.now())
		if err := p.c.keeper.saveNames(tx, known); err != nil {
			return err
		}
		for _, seen := range tx.conversations() {
			if seen.phase != Removed {
				tx.conversation(seen.id).introduce(introduceNow)
				tx.wake(seen.id)
			}
		}
		return nil
	})
}

// SetAlias names another account, "" for its own name again. The alias is shown in place of the
// name that the account has given itself. Only devices of this account learn it. The error wraps
// ErrName if alias cannot be one, ErrAliasTaken if it looks like the alias of another account, and
// ErrAccount if account is not a DID or is the own one.
func (p Contacts) SetAlias(ctx context.Context, account, alias string) error {
	if err := checkAccount(account); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	if account == p.c.account.DID() {
		return fmt.Errorf("set alias: %w: own account, use SetName", ErrAccount)
	}
	alias, err := checkName(alias)
	if err != nil {
		return err
	}
	return p.c.db.update(ctx, func(tx *tx) error {
		known, err := tx.known(account)
		if err != nil || known.Alias.Text == alias {
			return err
		}
		if alias != "" {
			if other := p.c.book.resembling(account, skeleton(alias), true); other != "" {
				return fmt.Errorf("%w: %s is called %q", ErrAliasTaken, other, p.c.book.get(other).alias)
			}
			if _, count := p.c.book.counts(); count >= aliasesMax && known.Alias.Text == "" {
				return fmt.Errorf("%w: there are %d already", ErrAliasTaken, aliasesMax)
			}
		}
		known.Alias = known.Alias.after(alias, p.c.now())
		if known.AliasChange, err = tx.Counters.Next("alias"); err != nil {
			return err
		}
		if err := p.c.keeper.saveNames(tx, known); err != nil {
			return err
		}
		for _, room := range p.c.keeper.ownRooms(tx) {
			room.introduce(introduceNow)
			tx.wake(room.id)
		}
		return p.c.keeper.makeOwnRoom(tx)
	})
}

// saveNames writes an account with another name or alias.
func (k keeper) saveNames(tx *tx, known knownAccount) error {
	tx.after = append(tx.after, func() { k.c.book.set(known) })
	return tx.saveKnown(known)
}

// profile is the payload of contentProfile.
type profile struct {
	Name string `json:"name"`
	At   int64  `json:"at"`
}

// applyProfile applies the name that an account has given itself.
func (k keeper) applyProfile(tx *tx, conv *conversation, e Event, payload []byte) error {
	var p profile
	isSelf := e.From.Account == k.c.account.DID()
	if e.Own || isSelf && !e.From.Verified || json.Unmarshal(payload, &p) != nil {
		return nil
	}
	if isSelf && p.At >= k.c.book.ownName().At && conv.info.Introduce == introduceLater {
		conv.editInfo().Introduce = 0 // another device of the account has done it
	}
	return k.learnName(tx, e, p)
}

// learnName keeps and reports the name of an account, if it is newer than the one that is known.
func (k keeper) learnName(tx *tx, e Event, p profile) error {
	known, err := tx.known(e.From.Account)
	if err != nil {
		return err
	}
	before, now := known.Name, named{At: p.At}
	now.Text, _ = cleanName(p.Name)
	if all, _ := k.c.book.counts(); !now.isNewer(before) || all >= namesMax && before.Text == "" && known.Account != k.c.account.DID() {
		return nil
	}
	known.Name = now
	if err := k.saveNames(tx, known); err != nil || now.Text == before.Text {
		return err
	}
	e.Type, e.Name = EventName, now.Text
	return tx.report(e)
}
