package client

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"
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

// History returns the last messages of a conversation with a seq below before (0: the newest),
// oldest first, at most limit of them (0: 1000, which is also the maximum). Their ID is 0: they
// are no longer events. A conversation without messages, or an unknown one, has an empty
// history.
func (c *Client) History(ctx context.Context, conversation string, before int64, limit int) ([]Event, error) {
	if limit <= 0 || limit > historyPage {
		limit = historyPage
	}
	if before <= 0 {
		before = 1<<63 - 1
	}
	var out []Event
	err := c.db.update(ctx, func(tx *tx) error {
		return tx.Messages.Before(conversation, before, limit, func(read func(any) error) error {
			var e Event
			err := read(&e)
			out = append(out, c.authority.judged(e))
			return err
		})
	})
	slices.Reverse(out)
	return out, err
}
