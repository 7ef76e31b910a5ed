package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// EventType is the type of an Event.
type EventType string

// The types of events.
const (
	// EventMessage reports a message of a member, or the delivery of an own one: the server's log
	// has it.
	EventMessage EventType = "message"
	// EventJoined reports that this device is in the conversation's group, and By the member that
	// added it; Members are all of its members. From then on the messages in the outbox are sent.
	EventJoined EventType = "joined"
	// EventMembers reports a commit of By that added the devices Members and removed Gone. The
	// accounts in Added are new, those in Removed were removed, and those in Left had left on
	// their own; further devices concern accounts that were in the group and still are.
	EventMembers EventType = "members"
	// EventRoles reports that the accounts in Roles have other roles, by By if it said so. The
	// server's list of members decides; what it lists without a report has no By.
	EventRoles EventType = "roles"
	// EventTitle reports that the room has the title Title, given by By; By is zero if the title was
	// sent again for this device.
	EventTitle EventType = "title"
	// EventRemoved reports that this device is no longer in the conversation; Problem is the
	// reason, and By the member that removed it, as far as it is known.
	EventRemoved EventType = "removed"
	// EventUndecryptable reports that the message at Seq can never be decrypted on this device.
	EventUndecryptable EventType = "undecryptable"
	// EventLost reports unread messages up to Seq that are no longer on the server, or that this
	// device cannot decrypt since it rejoined the group after them.
	EventLost EventType = "lost"
	// EventRefused reports that the server refused the message MessageID for good; Text is its
	// content. It is no longer in the outbox.
	EventRefused EventType = "refused"
	// EventKeyChange reports a device of a known account with an unknown key (From): a new device
	// without a certificate, or a known one that was set up again.
	EventKeyChange EventType = "key_change"
	// EventRejoined reports that this device has rejoined the group, since its state was lost,
	// forked or outdated; Members are all members. Earlier messages that it had not received
	// cannot be decrypted (EventLost).
	EventRejoined EventType = "rejoined"
	// EventJoinRefused reports an external commit at Seq, by From, that this device does not
	// follow since the key of From is not verified. The sender may be a client without
	// certificates that has lost its state, or the server.
	EventJoinRefused EventType = "join_refused"
	// EventLeftOut reports a device (From) that was not added with others, because its key package
	// makes the commit fail. Err returns a *LeftOutError. Later packages of the account are tried.
	EventLeftOut EventType = "left_out"
	// EventFork reports that members have different epoch authenticators in one epoch, and so
	// different states of the group. People should compare what they see.
	EventFork EventType = "fork"
	// EventRewound reports that the server's log has lost its messages after Seq, since it was
	// restored from a backup. This device sends its own again. Without a Conversation it concerns
	// the log of the account, which carries invitations.
	EventRewound EventType = "rewound"
	// EventName reports that an account (From.Account) has another Name: one that it has given
	// itself, "" for none, or, without a Conversation, an alias that a person has given it on
	// another device of this account, "" if that is taken back.
	EventName EventType = "name"
	// EventProblem reports another reason why the conversation cannot proceed.
	EventProblem EventType = "problem"
)

// Event reports a change on this device, such as a received message. Events have the order in
// which the device received them.
type Event struct {
	// ID numbers the events of a home: each is greater than the one before. It is 0 in History
	// and Waiting.
	ID           int64     `json:"-"`
	Type         EventType `json:"type"`
	Conversation string    `json:"conversation,omitempty"`
	// Time is the time at which this device received it; of an own message, at which it was
	// written.
	Time time.Time `json:"time"`

	// Seq is the position in the conversation's log, for events of messages and commits.
	Seq int64 `json:"seq,omitempty"`
	// MessageID is the ID that Send returned, or of another member's message the one that its
	// sender has shown to the server.
	MessageID string `json:"message,omitempty"`
	// From is the sender, proven by MLS to be a member with this credential. From.Verified
	// reports whether the account's own key confirms the device.
	From Member `json:"from,omitzero"`
	// Own reports that this device sent it.
	Own bool `json:"own,omitempty"`
	// Text is the content of a message.
	Text []byte `json:"text,omitempty"`

	// Name is the new name, of EventName.
	Name string `json:"name,omitempty"`

	Members []Member `json:"members,omitempty"`
	Gone    []Member `json:"gone,omitempty"`
	// By is the member that made a change, proven by MLS; it is zero if unknown.
	By Member `json:"by,omitzero"`
	// Added, Removed and Left are accounts, of EventMembers. An account has left if it said so,
	// encrypted, or if the server reported its departure before the commit.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Left    []string `json:"left,omitempty"`
	// Title is the title of a room, of EventTitle, or of an EventRefused after SetTitle.
	Title string `json:"title,omitempty"`
	// Roles are the new roles, of EventRoles.
	Roles []RoleChange `json:"roles,omitempty"`
	// Index is the index of From in the list of devices to be added, of EventLeftOut.
	Index int `json:"index,omitempty"`

	// Code is a stable code of the error; Problem describes it for people.
	Code    string `json:"code,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// The codes of events that do not come from the server.
const (
	problemCertificate   = "wrong_certificate"
	problemUncertified   = "uncertified"
	problemKeyPackage    = "key_package_refused"
	problemWelcome       = "welcome_refused"
	problemUndecryptable = "undecryptable"
	problemPruned        = "history_pruned"
	problemTaken         = "taken"
	problemKeyChange     = "key_changed"
	problemGroupInfo     = "group_info_refused"
	problemFork          = "epoch_mismatch"
	problemRewound       = "log_rewound"
	problemRejoin        = "rejoined"
	problemLeftOut       = "left_out"
	problemGroupInUse    = "group_in_use"
	problemUnfinished    = "unfinished"
)

// problems holds the errors of these codes. The cause of a refused package or Welcome is more
// specific than the refusal, and comes first.
var problems = []struct {
	code string
	err  error
}{
	{problemCertificate, ErrCertificate}, {problemUncertified, ErrUncertified}, {problemGroupInUse, ErrGroupInUse},
	{problemKeyPackage, ErrKeyPackage}, {problemWelcome, ErrWelcome}, {problemGroupInfo, ErrGroupInfo},
	{problemUndecryptable, ErrUndecryptable}, {problemPruned, ErrHistoryPruned}, {problemTaken, ErrTaken},
	{problemKeyChange, ErrKeyChanged}, {problemFork, ErrFork}, {problemRewound, ErrRewound},
	{problemRejoin, ErrRejoined}, {problemUnfinished, ErrUnfinished},
}

// problemCode returns the code of an event for err.
func problemCode(err error) string {
	if r := asRefusal(err); r != nil {
		return r.Code
	}
	for _, p := range problems {
		if errors.Is(err, p.err) {
			return p.code
		}
	}
	return "problem"
}

// Err returns the event's error for use with errors.Is or errors.As, such as ErrCertificate or
// a *Refusal; nil for events that report none.
func (e *Event) Err() error {
	if e.Code == "" {
		return nil
	}
	if e.Code == problemLeftOut {
		return &LeftOutError{Account: e.From.Account, Device: e.From.Device, Index: e.Index, Problem: e.Problem}
	}
	for _, p := range problems {
		if p.code == e.Code {
			return fmt.Errorf("%w: %s", p.err, e.Problem)
		}
	}
	return &Refusal{Code: e.Code, Message: strings.TrimPrefix(e.Problem, refusalPrefix), Index: -1}
}

// report adds an event to the inbox, in the transaction that makes it true. The body of a
// message is stored once, in messages, and outlives the event.
func (t *tx) report(e Event) error {
	if isOwnRoom(t.db.self, e.Conversation) {
		if e.Type != EventName && e.Type != EventKeyChange {
			return nil // not listed: there is nothing that people could do about it
		}
		e.Conversation = ""
	}
	if e.Type == EventMessage {
		return t.Events.Add(e.Conversation, e.Seq, nil)
	}
	return t.Events.Add(e.Conversation, e.Seq, e)
}

// problem reports err as an event of the conversation.
func (t *tx) problem(conversation string, now time.Time, err error) error {
	return t.report(Event{Type: EventProblem, Conversation: conversation, Time: now,
		Code: problemCode(err), Problem: err.Error()})
}

// eventsPage bounds one read of the inbox, and historyPage one of the history.
const (
	eventsPage  = 100
	historyPage = 1000
)

// eventsAfter reads the next events after an id.
func eventsAfter(ctx context.Context, c *Client, after int64) ([]Event, error) {
	return read(ctx, c.db, func(tx *tx) (out []Event, err error) {
		rows, err := tx.Events.After(after, eventsPage)
		for _, r := range rows {
			var e Event
			if err := tx.Events.Read(&r, &e); err != nil {
				return nil, err
			}
			e.ID = r.ID
			out = append(out, c.authority.withTrust(e))
		}
		return out, err
	})
}

// Events yields the events after the one with the ID after, oldest first; at the end it waits
// for the next. It ends only with an error: that of ctx, ErrClosed, or a fault of the home. An
// application that stores its own cursor in its own transaction passes it here and sees every
// event exactly once; after Ack the home erases the acknowledged events, which are no longer
// yielded.
func (c *Client) Events(ctx context.Context, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			woken := c.db.home.NewEvents()
			page, err := eventsAfter(ctx, c, after)
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
				after = e.ID
			}
			if err == nil && len(page) == 0 {
				err = c.wait(ctx, woken)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// Next returns the next event that this Client has not returned by Next, waiting for one if
// necessary. After Open it begins after the last acknowledged event: one that was returned and
// not acknowledged before a crash is returned again. Next is for one reader at a time.
func (c *Client) Next(ctx context.Context) (Event, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for e, err := range c.Events(ctx, c.read) {
		if err == nil {
			c.read = e.ID
		}
		return e, err
	}
	return Event{}, ErrClosed // not reached: Events ends with an error
}

// Ack acknowledges all events up to and including id. They are erased; messages stay in
// History. The acknowledgement is on disk when Ack returns.
func (c *Client) Ack(ctx context.Context, id int64) error {
	return c.db.update(ctx, func(tx *tx) error { return tx.acknowledge(id) })
}

// acknowledge erases the events up to and including id.
func (t *tx) acknowledge(id int64) error {
	before, err := t.Counters.Get("application")
	if err != nil || id <= before {
		return err
	}
	last, err := t.Events.Last()
	if err != nil {
		return err
	}
	id = min(id, last)
	if err := t.Events.Forget(id); err != nil {
		return err
	}
	return t.Counters.Set("application", id)
}
