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
	after []func() error
}

func (b *batch) then(f func()) {
	b.after = append(b.after, func() error { f(); return nil })
}

// take applies events.
func (s *session) take(ctx context.Context, events []event) error {
	b := &batch{s: s}
	err := s.c.db.update(ctx, func(tx *tx) error {
		b.tx = tx
		for _, e := range events {
			if err := b.one(e); err != nil {
				return fmt.Errorf("%T: %w", e, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range b.after {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// one applies an event.
func (b *batch) one(e event) error {
	switch e := e.(type) {
	case *logMessage:
		return b.message(e)
	case caughtUp:
		return b.caughtUp(e)
	case logGap:
		b.then(func() { b.s.gap(e.conversation) })
		return nil
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
		b.after = append(b.after, func() error { return &endSession{after: e.after} })
		return nil
	}
	return nil
}

func (b *batch) message(e *logMessage) error {
	unreadable, lost := b.s.c.stats.undecryptable.Load(), b.s.c.stats.lostRaces.Load()
	commits, rejoins := b.s.c.stats.commits.Load(), b.s.c.stats.rejoins.Load()
	if e.epoch != nil {
		b.s.c.keeper.observed("seen", e.conversation, uint64(*e.epoch), nil)
	}
	what, err := b.s.c.keeper.takeEvent(b.tx, e)
	if err != nil {
		return err
	}
	if b.s.c.stats.undecryptable.Load() != unreadable {
		b.then(func() {
			b.s.wire.report(report{what: reportUndecryptable, conversation: e.conversation})
		})
	}
	if b.s.c.stats.rejoins.Load() != rejoins {
		b.then(func() {
			b.s.wire.report(report{what: reportReload, conversation: e.conversation})
		})
	}
	switch {
	case b.s.c.stats.lostRaces.Load() != lost:
		b.then(func() { b.s.lostRace(e.conversation) })
	case b.s.c.stats.commits.Load() != commits:
		b.then(func() { b.s.sub(e.conversation).lost = 0 })
	}
	switch what {
	case takenIn:
		b.then(func() {
			sub := b.s.sub(e.conversation)
			b.s.worked = true
			sub.taken, sub.missing, sub.moved = e.seq, false, time.Now()
			b.s.due[e.conversation] = true
		})
	case takenGap:
		b.then(func() { b.s.gap(e.conversation) })
	case takenBack:
		b.then(func() { b.s.setBack(e.conversation) })
	case takenTwin:
		if b.s.sub(e.conversation).overlap != e.seq {
			b.s.c.stats.duplicates.Add(1)
		}
	}
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
	sub.lost++
	wait := backoff(sub.lost, raceMin, raceMax)
	if sub.lost > racesMax {
		wait = backoff(1, retryMax, retryMax)
		s.c.log.Debug("commits lose every race", "races", sub.lost)
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
	s.c.stats.gaps.Add(1)
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
	conv, err := b.tx.conversation(m.conversation)
	if err != nil || conv == nil {
		return err
	}
	isWhole := conv.nextSeq > m.seq
	if conv.isLive() && m.seq < conv.nextSeq-1 && b.s.sub(m.conversation).active {
		b.then(func() { b.s.setBack(m.conversation) })
		return b.s.c.keeper.rewind(b.tx, conv, m.seq)
	}
	if conv.info.Unsure {
		return nil // of an earlier subscription
	}
	b.then(func() {
		sub := b.s.sub(m.conversation)
		if !sub.active {
			return // of a subscription that was replaced
		}
		if !isWhole {
			sub.missing = false
			b.s.gap(m.conversation)
			return
		}
		sub.caughtUp, sub.missing = true, false
		sub.follow.ok()
		b.s.due[m.conversation] = true
	})
	return nil
}

func (b *batch) appended(m appended) error {
	r, ok := b.s.requests[m.number]
	if !ok {
		return nil
	}
	delete(b.s.requests, m.number)
	conv, err := b.tx.conversation(r.conversation)
	switch {
	case err != nil:
		return err
	case r.commit != "":
		err = b.s.c.keeper.place(b.tx, conv, r.commit, m.seq)
	case conv != nil && m.seq >= conv.info.SkipFrom && m.seq < conv.info.SkipTo:
		err = b.s.c.keeper.skippedEcho(b.tx, r.outgoing, m.seq)
	}
	if err != nil {
		return err
	}
	b.then(func() {
		sub := b.s.sub(r.conversation)
		b.s.due[r.conversation], b.s.worked = true, true
		if r.commit != "" {
			sub.committing, sub.answered = false, r.commit
			sub.commit.ok()
			return
		}
		sub.sending, sub.sentThrough = false, max(sub.sentThrough, r.outgoing)
		sub.send.ok()
	})
	return nil
}

func (b *batch) refused(m refused) error {
	r, ok := b.s.requests[m.number]
	if !ok {
		return nil
	}
	delete(b.s.requests, m.number)
	if r.commit == "" {
		return b.sendRefused(r, m.refusal)
	}
	return b.commitRefused(r, m.refusal)
}

// followRefused handles the end of a subscription.
func (b *batch) followRefused(id string, r *Refusal) error {
	b.then(func() {
		sub := b.s.sub(id)
		sub.active, sub.caughtUp, sub.missing = false, false, false
		sub.follow.later(r)
		b.s.due[id] = true
	})
	switch r.Code {
	case codePruned:
		hasSkipped, err := b.s.c.keeper.skipPruned(b.tx, id, r, b.s.c.now())
		b.then(func() {
			sub := b.s.sub(id)
			if hasSkipped || !sub.noOverlap { // otherwise the next attempt fails as well
				sub.follow.ok()
			}
			sub.noOverlap = true
		})
		return err
	case codeForbidden:
		b.then(func() { b.s.sub(id).follow.ok() }) // after another invitation the log is read at once
		conv, err := b.tx.conversation(id)
		if err != nil || conv == nil || !conv.isLive() {
			return err
		}
		return b.s.c.keeper.leave(b.tx, conv, b.s.c.now(), r.Message)
	}
	conv, err := b.tx.conversation(id)
	if err != nil || conv == nil || r.mayPass() {
		return err
	}
	return b.s.c.keeper.trouble(b.tx, conv, r)
}

func (b *batch) sendRefused(r request, refusal *Refusal) error {
	conv, err := b.tx.conversation(r.conversation)
	if err != nil || conv == nil {
		return err
	}
	epoch := conv.epoch()
	b.then(func() {
		sub := b.s.sub(r.conversation)
		sub.sending = false
		b.s.due[r.conversation] = true
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
		return b.tx.Outbox.ClearEnvelope(r.outgoing)
	case refusal.mayPass():
		return nil
	}
	o, err := b.tx.Outbox.Get(r.outgoing)
	if err != nil || o == nil {
		return err
	}
	return b.tx.refuseOutgoing(o, b.s.c.now(), refusal.Code, refusal.Message)
}

func (b *batch) commitRefused(r request, refusal *Refusal) error {
	b.then(func() {
		sub := b.s.sub(r.conversation)
		sub.committing = false
		b.s.due[r.conversation] = true
		if refusal.Code == codeEpochConflict {
			sub.answered = r.commit // the winner is on its way through the log
			sub.hold(uint64(max(refusal.CurrentEpoch, 0)))
		} else {
			sub.commit.later(refusal)
		}
	})
	if refusal.mayPass() {
		return nil
	}
	conv, err := b.tx.conversation(r.conversation)
	if err != nil {
		return err
	}
	lost := b.s.c.stats.lostRaces.Load()
	err = b.s.c.keeper.commitRefused(b.tx, conv, r.commit, refusal)
	if b.s.c.stats.lostRaces.Load() != lost {
		b.then(func() { b.s.lostRace(r.conversation) })
	}
	return err
}

// takeDevice moves the cursor of the account log over the event at pos, unless it was applied
// before. The words of what distinguish the event from others that could be at pos. If another
// one was at pos before, the log was set back, and continues from here.
func (b *batch) takeDevice(at accountPlace, what []string, do func() error) error {
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
		if err := b.s.c.keeper.accountSetBack(b.tx, pos); err != nil {
			return err
		}
		b.then(func() { b.s.devicePos, b.s.deviceAcked = pos-1, pos-1 })
	}
	if err := b.tx.noteAccountEvent(pos, digest); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	b.then(func() { b.s.devicePos = max(b.s.devicePos, pos) })
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
		return b.lookedUp(w)
	}
	b.then(func() { b.s.due[w.Conversation] = true })
	return b.takeDevice(accountPlace{w.Pos, true}, []string{accountWelcome, w.Conversation, w.ID}, func() error { return b.s.c.keeper.takeWelcome(b.tx, w) })
}

// welcomesLooked is the journal's key for Welcomes that were found by look.
const welcomesLooked = "\x00welcomes"

// lookedUp applies a Welcome that was found by look. The home assigns its position among
// others.
func (b *batch) lookedUp(w *welcome) error {
	digest := accountDigest(w.Epoch, []string{w.Conversation, w.KeyPackageRef, base64.StdEncoding.EncodeToString(w.Message)})
	_, _, isKnown, err := b.tx.Journal.Find(welcomesLooked, digest)
	if err != nil {
		return err
	}
	if !isKnown {
		pos, err := b.tx.Counters.Next("xrpc_welcome")
		if err != nil {
			return err
		}
		w.Pos = -pos
		if err := b.tx.note(welcomesLooked, pos, digest, "", nil); err != nil {
			return err
		}
		if err := b.s.c.keeper.takeWelcome(b.tx, w); err != nil {
			return err
		}
	}
	b.then(func() {
		b.s.due[w.Conversation] = true
		b.s.wire.confirm(w)
		b.s.available = -1 // one less
		b.s.doAgain(choreKeyPackages)
	})
	return nil
}

func (b *batch) membership(m membership) error {
	self := b.s.c.account.DID()
	b.then(func() { b.s.due[m.conversation] = true })
	return b.takeDevice(m.place, slices.Concat([]string{accountMembers, m.conversation, "+"}, m.add, []string{"-"}, m.remove), func() error {
		conv, err := b.tx.conversation(m.conversation)
		switch {
		case err != nil:
			return err
		case slices.Contains(m.add, self):
			return b.s.c.keeper.learnConversation(b.tx, m.conversation)
		case slices.Contains(m.remove, self) && conv != nil && conv.phase == Waiting:
			return b.s.c.keeper.leave(b.tx, conv, b.s.c.now(), "removed from the conversation")
		}
		return nil // a log that is read ends by itself, after its earlier events
	})
}

// accountsUnclear makes the session request the members of a conversation.
func (b *batch) accountsUnclear(m accountsUnclear) error {
	conv, err := b.tx.conversation(m.conversation)
	if err != nil || conv == nil {
		return err
	}
	b.then(func() {
		b.s.sub(m.conversation).askRoster = true
		b.s.due[m.conversation] = true
	})
	return nil
}

func (b *batch) packagesLow(m packagesLow) error {
	b.then(func() {
		b.s.available = -1 // ask: others may have taken more since
		b.s.doAgain(choreKeyPackages)
	})
	return b.takeDevice(m.place, []string{accountLow}, func() error { return nil })
}
