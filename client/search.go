package client

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"
)

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
	limit := q.Limit
	if limit <= 0 {
		limit = searchLimit
	}
	limit = min(limit, historyPage)
	words := strings.FieldsFunc(strings.ToLower(q.Text), unicode.IsSpace)
	var ids []string
	err := c.db.update(ctx, func(tx *tx) error {
		all, err := tx.Messages.Conversations()
		ids = slices.DeleteFunc(all, func(id string) bool { return q.Conversation != "" && q.Conversation != id })
		return err
	})
	var out []Event
	for _, id := range ids {
		if err != nil {
			break
		}
		if err = c.searchIn(ctx, id, &q, words, limit, func(e Event) { out = append(out, e) }); err == nil {
			// The newest of each conversation suffice for the newest of all.
			slices.SortStableFunc(out, func(a, b Event) int { return b.Time.Compare(a.Time) })
			out = out[:min(len(out), limit)]
		}
	}
	return out, err
}

// searchIn finds the last matching messages of one conversation, at most limit of them.
func (c *Client) searchIn(ctx context.Context, id string, q *Query, words []string, limit int, found func(Event)) error {
	before := int64(0)
	for {
		page, err := c.History(ctx, id, before, historyPage)
		if err != nil || len(page) == 0 {
			return err
		}
		before = page[0].Seq
		for i := len(page) - 1; i >= 0; i-- {
			if q.matches(&page[i], words) {
				found(page[i])
				if limit--; limit == 0 {
					return nil
				}
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
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
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
