package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// batch is the work of some frames: what they change in the home, in one
// transaction, and what the session does once that is on disk.
type batch struct {
	s     *session
	tx    *tx
	after []func() error
}

func (b *batch) then(f func()) {
	b.after = append(b.after, func() error { f(); return nil })
}

// take takes frames in.
func (s *session) take(ctx context.Context, frames []gateway.Frame) error {
	b := &batch{s: s}
	err := s.c.db.update(ctx, func(tx *tx) error {
		b.tx = tx
		for _, frame := range frames {
			handle, ok := frameHandlers[frame.Type]
			if !ok {
				continue // newer than we are
			}
			if err := handle(b, frame); err != nil {
				return fmt.Errorf("%s: %w", frame.Type, err)
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

var frameHandlers = map[string]func(*batch, gateway.Frame) error{
	gateway.TypeEvent:          (*batch).event,
	gateway.TypeCaughtUp:       (*batch).caughtUp,
	gateway.TypeAcked:          (*batch).acked,
	gateway.TypeError:          (*batch).refused,
	gateway.TypeWelcome:        (*batch).welcome,
	gateway.TypeMembers:        (*batch).members,
	gateway.TypeKeyPackagesLow: (*batch).keyPackagesLow,
	gateway.TypeDrain:          (*batch).drain,
	gateway.TypeRoster:         (*batch).roster,
	frameMembers:               (*batch).askMembers,
}

func (b *batch) event(frame gateway.Frame) error {
	var e gateway.Event
	if err := frame.Decode(&e); err != nil {
		return err
	}
	unreadable, lost := b.s.c.stats.undecryptable.Load(), b.s.c.stats.lostRaces.Load()
	commits, rejoins := b.s.c.stats.commits.Load(), b.s.c.stats.rejoins.Load()
	if e.Epoch != nil {
		b.s.c.observed("seen", e.ConvID, uint64(*e.Epoch), nil)
	}
	what, err := b.s.c.takeEvent(b.tx, &e)
	if err != nil {
		return err
	}
	if b.s.c.stats.undecryptable.Load() != unreadable {
		b.then(func() {
			b.s.wire.send(gateway.TypeReport, "", gateway.Report{Kind: gateway.ReportDecryptFailure, ConvID: e.ConvID})
		})
	}
	if b.s.c.stats.rejoins.Load() != rejoins {
		b.then(func() {
			b.s.wire.send(gateway.TypeReport, "", gateway.Report{Kind: gateway.ReportStateReload, ConvID: e.ConvID})
		})
	}
	switch {
	case b.s.c.stats.lostRaces.Load() != lost:
		b.then(func() { b.s.lostRace(e.ConvID) })
	case b.s.c.stats.commits.Load() != commits:
		b.then(func() { b.s.sub(e.ConvID).lost = 0 })
	}
	switch what {
	case takenIn:
		b.then(func() {
			sub := b.s.sub(e.ConvID)
			b.s.worked = true
			sub.taken, sub.missing, sub.moved = e.Seq, false, time.Now()
			b.s.due[e.ConvID] = true
		})
	case takenGap:
		b.then(func() { b.s.gap(e.ConvID) })
	case takenBack:
		b.then(func() { b.s.setBack(e.ConvID) })
	case takenTwin:
		if b.s.sub(e.ConvID).overlap != e.Seq {
			b.s.c.stats.duplicates.Add(1)
		}
	}
	return nil
}

// The waits of who has lost a race: a random part of a time that doubles, so that of
// many who want to commit one gets through.
const (
	raceMin  = 20 * time.Millisecond
	raceMax  = 2 * time.Second
	racesMax = 20 // in a row; from then on it is only tried now and then
)

// lostRace spaces the next commit.
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

// gap asks again for events of which one is missing. Until it comes all others are
// dropped: nothing is skipped.
func (s *session) gap(id string) {
	sub := s.sub(id)
	if sub.missing {
		return
	}
	s.c.stats.gaps.Add(1)
	s.wire.send(gateway.TypeReport, "", gateway.Report{Kind: gateway.ReportGap, ConvID: id})
	sub.missing, sub.active, sub.caughtUp = true, false, false
	if sub.follow.failed > 0 {
		sub.follow.later(nil)
	} else {
		sub.follow.failed = 1 // at once the first time
	}
	s.due[id] = true
}

func (b *batch) caughtUp(frame gateway.Frame) error {
	var m gateway.CaughtUp
	if err := frame.Decode(&m); err != nil {
		return err
	}
	conv, err := b.tx.conversation(m.ConvID)
	if err != nil || conv == nil {
		return err
	}
	isWhole := conv.nextSeq > m.Seq
	if conv.isLive() && m.Seq < conv.nextSeq-1 && b.s.sub(m.ConvID).active {
		b.then(func() { b.s.setBack(m.ConvID) })
		return b.s.c.rewind(b.tx, conv, m.Seq)
	}
	if conv.info.Unsure {
		return nil // of the subscription before
	}
	if conv.info.Back > 0 && isWhole {
		conv.editInfo().Back = 0
	}
	b.then(func() {
		sub := b.s.sub(m.ConvID)
		if !sub.active {
			return // of a subscription that was replaced
		}
		if !isWhole {
			sub.missing = false
			b.s.gap(m.ConvID)
			return
		}
		sub.caughtUp, sub.missing = true, false
		sub.follow.ok()
		b.s.due[m.ConvID] = true
	})
	return nil
}

func (b *batch) acked(frame gateway.Frame) error {
	var m gateway.Acked
	if err := frame.Decode(&m); err != nil {
		return err
	}
	r, ok := b.s.requests[string(frame.ID)]
	if !ok {
		return nil
	}
	delete(b.s.requests, string(frame.ID))
	conv, err := b.tx.conversation(r.conversation)
	switch {
	case err != nil:
		return err
	case r.frameType == gateway.TypeCommit:
		err = b.s.c.place(b.tx, conv, r.message, m.Seq)
	case conv != nil && m.Seq >= conv.info.SkipFrom && m.Seq < conv.info.SkipTo:
		err = b.s.c.skippedEcho(b.tx, r.outgoing, m.Seq)
	}
	if err != nil {
		return err
	}
	b.then(func() {
		sub := b.s.sub(r.conversation)
		b.s.due[r.conversation], b.s.worked = true, true
		switch r.frameType {
		case gateway.TypeSend:
			sub.sending, sub.sentThrough = false, max(sub.sentThrough, r.outgoing)
			sub.send.ok()
		case gateway.TypeCommit:
			sub.committing, sub.answered = false, r.message
			sub.commit.ok()
		}
	})
	return nil
}

func (b *batch) refused(frame gateway.Frame) error {
	var body gateway.Error
	if err := frame.Decode(&body); err != nil {
		return err
	}
	refusal := refusalOf(&body)
	if r, ok := b.s.requests[string(frame.ID)]; ok {
		delete(b.s.requests, string(frame.ID))
		if r.frameType == gateway.TypeSend {
			return b.sendRefused(r, refusal)
		}
		return b.commitRefused(r, refusal)
	}
	id := idOf(frame)
	if id, ok := strings.CutPrefix(id, subscribePrefix); ok {
		return b.followRefused(id, refusal)
	}
	if what, ok := strings.CutPrefix(id, reportPrefix); ok {
		return b.reportRefused(what, refusal)
	}
	switch {
	case refusal.Code == codeUnauthorized:
		return refusal
	case refusal.Code == codeForbidden && body.ConvID != "":
		return b.followRefused(body.ConvID, refusal)
	}
	b.s.c.log.Debug("the server complains", "err", refusal)
	return nil
}

// idOf is the text of the id that a frame answers, "" if there is none.
func idOf(frame gateway.Frame) string {
	var body struct {
		ID string `json:"id"`
	}
	if frame.ID == nil || gateway.Unmarshal(slices.Concat([]byte(`{"id":`), frame.ID, []byte(`}`)), &body) != nil {
		return ""
	}
	return body.ID
}

// followRefused deals with the end of a subscription.
func (b *batch) followRefused(id string, r *Refusal) error {
	b.then(func() {
		sub := b.s.sub(id)
		sub.active, sub.caughtUp, sub.missing = false, false, false
		sub.follow.later(r)
		b.s.due[id] = true
	})
	switch r.Code {
	case codePruned:
		hasSkipped, err := b.s.c.skipPruned(b.tx, id, r, b.s.c.now())
		b.then(func() {
			sub := b.s.sub(id)
			if hasSkipped || !sub.noOverlap { // else the next time is no better
				sub.follow.ok()
			}
			sub.noOverlap = true
		})
		return err
	case codeForbidden:
		b.then(func() { b.s.sub(id).follow.ok() }) // whoever is invited again reads at once
		conv, err := b.tx.conversation(id)
		if err != nil || conv == nil || !conv.isLive() {
			return err
		}
		return b.s.c.leave(b.tx, conv, b.s.c.now(), r.Message)
	}
	conv, err := b.tx.conversation(id)
	if err != nil || conv == nil || r.mayPass() {
		return err
	}
	return b.s.c.trouble(b.tx, conv, r)
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
			sub.answered = r.message // the winner is on its way through the log
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
	err = b.s.c.commitRefused(b.tx, conv, r.message, refusal)
	if b.s.c.stats.lostRaces.Load() != lost {
		b.then(func() { b.s.lostRace(r.conversation) })
	}
	return err
}

// takeDevice moves the cursor of the account log over the event at pos, unless it was
// taken in before. what tells the event from others that might stand there. Where
// another one stood there the log was set back, and goes on from here.
func (b *batch) takeDevice(pos int64, what []string, do func() error) error {
	if b.s.c.xrpc != nil {
		return do() // which has no such log
	}
	before, err := b.tx.Counters.Get("device_pos")
	if err != nil {
		return err
	}
	digest := accountDigest(pos, what)
	if pos <= before {
		if isOther, err := b.tx.isOtherAccountEvent(pos, digest); err != nil || !isOther {
			return err
		}
		if err := b.s.c.accountSetBack(b.tx, pos); err != nil {
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

func (b *batch) welcome(frame gateway.Frame) error {
	var w gateway.Welcome
	if err := frame.Decode(&w); err != nil {
		return err
	}
	if b.s.c.xrpc != nil {
		return b.welcomeOverXRPC(&w)
	}
	b.then(func() { b.s.due[w.ConvID] = true })
	return b.takeDevice(w.Pos, []string{frame.Type, w.ConvID, w.WelcomeID}, func() error { return b.s.c.takeWelcome(b.tx, &w) })
}

func (b *batch) members(frame gateway.Frame) error {
	var m gateway.Members
	if err := frame.Decode(&m); err != nil {
		return err
	}
	self := b.s.c.account.DID()
	b.then(func() { b.s.due[m.ConvID] = true })
	return b.takeDevice(m.Pos, slices.Concat([]string{frame.Type, m.ConvID, "+"}, m.Add, []string{"-"}, m.Remove), func() error {
		conv, err := b.tx.conversation(m.ConvID)
		switch {
		case err != nil:
			return err
		case slices.Contains(m.Add, self):
			return b.s.c.learnConversation(b.tx, m.ConvID)
		case slices.Contains(m.Remove, self) && conv != nil && conv.phase == Waiting:
			return b.s.c.leave(b.tx, conv, b.s.c.now(), "removed from the conversation")
		}
		return nil // where the log is read, it ends by itself, after what comes before
	})
}

func (b *batch) keyPackagesLow(frame gateway.Frame) error {
	var m gateway.KeyPackagesLow
	if err := frame.Decode(&m); err != nil {
		return err
	}
	b.then(func() {
		b.s.available = -1 // ask: others may have taken more since
		b.s.doAgain(choreKeyPackages)
	})
	return b.takeDevice(m.Pos, []string{frame.Type}, func() error { return nil })
}

func (b *batch) drain(frame gateway.Frame) error {
	var m gateway.Drain
	if err := frame.Decode(&m); err != nil {
		return err
	}
	b.after = append(b.after, func() error {
		return &endSession{after: time.Duration(min(max(m.ReconnectAfterMS, 0), 60_000)) * time.Millisecond}
	})
	return nil
}
