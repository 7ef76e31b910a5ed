package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"time"
)

// batch collects the effects of some events: their changes of the home, in one transaction, and
// the session's actions once that is on disk.
type batch struct {
	s     *session
	tx    *tx
	after []func()
	named map[string]bool // conversations that are due; reports whether the home has them
	end   error           // ends the session
}

// then registers f to run on the state of a conversation, which is due after that. It does
// nothing if the home does not have the conversation: a server can name any number.
func (b *batch) then(id string, f func(sub *subscription)) {
	b.named[id] = false
	b.after = append(b.after, func() {
		if b.named[id] {
			b.s.due[id] = true
			f(b.s.sub(id))
		}
	})
}

// take applies events.
func (s *session) take(ctx context.Context, events []event) error {
	b := &batch{s: s, named: map[string]bool{}}
	err := s.c.db.update(ctx, func(tx *tx) error {
		b.tx = tx
		for _, e := range events {
			if err := b.one(e); err != nil {
				return fmt.Errorf("%T: %w", e, err)
			}
		}
		for id := range b.named {
			b.named[id] = tx.conversation(id) != nil
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range b.after {
		f()
	}
	return b.end
}

// one applies an event.
func (b *batch) one(e event) error {
	switch e := e.(type) {
	case *logMessage:
		return b.message(e)
	case caughtUp:
		return b.caughtUp(e)
	case logGap:
		b.then(e.conversation, func(*subscription) { b.s.gap(e.conversation) })
	case followEnded:
		return b.followRefused(e.conversation, e.refusal)
	case appended:
		return b.appended(e)
	case refused:
		return b.refused(e)
	case reportRefused:
		return b.reportRefused(e)
	case *welcome:
		return b.welcome(e)
	case membership:
		return b.membership(e)
	case accountsChanged:
		return b.accountsChanged(e)
	case accountsUnclear:
		return b.accountsUnclear(e)
	case packagesLow:
		return b.packagesLow(e)
	case draining:
		b.end = &endSession{after: e.after}
	}
	return nil
}

func (b *batch) message(e *logMessage) error {
	id, before := e.conversation, b.tx.stats
	if e.epoch != nil {
		b.s.c.keeper.observed("seen", id, uint64(*e.epoch), nil)
	}
	what, err := b.s.c.keeper.applyMessage(b.tx, e)
	if err != nil {
		return err
	}
	b.s.c.log.Debug("received", "conversation", id, "seq", e.seq, "kind", e.kind, "outcome", what)
	after := b.tx.stats
	b.then(id, func(sub *subscription) {
		if after.Undecryptable > before.Undecryptable {
			b.s.wire.report(report{what: reportUndecryptable, conversation: id})
		}
		if after.Rejoins > before.Rejoins {
			b.s.wire.report(report{what: reportReload, conversation: id})
		}
		switch {
		case after.LostRaces > before.LostRaces:
			b.s.lostRace(id)
		case after.Commits > before.Commits:
			sub.lostRaces = 0
		}
		switch what {
		case outcomeApplied:
			b.s.worked = true
			sub.applied, sub.missing, sub.lastEventAt = e.seq, false, time.Now()
		case outcomeGap:
			b.s.gap(id)
		case outcomeRewound:
			b.s.resubscribe(id)
		case outcomeDuplicate:
			if e.seq == sub.overlap && e.seq < sub.overlapTo {
				sub.overlap++
			} else {
				b.s.c.count(Stats{Duplicates: 1})
			}
		}
	})
	return nil
}

// The waits after a lost race: a random part of a time that doubles, so that of many concurrent
// committers one succeeds.
const (
	raceMin  = 20 * time.Millisecond
	raceMax  = 2 * time.Second
	racesMax = 20 // in a row; after that attempts are rare
)

// lostRace delays the next commit.
func (s *session) lostRace(id string) {
	sub := s.sub(id)
	sub.lostRaces++
	wait := backoff(sub.lostRaces, raceMin, raceMax)
	if sub.lostRaces > racesMax {
		wait = backoff(1, retryMax, retryMax)
		s.c.log.Debug("commits lose every race", "races", sub.lostRaces)
	}
	sub.commit = retry{at: time.Now().Add(wait)}
}

// gap requests a log again from a missing event. Until that arrives all others are dropped:
// none is skipped.
func (s *session) gap(id string) {
	sub := s.sub(id)
	if sub.missing {
		return
	}
	s.c.count(Stats{Gaps: 1})
	s.wire.report(report{what: reportGap, conversation: id})
	sub.missing, sub.active, sub.caughtUp = true, false, false
	if sub.follow.failed > 0 {
		sub.follow.later(nil)
	} else {
		sub.follow.failed = 1 // immediately the first time
	}
	s.due[id] = true
}

func (b *batch) caughtUp(m caughtUp) error {
	conv := b.tx.conversation(m.conversation)
	if conv == nil {
		return nil
	}
	isWhole := conv.nextSeq > m.seq
	if conv.isLive() && m.seq < conv.nextSeq-1 && b.s.sub(m.conversation).active {
		b.then(conv.id, func(*subscription) { b.s.resubscribe(conv.id) })
		return b.s.c.keeper.rewind(b.tx, conv, m.seq)
	}
	if conv.info.Unsure {
		return nil // of an earlier subscription
	}
	b.then(conv.id, func(sub *subscription) {
		switch {
		case !sub.active: // of a subscription that was replaced
		case !isWhole:
			sub.missing = false
			b.s.gap(conv.id)
		default:
			sub.caughtUp, sub.missing = true, false
			sub.follow.ok()
		}
	})
	return nil
}

// answered returns the request with that number, which expects no other answer, and its
// conversation; nil for an unknown number.
func (b *batch) answered(number int) (request, *conversation) {
	r, ok := b.s.requests[number]
	if !ok {
		return r, nil
	}
	delete(b.s.requests, number)
	return r, b.tx.conversation(r.conversation)
}

func (b *batch) appended(m appended) error {
	r, conv := b.answered(m.number)
	var isRenamed bool
	var err error
	isEntry := conv != nil && conv.phase == Joining
	switch {
	case conv == nil:
		return nil
	case r.commit != "":
		err = b.s.c.keeper.place(b.tx, conv, r.commit, m.seq)
	case m.seq >= conv.info.SkipFrom && m.seq < conv.info.SkipTo:
		err = b.s.c.keeper.deliverSkipped(b.tx, conv, r.outgoing, m.seq)
	case m.seq < conv.nextSeq && !conv.info.Unsure:
		isRenamed, err = b.s.c.keeper.renameTaken(b.tx, conv, r.outgoing, m.seq)
	}
	if r.commit == "" && conv.phase == Joined && conv.info.Problem != "" {
		conv.editInfo().Problem = "" // of an earlier request
	}
	if err != nil {
		return err
	}
	b.then(r.conversation, func(sub *subscription) {
		b.s.worked = true
		if r.commit != "" {
			sub.committing, sub.answered = false, r.commit
			sub.commit.ok()
			if isEntry {
				sub.sentThrough = 0 // what the server has in the skipped part is answered again
			}
			return
		}
		if sub.sending = false; !isRenamed {
			sub.sentThrough = max(sub.sentThrough, r.outgoing)
		}
		sub.send.ok()
	})
	return nil
}

func (b *batch) refused(m refused) error {
	r, conv := b.answered(m.number)
	switch {
	case conv == nil:
		return nil
	case r.commit == "":
		return b.sendRefused(conv, r.outgoing, m.refusal)
	}
	return b.commitRefused(conv, r.commit, m.refusal)
}

// followRefused handles the end of a subscription.
func (b *batch) followRefused(id string, r *Refusal) error {
	b.then(id, func(sub *subscription) {
		sub.active, sub.caughtUp, sub.missing = false, false, false
		sub.follow.later(r)
	})
	switch r.Code {
	case codePruned:
		b.then(id, func(sub *subscription) {
			if sub.earliest == 0 { // otherwise the next attempt may fail as well
				sub.follow.ok()
			}
			sub.earliest = max(sub.earliest, sub.overlap+1, r.EarliestSeq)
		})
		return b.s.c.keeper.skipPruned(b.tx, id, r, b.s.c.now())
	case codeForbidden:
		b.then(id, func(sub *subscription) { sub.follow.ok() }) // after another invitation the log is read at once
		conv := b.tx.conversation(id)
		if conv == nil || !conv.isLive() {
			return nil
		}
		return b.s.c.keeper.leave(b.tx, conv, b.s.c.now(), r.Message)
	}
	conv := b.tx.conversation(id)
	if conv == nil || r.mayPass() {
		return nil
	}
	return b.s.c.keeper.reportProblem(b.tx, conv, r)
}

func (b *batch) sendRefused(conv *conversation, row int64, refusal *Refusal) error {
	epoch := conv.epoch()
	b.then(conv.id, func(sub *subscription) {
		sub.sending = false
		switch {
		case refusal.Code == codeEpochConflict && uint64(max(refusal.CurrentEpoch, 0)) > epoch:
			sub.hold(uint64(refusal.CurrentEpoch)) // the commits are on their way
		case refusal.Code == codeEpochConflict || refusal.mayPass():
			sub.send.later(refusal)
		}
	})
	switch {
	case refusal.Code == codeEpochConflict && conv.info.Rewound && uint64(max(refusal.CurrentEpoch, 0)) < epoch:
		return nil // the commits that the log has lost come first
	case refusal.Code == codeEpochConflict:
		return b.tx.Outbox.ClearEnvelope(row)
	case refusal.mayPass():
		return nil
	}
	o, err := b.tx.Outbox.Get(row)
	if err != nil || o == nil {
		return err
	}
	return b.tx.refuseOutgoing(o, b.s.c.now(), refusal.Code, refusal.Message)
}

func (b *batch) commitRefused(conv *conversation, commit string, refusal *Refusal) error {
	b.then(conv.id, func(sub *subscription) {
		sub.committing = false
		if refusal.Code == codeEpochConflict {
			sub.answered = commit // the winner is on its way through the log
			sub.hold(uint64(max(refusal.CurrentEpoch, 0)))
		} else {
			sub.commit.later(refusal)
		}
	})
	if refusal.mayPass() {
		return nil
	}
	lostRaces := b.tx.stats.LostRaces
	err := b.s.c.keeper.commitRefused(b.tx, conv, commit, refusal)
	if b.tx.stats.LostRaces > lostRaces {
		b.then(conv.id, func(*subscription) { b.s.lostRace(conv.id) })
	}
	return err
}

// applyAccountEvent moves the cursor of the account log over the event at pos, unless it was
// applied before. The words of what distinguish the event from others that could be at pos. If
// another one was at pos before, the log was rewound, and continues from here.
func (b *batch) applyAccountEvent(at accountPlace, what []string, do func() error) error {
	if !at.isLogged {
		return do()
	}
	pos := at.pos
	before, err := b.tx.Counters.Get("device_pos")
	if err != nil {
		return err
	}
	digest := accountDigest(pos, what)
	if pos <= before {
		if isOther, err := b.tx.isOtherAccountEvent(pos, digest); err != nil || !isOther {
			return err
		}
		if err := b.s.c.keeper.rewindAccount(b.tx, pos); err != nil {
			return err
		}
		b.after = append(b.after, func() { b.s.devicePos, b.s.deviceAcked = pos-1, pos-1 })
	}
	if err := b.tx.noteAccountEvent(pos, digest); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	b.after = append(b.after, func() { b.s.devicePos = max(b.s.devicePos, pos) })
	return b.tx.Counters.Set("device_pos", pos)
}

// The names of account log events in the journal.
const (
	accountWelcome = "welcome"
	accountMembers = "members"
	accountLow     = "keypackages.low"
)

func (b *batch) welcome(w *welcome) error {
	if !w.isLogged {
		return b.applyPolledWelcome(w)
	}
	b.then(w.Conversation, func(*subscription) {})
	return b.applyAccountEvent(accountPlace{w.Pos, true}, []string{accountWelcome, w.Conversation, w.ID}, func() error { return b.s.c.keeper.applyWelcome(b.tx, w) })
}

// polledWelcomes is the journal's key for Welcomes that were found by pollWelcome.
const polledWelcomes = "\x00welcomes"

// applyPolledWelcome applies a Welcome that was found by pollWelcome. The home assigns its
// position among others.
func (b *batch) applyPolledWelcome(w *welcome) error {
	digest := accountDigest(w.Epoch, []string{w.Conversation, w.KeyPackageRef, base64.StdEncoding.EncodeToString(w.Message)})
	_, _, isKnown, err := b.tx.Journal.Find(polledWelcomes, digest)
	if err != nil {
		return err
	}
	if !isKnown {
		pos, err := b.tx.Counters.Next("xrpc_welcome")
		if err != nil {
			return err
		}
		w.Pos = -pos
		if err := b.tx.note(polledWelcomes, pos, digest, "", nil); err != nil {
			return err
		}
		if err := b.s.c.keeper.applyWelcome(b.tx, w); err != nil {
			return err
		}
	}
	b.then(w.Conversation, func(*subscription) {})
	b.after = append(b.after, func() {
		b.s.wire.confirm(w)
		b.s.checkKeyPackages()
	})
	return nil
}

func (b *batch) membership(m membership) error {
	self := b.s.c.account.DID()
	b.then(m.conversation, func(*subscription) {})
	return b.applyAccountEvent(m.place, slices.Concat([]string{accountMembers, m.conversation, "+"}, m.add, []string{"-"}, m.remove), func() error {
		conv := b.tx.conversation(m.conversation)
		switch {
		case slices.Contains(m.add, self):
			b.s.c.keeper.learnConversation(b.tx, m.conversation)
		case slices.Contains(m.remove, self) && conv != nil && conv.phase == Waiting:
			return b.s.c.keeper.leave(b.tx, conv, b.s.c.now(), "removed from the conversation")
		}
		return nil // a log that is read ends by itself, after its earlier events
	})
}

// accountsUnclear makes the session request the members of a conversation.
func (b *batch) accountsUnclear(m accountsUnclear) error {
	conv := b.tx.conversation(m.conversation)
	if conv == nil {
		return nil
	}
	conv.rosterChanges++
	if m.left != "" {
		conv.hasLeft(m.left)
	}
	b.then(conv.id, func(sub *subscription) { sub.rosterDue = true })
	return nil
}

func (b *batch) packagesLow(m packagesLow) error {
	b.after = append(b.after, b.s.checkKeyPackages)
	return b.applyAccountEvent(m.place, []string{accountLow}, func() error { return nil })
}

// checkKeyPackages requests the server's count of key packages, and fills the pool.
func (s *session) checkKeyPackages() {
	s.available = -1
	s.doAgain(choreKeyPackages)
}
