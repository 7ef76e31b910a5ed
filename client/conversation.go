package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// Kind is the kind of a conversation.
type Kind string

// The kinds of conversations.
const (
	DM   Kind = "dm"   // two accounts, one identifier for the pair
	Room Kind = "room" // any number of accounts
)

// Phase is the progress of a conversation on this device.
type Phase int

// The phases. A conversation moves downwards, or from Waiting or Joining to Joined; Removed
// becomes Joined again with a new invitation.
const (
	// Creating means that the conversation has to be created on the server.
	Creating Phase = 1
	// Waiting means that another device creates the group and sends an invitation.
	Waiting Phase = 2
	// Founding means that this device has created the group, and its first commit is pending.
	Founding Phase = 3
	// Joined means that messages can be sent and received.
	Joined Phase = 4
	// Removed means that this device or account is no longer in the conversation.
	Removed Phase = 5
	// Joining means that an external commit of this device is pending: another device of the
	// account is in the group, or the state of this device was lost.
	Joining Phase = 6
	// Leaving means that the account is leaving, and the server has to be notified.
	Leaving Phase = 7
)

var phaseNames = map[Phase]string{Creating: "creating", Waiting: "waiting", Founding: "founding", Joined: "joined",
	Removed: "removed", Joining: "joining", Leaving: "leaving"}

// String returns the phase as a word, such as "joined".
func (p Phase) String() string { return cmp.Or(phaseNames[p], "unknown") }

// Conversation is a conversation as this device sees it.
type Conversation struct {
	ID    string
	Kind  Kind
	Phase Phase
	// Peer is the other account of a DM; "" for rooms.
	Peer string
	// Title is the title of a room (SetTitle), "" for none. ServerTitle is one that the server
	// holds: it can read it, and may have made it up. Both are without control characters.
	Title, ServerTitle string
	// Members are the devices in the MLS group, in the order of their leaves: those that can
	// read. It is empty while there is no group.
	Members []Member
	// Inviting are accounts that are to be added and are not in the group yet.
	Inviting []string
	// Removing are accounts that are to be removed from the group and are still in it: by
	// Remove here, or because they are no longer members on the server.
	Removing []string
	// Role is this account's last known role in the conversation: "owner", "admin" or "member";
	// "" while unknown.
	Role string
	// Roles are the roles of the accounts in the group, and Successor is the account that owns
	// the room once this one, its owner, has left without naming another (LeaveTo). Both are as
	// the server last reported them, and empty while unknown; the server chooses the successor
	// with WithXRPC.
	Roles     map[string]string
	Successor string
	// Epoch is the MLS epoch.
	Epoch uint64
	// NextSeq is the number of the first message that this device has not received.
	NextSeq int64
	// LastTime is the time of the last message (Event.Time), or of the conversation's beginning
	// on this device if there is none.
	LastTime time.Time
	// Unread counts the messages of others after ReadSeq, the last message that was read on
	// this device (MarkRead).
	Unread  int
	ReadSeq int64
	// Problem describes, for people, why the conversation cannot proceed; "" if it can.
	Problem string
	// GaveUp reports that no group was created within a day, and the client has ended its
	// requests. An invitation is still accepted; Retry requests again.
	GaveUp bool
}

// conversationInfo holds the sealed fields of a conversation that are not MLS state.
type conversationInfo struct {
	Kind    Kind     `json:"kind"`
	Peer    string   `json:"peer,omitempty"`
	Wanted  []wanted `json:"wanted,omitempty"`
	Problem string   `json:"problem,omitempty"`

	Role     string     `json:"role,omitempty"`
	Unwanted []string   `json:"unwanted,omitempty"` // accounts to remove, from the server's list too
	Missing  []string   `json:"missing,omitempty"`  // accounts in the group that are no longer on the server's list
	Left     []string   `json:"left,omitempty"`     // accounts in the group that have left
	Leave    *departure `json:"leave,omitempty"`    // this account is to leave
	// Managers are the owner and admins with their roles, as last reported; nil if unknown.
	// The map is never changed. RolesDue: they may have changed, and are to be requested.
	Managers map[string]string `json:"managers,omitempty"`
	RolesDue bool              `json:"roles_due,omitempty"`
	Appoint  []appointment     `json:"appoint,omitempty"` // roles to change
	Title    title             `json:"title,omitzero"`
	TitleDue bool              `json:"title_due,omitempty"` // it is to be sent again
	Claims   []claim           `json:"claims,omitempty"`
	// ServerTitle is the title that the server holds.
	ServerTitle string `json:"server_title,omitempty"`
	Rejoin      string `json:"rejoin,omitempty"`  // why the group is to be entered again; "" if it is not
	Forced      bool   `json:"forced,omitempty"`  // into any epoch, even an earlier one
	Asked       bool   `json:"asked,omitempty"`   // Rejoin was called
	Refresh     bool   `json:"refresh,omitempty"` // fresh keys are to be committed
	// RefreshAfter is the commit that was pending when the refresh was requested: its keys are
	// older.
	RefreshAfter string  `json:"refresh_after,omitempty"`
	Waiting      waiting `json:"waiting,omitzero"` // earlier requests for the group
	// The messages skipped when the group was entered again: from SkipFrom up to before SkipTo.
	SkipFrom int64 `json:"skip_from,omitempty"`
	SkipTo   int64 `json:"skip_to,omitempty"`
	// Rewound: the log was rewound, and our own events in it are to be sent again. Unsure: no
	// event is applied before the one at the new end was compared with the journal.
	Rewound bool `json:"rewound,omitempty"`
	// Introduce: the account's name is to be sent, see introduceLater. AliasesThrough is the last
	// change of an alias that was sent to a room of own devices.
	Introduce      int   `json:"introduce,omitempty"`
	AliasesThrough int64 `json:"aliases_through,omitempty"`
	Unsure         bool  `json:"unsure,omitempty"`
}

// endEntry deletes what is recorded for entering the group.
func (i *conversationInfo) endEntry() {
	i.Rejoin, i.Forced, i.Asked, i.Waiting = "", false, false, waiting{}
}

// departure is an account's wish to leave a conversation.
type departure struct {
	NewOwner string `json:"new_owner,omitempty"`
}

// wanted is an account that is to be added to the group.
type wanted struct {
	Account string `json:"account"`
	// Add: the account is not yet a member on the server and becomes one with the commit.
	Add bool `json:"add,omitempty"`
	// Own: the account is ours, and only its other devices are to be added: the one called
	// Device, or all if "". The entry is settled if there are none.
	Own    bool   `json:"own,omitempty"`
	Device string `json:"device,omitempty"`
	// Packages are those fetched for it, one per device. They survive a lost race: the Welcome
	// that used them was never delivered.
	Packages []fetchedPackage `json:"packages,omitempty"`
	// Refused counts consecutive fetches without a usable package, and NotBefore is the time,
	// in Unix milliseconds, before which no others are fetched.
	Refused   int   `json:"refused,omitempty"`
	NotBefore int64 `json:"not_before,omitempty"`
}

func (w wanted) isSame(other wanted) bool {
	return w.Account == other.Account && w.Own == other.Own && w.Device == other.Device
}

// conversation is one row of conversations with its parts opened. A value in the cache is never
// changed: transactions work on copies.
type conversation struct {
	id        string
	phase     Phase
	nextSeq   int64
	createdMS int64
	info      conversationInfo
	group     *mls.Group
	pending   *pendingCommit
	before    *mls.Group // the group before the commit being applied, within its transaction
	// rosterChanges counts the changes of accounts that the server has reported since Open: a
	// list that was requested before one of them is outdated.
	rosterChanges int
	invited       bool   // within it, the group was entered by a Welcome
	by            Member // within it, the member whose commit removed this device

	isNew   bool
	changed home.Columns
}

func (c *conversation) setPhase(p Phase) { c.phase, c.changed = p, c.changed|home.ColumnPlace }
func (c *conversation) setNextSeq(n int64) {
	c.nextSeq, c.changed = n, c.changed|home.ColumnPlace
}
func (c *conversation) setGroup(g *mls.Group) { c.group, c.changed = g, c.changed|home.ColumnGroup }
func (c *conversation) setPending(p *pendingCommit) {
	c.pending, c.changed = p, c.changed|home.ColumnPending
}

// editInfo returns info for changes; its slices are the copy's own.
func (c *conversation) editInfo() *conversationInfo {
	c.changed |= home.ColumnInfo
	return &c.info
}

// isLive reports whether the conversation's log is read.
func (c *conversation) isLive() bool {
	return c.phase == Founding || c.phase == Joined || c.phase == Joining && c.pending != nil && c.pending.Seq > 0
}

// isOurs reports whether the conversation is a room that this device is creating: its id is
// random and no other device can have a group for it yet.
func (c *conversation) isOurs() bool {
	return c.info.Kind == Room && (c.phase == Creating || c.phase == Founding)
}

// epoch returns the group's epoch, 0 without a group.
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
	out.info.Left, out.info.Appoint = slices.Clone(c.info.Left), slices.Clone(c.info.Appoint)
	out.info.Claims = slices.Clone(c.info.Claims)
	return &out
}

func (c *conversation) settled() *conversation {
	c.isNew, c.changed, c.before, c.invited, c.by = false, 0, nil, false, Member{}
	return c
}

// openConversation decodes a row.
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

// conversation returns a working copy of the conversation, the same one throughout the
// transaction; nil if there is none. Its changes are written at the end.
func (t *tx) conversation(id string) *conversation {
	if c := t.changed[id]; c != nil {
		return c
	}
	c := t.db.cache[id]
	if c == nil {
		return nil
	}
	c = c.clone()
	t.changed[id] = c
	return c
}

// addConversation makes a new one, to be written at the end of the transaction.
func (t *tx) addConversation(id string, phase Phase, info conversationInfo, now time.Time) *conversation {
	c := &conversation{id: id, phase: phase, nextSeq: 1, createdMS: now.UnixMilli(), info: info,
		isNew: true, changed: home.ColumnPlace | home.ColumnInfo}
	t.changed[id] = c
	return c
}

// saveConversations writes the conversations that the transaction changed.
func (t *tx) saveConversations() error {
	for _, c := range t.changed {
		if c.changed == 0 {
			continue
		}
		row := home.Conversation{ID: c.id, Phase: int(c.phase), NextSeq: c.nextSeq, CreatedMS: c.createdMS}
		var err error
		if c.changed&home.ColumnInfo != 0 {
			if row.Info, err = json.Marshal(c.info); err != nil {
				return fmt.Errorf("encode conversation: %w", err)
			}
		}
		if c.group != nil && c.changed&home.ColumnGroup != 0 {
			if row.Group, err = c.group.MarshalBinary(); err != nil {
				return fmt.Errorf("encode group: %w", err)
			}
		}
		if c.pending != nil && c.changed&home.ColumnPending != 0 {
			if row.Pending, err = c.pending.MarshalBinary(); err != nil {
				return fmt.Errorf("encode pending commit: %w", err)
			}
		}
		if err := t.Conversations.Save(&row, c.changed, c.isNew); err != nil {
			return err
		}
	}
	return nil
}

// loadConversations reads all conversations into the cache.
func (k keeper) loadConversations(tx *tx) error {
	return tx.Conversations.Each(func(row *home.Conversation) error {
		c, err := k.openConversation(row)
		tx.db.cache[row.ID] = c
		return err
	})
}

// conversations returns all conversations, oldest first. They belong to the cache and must not
// be changed.
func (t *tx) conversations() []*conversation {
	return slices.SortedFunc(maps.Values(t.db.cache), func(a, b *conversation) int {
		return cmp.Or(cmp.Compare(a.createdMS, b.createdMS), cmp.Compare(a.id, b.id))
	})
}

// conversations returns all conversations as committed, read-only, oldest first.
func (db *database) conversations(ctx context.Context) ([]*conversation, error) {
	return read(ctx, db, func(tx *tx) ([]*conversation, error) { return tx.conversations(), nil })
}

// snapshot returns the conversation as committed, read-only; nil if there is none.
func (c *Client) snapshot(ctx context.Context, id string) (*conversation, error) {
	return read(ctx, c.db, func(tx *tx) (*conversation, error) { return tx.db.cache[id], nil })
}

// isConversationID reports whether a server may use id for a conversation: names that begin
// with a zero byte are reserved for other uses in this package.
func isConversationID(id string) bool { return id != "" && id[0] != 0 }

// existing returns a working copy of the conversation id, or ErrUnknownConversation.
func (t *tx) existing(id string) (*conversation, error) {
	conv := t.conversation(id)
	if conv == nil {
		return nil, ErrUnknownConversation
	}
	return conv, nil
}

// change runs change on a conversation in a transaction, to record a request of the
// application, and wakes the session to carry it out.
func (c *Client) change(ctx context.Context, id string, change func(tx *tx, conv *conversation) error) error {
	return c.db.update(ctx, func(tx *tx) error {
		conv, err := tx.existing(id)
		if err != nil {
			return err
		}
		tx.wake(id)
		return change(tx, conv)
	})
}

// Conversations returns the conversations of this home, the one with the last message first,
// without the one in which the devices of this account share what a person enters on one of them.
func (c *Client) Conversations(ctx context.Context) ([]Conversation, error) {
	out, err := read(ctx, c.db, func(tx *tx) (out []Conversation, err error) {
		for _, conv := range tx.conversations() {
			if c.keeper.isOwnRoom(conv.id) {
				continue
			}
			described, err := c.describe(tx, conv)
			if err != nil {
				return nil, err
			}
			out = append(out, described)
		}
		return out, nil
	})
	slices.SortStableFunc(out, func(a, b Conversation) int { return b.LastTime.Compare(a.LastTime) })
	return out, err
}

// Conversation returns the conversation id, or ErrUnknownConversation.
func (c *Client) Conversation(ctx context.Context, id string) (Conversation, error) {
	return read(ctx, c.db, func(tx *tx) (Conversation, error) {
		conv, err := tx.existing(id)
		if err != nil {
			return Conversation{}, err
		}
		return c.describe(tx, conv)
	})
}

func (c *Client) describe(tx *tx, conv *conversation) (Conversation, error) {
	out := Conversation{ID: conv.id, Kind: conv.info.Kind, Phase: conv.phase, Peer: conv.info.Peer,
		Title: conv.info.Title.Text, ServerTitle: conv.info.ServerTitle,
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
	if conv.info.Managers != nil {
		out.Roles, out.Successor = map[string]string{}, c.errands.expectedSuccessor(conv)
		for _, account := range conv.accounts() {
			out.Roles[account] = conv.roleOf(account)
		}
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

// EpochAuthenticator returns the authenticator of the current epoch, and the epoch. Members of
// the conversation's group have the same value if and only if they agree on everything up to
// this epoch (RFC 9420, section 8.7). People may compare it. The error is ErrNoGroup while
// there is no group.
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
