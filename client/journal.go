package client

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/client/internal/home"
)

// The log of a server does not go backwards, unless it is restored from a backup, which must
// not happen silently. A home therefore stores the digest of each received event, and for
// own messages and commits the requests that sent them: the journal. Each subscription begins
// some events early; if one of these differs from the journal, or the log ends before it, the
// log was rewound. Events that are then read again are recognized by their digest and not
// reported twice; own ones that do not come again are sent again, under the same msg_id and byte
// for byte, so that others recognize them too. A device that was offline meanwhile, and finds
// these events unchanged, keeps its order of messages.

// note enters an event of the log, for an own one with the request that sent it.
func (t *tx) note(conversation string, seq int64, digest [sha256.Size]byte, kind string, request any) error {
	if request == nil {
		return t.Journal.Note(conversation, seq, digest, "", nil)
	}
	raw, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	return t.Journal.Note(conversation, seq, digest, kind, raw)
}

// overlapMax bounds the events that a subscription begins early.
const overlapMax = 16

// overlap returns the event that a subscription begins with, to detect a log that was rewound.
// Of the last events that were received that is the last own one, which no one else sends
// again, or else the last one, if the journal has it. The server has none before earliest.
func (t *tx) overlap(conv *conversation, earliest int64) (from int64, err error) {
	from, found, err := t.Journal.LastOwn(conv.id, max(conv.nextSeq-overlapMax, earliest))
	if err == nil && !found && earliest < conv.nextSeq {
		from = conv.nextSeq - 1
		found, err = t.Journal.Has(conv.id, from)
	}
	if err != nil || found {
		return from, err
	}
	if conv.info.Unsure { // no event to compare with: reading starts here
		conv.editInfo().Unsure = false
	}
	return conv.nextSeq, nil
}

// isUnchanged reports whether an event equals the journal's event at its place.
func (t *tx) isUnchanged(conversation string, seq int64, digest [sha256.Size]byte) (bool, error) {
	known, err := t.Journal.Has(conversation, seq)
	if err != nil || !known {
		return true, err // older than the journal
	}
	at, _, found, err := t.Journal.Find(conversation, digest)
	return found && at == seq, err
}

// rewind returns to the first event of the journal, but not beyond the event after last, the
// latest that may be unchanged: the log may end before the journal of a device that has joined
// since the backup. An equal event proves nothing about those before it: once others have sent
// their lost ones again, a new one can stand where ours was. Events that are read again
// needlessly are recognized by their digest.
func (k keeper) rewind(tx *tx, conv *conversation, last int64) error {
	last = min(max(last, 0), conv.nextSeq-1)
	next := last + 1
	first, found, err := tx.Journal.First(conv.id) // events before it were never read here, or long ago
	if err != nil {
		return err
	}
	if found {
		next = min(next, first)
	}
	if err := k.reportRewound(tx, conv, last); err != nil {
		return err
	}
	info := conv.editInfo()
	info.Unsure = true
	info.SkipTo = min(info.SkipTo, next) // other messages may take the skipped places
	return tx.moveTo(conv, next)
}

// reportRewound records that a log was rewound, and reports it the first time; last is the
// latest event that may be unchanged.
func (k keeper) reportRewound(tx *tx, conv *conversation, last int64) error {
	if conv.info.Rewound {
		return nil
	}
	conv.editInfo().Rewound = true
	tx.stats.Rewinds++
	return tx.report(Event{Type: EventRewound, Conversation: conv.id, Seq: last, Time: k.c.now(), Code: problemRewound,
		Problem: fmt.Sprintf("server lost or changed its messages after position %d", last)})
}

// moveTo makes next the next event of a log. Others may take the places of the messages from
// there on, if there are any: these are detached until they come again.
func (t *tx) moveTo(conv *conversation, next int64) error {
	if err := t.Events.Settle(conv.id, next); err != nil {
		return err
	}
	if err := t.Journal.MarkLost(conv.id, next); err != nil {
		return err
	}
	conv.setNextSeq(next)
	if conv.info.Title.At >= next { // a later one may come before that place
		conv.editInfo().Title.At = max(next-1, 0)
	}
	return t.Messages.Detach(conv.id, next)
}

// reapply applies an event that was in the log before it was rewound: it gets its new place,
// and is not reported.
func (k keeper) reapply(tx *tx, conv *conversation, e *logMessage, digest [sha256.Size]byte) error {
	if err := tx.Journal.Restore(conv.id, digest, e.seq); err != nil {
		return err
	}
	if o, err := tx.Outbox.ByWire(conv.id, e.id); err != nil {
		return err
	} else if o != nil && isEnvelope(o, e.message) {
		if err := tx.Outbox.Remove(o.ID); err != nil {
			return err
		}
	}
	seq, found, err := tx.Messages.SeqOf(conv.id, digest[:])
	if err != nil || !found || seq > 0 {
		return err
	}
	var message Event
	if err := tx.Messages.Get(conv.id, seq, &message); err != nil {
		return err
	}
	message.Seq = e.seq
	return tx.Messages.Restore(conv.id, digest[:], e.seq, message)
}

// accountLog is the journal's key for the account log. Its events have no digest of their own
// and are identified by their place and subject.
const accountLog = ""

func accountDigest(pos int64, what []string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strconv.FormatInt(pos, 10) + "\x00" + strings.Join(what, "\x00")))
}

// noteAccountEvent enters an event of the account log.
func (t *tx) noteAccountEvent(pos int64, digest [sha256.Size]byte) error {
	if err := t.Journal.ForgetBefore(accountLog, pos-home.JournalEvents); err != nil {
		return err
	}
	return t.note(accountLog, pos, digest, "", nil)
}

// isOtherAccountEvent reports whether another event, or none, was at pos. Events older than the
// journal are assumed to be unchanged.
func (t *tx) isOtherAccountEvent(pos int64, digest [sha256.Size]byte) (bool, error) {
	if _, _, found, err := t.Journal.Find(accountLog, digest); err != nil || found {
		return false, err
	}
	return t.Journal.HasUpTo(accountLog, pos)
}

// rewindAccount deletes the journal of the account log from pos on. Its events were handled
// when they came. Those before pos may have come for a second time, such as an addition to a
// conversation that this account was not in meanwhile: the server's list shows it. An
// invitation that the server lost before this device received it is sent again by its sender,
// with its commit.
func (k keeper) rewindAccount(tx *tx, pos int64) error {
	tx.wake(choreList)
	tx.stats.Rewinds++
	if err := tx.Journal.ForgetFrom(accountLog, pos); err != nil {
		return err
	}
	return tx.report(Event{Type: EventRewound, Seq: pos - 1, Time: k.c.now(), Code: problemRewound,
		Problem: fmt.Sprintf("server lost or changed the events of this account after position %d", pos-1)})
}

// resend restores the own events that the log has lost, in their former order. A commit waits
// until those of others before it are restored; if they do not come the group is entered again.
func (e errands) resend(ctx context.Context, by service, id string, tries int) error {
	lost, err := read(ctx, e.c.db, func(tx *tx) ([]home.Request, error) { return tx.Journal.Lost(id) })
	if err != nil {
		return err
	}
	for _, r := range lost {
		err := resendOne(ctx, by, r)
		refusal := asRefusal(err)
		switch {
		case err == nil:
		case refusal == nil || refusal.mayPass() || refusal.Code == codeUnauthorized:
			return err
		case refusal.Code == codeEpochConflict && tries < resendTries:
			return fmt.Errorf("resend: %w", err) // another member must first restore an earlier event
		}
		if err := e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error { return e.c.keeper.resent(tx, conv, r, refusal) }); err != nil {
			return err
		}
	}
	return e.c.db.edit(ctx, id, func(_ *tx, conv *conversation) error {
		if conv.info.Rewound {
			info := conv.editInfo()
			info.Rewound = false
		}
		return nil
	})
}

// resendOne repeats a request of the journal.
func resendOne(ctx context.Context, by service, r home.Request) error {
	var err error
	switch r.Kind {
	case home.KindSend:
		var m sendRequest
		if err = json.Unmarshal(r.Body, &m); err == nil {
			_, err = by.sendNow(ctx, m)
		}
	case home.KindCommit:
		var m commitRequest
		if err = json.Unmarshal(r.Body, &m); err == nil {
			_, err = by.commitNow(ctx, m)
		}
	default:
		err = fmt.Errorf("unknown kind of request in the journal: %q", r.Kind)
	}
	return err
}

// resendTries bounds the attempts to resend a commit while the server is not ready for it.
const resendTries = 8

// resent records that an event was restored, or cannot be: then the group is entered again if
// it was a commit, and a text is reported to the application.
func (k keeper) resent(tx *tx, conv *conversation, r home.Request, refusal *Refusal) error {
	id, digest := conv.id, r.Digest
	if refusal == nil { // its echo gives it its place
		return tx.Journal.Resent(id, digest)
	}
	if err := tx.Journal.Forget(id, digest); err != nil {
		return err
	}
	if r.Kind == home.KindCommit {
		conv.mustRejoin("server lost a commit: " + refusal.Message)
		conv.editInfo().Forced = true // into an epoch before ours
		return nil
	}
	seq, found, err := tx.Messages.SeqOf(id, digest)
	if err != nil || !found {
		return err // not for people
	}
	var e Event
	if err := tx.Messages.Get(id, seq, &e); err != nil || e.Type != EventMessage {
		return err
	}
	return tx.report(Event{Type: EventRefused, Conversation: id, MessageID: e.MessageID, Own: true, Text: e.Text, Time: k.c.now(),
		Code: refusal.Code, Problem: refusal.Message})
}

// advanceResend sends own events again that a log has lost.
func (s *session) advanceResend(ctx context.Context, conv *conversation, sub *subscription) {
	if s.jobs[conv.id] || !sub.commit.isReady() {
		return
	}
	tries := sub.commit.failed
	s.start(ctx, conv.id, func(ctx context.Context) error { return s.c.errands.resend(ctx, s.calls, conv.id, tries) }, nil)
}

// rewindCalm is the time without a rewind after which the next one is handled at once.
const rewindCalm = 4 * retryMax

// resubscribe subscribes to a log again, from the place to which rewind has moved. It is
// immediate the first time: a server may let its log be rewound again and again.
func (s *session) resubscribe(id string) {
	sub, now := s.sub(id), time.Now()
	sub.active, sub.caughtUp, sub.missing, sub.lastEventAt = false, false, false, now
	if now.Sub(sub.rewoundAt) > rewindCalm {
		sub.rewinds = 0
	}
	if sub.rewinds > 0 {
		sub.follow.at = now.Add(backoff(sub.rewinds, retryMin, retryMax))
	}
	sub.rewinds, sub.rewoundAt = sub.rewinds+1, now
	s.due[id] = true
}
