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

// taken is the outcome of applying an event of a conversation's log.
type taken int

const (
	takenIn   taken = iota // it is in the home now
	takenGap               // an earlier one is missing
	takenTwin              // it was applied before
	takenNot               // its conversation is not read
	takenBack              // the log has changed: it has to be read again
)

// takeEvent applies the next message of a conversation: new MLS state, plaintext and cursor
// change together in tx (I1). A message that cannot be read is recorded as such, and the log
// continues after it.
func (k keeper) takeEvent(tx *tx, e *logMessage) (what taken, err error) {
	conv, err := tx.conversation(e.conversation)
	switch {
	case err != nil:
		return takenNot, err
	case conv == nil || !conv.isLive():
		return takenNot, nil
	case e.seq < conv.nextSeq:
		return k.takeOld(tx, conv, e)
	case conv.info.Unsure:
		return takenNot, nil // of a subscription from before the log was set back
	case e.seq > conv.nextSeq:
		return takenGap, nil
	}
	conv.setNextSeq(e.seq + 1)
	err = k.takeNext(tx, conv, e)
	if err == nil && conv.phase == Joined && e.epoch != nil && *e.epoch > int64(conv.epoch()) {
		conv.mustRejoin(fmt.Sprintf("the group is in epoch %d, and the way there cannot be followed", *e.epoch))
	}
	return takenIn, err
}

// takeNext applies the next event in order.
func (k keeper) takeNext(tx *tx, conv *conversation, e *logMessage) error {
	out := Event{Conversation: conv.id, Seq: e.seq, MessageID: e.id, Time: k.c.now()}
	message := e.message
	if message == nil {
		return k.unreadable(tx, out, errors.New("not an MLS message"))
	}
	digest := sha256.Sum256(message)
	if _, isLost, _, err := tx.Journal.Find(conv.id, digest); err != nil || isLost {
		if err == nil {
			err = k.takeAgain(tx, conv, e, digest)
		}
		return err
	}
	if kind, request, err := k.ownRequest(tx, conv, e, message); err != nil {
		return err
	} else if err := tx.note(conv.id, e.seq, digest, kind, request); err != nil {
		return err
	}
	switch isOwn := conv.isPendingEcho(message); {
	case conv.phase == Joining:
		return k.takeEntry(tx, conv, out, isOwn)
	case isOwn && e.kind != kindApp:
		next, err := conv.pending.commit.Apply(conv.group)
		if err != nil {
			return k.unreadable(tx, out, fmt.Errorf("own commit: %w", err))
		}
		return k.enterEpoch(tx, conv, next, out, conv.pending)
	}
	own, err := tx.Outbox.ByWire(conv.id, e.id)
	switch {
	case err != nil:
		return err
	case own != nil && isEnvelope(own, message):
		return k.takeEcho(tx, own, out, message)
	case own != nil:
		// Another client's message has our msg_id: ours was never stored.
		if err := tx.Outbox.Rename(own.ID, newMessageID()); err != nil {
			return err
		}
	}
	return k.takeForeign(tx, conv, e, out, message)
}

// takeEntry applies the event at the place that the server has given for our external commit.
func (k keeper) takeEntry(tx *tx, conv *conversation, out Event, isOurs bool) error {
	if !isOurs {
		return errors.Join(k.dropEntry(tx, conv), k.trouble(tx, conv, fmt.Errorf("%w: the log does not show our commit", ErrGroupInfo)))
	}
	next, err := conv.pending.commit.Apply(nil)
	if err != nil {
		return errors.Join(k.dropEntry(tx, conv), k.trouble(tx, conv, err))
	}
	return k.entered(tx, conv, next, out)
}

// takeOld checks whether an event that was applied before is unchanged.
func (k keeper) takeOld(tx *tx, conv *conversation, e *logMessage) (taken, error) {
	if e.message == nil || e.seq != conv.nextSeq-1 {
		return takenTwin, nil // only the last one is compared: it implies the chain before it
	}
	same, err := tx.isAsBefore(conv.id, e.seq, sha256.Sum256(e.message))
	if err != nil || same {
		if conv.info.Unsure {
			conv.editInfo().Unsure = false
		}
		return takenTwin, err
	}
	return takenBack, k.rewind(tx, conv, e.seq-1)
}

// ownRequest returns the request that has sent an event of our own, for the journal; nil for
// those of others.
func (k keeper) ownRequest(tx *tx, conv *conversation, e *logMessage, message []byte) (kind string, request any, err error) {
	if conv.isPendingEcho(message) {
		return home.KindCommit, conv.pending.request(conv.id), nil
	}
	own, err := tx.Outbox.ByWire(conv.id, e.id)
	if err != nil || own == nil || !isEnvelope(own, message) {
		return "", nil, err
	}
	return home.KindSend, sendRequest{Conversation: conv.id, ID: e.id, Message: message}, nil
}

// isEnvelope reports whether a message is the ciphertext that was sent for one of ours.
func isEnvelope(own *home.Outgoing, message []byte) bool {
	return len(own.Envelope) > 0 && bytes.Equal(own.Envelope, message)
}

// takeEcho delivers a message of our own.
func (k keeper) takeEcho(tx *tx, own *home.Outgoing, e Event, message []byte) error {
	e.Type, e.MessageID, e.Own, e.From = EventMessage, own.Message, true, k.c.Self()
	e.Text, e.Time = own.Text, own.Time
	if err := tx.Outbox.Remove(own.ID); err != nil {
		return err
	}
	return tx.saveMessage(e, sha256.Sum256(message), true)
}

// skippedEcho delivers a message of our own that the server has in a part of the log that this
// device has skipped, because it entered the group again after it.
func (k keeper) skippedEcho(tx *tx, row, seq int64) error {
	o, err := tx.Outbox.Get(row)
	if err != nil || o == nil {
		return err
	}
	return k.takeEcho(tx, o, Event{Conversation: o.Conversation, Seq: seq, MessageID: o.Wire, Time: k.c.now()}, o.Envelope)
}

// takeForeign processes a message that another member sent, or claims to have sent.
func (k keeper) takeForeign(tx *tx, conv *conversation, e *logMessage, out Event, message []byte) error {
	digest := sha256.Sum256(message)
	if twin, err := tx.Messages.Has(conv.id, digest); err != nil || twin {
		if twin {
			err = k.unreadable(tx, out, errors.New("the same message again"))
		}
		return err
	}
	processed, err := conv.group.Process(message)
	if err == nil {
		// The kind is the server's verdict on the visible part of the message; one that differs
		// from it is not processed (design 4).
		err = errors.Join(checkKind(e.kind, processed.Kind), k.c.authority.checkJoiner(conv.group, processed))
	}
	if err != nil {
		if e.kind == kindCommit && conv.phase == Joined {
			conv.editInfo().Problem = fmt.Sprintf("the commit at %d cannot be processed: %s", e.seq, err)
			conv.mustRejoin(conv.info.Problem)
		}
		return k.unreadable(tx, out, err)
	}
	out.From = k.c.authority.memberOf(processed.Sender)
	switch {
	case processed.SelfRemoved:
		conv.before = conv.group
		conv.setGroup(nil)
		return k.leave(tx, conv, out.Time, "removed from the group")
	case processed.Kind == mls.Application:
		conv.setGroup(processed.Group)
		if processed.Epoch != conv.epoch() && !hasLeaf(conv.group, processed.Sender.SignatureKey) {
			// Keys of past epochs decrypt messages that were on their way. Members removed
			// since have them too, and a server could go on delivering for them.
			return k.unreadable(tx, out, errors.New("from a device that is no longer in the group"))
		}
		out.Type, out.Text = EventMessage, processed.Plaintext
		return tx.saveMessage(out, digest, out.From.Account == k.c.account.DID())
	case processed.Kind == mls.Commit:
		return k.enterEpoch(tx, conv, processed.Group, out, nil)
	}
	conv.setGroup(processed.Group) // a proposal, for the commit that names it
	return nil
}

func checkKind(stated string, found mls.Kind) error {
	want := map[mls.Kind]string{mls.Application: kindApp, mls.Proposal: kindProposal,
		mls.Commit: kindCommit}[found]
	if stated != "" && stated != want {
		return fmt.Errorf("announced as %s and is %s", stated, want)
	}
	return nil
}

// unreadable records a message that cannot be read, and the cause.
func (k keeper) unreadable(tx *tx, e Event, why error) error {
	k.c.stats.undecryptable.Add(1)
	e.Type, e.Code, e.Problem = EventUndecryptable, problemUndecryptable, why.Error()
	if join := (*refusedJoin)(nil); errors.As(why, &join) {
		e.Type, e.Code, e.From = EventJoinRefused, problemCode(why), join.who
	}
	return tx.report(e)
}

// skipPruned moves the cursor over messages that are gone from the server for good, and reports
// them: the application has no other way to learn of it.
func (k keeper) skipPruned(tx *tx, id string, r *Refusal, now time.Time) (hasSkipped bool, err error) {
	conv, err := tx.conversation(id)
	if err == nil && conv != nil && conv.info.Unsure {
		conv.editInfo().Unsure = false // the event to compare it with is gone
	}
	if err != nil || conv == nil || !conv.isLive() || r.EarliestSeq <= conv.nextSeq {
		return false, err
	}
	e := Event{Type: EventLost, Conversation: id, Seq: r.EarliestSeq - 1, Time: now, Code: problemPruned,
		Problem: fmt.Sprintf("messages %d to %d were not read and are gone", conv.nextSeq, r.EarliestSeq-1)}
	conv.setNextSeq(r.EarliestSeq)
	return true, tx.report(e)
}
