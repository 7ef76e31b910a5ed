package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// The log of a server does not go backwards, unless it is restored from a backup, which
// nobody may do silently (I13). A home therefore keeps the digest of what it has taken
// in, and of its own messages and commits the frames that sent them: the journal. Each
// subscription begins one event early; when that one is another than before, or the log
// ends before it, the log was set back. What is then read again is known by its digest
// and told to nobody twice; what was ours and does not come again is sent again, under
// the same msg_id and byte for byte, so that others know it too. Whoever was away while
// that happened, and finds the log to end as before, keeps the order that it knew.

// The bounds of the journal in each conversation, in events: how far back digests are
// kept, own messages with their bytes, and own commits with theirs, which are large.
const (
	journalEvents   = 4096
	journalMessages = 2048
	journalCommits  = 128
	journalTrim     = 64 // how often what is beyond is forgotten
)

// note enters an event of the log, with the frame that sent it if it is our own.
func (t *tx) note(conversation string, seq int64, digest [sha256.Size]byte, frameType string, frame any) error {
	var kind, sealed any
	if frame != nil {
		raw, err := gateway.Marshal(frame)
		if err != nil {
			return fmt.Errorf("encode journal: %w", err)
		}
		// A commit names accounts, and what belongs to it is not for who finds the home.
		kind, sealed = frameType, t.db.sealer.seal("log", logRow(conversation, digest[:]), "frame", raw)
	}
	if seq%journalTrim == 0 {
		if err := t.exec(`DELETE FROM log WHERE conversation = $1 AND seq < $2`, conversation, seq-journalEvents); err != nil {
			return err
		}
		if err := t.exec(`UPDATE log SET type = NULL, frame = NULL WHERE conversation = $1 AND frame IS NOT NULL
			AND (seq < $2 OR seq < $3 AND type = $4)`, conversation, seq-journalMessages, seq-journalCommits, gateway.TypeCommit); err != nil {
			return err
		}
	}
	return t.exec(`INSERT INTO log (conversation, digest, seq, type, frame) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (conversation, digest) DO NOTHING`, conversation, digest[:], seq, kind, sealed)
}

func logRow(conversation string, digest []byte) string {
	return conversation + "\x00" + hex.EncodeToString(digest)
}

// sealFrames seals what a home of version 2 has in the journal, where frames stood as
// they were sent.
func (t *tx) sealFrames() error {
	type row struct {
		conversation  string
		digest, frame []byte
	}
	var rows []row
	var r row
	if err := t.each([]any{&r.conversation, &r.digest, &r.frame}, func() error {
		rows = append(rows, r)
		r.digest, r.frame = nil, nil
		return nil
	}, `SELECT conversation, digest, CAST(frame AS BLOB) FROM log WHERE typeof(frame) = 'text'`); err != nil {
		return err
	}
	for _, r := range rows {
		sealed := t.db.sealer.seal("log", logRow(r.conversation, r.digest), "frame", r.frame)
		if err := t.exec(`UPDATE log SET frame = $1 WHERE conversation = $2 AND digest = $3`, sealed, r.conversation, r.digest); err != nil {
			return err
		}
	}
	return nil
}

// noted says whether the journal has an event with that digest, and where; isLost that
// it is missing in the log since that was set back.
func (t *tx) noted(conversation string, digest [sha256.Size]byte) (seq int64, isLost, found bool, err error) {
	found, err = t.get([]any{&seq, &isLost}, `SELECT seq, lost FROM log WHERE conversation = $1 AND digest = $2`, conversation, digest[:])
	return seq, isLost, found, err
}

// overlap is the event that a subscription begins with: the last one that was taken in,
// if the journal has it, so that a log that was set back shows.
func (t *tx) overlap(conv *conversation) (from int64, err error) {
	var one int
	found, err := t.get([]any{&one}, `SELECT 1 FROM log WHERE conversation = $1 AND seq = $2 AND lost = 0`, conv.id, conv.nextSeq-1)
	if found {
		return conv.nextSeq - 1, err
	}
	if conv.info.Unsure { // there is nothing to compare: it is read from here on
		seen, err := t.conversation(conv.id)
		if err != nil {
			return 0, err
		}
		seen.editInfo().Unsure = false
	}
	return conv.nextSeq, err
}

// isAsBefore compares an event that was taken in before with what stood in its place.
func (t *tx) isAsBefore(conversation string, seq int64, digest [sha256.Size]byte) (bool, error) {
	var one int
	known, err := t.get([]any{&one}, `SELECT 1 FROM log WHERE conversation = $1 AND seq = $2 AND lost = 0`, conversation, seq)
	if err != nil || !known {
		return true, err // older than the journal
	}
	at, _, found, err := t.noted(conversation, digest)
	return found && at == seq, err
}

// rewind goes back to the event after last, the latest that may still be as it was. The
// further back it has gone in vain the bigger the next step: what is read again without
// need is known by its digest.
func (c *Client) rewind(tx *tx, conv *conversation, last int64) error {
	info := conv.editInfo()
	var first int64 // what is before the journal was never read here, or long ago
	if _, err := tx.get([]any{&first}, `SELECT coalesce(min(seq), 1) FROM log WHERE conversation = $1`, conv.id); err != nil {
		return err
	}
	next := min(conv.nextSeq, max(first, min(last+1, conv.nextSeq)-info.Back))
	info.Unsure = true
	info.Back = min(max(16, 8*info.Back), journalEvents)
	if !info.Rewound {
		info.Rewound = true
		c.stats.rewinds.Add(1)
		if err := tx.report(Event{Type: EventRewound, Conversation: conv.id, Seq: next - 1, Time: c.now(), Code: problemRewound,
			Problem: fmt.Sprintf("the server's log is not what it was behind %d", next-1)}); err != nil {
			return err
		}
	}
	if err := tx.settleEvents(conv.id, next); err != nil {
		return err
	}
	if err := tx.exec(`UPDATE log SET lost = 1 WHERE conversation = $1 AND seq >= $2`, conv.id, next); err != nil {
		return err
	}
	// Their places may be taken by others: they stand apart until they come again.
	if err := tx.exec(`UPDATE messages SET seq = -seq WHERE conversation = $1 AND seq >= $2`, conv.id, next); err != nil {
		return err
	}
	conv.setNextSeq(next)
	return nil
}

// settleEvents puts the messages into the events that name them by their place, before
// the places change.
func (t *tx) settleEvents(conversation string, from int64) error {
	var id, seq int64
	events := map[int64]int64{}
	if err := t.each([]any{&id, &seq}, func() error { events[id] = seq; return nil },
		`SELECT id, seq FROM events WHERE conversation = $1 AND seq >= $2 AND length(body) = 0`, conversation, from); err != nil {
		return err
	}
	for id, seq := range events {
		e, err := t.message(conversation, seq)
		if err != nil {
			return err
		}
		body, err := t.sealJSON("events", strconv.FormatInt(id, 10), "body", e)
		if err != nil {
			return err
		}
		if err := t.exec(`UPDATE events SET body = $1 WHERE id = $2`, body, id); err != nil {
			return err
		}
	}
	return nil
}

// takeAgain takes in an event that was there before the log was set back: it gets its
// new place, and nobody is told.
func (c *Client) takeAgain(tx *tx, conv *conversation, e *gateway.Event, digest [sha256.Size]byte) error {
	if err := tx.exec(`UPDATE log SET seq = $1, lost = 0 WHERE conversation = $2 AND digest = $3`, e.Seq, conv.id, digest[:]); err != nil {
		return err
	}
	if o, err := tx.outgoingByWire(conv.id, e.MsgID); err != nil {
		return err
	} else if o != nil && o.envelope == e.Env {
		if err := tx.removeOutgoing(o.id); err != nil {
			return err
		}
	}
	var seq int64
	found, err := tx.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND digest = $2 AND seq < 0`, conv.id, digest[:])
	if err != nil || !found {
		return err
	}
	message, err := tx.message(conv.id, seq)
	if err != nil {
		return err
	}
	message.Seq = e.Seq
	body, err := tx.sealJSON("messages", messageRow(conv.id, e.Seq), "body", message)
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE messages SET seq = $1, body = $2 WHERE conversation = $3 AND digest = $4`, e.Seq, body, conv.id, digest[:])
}

// accountLog stands in the journal for the account log, whose events have no digest of
// their own and are told by their place and what they are about.
const accountLog = ""

func accountDigest(pos int64, what []string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strconv.FormatInt(pos, 10) + "\x00" + strings.Join(what, "\x00")))
}

// noteAccountEvent enters an event of the account log.
func (t *tx) noteAccountEvent(pos int64, digest [sha256.Size]byte) error {
	if err := t.exec(`DELETE FROM log WHERE conversation = $1 AND seq < $2`, accountLog, pos-journalEvents); err != nil {
		return err
	}
	return t.note(accountLog, pos, digest, "", nil)
}

// isOtherAccountEvent says whether something else stood at pos, or nothing. What is
// older than the journal is taken to be as it was.
func (t *tx) isOtherAccountEvent(pos int64, digest [sha256.Size]byte) (bool, error) {
	if _, _, found, err := t.noted(accountLog, digest); err != nil || found {
		return false, err
	}
	var one int
	return t.get([]any{&one}, `SELECT 1 FROM log WHERE conversation = $1 AND seq <= $2 LIMIT 1`, accountLog, pos)
}

// accountSetBack forgets what stood in the account log from pos on. What it said was
// done when it came. An invitation that the server has lost before it came is sent again
// by who made it, with the commit that goes with it.
func (c *Client) accountSetBack(tx *tx, pos int64) error {
	c.stats.rewinds.Add(1)
	if err := tx.exec(`DELETE FROM log WHERE conversation = $1 AND seq >= $2`, accountLog, pos); err != nil {
		return err
	}
	return tx.report(Event{Type: EventRewound, Seq: pos - 1, Time: c.now(), Code: problemRewound,
		Problem: fmt.Sprintf("the server's log of this account is not what it was behind %d", pos-1)})
}

// resend puts back what the log has lost and is ours, in the order it was in. A commit
// waits until those of others before it are back; if they do not come the group is
// entered anew.
func (c *Client) resend(ctx context.Context, token, id string, tries int) error {
	type row struct {
		kind          string
		frame, digest []byte
	}
	var rows []row
	if err := c.db.update(ctx, func(tx *tx) error {
		rows = nil
		var r row
		return tx.each([]any{&r.kind, &r.frame, &r.digest}, func() error {
			body, err := tx.db.sealer.open("log", logRow(id, r.digest), "frame", r.frame)
			rows = append(rows, row{r.kind, body, r.digest})
			r.frame, r.digest = nil, nil
			return err
		}, `SELECT type, frame, digest FROM log WHERE conversation = $1 AND lost = 1 AND frame IS NOT NULL ORDER BY seq`, id)
	}); err != nil {
		return err
	}
	for _, r := range rows {
		frame := fmt.Appendf(nil, `{"v":%d,"t":%q,"body":%s}`, gateway.Version, r.kind, r.frame)
		err := c.post(ctx, token, "/v1/inbox", frame, &gateway.InboxAnswer{})
		refusal := asRefusal(err)
		switch {
		case err == nil:
		case refusal == nil || refusal.mayPass() || refusal.Code == codeUnauthorized:
			return err
		case refusal.Code == codeEpochConflict && tries < resendTries:
			return fmt.Errorf("send again: %w", err) // what comes before it is somebody else's to send
		}
		if err := c.db.update(ctx, func(tx *tx) error { return c.resent(tx, id, r.digest, refusal) }); err != nil {
			return err
		}
	}
	return c.db.update(ctx, func(tx *tx) error {
		conv, err := tx.conversation(id)
		if err == nil && conv != nil && conv.info.Rewound {
			info := conv.editInfo()
			info.Rewound, info.Back = false, 0
		}
		return err
	})
}

// resendTries is how often a commit is sent again that the server is not ready for.
const resendTries = 8

// resent notes that an event was put back, or cannot be: then the group is entered
// anew if it was a commit, and a message is given back to the application.
func (c *Client) resent(tx *tx, id string, digest []byte, refusal *Refusal) error {
	conv, err := tx.conversation(id)
	if err != nil || conv == nil {
		return err
	}
	if refusal == nil { // its echo gives it its place
		return tx.exec(`UPDATE log SET frame = NULL, type = NULL WHERE conversation = $1 AND digest = $2`, id, digest)
	}
	if err := tx.exec(`DELETE FROM log WHERE conversation = $1 AND digest = $2`, id, digest); err != nil {
		return err
	}
	var seq int64
	found, err := tx.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND digest = $2`, id, digest)
	if err != nil {
		return err
	}
	if !found {
		conv.mustRejoin("the server has lost a commit: " + refusal.Message)
		conv.editInfo().Forced = true // into an epoch before ours
		return nil
	}
	e, err := tx.message(id, seq)
	if err != nil {
		return err
	}
	return tx.report(Event{Type: EventRefused, Conversation: id, MessageID: e.MessageID, Own: true, Text: e.Text, Time: c.now(),
		Code: refusal.Code, Problem: refusal.Message})
}

// advanceResend sends again what a log that was set back has lost.
func (s *session) advanceResend(ctx context.Context, conv *conversation, sub *subscription) {
	if s.jobs[conv.id] || !sub.commit.isReady() {
		return
	}
	tries := sub.commit.failed
	s.start(ctx, conv.id, func(ctx context.Context) error { return s.c.resend(ctx, s.token, conv.id, tries) }, nil)
}

// setBack reads the log again from where it may be as it was.
func (s *session) setBack(id string) {
	sub := s.sub(id)
	sub.active, sub.caughtUp, sub.missing, sub.moved = false, false, false, time.Now()
	s.due[id] = true
}
