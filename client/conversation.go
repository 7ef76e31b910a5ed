package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// Kind says what sort of conversation one is.
type Kind string

// The kinds of conversations.
const (
	DM   Kind = "dm"   // two accounts, one identifier for the pair
	Room Kind = "room" // any number of accounts
)

// Phase is how far a conversation has come on this device.
type Phase int

// The phases. A conversation moves downwards, or from Waiting or Joining to Joined;
// Removed becomes Joined again with a new invitation.
const (
	// Creating: it exists here only and is still to be made on the server.
	Creating Phase = 1
	// Waiting: somebody else makes the group, and this device waits for its Welcome.
	Waiting Phase = 2
	// Founding: the group is ours and its first commit is not accepted yet.
	Founding Phase = 3
	// Joined: messages flow.
	Joined Phase = 4
	// Removed: this device or account is no longer in the conversation.
	Removed Phase = 5
	// Joining: this device enters the group by itself, by an external commit: its
	// account is in the group with another device, or this device's own state is lost.
	Joining Phase = 6
	// Leaving: the server is to be told that this account leaves.
	Leaving Phase = 7
)

// String is the phase as a word, such as "joined".
func (p Phase) String() string {
	switch p {
	case Creating:
		return "creating"
	case Waiting:
		return "waiting"
	case Founding:
		return "founding"
	case Joined:
		return "joined"
	case Removed:
		return "removed"
	case Joining:
		return "joining"
	case Leaving:
		return "leaving"
	}
	return "unknown"
}

// Conversation is a conversation as this device sees it.
type Conversation struct {
	ID    string
	Kind  Kind
	Phase Phase
	// Peer is the other account of a DM; "" for rooms.
	Peer string
	// Members are the devices in the MLS group, in order of their leaves: those who
	// can read. It is empty while there is no group.
	Members []Member
	// Inviting are accounts that are to be added and are not in the group yet.
	Inviting []string
	// Removing are accounts that are to be taken out of the group and are still in it:
	// by Remove here, or because they are no longer members on the server.
	Removing []string
	// Role is this account's in the conversation as the server last said it: "owner",
	// "admin" or "member"; "" if it has not yet.
	Role string
	// Epoch is the MLS epoch.
	Epoch uint64
	// NextSeq is the number of the first message that this device has not taken in.
	NextSeq int64
	// LastTime is that of the last message (Event.Time), or of the conversation's
	// beginning here if there is none.
	LastTime time.Time
	// Unread counts the messages of others behind ReadSeq, up to which this device has
	// read (MarkRead).
	Unread  int
	ReadSeq int64
	// Problem says, for people, what keeps the conversation from going on; "" if nothing does.
	Problem string
	// GaveUp: nobody has made a group for it in a day, and it is not asked for any more.
	// An invitation still brings this device in; Retry asks again.
	GaveUp bool
}

// conversationInfo is what of a conversation is sealed but is no MLS state.
type conversationInfo struct {
	Kind    Kind     `json:"kind"`
	Peer    string   `json:"peer,omitempty"`
	Wanted  []wanted `json:"wanted,omitempty"`
	Problem string   `json:"problem,omitempty"`

	Role     string     `json:"role,omitempty"`
	Unwanted []string   `json:"unwanted,omitempty"` // accounts to take out, of the conversation too
	Missing  []string   `json:"missing,omitempty"`  // accounts in the group that the server has no longer
	Leave    *departure `json:"leave,omitempty"`    // this account is to leave
	Rejoin   string     `json:"rejoin,omitempty"`   // why the group is to be entered anew; "" if it is not
	Forced   bool       `json:"forced,omitempty"`   // into whatever epoch, an earlier one too
	Asked    bool       `json:"asked,omitempty"`    // Rejoin was called for
	Refresh  bool       `json:"refresh,omitempty"`  // fresh keys are to be committed
	// RefreshAfter is the pending commit that was there when they were asked for: its keys
	// are older.
	RefreshAfter string  `json:"refresh_after,omitempty"`
	Waiting      waiting `json:"waiting,omitzero"` // how the group was asked for
	// What was not read when the group was entered anew: SkipFrom up to before SkipTo.
	SkipFrom int64 `json:"skip_from,omitempty"`
	SkipTo   int64 `json:"skip_to,omitempty"`
	// Rewound: the log was set back, and what is ours in it is to be sent again. Back is
	// how far the next step goes back if the log is still not as it was.
	// Unsure: nothing is taken in before the event at the new end was seen to be as it was.
	Rewound bool  `json:"rewound,omitempty"`
	Unsure  bool  `json:"unsure,omitempty"`
	Back    int64 `json:"back,omitempty"`
}

// departure is an account's wish to leave a conversation.
type departure struct {
	NewOwner string `json:"new_owner,omitempty"`
}

// wanted is an account that is to be added to the group.
type wanted struct {
	Account string `json:"account"`
	// Add: the account is no member on the server yet and becomes one with the commit.
	Add bool `json:"add,omitempty"`
	// Own: the account is ours, and only its other devices are to be added: the one
	// called Device, or "" for all. If there are none this is done with.
	Own    bool   `json:"own,omitempty"`
	Device string `json:"device,omitempty"`
	// Packages are what was fetched for it, one per device. A lost race keeps them:
	// the Welcome that used them was never delivered.
	Packages []fetchedPackage `json:"packages,omitempty"`
	// Refused is how often in a row none of them could be used, and NotBefore the time,
	// in Unix milliseconds, before which no others are fetched.
	Refused   int   `json:"refused,omitempty"`
	NotBefore int64 `json:"not_before,omitempty"`
}

func (w wanted) isSame(other wanted) bool {
	return w.Account == other.Account && w.Own == other.Own && w.Device == other.Device
}

// conversation is one row of conversations with its parts opened. What stands in
// the cache is never changed: transactions work on copies.
type conversation struct {
	id        string
	phase     Phase
	nextSeq   int64
	createdMS int64
	info      conversationInfo
	group     *mls.Group
	pending   *pendingCommit
	before    *mls.Group // the group before the commit that is taken in, within its transaction
	invited   bool       // within it, the group was entered by a Welcome

	isNew   bool
	changed change
}

// change says which columns a working copy must write.
type change uint8

const (
	changedPlace change = 1 << iota // phase, next_seq
	changedInfo
	changedGroup
	changedPending
)

func (c *conversation) setPhase(p Phase) { c.phase, c.changed = p, c.changed|changedPlace }
func (c *conversation) setNextSeq(n int64) {
	c.nextSeq, c.changed = n, c.changed|changedPlace
}
func (c *conversation) setGroup(g *mls.Group) { c.group, c.changed = g, c.changed|changedGroup }
func (c *conversation) setPending(p *pendingCommit) {
	c.pending, c.changed = p, c.changed|changedPending
}

// editInfo gives out info to be changed; its slices are the copy's own.
func (c *conversation) editInfo() *conversationInfo {
	c.changed |= changedInfo
	return &c.info
}

// isLive says whether the conversation's log is read.
func (c *conversation) isLive() bool {
	return c.phase == Founding || c.phase == Joined || c.phase == Joining && c.pending != nil && c.pending.Seq > 0
}

// isOurs says whether the conversation is a room that this device is making: its id is
// random and nobody else can have a group for it yet.
func (c *conversation) isOurs() bool {
	return c.info.Kind == Room && (c.phase == Creating || c.phase == Founding)
}

// epoch is the group's epoch, 0 without a group.
func (c *conversation) epoch() uint64 {
	if c.group == nil {
		return 0
	}
	return c.group.Epoch()
}

func (c *conversation) clone() *conversation {
	out := *c
	out.info.Wanted = slices.Clone(c.info.Wanted)
	out.info.Unwanted, out.info.Missing = slices.Clone(c.info.Unwanted), slices.Clone(c.info.Missing)
	return &out
}

func (c *conversation) settled() *conversation {
	c.isNew, c.changed, c.before, c.invited = false, 0, nil, false
	return c
}

// openConversation makes a conversation of a row.
func (k keeper) openConversation(r *home.Conversation) (*conversation, error) {
	out := &conversation{id: r.ID, phase: Phase(r.Phase), nextSeq: r.NextSeq, createdMS: r.CreatedMS}
	err := json.Unmarshal(r.Info, &out.info)
	if err != nil {
		return nil, fmt.Errorf("open conversation: %w", err)
	}
	if r.Group != nil {
		if out.group, err = mls.LoadGroup(r.Group, k.c.authority.loadOptions()); err != nil {
			return nil, fmt.Errorf("open group: %w", err)
		}
	}
	if r.Pending != nil {
		if out.pending, err = unmarshalPending(r.Pending, k.c.authority.loadOptions()); err != nil {
			return nil, fmt.Errorf("open pending commit: %w", err)
		}
	}
	return out, nil
}

// conversation is a working copy of the conversation, the same one throughout the
// transaction; nil if there is none. What is changed in it is written at the end.
func (t *tx) conversation(id string) (*conversation, error) {
	if c, ok := t.changed[id]; ok {
		return c, nil
	}
	c, ok := t.db.cache[id]
	if !ok {
		row, err := t.Conversations.Get(id)
		if err != nil || row == nil {
			return nil, err
		}
		if c, err = t.db.load(row); err != nil {
			return nil, err
		}
		t.db.cache[id] = c
	}
	c = c.clone()
	t.changed[id] = c
	return c, nil
}

// addConversation makes a new one, to be written at the end of the transaction.
func (t *tx) addConversation(id string, phase Phase, info conversationInfo, now time.Time) *conversation {
	c := &conversation{id: id, phase: phase, nextSeq: 1, createdMS: now.UnixMilli(), info: info,
		isNew: true, changed: changedPlace | changedInfo}
	t.changed[id] = c
	return c
}

// saveConversations writes what the transaction changed in conversations.
func (t *tx) saveConversations() error {
	for _, c := range t.changed {
		if err := t.saveConversation(c); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) saveConversation(c *conversation) error {
	if c.changed == 0 {
		return nil
	}
	switch {
	case c.isNew:
		if err := t.Conversations.Add(c.id, int(c.phase), c.nextSeq, c.createdMS, c.info); err != nil {
			return err
		}
	case c.changed&changedInfo != 0:
		if err := t.Conversations.SetInfo(c.id, c.info); err != nil {
			return err
		}
	}
	if c.changed&changedPlace != 0 && !c.isNew {
		if err := t.Conversations.SetPlace(c.id, int(c.phase), c.nextSeq); err != nil {
			return err
		}
	}
	if c.changed&changedGroup != 0 {
		var plain []byte
		var err error
		if c.group != nil {
			if plain, err = c.group.MarshalBinary(); err != nil {
				return fmt.Errorf("encode group: %w", err)
			}
		}
		if err := t.Conversations.SetGroup(c.id, plain); err != nil {
			return err
		}
	}
	if c.changed&changedPending == 0 {
		return nil
	}
	var plain []byte
	if c.pending != nil {
		var err error
		if plain, err = c.pending.MarshalBinary(); err != nil {
			return fmt.Errorf("encode pending commit: %w", err)
		}
	}
	return t.Conversations.SetPending(c.id, plain)
}

// conversations are all conversations, oldest first. They are the cache's own and
// must not be changed.
func (t *tx) conversations() ([]*conversation, error) {
	if !t.db.all {
		var fresh []*conversation
		isHere := func(id string) bool { return t.db.cache[id] != nil }
		err := t.Conversations.Each(isHere, func(row *home.Conversation) error {
			c, err := t.db.load(row)
			fresh = append(fresh, c)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, c := range fresh {
			t.db.cache[c.id] = c
		}
		t.db.all = true
	}
	out := make([]*conversation, 0, len(t.db.cache))
	for _, c := range t.db.cache {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *conversation) int {
		if a.createdMS != b.createdMS {
			return int(a.createdMS - b.createdMS)
		}
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out, nil
}

// snapshot is the conversation as committed, not to be changed; nil if there is none.
func (c *Client) snapshot(ctx context.Context, id string) (out *conversation, err error) {
	err = c.db.update(ctx, func(tx *tx) error {
		if out, err = tx.conversation(id); out != nil {
			delete(tx.changed, id)
			out = tx.db.cache[id]
		}
		return err
	})
	return out, err
}

// isConversationID says whether a server may call a conversation so: names that begin
// with a zero byte are of this package, for what is no conversation.
func isConversationID(id string) bool { return id != "" && id[0] != 0 }

// existing is the conversation id, which may be changed, or ErrUnknownConversation.
func (t *tx) existing(id string) (*conversation, error) {
	conv, err := t.conversation(id)
	if err == nil && conv == nil {
		err = ErrUnknownConversation
	}
	return conv, err
}

// change is what an application asks of a conversation: change notes it in the home,
// and the session is woken to see to it.
func (c *Client) change(ctx context.Context, id string, change func(tx *tx, conv *conversation) error) error {
	err := c.db.update(ctx, func(tx *tx) error {
		conv, err := tx.existing(id)
		if err != nil {
			return err
		}
		return change(tx, conv)
	})
	if err == nil {
		c.wake(id)
	}
	return err
}

// Conversations are the conversations of this home, the one with the last message first.
func (c *Client) Conversations(ctx context.Context) ([]Conversation, error) {
	var out []Conversation
	err := c.db.update(ctx, func(tx *tx) error {
		all, err := tx.conversations()
		for _, conv := range all {
			described, err := c.describe(tx, conv)
			if err != nil {
				return err
			}
			out = append(out, described)
		}
		return err
	})
	slices.SortStableFunc(out, func(a, b Conversation) int { return b.LastTime.Compare(a.LastTime) })
	return out, err
}

// Conversation is the conversation id, or ErrUnknownConversation.
func (c *Client) Conversation(ctx context.Context, id string) (Conversation, error) {
	var out Conversation
	err := c.db.update(ctx, func(tx *tx) error {
		conv, err := tx.existing(id)
		if err != nil {
			return err
		}
		out, err = c.describe(tx, conv)
		return err
	})
	return out, err
}

func (c *Client) describe(tx *tx, conv *conversation) (Conversation, error) {
	out := Conversation{ID: conv.id, Kind: conv.info.Kind, Phase: conv.phase, Peer: conv.info.Peer,
		Epoch: conv.epoch(), NextSeq: conv.nextSeq, Problem: conv.info.Problem, GaveUp: conv.info.Waiting.GaveUp}
	if conv.group != nil {
		for _, leaf := range conv.group.Members() {
			m := c.authority.memberOf(leaf)
			m.Trusted = c.authority.isTrusted(m)
			out.Members = append(out.Members, m)
		}
	}
	for _, w := range conv.info.Wanted {
		out.Inviting = append(out.Inviting, w.Account)
	}
	out.Role, out.Removing = conv.info.Role, slices.Clone(conv.info.Unwanted)
	for _, account := range conv.info.Missing {
		if !slices.Contains(out.Removing, account) {
			out.Removing = append(out.Removing, account)
		}
	}
	if conv.info.Leave != nil && conv.phase != Removed {
		out.Phase = Leaving
	}
	var err error
	if out.LastTime, err = tx.lastTime(conv.id); err == nil && out.LastTime.IsZero() {
		out.LastTime = time.UnixMilli(conv.createdMS)
	}
	if err == nil {
		out.Unread, out.ReadSeq, err = tx.unread(conv.id)
	}
	return out, err
}

// EpochAuthenticator is a value that all members of the conversation's group have
// in common if and only if they agree on everything up to this epoch (RFC 9420,
// section 8.7), with that epoch. People may compare it; ErrNoGroup before there is one.
func (c *Client) EpochAuthenticator(ctx context.Context, id string) (authenticator []byte, epoch uint64, err error) {
	conv, err := c.snapshot(ctx, id)
	switch {
	case err != nil:
		return nil, 0, err
	case conv == nil:
		return nil, 0, ErrUnknownConversation
	case conv.group == nil || !conv.isLive():
		return nil, 0, ErrNoGroup
	}
	return conv.group.EpochAuthenticator(), conv.group.Epoch(), nil
}
