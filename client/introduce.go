package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/mls"
)

// An account introduces itself to a conversation by a content with its name. A conversation
// records that this is due (conversationInfo.Introduce), so it is done after a crash too, and
// many changes of a name or of members while the client is offline end in one content.
const (
	// introduceLater: members have joined since. The name is sent before the next message, or by
	// itself where there are few members.
	introduceLater = 1
	// introduceNow: the name is new.
	introduceNow = 2
)

// introduceAccountsMax is the number of accounts up to which members send their names to a
// newcomer by themselves. In larger rooms each would cause as many messages as it has members.
const introduceAccountsMax = 16

// introduceWithin bounds the random wait before that, in which further newcomers may come, or
// another device of the account may send it.
const introduceWithin = 2 * time.Second

// introduce records that the account has to introduce itself.
func (c *conversation) introduce(when int) {
	if c.info.Introduce < when {
		c.editInfo().Introduce = when
	}
}

// met records that others have joined the group, or this account.
func (k keeper) met(conv *conversation) {
	switch {
	case k.isOwnRoom(conv.id):
		conv.introduce(introduceNow)
		conv.editInfo().AliasesThrough = 0
	case k.c.book.ownName().At > 0:
		conv.introduce(introduceLater)
	}
}

// hasOtherDevice reports whether another device of the account is in the group.
func (k keeper) hasOtherDevice(g *mls.Group) bool {
	return slices.ContainsFunc(g.Members(), func(l mls.Leaf) bool {
		return string(l.Credential) == k.c.account.DID() && !bytes.Equal(l.SignatureKey, k.c.identity.Key.Public())
	})
}

// groupSize counts the accounts in a group, up to a bound, and reports whether there is another
// device than the own one.
func groupSize(g *mls.Group, bound int) (accounts int, isAlone bool) {
	seen := map[string]bool{}
	members := g.Members()
	for _, leaf := range members {
		if seen[string(leaf.Credential)] = true; len(seen) > bound {
			break
		}
	}
	return len(seen), len(members) == 1
}

// advanceIntroduction sends the account's name to a conversation where that is due.
func (s *session) advanceIntroduction(ctx context.Context, conv *conversation, sub *subscription) error {
	if conv.info.Introduce == 0 || conv.phase != Joined {
		sub.introduce.ok()
		return nil
	}
	accounts, isAlone := groupSize(conv.group, introduceAccountsMax)
	if isAlone {
		return nil
	}
	if conv.info.Introduce == introduceLater {
		if accounts > introduceAccountsMax {
			return nil
		}
		if sub.introduce.at.IsZero() && sub.introduce.failed == 0 {
			sub.introduce = retry{failed: 1, at: time.Now().Add(mathrand.N(introduceWithin))}
		}
		if !sub.introduce.isReady() {
			return nil
		}
	}
	sub.introduce.ok()
	return s.c.db.edit(ctx, conv.id, func(tx *tx, conv *conversation) error {
		err := s.c.keeper.introduceSelf(tx, conv)
		if conv.info.Introduce != 0 { // the outbox is full
			sub.introduce.later(nil)
		}
		return err
	})
}

// mustIntroduce reports whether a new name is to be sent to others.
func (c *conversation) mustIntroduce() bool {
	if c.info.Introduce != introduceNow || c.phase != Joined {
		return false
	}
	_, isAlone := groupSize(c.group, 0)
	return !isAlone
}

// introduceSelf puts the account's name into the outbox, if it is due, and into a room of its own
// devices the aliases that have changed.
func (k keeper) introduceSelf(tx *tx, conv *conversation) error {
	if conv.info.Introduce == 0 {
		return nil
	}
	if conv.phase == Joined {
		if _, isAlone := groupSize(conv.group, 0); isAlone {
			return nil
		}
	}
	own := k.c.book.ownName()
	var err error
	switch {
	case k.isOwnRoom(conv.id):
		err = k.sendContacts(tx, conv, profile{own.Text, own.At})
	case own.At > 0:
		err = k.addContent(tx, conv, contentProfile, profile{own.Text, own.At})
	}
	if errors.Is(err, ErrOutboxFull) {
		return nil // it stays due
	}
	if err == nil {
		conv.editInfo().Introduce = 0
	}
	return err
}

// contacts is the payload of contentContacts: the own account's name and some aliases.
type contacts struct {
	profile
	Aliases []aliased `json:"aliases,omitempty"`
}

// aliased is the alias of an account, "" for none any more.
type aliased struct {
	Account string `json:"account"`
	Alias   string `json:"alias"`
	At      int64  `json:"at"`
}

// sendContacts puts the own name and the aliases that have changed since the last time into the
// outbox.
func (k keeper) sendContacts(tx *tx, conv *conversation, own profile) error {
	var changes []knownAccount
	if err := tx.People.Each(func(read func(any) error) error {
		var known knownAccount
		err := read(&known)
		if known.AliasChange > conv.info.AliasesThrough {
			changes = append(changes, known)
		}
		return err
	}); err != nil {
		return err
	}
	slices.SortFunc(changes, func(a, b knownAccount) int { return cmp.Compare(a.AliasChange, b.AliasChange) })
	out, size := contacts{profile: own}, 0
	for _, known := range changes {
		a := aliased{known.Account, known.Alias.Text, known.Alias.At}
		raw, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode alias: %w", err)
		}
		if size += len(raw); size > aliasBytesMax {
			if err := k.addContent(tx, conv, contentContacts, out); err != nil {
				return err
			}
			out.Aliases, size = nil, len(raw)
		}
		out.Aliases = append(out.Aliases, a)
		conv.editInfo().AliasesThrough = known.AliasChange
	}
	return k.addContent(tx, conv, contentContacts, out)
}

// aliasBytesMax bounds the aliases of one content; the rest is in the next.
const aliasBytesMax = contentBytesMax / 2

// applyContacts applies the name and aliases that another device of the account has sent. Its
// certificate has to show that it is one.
func (k keeper) applyContacts(tx *tx, conv *conversation, e Event, payload []byte) error {
	var p contacts
	if e.Own || !k.isOwnRoom(conv.id) || e.From.Account != k.c.account.DID() || !e.From.Verified || json.Unmarshal(payload, &p) != nil {
		return nil
	}
	if err := k.learnName(tx, e, p.profile); err != nil {
		return err
	}
	_, count := k.c.book.counts()
	for _, a := range p.Aliases {
		known, err := tx.known(a.Account)
		if err != nil {
			return err
		}
		before, now := known.Alias, named{At: a.At}
		now.Text, _ = cleanName(a.Alias)
		if !now.isNewer(before) || checkAccount(a.Account) != nil || a.Account == k.c.account.DID() {
			continue
		}
		if before.Text == "" && now.Text != "" {
			if count++; count > aliasesMax {
				return nil
			}
		}
		known.Alias = now
		if known.AliasChange, err = tx.Counters.Next("alias"); err != nil {
			return err
		}
		if err := k.saveNames(tx, known); err != nil {
			return err
		}
		if err := tx.report(Event{Type: EventName, Time: e.Time, From: Member{Account: a.Account}, Name: now.Text}); err != nil {
			return err
		}
	}
	return nil
}

// ownRooms returns the rooms of the account's own devices: one, or several if devices have made
// them at the same time, which does no harm.
func (k keeper) ownRooms(tx *tx) (out []*conversation) {
	isOurs := func(conv *conversation) bool { return conv.phase != Removed && k.isOwnRoom(conv.id) }
	for _, seen := range tx.conversations() {
		if isOurs(seen) {
			out = append(out, tx.conversation(seen.id))
		}
	}
	for _, conv := range tx.changed {
		if conv.isNew && isOurs(conv) {
			out = append(out, conv)
		}
	}
	return out
}

// makeOwnRoom makes the room of the account's own devices, once there are an alias and another
// device.
func (k keeper) makeOwnRoom(tx *tx) error {
	if len(k.ownRooms(tx)) > 0 {
		return nil
	}
	self, err := tx.known(k.c.account.DID())
	if err != nil || !slices.ContainsFunc(self.Devices, func(d KnownDevice) bool {
		return d.Device != k.c.options.DeviceID && !k.c.authority.isLost(d.Device)
	}) {
		return err
	}
	id := newOwnRoomID(k.c.account.DID())
	tx.addConversation(id, Creating, conversationInfo{Kind: Room, Introduce: introduceNow,
		Wanted: []wanted{{Account: k.c.account.DID(), Own: true}}}, k.c.now())
	tx.wake(id)
	return nil
}

// ownRoomHalf is the number of hex digits of an own room's ID that are random; the others derive
// from them and the account.
const ownRoomHalf = groupIDBytes

// newOwnRoomID returns an ID for a room of an account's own devices. Its devices recognize it, and
// others cannot take it beforehand.
func newOwnRoomID(account string) string {
	random := make([]byte, ownRoomHalf/2)
	rand.Read(random)
	return ownRoomID(account, hex.EncodeToString(random))
}

func ownRoomID(account, random string) string {
	sum := sha256.Sum256([]byte("waxwing own devices v1\x00" + account + "\x00" + random))
	return random + hex.EncodeToString(sum[:])[:ownRoomHalf]
}

// isOwnRoom reports whether a conversation is a room of this account's own devices. It is not
// listed.
func (k keeper) isOwnRoom(id string) bool { return isOwnRoom(k.c.account.DID(), id) }

func isOwnRoom(account, id string) bool {
	return len(id) == 2*ownRoomHalf && strings.HasSuffix(id, ownRoomID(account, id[:ownRoomHalf])[ownRoomHalf:])
}
