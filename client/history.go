package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// saveMessage keeps a message in the history and reports it, in the transaction
// that moves the ratchet and the cursor past it. isRead: it is of this account.
func (t *tx) saveMessage(e Event, digest [sha256.Size]byte, isRead bool) error {
	body, err := t.sealJSON("messages", messageRow(e.Conversation, e.Seq), "body", e)
	if err != nil {
		return err
	}
	if err := t.exec(`INSERT INTO messages (conversation, seq, digest, body, own) VALUES ($1, $2, $3, $4, $5)`,
		e.Conversation, e.Seq, digest[:], body, isRead); err != nil {
		return err
	}
	return t.report(e)
}

func messageRow(conversation string, seq int64) string {
	if seq < 0 {
		seq = -seq // it stands apart, since the log was set back
	}
	return conversation + "\x00" + strconv.FormatInt(seq, 10)
}

// hasMessage says whether these very bytes were taken in before. The ratchets refuse
// used keys by themselves; this holds even if one did not.
func (t *tx) hasMessage(conversation string, digest [sha256.Size]byte) (bool, error) {
	var one int
	return t.get([]any{&one}, `SELECT 1 FROM messages WHERE conversation = $1 AND digest = $2`, conversation, digest[:])
}

func (t *tx) message(conversation string, seq int64) (e Event, err error) {
	var body []byte
	found, err := t.get([]any{&body}, `SELECT body FROM messages WHERE conversation = $1 AND seq = $2`, conversation, seq)
	if err == nil && !found {
		err = fmt.Errorf("message %d is missing from the home", seq)
	}
	if err != nil {
		return e, err
	}
	return e, t.openJSON("messages", messageRow(conversation, seq), "body", body, &e)
}

// lastTime is the time of a conversation's last message, or zero.
func (t *tx) lastTime(conversation string) (time.Time, error) {
	var seq int64
	found, err := t.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND seq > 0 ORDER BY seq DESC LIMIT 1`, conversation)
	if err != nil || !found {
		return time.Time{}, err
	}
	e, err := t.message(conversation, seq)
	return e.Time, err
}

// History are the last messages of a conversation whose seq is below before (0: the
// newest), oldest first, at most limit of them (0: 1000, which is also the most).
// Their ID is 0: they are no longer events. A conversation without messages, or an
// unknown one, has an empty history.
func (c *Client) History(ctx context.Context, conversation string, before int64, limit int) ([]Event, error) {
	if limit <= 0 || limit > historyPage {
		limit = historyPage
	}
	if before <= 0 {
		before = 1<<63 - 1
	}
	var out []Event
	err := c.db.update(ctx, func(tx *tx) error {
		var seq int64
		var body []byte
		return tx.each([]any{&seq, &body}, func() error {
			var e Event
			err := tx.openJSON("messages", messageRow(conversation, seq), "body", body, &e)
			out = append(out, c.judged(e))
			return err
		}, `SELECT seq, body FROM messages WHERE conversation = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3`,
			conversation, before, limit)
	})
	slices.Reverse(out)
	return out, err
}
