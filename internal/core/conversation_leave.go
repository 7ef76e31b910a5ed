package core

import (
	"context"
	"crypto/rand"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/mls/wire"
)

// TakeOut ends the membership of target, the caller's own or that of somebody whom it
// may remove, and answers the epoch afterwards. The owner may leave: somebody else is
// the owner then (see succeed).
//
// The handshake, if there is one, becomes true together with it. For somebody else it
// is the commit that removes them. Nobody can commit its own removal (RFC 9420, section
// 12.2): with its own leaving an account may hand in a proposal to remove it, which
// leaves the epoch as it is, or a commit that does something else; the others' clients
// commit the removal. The same handshake again is answered as before, though the caller
// has left by then; one that was handed in some other way before, and ended nothing, is
// not put into the log again.
//
// Refusals: forbidden; invalid_request, also because of ds.TargetNotMember;
// epoch_conflict; rate_limited.
func (s *Service) TakeOut(ctx context.Context, who ds.Caller, id ds.ConversationID, target ds.AccountID, handshake []byte) (epoch int64, err error) {
	if !ds.IsValidID(string(id)) {
		return 0, refuseNotMember
	}
	if !ds.IsValidAccount(string(target)) {
		return 0, refuseTarget
	}
	t := takeOut{target: target, welcomeID: rand.Text()}
	r := &request{conversation: id, who: who, accounts: []ds.AccountID{target}, everyone: target == who.Account}
	if len(handshake) > 0 {
		if t.seen, err = checkLeaving(handshake, target == who.Account); err != nil {
			return 0, err
		}
		t.handshake, t.id = handshake, CommitID(who.Account, "", "", handshake)
		r.messageID, r.bytes = t.id, len(handshake)
	}
	var after int64 // read only if it has succeeded: the rule may run after a caller who has gone
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		after, err = s.decideTakeOut(c, who, t, nowMS)
		return err
	}
	if err := s.submit(ctx, r); err != nil {
		return 0, err
	}
	return after, nil
}

// takeOut is what TakeOut was asked for.
type takeOut struct {
	target    ds.AccountID
	handshake []byte // or nil
	id        ds.MessageID
	seen      sight
	welcomeID string
}

// checkLeaving looks at a handshake alone.
func checkLeaving(handshake []byte, isOwn bool) (sight, error) {
	if len(handshake) > commitBytesMax {
		return sight{}, ds.Refuse(ds.InvalidRequest, "commit too large")
	}
	seen := look(handshake, ds.Binary)
	switch {
	case seen.opaque || seen.external || seen.kind == ds.App || seen.kind == ds.Proposal && !isOwn:
		return sight{}, ds.Refuse(ds.InvalidRequest, "commit is not an MLS commit of a member").Because(ds.BadCommit)
	case removesItself(handshake):
		return sight{}, ds.Refuse(ds.InvalidRequest, "a commit cannot remove its committer").Because(ds.BadCommit)
	}
	return seen, nil
}

// removesItself says of a commit that shows its proposals whether it removes the leaf
// that sent it. No member could process that.
func removesItself(handshake []byte) bool {
	var m wire.Message
	if err := wire.Unmarshal(handshake, &m); err != nil || m.Public == nil || m.Public.Content.Commit == nil {
		return false
	}
	for _, p := range m.Public.Content.Commit.Proposals {
		if p.Proposal != nil && p.Proposal.Type == wire.RemoveProposal && p.Proposal.Remove == m.Public.Content.Sender.Index {
			return true
		}
	}
	return false
}

// decideTakeOut is the rule of TakeOut. It changes c only when it accepts.
func (s *Service) decideTakeOut(c *conversation, who ds.Caller, t takeOut, nowMS int64) (epoch int64, err error) {
	answer, isRepeat, err := c.admit(who, t.id)
	if err != nil {
		return 0, err
	}
	if isRepeat {
		if answer.Kind != t.seen.kind {
			return 0, refuseReused
		}
		if !c.isMemberSince(t.target, answer.Pos) {
			c.bill.isRepeat = true
			return answer.Epoch, nil
		}
		t.handshake = nil // it was handed in by itself, and ended no membership
	}
	if r := s.charge(c, limits.Removes, who); r != nil {
		return 0, r
	}
	isOwn := t.target == who.Account
	switch {
	case isOwn:
	case !c.mayRemove(who.Account, t.target):
		return 0, refuseRights
	case !c.isMember(t.target):
		return 0, refuseTarget
	}
	if err := c.isHome(); err != nil {
		return 0, err
	}
	if err := s.leavingHandshake(c, who, t, isOwn, nowMS); err != nil {
		return 0, err
	}
	if isOwn && c.role(who.Account) == ds.Owner {
		c.succeed(who.Account, nowMS)
	}
	c.changeMembers(who.Account, nil, []ds.AccountID{t.target}, nowMS)
	return c.head.Epoch, nil
}

// leavingHandshake puts the handshake of a leaving into the log, if there is one.
func (s *Service) leavingHandshake(c *conversation, who ds.Caller, t takeOut, isOwn bool, nowMS int64) error {
	if t.handshake == nil {
		return nil
	}
	if t.seen.kind == ds.Proposal {
		_, err := s.decideSend(c, who, Message{ConversationID: c.head.ID, ID: t.id, Body: t.handshake, Encoding: ds.Binary}, t.seen, nowMS)
		if ds.CodeOf(err) == ds.EpochConflict {
			return refuseEpoch(c.head.Epoch).Because(ds.LostRace)
		}
		return err
	}
	b := Bundle{ConversationID: c.head.ID, ID: t.id, Commit: t.handshake, Encoding: ds.Binary}
	if !isOwn {
		b.Remove = []ds.AccountID{t.target}
	}
	_, err := s.decideBundle(c, who, b, t.seen, t.welcomeID, nowMS)
	return err
}
