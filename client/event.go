package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// EventType says what an Event is about.
type EventType string

// The types of events.
const (
	// EventMessage: a message, one's own included. An own message comes when the
	// server's log has it: that is its delivery.
	EventMessage EventType = "message"
	// EventJoined: this device is in the conversation's group now; Members are all
	// in it. Messages that waited are sent from here on.
	EventJoined EventType = "joined"
	// EventMembers: a commit changed the group; Members were added, Gone removed.
	EventMembers EventType = "members"
	// EventRemoved: this device is no longer in the conversation.
	EventRemoved EventType = "removed"
	// EventUndecryptable: the message at Seq cannot be read here and never will be.
	EventUndecryptable EventType = "undecryptable"
	// EventLost: unread messages up to Seq are gone from the server.
	EventLost EventType = "lost"
	// EventRefused: the server will not take the message MessageID; it is no longer
	// in the outbox. Text holds it.
	EventRefused EventType = "refused"
	// EventKeyChange: From is a device of a known account with a key that was not seen
	// before: one that nobody vouches for, or a known one that was set up anew.
	EventKeyChange EventType = "key_change"
	// EventRejoined: this device has entered the group anew by itself, since its state
	// was lost, forked or too far behind; Members are all in it. What was sent meanwhile
	// cannot be read here (EventLost).
	EventRejoined EventType = "rejoined"
	// EventJoinRefused: From wanted to come into the group by itself, with the commit at
	// Seq, and this device does not follow it: nobody vouches for that device. It may be
	// a client that knows no certificates and has lost its state, or the server.
	EventJoinRefused EventType = "join_refused"
	// EventLeftOut: From is a device that was to be added with others and is not, because
	// its key package keeps the commit from being made. Err is a *LeftOutError. Later
	// packages of the account are tried.
	EventLeftOut EventType = "left_out"
	// EventFork: other members are in another group under the same name and epoch, by
	// what they report of their epoch authenticators. People should find out who sees what.
	EventFork EventType = "fork"
	// EventRewound: the server's log has lost what stood behind Seq: it was restored from
	// a backup. What this device has sent is sent again.
	// Without a Conversation it is the log of the account, by which invitations come.
	EventRewound EventType = "rewound"
	// EventProblem: something else keeps the conversation from going on as asked.
	EventProblem EventType = "problem"
)

// Event is something that happened, in the order in which this device took it in.
type Event struct {
	// ID numbers the events of a home: each is greater than the one before.
	ID           int64     `json:"-"`
	Type         EventType `json:"type"`
	Conversation string    `json:"conversation,omitempty"`
	// Time is when this device took it in; of an own message, when it was written.
	Time time.Time `json:"time"`

	// Seq is the place in the conversation's log: of messages, members and
	// undecryptable events.
	Seq int64 `json:"seq,omitempty"`
	// MessageID is what Send returned; of others' messages, what they call it.
	MessageID string `json:"message,omitempty"`
	// From is the sender. MLS has proven it to be a member with this credential;
	// From.Verified says whether the account itself vouches for that device.
	From Member `json:"from,omitzero"`
	// Own says that this device sent it.
	Own  bool   `json:"own,omitempty"`
	Text []byte `json:"text,omitempty"`

	Members []Member `json:"members,omitempty"`
	Gone    []Member `json:"gone,omitempty"`
	// Index is the place of From among those that were to be added, of EventLeftOut.
	Index int `json:"index,omitempty"`

	// Code is a stable word for what went wrong, Problem a sentence for people.
	Code    string `json:"code,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// The codes of events that are not the server's.
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

// problemCode is the code that an event carries for err.
func problemCode(err error) string {
	if r := asRefusal(err); r != nil {
		return r.Code
	}
	// Why a package or a Welcome was refused says more than that it was.
	for _, code := range []string{problemCertificate, problemUncertified, problemGroupInUse, problemKeyPackage, problemWelcome,
		problemGroupInfo, problemUndecryptable, problemPruned, problemTaken, problemKeyChange, problemFork, problemRewound,
		problemRejoin, problemUnfinished} {
		if errors.Is(err, problemErrors[code]) {
			return code
		}
	}
	return "problem"
}

// Err is what the event reports as an error to be told apart with errors.Is or
// errors.As, such as ErrCertificate or a *Refusal; nil for events that report none.
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

// report adds an event to the inbox, in the transaction that makes it true. The
// body of a message is kept once, in messages, and outlives the event.
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

// Events are the events after the one with the ID after, oldest first; when there
// are no more it waits for the next. It ends with an error only: that of ctx, ErrClosed,
// or a fault of the home. An application that keeps its own cursor in its own
// transaction passes it here and sees every event exactly once; Ack lets the home
// forget what is dealt with, and events up to there no longer appear.
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

// Next is the next event that this Client has not given out by Next, waiting for
// one if need be. After Open it begins behind the last one acknowledged: an event
// that was given out and not acknowledged before a crash comes again. Next is for
// one reader at a time.
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

// Ack says that the application has dealt with all events up to and including id.
// They are erased; messages stay in History. It is on disk when Ack returns.
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
