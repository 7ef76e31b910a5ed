package client

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// outcome is the result of applying an event of a conversation's log.
type outcome int

const (
	outcomeApplied   outcome = iota // it is in the home now
	outcomeGap                      // an earlier one is missing
	outcomeDuplicate                // it was applied before
	outcomeIgnored                  // its conversation is not read
	outcomeRewound                  // the log has changed: it has to be read again
)

// String returns the outcome as a word, for logs.
func (o outcome) String() string {
	return [...]string{"applied", "gap", "duplicate", "ignored", "rewound"}[o]
}

// applyMessage applies the next message of a conversation: new MLS state, plaintext and cursor
// change together in tx. A message that cannot be read is recorded as such, and the log
// continues after it.
func (k keeper) applyMessage(tx *tx, e *logMessage) (what outcome, err error) {
	conv := tx.conversation(e.conversation)
	switch {
	case conv == nil || !conv.isLive():
		return outcomeIgnored, nil
	case e.seq < conv.nextSeq:
		return k.checkOld(tx, conv, e)
	case conv.info.Unsure:
		return outcomeIgnored, nil // of a subscription from before the log was rewound
	case e.seq > conv.nextSeq:
		return outcomeGap, nil
	}
	conv.setNextSeq(e.seq + 1)
	err = k.applyNext(tx, conv, e)
	if err == nil && conv.phase == Joined && e.epoch != nil && *e.epoch > int64(conv.epoch()) {
		conv.mustRejoin(fmt.Sprintf("server is in epoch %d and its commits cannot be applied", *e.epoch))
	}
	return outcomeApplied, err
}

// applyNext applies the next event in order.
func (k keeper) applyNext(tx *tx, conv *conversation, e *logMessage) error {
	out := Event{Conversation: conv.id, Seq: e.seq, MessageID: e.id, Time: k.c.now()}
	message := e.message
	if message == nil {
		return k.unreadable(tx, out, errors.New("not an MLS message"))
	}
	digest := sha256.Sum256(message)
	if _, isLost, _, err := tx.Journal.Find(conv.id, digest); err != nil || isLost {
		if err == nil {
			err = k.reapply(tx, conv, e, digest)
		}
		return err
	}
	own, err := tx.Outbox.ByWire(conv.id, e.id)
	if err != nil {
		return err
	}
	isOwnCommit, isOwnMessage := conv.isPendingEcho(message), own != nil && isEnvelope(own, message)
	var kind string // of the request that has sent an own event
	var request any
	switch {
	case isOwnCommit:
		kind, request = home.KindCommit, conv.pending.request(conv.id)
	case isOwnMessage:
		kind, request = home.KindSend, sendRequest{Conversation: conv.id, ID: e.id, Message: message}
	}
	if err := tx.note(conv.id, e.seq, digest, kind, request); err != nil {
		return err
	}
	switch {
	case conv.phase == Joining:
		return k.applyExternalCommit(tx, conv, out, isOwnCommit)
	case isOwnCommit && e.kind != kindApp:
		next, err := conv.pending.commit.Apply(conv.group)
		if err != nil {
			return k.unreadable(tx, out, fmt.Errorf("own commit: %w", err))
		}
		return k.enterEpoch(tx, conv, next, out, digest, conv.pending)
	case isOwnMessage:
		return k.deliverOwn(tx, conv, own, out, message)
	case own != nil:
		// Another client's message has our msg_id: ours was never stored.
		if err := tx.Outbox.Rename(own.ID, newMessageID()); err != nil {
			return err
		}
	}
	return k.applyForeign(tx, conv, e, out, message)
}

// applyExternalCommit applies the event at the place that the server has given for our external
// commit.
func (k keeper) applyExternalCommit(tx *tx, conv *conversation, out Event, isOurs bool) error {
	if !isOurs {
		return errors.Join(k.dropEntry(tx, conv), k.reportProblem(tx, conv, fmt.Errorf("%w: log has another message in place of the own commit", ErrGroupInfo)))
	}
	next, err := conv.pending.commit.Apply(nil)
	if err != nil {
		return errors.Join(k.dropEntry(tx, conv), k.reportProblem(tx, conv, err))
	}
	return k.entered(tx, conv, next, out)
}

// checkOld checks whether an event that was applied before is unchanged. That implies nothing
// for the events before it, so each one that comes is compared.
func (k keeper) checkOld(tx *tx, conv *conversation, e *logMessage) (outcome, error) {
	if e.message == nil {
		return outcomeDuplicate, nil
	}
	same, err := tx.isUnchanged(conv.id, e.seq, sha256.Sum256(e.message))
	if err != nil || same {
		if conv.info.Unsure {
			conv.editInfo().Unsure = false
		}
		return outcomeDuplicate, err
	}
	return outcomeRewound, k.rewind(tx, conv, e.seq-1)
}

// isEnvelope reports whether a message is the ciphertext that was sent for one of ours.
func isEnvelope(own *home.Outgoing, message []byte) bool {
	return len(own.Envelope) > 0 && bytes.Equal(own.Envelope, message)
}

// deliverOwn delivers a message of our own.
func (k keeper) deliverOwn(tx *tx, conv *conversation, own *home.Outgoing, e Event, message []byte) error {
	e.MessageID, e.Own, e.From, e.Time = own.Message, true, k.c.Self(), own.Time
	if err := tx.Outbox.Remove(own.ID); err != nil {
		return err
	}
	if of := contentType(own.Content); of != contentText {
		return k.applyContent(tx, conv, e, sha256.Sum256(message), of, own.Text)
	}
	e.Type, e.Text = EventMessage, own.Text
	return tx.saveMessage(e, sha256.Sum256(message), true)
}

// deliverSkipped delivers a message of our own that the server has in a part of the log that this
// device has skipped, because it entered the group again after it.
func (k keeper) deliverSkipped(tx *tx, conv *conversation, row, seq int64) error {
	o, err := tx.Outbox.Get(row)
	if err != nil || o == nil {
		return err
	}
	return k.deliverOwn(tx, conv, o, Event{Conversation: o.Conversation, Seq: seq, MessageID: o.Wire, Time: k.c.now()}, o.Envelope)
}

// renameTaken gives a message another id for the server if the log has had another message with
// that id at seq: this one was not stored.
func (k keeper) renameTaken(tx *tx, conv *conversation, row, seq int64) (bool, error) {
	o, err := tx.Outbox.Get(row)
	if err != nil || o == nil {
		return false, err
	}
	isOurs, err := tx.isUnchanged(conv.id, seq, sha256.Sum256(o.Envelope))
	if err != nil || isOurs {
		return false, err
	}
	return true, tx.Outbox.Rename(row, newMessageID())
}

// applyForeign processes a message that another member sent, or claims to have sent.
func (k keeper) applyForeign(tx *tx, conv *conversation, e *logMessage, out Event, message []byte) error {
	digest := sha256.Sum256(message)
	if twin, err := tx.Messages.Has(conv.id, digest); err != nil || twin {
		if twin {
			err = k.unreadable(tx, out, errors.New("duplicate of an earlier message"))
		}
		return err
	}
	processed, err := conv.group.Process(message)
	if err == nil {
		// The kind is the server's verdict on the visible part of the message; one that differs
		// from it is not processed.
		err = errors.Join(checkKind(e.kind, processed.Kind), k.c.authority.checkJoiner(conv.group, processed))
	}
	if err != nil {
		if e.kind == kindCommit && conv.phase == Joined {
			conv.editInfo().Problem = fmt.Sprintf("commit %d cannot be processed: %s", e.seq, err)
			conv.mustRejoin(conv.info.Problem)
		}
		return k.unreadable(tx, out, err)
	}
	out.From = k.c.authority.memberOf(processed.Sender)
	switch {
	case processed.SelfRemoved:
		conv.before, conv.by = conv.group, out.From
		conv.setGroup(nil)
		return k.leave(tx, conv, out.Time, "removed from the group")
	case processed.Kind == mls.Application:
		conv.setGroup(processed.Group)
		if processed.Epoch != conv.epoch() && !hasLeaf(conv.group, processed.Sender.SignatureKey) {
			// Keys of past epochs decrypt messages that were on their way. Members removed
			// since have them too, and a server could go on delivering for them.
			return k.unreadable(tx, out, errors.New("sent by a device that is no longer in the group"))
		}
		of, payload := decodeContent(processed.Plaintext)
		switch {
		case of != contentText && !k.c.authority.speaksFor(&processed.Sender):
			return nil
		case of != contentText:
			return k.applyContent(tx, conv, out, digest, of, payload)
		}
		conv.stays(out.From.Account)
		out.Type, out.Text = EventMessage, payload
		return tx.saveMessage(out, digest, out.From.Account == k.c.account.DID())
	case processed.Kind == mls.Commit:
		conv.noteLeaving(processed.Proposals)
		return k.enterEpoch(tx, conv, processed.Group, out, digest, nil)
	}
	conv.setGroup(processed.Group) // a proposal, for the commit that names it
	return nil
}

func checkKind(stated string, found mls.Kind) error {
	want := map[mls.Kind]string{mls.Application: kindApp, mls.Proposal: kindProposal,
		mls.Commit: kindCommit}[found]
	if stated != "" && stated != want {
		return fmt.Errorf("delivered as %s but is %s", stated, want)
	}
	return nil
}

// unreadable records a message that cannot be read, and the cause.
func (k keeper) unreadable(tx *tx, e Event, why error) error {
	tx.stats.Undecryptable++
	e.Type, e.Code, e.Problem = EventUndecryptable, problemUndecryptable, why.Error()
	if join := (*refusedJoin)(nil); errors.As(why, &join) {
		e.Type, e.Code, e.From = EventJoinRefused, problemCode(why), join.who
	}
	return tx.report(e)
}

// skipPruned moves the cursor over messages that are gone from the server for good, and reports
// those that this device has not received: the application has no other way to learn of it.
// Those received before the log was rewound are deleted and not lost: they keep their places.
func (k keeper) skipPruned(tx *tx, id string, r *Refusal, now time.Time) error {
	conv := tx.conversation(id)
	if conv != nil && conv.info.Unsure {
		conv.editInfo().Unsure = false // the event to compare it with is gone
	}
	if conv == nil || !conv.isLive() || r.EarliestSeq <= conv.nextSeq {
		return nil
	}
	missing := conv.nextSeq
	if conv.info.Rewound {
		if err := tx.Messages.Attach(id, conv.nextSeq, r.EarliestSeq); err != nil {
			return err
		}
		last, err := tx.Journal.Unmark(id, conv.nextSeq, r.EarliestSeq)
		if err != nil {
			return err
		}
		missing = max(missing, last+1)
	}
	conv.setNextSeq(r.EarliestSeq)
	if missing == r.EarliestSeq {
		return nil
	}
	return tx.report(Event{Type: EventLost, Conversation: id, Seq: r.EarliestSeq - 1, Time: now, Code: problemPruned,
		Problem: fmt.Sprintf("messages %d to %d were deleted before they were received", missing, r.EarliestSeq-1)})
}
