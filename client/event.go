package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// EventType is the type of an Event.
type EventType string

// The types of events.
const (
	// EventMessage: a message, including our own. An own message comes when the server's log
	// has it: that is its delivery.
	EventMessage EventType = "message"
	// EventJoined: this device is in the conversation's group now; Members are all of its
	// members. Messages in the outbox are sent from here on.
	EventJoined EventType = "joined"
	// EventMembers: a commit changed the group; Members were added, Gone removed.
	EventMembers EventType = "members"
	// EventRemoved: this device is no longer in the conversation.
	EventRemoved EventType = "removed"
	// EventUndecryptable: the message at Seq can never be read on this device.
	EventUndecryptable EventType = "undecryptable"
	// EventLost: unread messages up to Seq are gone from the server.
	EventLost EventType = "lost"
	// EventRefused: the server declined the message MessageID for good; it is no longer in the
	// outbox. Text holds it.
	EventRefused EventType = "refused"
	// EventKeyChange: From is a device of a known account with an unknown key: a new device
	// that its account does not vouch for, or a known one that was set up again.
	EventKeyChange EventType = "key_change"
	// EventRejoined: this device has entered the group again on its own, since its state was
	// lost, forked or too far behind; Members are all of its members. Messages sent meanwhile
	// cannot be read here (EventLost).
	EventRejoined EventType = "rejoined"
	// EventJoinRefused: From tried to join the group on its own, with the commit at Seq, and
	// this device does not follow it: its account does not vouch for that device. It may be a
	// client without certificates that has lost its state, or the server.
	EventJoinRefused EventType = "join_refused"
	// EventLeftOut: From is a device that was to be added with others and is not, because its
	// key package makes the commit fail. Err is a *LeftOutError. Later packages of the account
	// are tried.
	EventLeftOut EventType = "left_out"
	// EventFork: other members reported another epoch authenticator for the same epoch, so they
	// are in another group under the same name. People should compare what they see.
	EventFork EventType = "fork"
	// EventRewound: the server's log has lost its records after Seq: it was restored from a
	// backup. This device sends its own again. Without a Conversation it is the account's log,
	// which carries invitations.
	EventRewound EventType = "rewound"
	// EventProblem: another reason why the conversation cannot proceed as requested.
	EventProblem EventType = "problem"
)

// Event reports a change on this device, such as a received message. Events are in the order in
// which the device received them.
type Event struct {
	// ID numbers the events of a home: each is greater than the one before.
	ID           int64     `json:"-"`
	Type         EventType `json:"type"`
	Conversation string    `json:"conversation,omitempty"`
	// Time is when this device received it; for an own message, when it was written.
	Time time.Time `json:"time"`

	// Seq is the place in the conversation's log, of messages, members and undecryptable
	// events.
	Seq int64 `json:"seq,omitempty"`
	// MessageID is the id that Send returned, or the sender's id of another's message.
	MessageID string `json:"message,omitempty"`
	// From is the sender. MLS has proven it to be a member with this credential; From.Verified
	// reports whether the account itself vouches for that device.
	From Member `json:"from,omitzero"`
	// Own reports that this device sent it.
	Own  bool   `json:"own,omitempty"`
	Text []byte `json:"text,omitempty"`

	Members []Member `json:"members,omitempty"`
	Gone    []Member `json:"gone,omitempty"`
	// Index is the index of From among the devices to be added, of EventLeftOut.
	Index int `json:"index,omitempty"`

	// Code is a stable code for the error, Problem a sentence for people.
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

var problemErrors = map[string]error{
	problemCertificate: ErrCertificate, problemUncertified: ErrUncertified, problemKeyPackage: ErrKeyPackage,
	problemWelcome: ErrWelcome, problemUndecryptable: ErrUndecryptable, problemPruned: ErrHistoryPruned,
	problemTaken: ErrTaken, problemKeyChange: ErrKeyChanged, problemGroupInfo: ErrGroupInfo,
	problemFork: ErrFork, problemRewound: ErrRewound, problemRejoin: ErrRejoined,
	problemGroupInUse: ErrGroupInUse, problemUnfinished: ErrUnfinished,
}

// problemCode returns the code of an event for err.
func problemCode(err error) string {
	if r := asRefusal(err); r != nil {
		return r.Code
	}
	// The cause of a refused package or Welcome is more specific than the refusal.
	for _, code := range []string{problemCertificate, problemUncertified, problemGroupInUse, problemKeyPackage, problemWelcome,
		problemGroupInfo, problemUndecryptable, problemPruned, problemTaken, problemKeyChange, problemFork, problemRewound,
		problemRejoin, problemUnfinished} {
		if errors.Is(err, problemErrors[code]) {
			return code
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
	if known, ok := problemErrors[e.Code]; ok {
		return fmt.Errorf("%w: %s", known, e.Problem)
	}
	return &Refusal{Code: e.Code, Message: e.Problem, Index: -1}
}

// report adds an event to the inbox, in the transaction that makes it true. The body of a
// message is stored once, in messages, and outlives the event.
func (t *tx) report(e Event) error {
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
func (c *Client) eventsAfter(ctx context.Context, after int64) ([]Event, error) {
	var out []Event
	err := c.db.update(ctx, func(tx *tx) error {
		rows, err := tx.Events.After(after, eventsPage)
		if err != nil {
			return err
		}
		for _, r := range rows {
			var e Event
			if err := tx.Events.Read(&r, &e); err != nil {
				return err
			}
			e.ID = r.ID
			out = append(out, c.authority.judged(e))
		}
		return nil
	})
	return out, err
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
			page, err := c.eventsAfter(ctx, after)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
				after = e.ID
			}
			if len(page) > 0 {
				continue
			}
			select {
			case <-woken:
			case <-c.closed:
				yield(Event{}, c.endError())
				return
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
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
	return c.db.update(ctx, func(tx *tx) error {
		before, err := tx.Counters.Get("application")
		if err != nil || id <= before {
			return err
		}
		last, err := tx.Events.Last()
		if err != nil {
			return err
		}
		id = min(id, last)
		if err := tx.Events.Forget(id); err != nil {
			return err
		}
		return tx.Counters.Set("application", id)
	})
}
