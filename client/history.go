package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"time"
	"unicode"
)

// saveMessage adds a message to the history and reports it, in the transaction that moves the
// ratchet and the cursor past it. isRead: this account sent it.
func (t *tx) saveMessage(e Event, digest [sha256.Size]byte, isRead bool) error {
	if err := t.Messages.Add(e.Conversation, e.Seq, digest, e, isRead); err != nil {
		return err
	}
	return t.report(e)
}

// lastTime returns the time of a conversation's last message, or zero.
func (t *tx) lastTime(conversation string) (time.Time, error) {
	seq, found, err := t.Messages.LastSeq(conversation)
	if err != nil || !found {
		return time.Time{}, err
	}
	var e Event
	err = t.Messages.Get(conversation, seq, &e)
	return e.Time, err
}

// History returns the last messages of a conversation with a Seq below before (0: the newest),
// oldest first, at most limit of them (0: 1000, which is also the maximum), and among them, in
// the order of the log, what has changed: EventJoined and EventRejoined without Members,
// EventMembers, EventRoles, EventTitle and EventRemoved. Their ID is 0: they are no longer events. A conversation
// without any, or an unknown one, has an empty history.
//
// A change that is not a record of the log has the Seq of the record before it.
//
// A message that the server has lost (EventRewound) keeps its Seq and place until the log has it
// again. Another message may have the same Seq meanwhile; both are then on the same page, also
// if that exceeds limit.
func (c *Client) History(ctx context.Context, conversation string, before int64, limit int) ([]Event, error) {
	if limit <= 0 || limit > historyPage {
		limit = historyPage
	}
	if before <= 0 {
		before = 1<<63 - 1
	}
	return read(ctx, c.db, func(tx *tx) (out []Event, err error) {
		err = tx.Messages.Before(conversation, before, limit, func(read func(any) error) error {
			var e Event
			err := read(&e)
			out = append(out, c.authority.withTrust(e))
			return err
		})
		slices.Reverse(out)
		return out, err
	})
}

// Query selects messages of the history. The zero value of a field does not narrow the search.
type Query struct {
	// Text must occur in the message, literally except for upper and lower case; of several
	// words each must occur.
	Text         string
	Conversation string
	From         string // the account that sent it
	// After and Before bound Event.Time.
	After, Before time.Time
	// Limit bounds the number of results; 0 stands for 100, and 1000 is the maximum.
	Limit int
}

const searchLimit = 100

// Search returns the newest matching messages of the local history, newest first (Event.Time).
// It does not use the server, which could not answer.
//
// The history is sealed at rest and has no index of words, which would disclose them: every
// message of the conversations in question is opened. That takes some microseconds for each,
// and other calls run between pages.
func (c *Client) Search(ctx context.Context, q Query) ([]Event, error) {
	limit := min(cmp.Or(max(q.Limit, 0), searchLimit), historyPage)
	words := strings.FieldsFunc(strings.ToLower(q.Text), unicode.IsSpace)
	ids, err := read(ctx, c.db, func(tx *tx) ([]string, error) { return tx.Messages.Conversations() })
	var out []Event
	for _, id := range ids {
		if q.Conversation != "" && q.Conversation != id {
			continue
		}
		found, err := searchIn(ctx, c, id, &q, words, limit)
		if err != nil {
			return nil, err
		}
		// The newest of each conversation suffice for the newest of all.
		out = append(out, found...)
		slices.SortStableFunc(out, func(a, b Event) int { return b.Time.Compare(a.Time) })
		out = out[:min(len(out), limit)]
	}
	return out, err
}

// searchIn returns the last matching messages of one conversation, newest first, at most limit
// of them.
func searchIn(ctx context.Context, c *Client, id string, q *Query, words []string, limit int) (found []Event, err error) {
	before := int64(0)
	for {
		page, err := c.History(ctx, id, before, historyPage)
		if err != nil || len(page) == 0 {
			return found, err
		}
		before = page[0].Seq
		for _, e := range slices.Backward(page) {
			if e.Type == EventMessage && q.matches(&e, words) {
				found = append(found, e)
			}
			if len(found) == limit {
				return found, nil
			}
		}
	}
}

func (q *Query) matches(e *Event, words []string) bool {
	switch {
	case q.From != "" && e.From.Account != q.From,
		!q.After.IsZero() && !e.Time.After(q.After),
		!q.Before.IsZero() && !e.Time.Before(q.Before):
		return false
	}
	text := strings.ToLower(string(e.Text))
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}

// readCounter returns the name of the counter of a conversation's last read seq.
func readCounter(conversation string) string { return "read\x00" + conversation }

// MarkRead records that the application has shown the messages of a conversation up to and
// including seq; 0 stands for all present ones. It never goes backwards. It is local to this
// device: it is not sent to the server.
func (c *Client) MarkRead(ctx context.Context, conversation string, seq int64) error {
	return c.db.update(ctx, func(tx *tx) error {
		conv, err := tx.existing(conversation)
		if err != nil {
			return err
		}
		if last := conv.nextSeq - 1; seq <= 0 || seq > last {
			seq = last
		}
		before, err := tx.Counters.Get(readCounter(conversation))
		if err != nil || seq <= before {
			return err
		}
		return tx.Counters.Set(readCounter(conversation), seq)
	})
}

// unread counts the messages of others after the last read one.
func (t *tx) unread(conversation string) (count int, read int64, err error) {
	if read, err = t.Counters.Get(readCounter(conversation)); err != nil {
		return 0, 0, err
	}
	count, err = t.Messages.CountOthers(conversation, read)
	return count, read, err
}
