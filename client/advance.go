package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// advanceDue advances all conversations and chores that are marked as due.
func (s *session) advanceDue(ctx context.Context) error {
	for name := range s.due {
		delete(s.due, name)
		var err error
		switch name {
		case choreList:
			s.learn(ctx)
		case choreEntries:
			s.startEntries(ctx)
		case choreRevoke:
			s.advanceChore(ctx, name, func(ctx context.Context) error { return s.c.errands.revokeLost(ctx, s.calls) }, nil)
		case choreKeyPackages:
			available, again := s.available, time.Duration(0)
			s.advanceChore(ctx, name, func(ctx context.Context) error {
				err := s.c.errands.fillKeyPackages(ctx, s.calls, available)
				if err == nil {
					again, err = read(ctx, s.c.db, func(tx *tx) (time.Duration, error) { return tx.nextForget(s.c.now()) })
				}
				return err
			}, func(err error) {
				if err == nil {
					s.available = -1 // unknown again, as filling the pool changes it
					s.sub(choreKeyPackages).refetch.sooner(max(again, time.Second))
				}
			})
		default:
			err = s.advance(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) advanceChore(ctx context.Context, name string, fn func(ctx context.Context) error, then func(error)) {
	if sub := s.sub(name); !sub.isDone && sub.commit.isReady() {
		sub.refetch = retry{}
		s.start(ctx, name, fn, then)
	}
}

// learn reads the list of conversations, once on each connection.
func (s *session) learn(ctx context.Context) {
	var unclear []string
	s.advanceChore(ctx, choreList, func(ctx context.Context) (err error) {
		unclear, err = s.c.errands.learnConversations(ctx, s.calls)
		return err
	}, func(err error) {
		if err != nil {
			return
		}
		for _, id := range unclear {
			s.sub(id).rosterDue = true
			s.due[id] = true
		}
	})
}

// advance takes one conversation as far as possible now. It decides from the state in the home,
// so it does the same after a crash, and it may be called at any time.
func (s *session) advance(ctx context.Context, id string) error {
	conv, err := s.c.snapshot(ctx, id)
	if err != nil || conv == nil {
		return err
	}
	sub := s.sub(id)
	switch {
	case conv.phase == Creating:
		if sub.commit.isReady() {
			s.start(ctx, id, func(ctx context.Context) error { return s.c.errands.create(ctx, s.calls, id) }, nil)
		}
	case conv.info.Leave != nil && conv.phase != Removed && (conv.phase != Joined || sub.caughtUp):
		return s.advanceLeave(ctx, conv, sub)
	case conv.mayEnter() || conv.phase == Joining && !conv.isLive():
		return s.advanceEntry(ctx, conv, sub)
	case !conv.isLive():
		sub.active, sub.caughtUp = false, false
		if sub.wasSubscribed {
			sub.wasSubscribed = false
			s.wire.pollWelcome(id)
		}
	case !sub.active:
		if sub.follow.isReady() {
			return s.subscribe(ctx, conv, sub)
		}
	case sub.caughtUp:
		if s.isStalled(conv, sub) {
			s.due[id] = true
			return s.c.db.edit(ctx, id, func(_ *tx, conv *conversation) error {
				conv.mustRejoin(fmt.Sprintf("the server is in epoch %d and does not deliver the commits that lead to it", sub.holdEpoch))
				return nil
			})
		}
		if conv.info.Rewound {
			s.advanceResend(ctx, conv, sub)
			return nil
		}
		s.advanceRoles(ctx, conv, sub)
		if conv.info.TitleDue {
			if err := s.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error { return sendTitle(s.c.keeper, tx, conv) }); err != nil {
				return err
			}
		}
		s.reportEpoch(conv, sub)
		if err := s.advanceCommit(ctx, conv, sub); err != nil {
			return err
		}
		if err := s.advanceIntroduction(ctx, conv, sub); err != nil {
			return err
		}
		return s.advanceOutbox(ctx, id, sub)
	}
	return nil
}

// isStalled reports whether the server has long announced an epoch without delivering the
// commits that lead to it.
func (s *session) isStalled(conv *conversation, sub *subscription) bool {
	if conv.epoch() >= sub.holdEpoch {
		sub.heldAt = time.Time{}
		return false
	}
	is := !sub.heldAt.IsZero() && time.Since(sub.heldAt) > answerTimeout
	if is {
		sub.heldAt = time.Time{}
	}
	return is
}

// advanceLeave leaves once the outbox of the conversation is empty, or cannot be sent.
func (s *session) advanceLeave(ctx context.Context, conv *conversation, sub *subscription) error {
	isWaiting, err := s.c.errands.hasOutgoing(ctx, conv.id)
	if err != nil {
		return err
	}
	if isWaiting && conv.phase == Joined && conv.info.Problem == "" {
		if err := s.advanceCommit(ctx, conv, sub); err != nil {
			return err
		}
		return s.advanceOutbox(ctx, conv.id, sub)
	}
	if sub.commit.isReady() {
		s.start(ctx, conv.id, func(ctx context.Context) error { return s.c.errands.leaveOnServer(ctx, s.calls, conv.id) }, nil)
	}
	return nil
}

// hasOutgoing reports whether messages wait in the outbox of a conversation.
func (e errands) hasOutgoing(ctx context.Context, id string) (bool, error) {
	o, err := read(ctx, e.c.db, func(tx *tx) (*home.Outgoing, error) { return tx.Outbox.Next(id, 0) })
	return o != nil, err
}

func (s *session) subscribe(ctx context.Context, conv *conversation, sub *subscription) error {
	sub.active, sub.wasSubscribed, sub.caughtUp, sub.lastEventAt = true, true, false, time.Now()
	from := conv.nextSeq
	sub.applied, sub.acked = from-1, 0 // the last ack may have been lost in a crash
	if conv.info.Unsure || from > 1 && conv.phase == Joined {
		if err := s.c.db.edit(ctx, conv.id, func(tx *tx, conv *conversation) (err error) {
			from, err = tx.overlap(conv, sub.earliest)
			return err
		}); err != nil {
			return err
		}
	}
	sub.overlap, sub.overlapTo = from, conv.nextSeq
	s.wire.follow(conv.id, from)
	return nil
}

// advanceCommit sends the pending commit, or prepares one if accounts are to be added.
func (s *session) advanceCommit(ctx context.Context, conv *conversation, sub *subscription) error {
	if sub.committing || s.jobs[conv.id] || !sub.commit.isReady() {
		return nil
	}
	if conv.pending == nil {
		var err error
		if conv, err = s.prepareCommit(ctx, conv, sub); err != nil || conv == nil {
			return err
		}
	}
	if conv.pending.MessageID == sub.answered {
		return nil
	}
	s.sendCommit(conv, sub)
	return nil
}

// prepareCommit makes the next commit and stores it before it is sent. It returns nil when none
// is due.
func (s *session) prepareCommit(ctx context.Context, conv *conversation, sub *subscription) (*conversation, error) {
	isLacking, isAtHand := false, false
	sub.refetch = retry{}
	for _, w := range conv.info.Wanted {
		switch wait := time.UnixMilli(w.NotBefore).Sub(s.c.now()); {
		case len(w.Packages) > 0:
			isAtHand = true
		case wait > 0:
			sub.refetch.sooner(wait)
		default:
			isLacking = true
		}
	}
	// A room may have its founder as the only member; a direct conversation needs its peer.
	if conv.phase == Joined && s.mustRemove(conv, sub) {
		hasOutgoing, err := s.c.errands.hasOutgoing(ctx, conv.id)
		if err != nil {
			return nil, err
		}
		if s.mayRemove(conv, sub, hasOutgoing) {
			return s.keepCommit(ctx, conv, sub)
		}
	} else {
		sub.remove.ok()
	}
	mayBeEmpty := conv.info.Refresh && conv.phase == Joined || conv.phase == Founding && conv.info.Kind == Room || sub.mustCommit && conv.group.Proposals() > 0
	switch {
	case isLacking && (!sub.hasFetched || !isAtHand && !mayBeEmpty):
		s.start(ctx, conv.id, func(ctx context.Context) error { return s.c.errands.fetchWanted(ctx, s.calls, conv.id) }, nil)
		sub.hasFetched = true
		return nil, nil
	case !isAtHand && !mayBeEmpty:
		return nil, nil
	}
	return s.keepCommit(ctx, conv, sub)
}

// keepCommit makes a commit and stores it.
func (s *session) keepCommit(ctx context.Context, conv *conversation, sub *subscription) (*conversation, error) {
	var out *conversation
	err := s.c.db.edit(ctx, conv.id, func(tx *tx, conv *conversation) error {
		if !conv.isLive() || conv.pending != nil {
			return nil
		}
		switch err := s.c.keeper.makeCommit(tx, conv); {
		case err == nil:
			out = conv
		case errors.Is(err, errNoInvitees):
			s.due[conv.id] = true
		default:
			conv.dropPackages()
			sub.commit.later(err)
			return s.c.keeper.reportProblem(tx, conv, err)
		}
		return nil
	})
	return out, err
}

// sendCommit sends the pending commit.
func (s *session) sendCommit(conv *conversation, sub *subscription) {
	sub.committing = true
	s.c.log.Debug("sends a commit", "conversation", conv.id, "message", conv.pending.MessageID, "epoch", conv.epoch())
	s.wire.commit(s.number(request{conversation: conv.id, commit: conv.pending.MessageID}), conv.pending.request(conv.id))
}

// commitRefused handles a commit that the server has declined for good, or that has lost its
// race: a member's commit waits for the winner, which arrives through the log, and an external
// commit is of no further use.
func (k keeper) commitRefused(tx *tx, conv *conversation, messageID string, refusal *Refusal) error {
	switch {
	case conv.pending == nil || conv.pending.MessageID != messageID:
		return nil
	case conv.phase == Joining && refusal.Code == codeEpochConflict:
		tx.stats.LostRaces++
		return k.dropEntry(tx, conv)
	case conv.phase == Joining:
		return errors.Join(k.dropEntry(tx, conv), k.waitLonger(tx, conv), k.reportProblem(tx, conv, refusal))
	case refusal.Code == codeEpochConflict && (conv.phase != Founding || conv.isOurs()):
		return nil
	}
	return k.dropPending(tx, conv, refusal)
}

// dropPending gives up a commit that the server does not accept.
func (k keeper) dropPending(tx *tx, conv *conversation, refusal *Refusal) error {
	p := conv.pending
	conv.setPending(nil)
	switch {
	case conv.phase == Founding && !conv.isOurs() && (refusal.Code == codeInvalidRequest || refusal.Code == codeEpochConflict):
		// Another device of this account has bound the conversation to its group: it invites
		// us.
		conv.setGroup(nil)
		conv.setPhase(Waiting)
	case len(p.Remove) > 0:
		// We may not remove these accounts; asking again would not help.
		info := conv.editInfo()
		info.Unwanted = slices.DeleteFunc(info.Unwanted, func(a string) bool { return slices.Contains(p.Remove, a) })
	case len(p.Add) > 0 && refusal.Code != codeInvalidRequest:
		// We may not add these accounts; asking again would not help.
		info := conv.editInfo()
		info.Wanted = slices.DeleteFunc(info.Wanted, func(w wanted) bool { return w.Add && len(w.Packages) > 0 })
	default:
		conv.dropPackages()
	}
	return k.reportProblem(tx, conv, refusal)
}

// reportProblem reports, once, why a conversation cannot proceed.
func (k keeper) reportProblem(tx *tx, conv *conversation, why error) error {
	if conv.info.Problem == why.Error() {
		return nil
	}
	conv.editInfo().Problem = why.Error()
	return tx.problem(conv.id, k.c.now(), why)
}

var errNoKeyPackages = errors.New("account has no key packages yet")

// fetchWanted fetches key packages for the accounts that are to be added. Accounts without any
// are asked for again later: the error says so.
func (e errands) fetchWanted(ctx context.Context, by service, id string) error {
	conv, err := e.c.snapshot(ctx, id)
	if err != nil || conv == nil {
		return err
	}
	var missing error
	for _, w := range conv.info.Wanted {
		if len(w.Packages) > 0 || w.NotBefore > e.c.now().UnixMilli() {
			continue
		}
		packages, refused, err := e.fetchKeyPackages(ctx, by, w.Account)
		if err != nil {
			return err
		}
		if w.Own {
			packages = slices.DeleteFunc(packages, func(p fetchedPackage) bool {
				return w.Device != "" && !p.is(w.Device) || e.c.authority.isLost(p.Device) || e.c.authority.isLost(p.Name) || hasLeaf(conv.group, p.SignatureKey)
			})
		} else if len(packages) == 0 {
			missing = errNoKeyPackages
		}
		if err := e.keepPackages(ctx, id, w, packages, refused); err != nil {
			return err
		}
	}
	return missing
}

// keepPackages stores the packages fetched for one of the wanted accounts.
func (e errands) keepPackages(ctx context.Context, id string, of wanted, packages []fetchedPackage, refused error) error {
	if len(packages) == 0 && refused == nil && !of.Own {
		return nil
	}
	return e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error {
		if !conv.isLive() {
			return nil
		}
		info := conv.editInfo()
		for i := range info.Wanted {
			if w := &info.Wanted[i]; w.isSame(of) && len(w.Packages) == 0 {
				w.Packages = packages
			}
		}
		if len(packages) == 0 && of.Own { // no such device, or it is in the group already
			info.Wanted = slices.DeleteFunc(info.Wanted, of.isSame)
		}
		if refused != nil {
			return e.c.keeper.reportProblem(tx, conv, refused)
		}
		return nil
	})
}

// advanceOutbox sends the conversation's next message: one at a time, so that they arrive in
// the order in which they were written.
func (s *session) advanceOutbox(ctx context.Context, id string, sub *subscription) error {
	if sub.sending || !sub.send.isReady() {
		return nil
	}
	var o *home.Outgoing
	var failure error // to encrypt
	err := s.c.db.edit(ctx, id, func(tx *tx, conv *conversation) (err error) {
		if conv.phase != Joined || conv.epoch() < sub.holdEpoch ||
			len(conv.info.Unwanted)+len(conv.info.Missing) > 0 { // accounts to be removed must not read it
			return nil
		}
		if o, err = tx.Outbox.Next(id, sub.sentThrough); err != nil || o == nil || o.Envelope != nil {
			return err
		}
		switch failure = tx.sealOutgoing(conv, o); {
		case !errors.Is(failure, errEncrypt):
			return failure
		case errors.Is(failure, mls.ErrProposalsPending):
			return nil
		}
		return s.c.keeper.reportProblem(tx, conv, failure)
	})
	switch {
	case err != nil:
		return fmt.Errorf("send: %w", err)
	case errors.Is(failure, mls.ErrProposalsPending) && !sub.mustCommit:
		sub.mustCommit = true // some member must commit them; the next one to send does
		s.due[id] = true
	case failure != nil:
		sub.send.later(failure)
	case o != nil:
		sub.mustCommit, sub.sending = false, true
		s.c.log.Debug("sends a message", "conversation", id, "message", o.Wire)
		s.wire.send(s.number(request{conversation: id, outgoing: o.ID}), sendRequest{Conversation: id, ID: o.Wire, Message: o.Envelope})
	}
	return nil
}
