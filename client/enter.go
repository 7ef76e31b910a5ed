package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/wire"
)

// Rejoin rejoins a conversation's group by an external commit, with fresh keys. The client does
// so on its own where it cannot follow a commit; an application calls Rejoin when members see
// different messages (EventFork). Messages between the last received one and that commit cannot
// be decrypted any more (EventLost). An EventRejoined reports the completion. The error is
// ErrNoGroup if this device is not in a group.
func (c *Client) Rejoin(ctx context.Context, id string) error {
	return c.change(ctx, id, func(_ *tx, conv *conversation) error {
		if conv.phase != Joined {
			return ErrNoGroup
		}
		conv.mustRejoin("requested by Rejoin")
		conv.askAgain()
		info := conv.editInfo()
		info.Forced, info.Asked = true, true
		return nil
	})
}

// mustRejoin records that the group has to be entered again.
func (c *conversation) mustRejoin(why string) {
	if c.phase == Joined && c.info.Rejoin == "" {
		c.editInfo().Rejoin = why
	}
}

// mayEnter reports whether this device should enter the group by an external commit, if
// possible: it waits for an invitation, or its own state is unusable.
func (c *conversation) mayEnter() bool {
	switch c.phase {
	case Waiting:
		return true
	case Joining:
		return c.pending == nil
	case Joined:
		return c.info.Rejoin != ""
	}
	return false
}

// enterDelay is the wait for an invitation that may be on its way.
const enterDelay = time.Second

// advanceEntry enters a group by an external commit: it is made from the server's GroupInfo,
// stored, sent, and applied when the log shows it.
func (s *session) advanceEntry(ctx context.Context, conv *conversation, sub *subscription) error {
	sub.active, sub.caughtUp = false, false
	delete(s.entries, conv.id)
	switch {
	case s.jobs[conv.id] || !sub.commit.isReady():
		return nil
	case !conv.mayEnter():
		if sub.committing {
			return nil
		}
		s.sendCommit(conv, sub)
		return nil
	case conv.info.Waiting.GaveUp:
		return nil
	case conv.phase == Waiting && !sub.hasWaited && conv.info.Waiting.NotBefore == 0:
		sub.hasWaited, sub.commit = true, retry{at: time.Now().Add(enterDelay)}
		s.wire.pollWelcome(conv.id)
		return nil
	}
	if wait := conv.info.Waiting.left(s.c.now()); wait > 0 {
		sub.refetch = retry{at: time.Now().Add(wait)}
		return nil
	}
	s.entries[conv.id] = entry{tries: conv.info.Waiting.Tries, createdMS: conv.createdMS, isOld: conv.group != nil}
	s.due[choreEntries] = true
	return nil
}

// errWait: the group cannot be entered yet. The session tries again later.
var (
	errWait        = errors.New("group cannot be joined yet")
	errNothingToDo = errors.New("no need to rejoin the group")
)

// welcomeTries bounds the waits of a device with a leaf in the group for the matching Welcome.
const welcomeTries = 3

// enter makes an external commit from the server's GroupInfo, and stores it. hasEntered reports
// whether it did. A failed attempt is recorded and is not an error.
func (e errands) enter(ctx context.Context, by service, id string) (hasEntered bool, err error) {
	conv, err := e.c.snapshot(ctx, id)
	if err != nil || conv == nil || !conv.mayEnter() {
		return false, err
	}
	answer, err := by.groupInfo(ctx, id)
	if err != nil {
		r := asRefusal(err)
		switch {
		case r != nil && r.Code == codeForbidden:
			return false, e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error {
				if !conv.mayEnter() {
					return nil
				}
				return e.c.keeper.leave(tx, conv, e.c.now(), r.Message)
			})
		case r != nil && !r.mayPass() && r.Code != codeUnauthorized:
			return false, e.keepEntry(ctx, conv, nil, errWait) // no commit was accepted yet
		}
		return false, fmt.Errorf("request GroupInfo: %w", err)
	}
	pending, why := e.makeEntry(ctx, conv, &answer)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return why == nil, e.keepEntry(ctx, conv, pending, why)
}

// keepEntry records the result of an attempt to make an external commit.
func (e errands) keepEntry(ctx context.Context, seen *conversation, pending *pendingCommit, why error) error {
	return e.c.db.edit(ctx, seen.id, func(tx *tx, conv *conversation) error {
		if !conv.mayEnter() || conv.epoch() != seen.epoch() {
			return nil
		}
		all := tx.conversations() // they may have changed since the commit was made
		if why == nil && inUse(all, conv.id)(pending.commit.Group().ID()) {
			why = ErrGroupInUse
		}
		switch {
		case errors.Is(why, errNothingToDo):
			conv.editInfo().endEntry()
			return nil
		case errors.Is(why, errWait):
			return e.c.keeper.waitLonger(tx, conv)
		case why != nil:
			return errors.Join(e.c.keeper.waitLonger(tx, conv), e.c.keeper.reportProblem(tx, conv, fmt.Errorf("%w: %w", ErrGroupInfo, why)))
		}
		conv.editInfo().Waiting.Tries++ // until the group is entered: the commit may be refused repeatedly
		conv.setPending(pending)
		conv.setPhase(Joining)
		return nil
	})
}

// offer is a GroupInfo as received, not verified yet.
type offer struct {
	context wire.GroupContext
	leaves  []mls.Leaf
	signer  *mls.Leaf
}

func readOffer(raw []byte) (*offer, error) {
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m.GroupInfo == nil {
		return nil, errors.New("not a GroupInfo")
	}
	data, _ := wire.FindExtension(m.GroupInfo.Extensions, wire.RatchetTreeExtension)
	var tree wire.RatchetTree
	if err := wire.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("ratchet tree: %w", err)
	}
	out := &offer{context: m.GroupInfo.Context}
	for i := 0; i < len(tree); i += 2 {
		if tree[i] == nil {
			continue
		}
		n := tree[i].Leaf
		leaf := mls.Leaf{Index: uint32(i / 2), CredentialType: uint16(n.Credential.Type), Credential: n.Credential.Identity, SignatureKey: n.SignatureKey}
		for _, e := range n.Extensions {
			leaf.Extensions = append(leaf.Extensions, mls.Extension{Type: e.Type, Data: e.Data})
		}
		out.leaves = append(out.leaves, leaf)
		if leaf.Index == m.GroupInfo.Signer {
			out.signer = &out.leaves[len(out.leaves)-1]
		}
	}
	if out.signer == nil {
		return nil, errors.New("signer is not in the group")
	}
	return out, nil
}

// makeEntry decides whether to enter the group that the server offers, and makes the commit.
// mls.JoinExternal verifies the signature, and by the hook the certificates of all members.
// That the group is the right one, and not one that the server has made up with an accomplice,
// is decided here.
func (e errands) makeEntry(ctx context.Context, conv *conversation, answer *offeredGroup) (*pendingCommit, error) {
	o, err := readOffer(answer.message)
	if err != nil {
		return nil, err
	}
	if err := e.c.authority.checkOffer(ctx, conv, o, answer.epoch); err != nil {
		return nil, err
	}
	old, isIn := e.c.authority.oldLeaf(o)
	if isIn && conv.phase == Waiting && conv.info.Waiting.Tries < welcomeTries {
		return nil, errWait // its Welcome is on its way
	}
	all, err := e.c.db.conversations(ctx)
	if err != nil {
		return nil, err
	}
	commit, err := mls.JoinExternal(answer.message, e.c.identity, mls.ExternalJoinOptions{Hook: e.c.authority.credentialHook, Now: e.c.now,
		Padding: mls.PadBuckets, Limits: e.c.authority.limits(), InUse: inUse(all, conv.id), Resync: old != nil, IsOld: func(l mls.Leaf) bool { return old != nil && l.Index == *old }})
	if err != nil {
		return nil, err
	}
	if _, _, err := e.c.keeper.kindOf(conv.id, commit.Group(), conv); err != nil {
		return nil, err
	}
	return &pendingCommit{MessageID: newMessageID(), commit: commit}, nil
}

// checkOffer compares a GroupInfo with this device's knowledge of the conversation.
//
// The signer's word is the only evidence of the members. A device that has been in the group
// trusts only devices that were in it; a new device trusts its own account, those it has seen,
// and at last any device that has added one of its account: the application can then show the
// members.
func (a authority) checkOffer(ctx context.Context, conv *conversation, o *offer, serverEpoch int64) error {
	isSelf := func(l mls.Leaf) bool { return string(l.Credential) == a.c.account.DID() && a.memberOf(l).Verified }
	signer := string(o.signer.Credential)
	switch {
	case isGroupID(conv.id) && hex.EncodeToString(o.context.GroupID) != conv.id,
		conv.group != nil && !bytes.Equal(conv.group.ID(), o.context.GroupID):
		return errors.New("unexpected group ID")
	case o.context.Epoch != uint64(serverEpoch):
		return errWait // the last commit came without one
	case conv.group != nil && o.context.Epoch <= conv.epoch() && !conv.info.Forced:
		return errNothingToDo
	case !slices.ContainsFunc(o.leaves, isSelf):
		return errWait // no device of ours is in the group: a member has to add us
	case conv.group != nil:
		return errors.Join(a.checkSigner(conv, o), checkEarlierEpoch(conv, o))
	case isSelf(*o.signer):
		return nil
	}
	known, err := a.c.Devices(ctx, signer)
	if err != nil {
		return err
	}
	if m := a.memberOf(*o.signer); len(known) == 0 && !m.Verified && !a.c.options.AllowUnverified {
		return fmt.Errorf("%w: signed by %s", ErrUncertified, signer)
	}
	return nil
}

// checkSigner refuses a group that is signed by a device that was not in it when this one last
// was. A server can have any device make the GroupInfo, and an account may have lost control of
// a device that the others have seen removed. After a call of Rejoin other devices of those
// accounts are trusted too, if they are certified.
func (a authority) checkSigner(conv *conversation, o *offer) error {
	if hasLeaf(conv.group, o.signer.SignatureKey) {
		return nil
	}
	signer := a.memberOf(*o.signer)
	switch {
	case !hasAccount(conv.group, signer.Account),
		!signer.Verified && !a.c.options.AllowUnverified: // anyone can write that name
		return fmt.Errorf("signed by %s, an account that was not in the group", signer.Account)
	case conv.info.Asked, a.c.options.AllowUnverified:
		return nil
	}
	return fmt.Errorf("signed by device %q of %s, which was not in the group: call Rejoin to accept it", signer.Device, signer.Account)
}

// checkEarlierEpoch refuses to return automatically to an epoch before a removal: a server could
// rewind its log so that removed members can read on. Rejoin permits it, and the application
// then sees the members.
func checkEarlierEpoch(conv *conversation, o *offer) error {
	if conv.info.Asked || o.context.Epoch >= conv.epoch() {
		return nil
	}
	for _, l := range o.leaves {
		if !hasAccount(conv.group, string(l.Credential)) {
			return fmt.Errorf("earlier epoch %d includes %s, which was removed since", o.context.Epoch, l.Credential)
		}
	}
	return nil
}

// oldLeaf returns the existing leaf of this device, found by its key or, from an earlier home,
// by its name; isIn reports a match of the key.
func (a authority) oldLeaf(o *offer) (index *uint32, isIn bool) {
	own := a.c.identity.Key.Public()
	for _, leaf := range o.leaves {
		if bytes.Equal(leaf.SignatureKey, own) {
			return &leaf.Index, true
		}
	}
	for _, leaf := range o.leaves {
		if m := a.memberOf(leaf); m.Account == a.c.account.DID() && m.Device == a.c.options.DeviceID {
			return &leaf.Index, false
		}
	}
	return nil, false
}

// place records the position of our external commit in the server's log: there this device
// begins to read.
func (k keeper) place(tx *tx, conv *conversation, messageID string, seq int64) error {
	if conv == nil || conv.phase != Joining || conv.pending == nil || conv.pending.MessageID != messageID || conv.pending.Seq > 0 {
		return nil
	}
	if seq < 1 {
		conv.setPending(nil)
		return k.reportProblem(tx, conv, fmt.Errorf("%w: server placed the own commit at position %d", ErrGroupInfo, seq))
	}
	if seq < conv.nextSeq {
		if err := k.reportRewound(tx, conv, seq-1); err != nil {
			return err
		}
		if err := tx.moveTo(conv, seq); err != nil {
			return err
		}
	}
	p := *conv.pending
	p.Seq = seq
	conv.setPending(&p)
	if conv.group != nil && seq > conv.nextSeq {
		info := conv.editInfo()
		info.SkipFrom, info.SkipTo = conv.nextSeq, seq
		if err := tx.report(Event{Type: EventLost, Conversation: conv.id, Seq: seq - 1, Time: k.c.now(), Code: problemRejoin,
			Problem: fmt.Sprintf("messages %d to %d cannot be decrypted on this device: %s", conv.nextSeq, seq-1, info.Rejoin)}); err != nil {
			return err
		}
	}
	conv.setNextSeq(seq)
	return nil
}

// dropEntry gives up an external commit: it lost its race, was refused, or the log shows
// another one. An invitation that arrived meanwhile is used; otherwise entering starts again.
func (k keeper) dropEntry(tx *tx, conv *conversation) error {
	conv.setPending(nil)
	if conv.group != nil {
		return nil // still Joining
	}
	conv.setPhase(Waiting)
	w, err := tx.takeStoredWelcome(conv.id)
	if err != nil || w == nil {
		return err
	}
	return k.applyWelcome(tx, w)
}

// entered sets the conversation's group to the one of our external commit.
func (k keeper) entered(tx *tx, conv *conversation, next *mls.Group, e Event) error {
	kind, peer, err := k.kindOf(conv.id, next, conv)
	if err != nil {
		return k.reportProblem(tx, conv, err) // not reached: it was checked before
	}
	e.Type = EventJoined
	if conv.group != nil {
		e.Type, e.Problem = EventRejoined, conv.info.Rejoin
		tx.stats.Rejoins++
	}
	conv.before = conv.group
	conv.setGroup(next)
	conv.setPending(nil)
	conv.setPhase(Joined)
	info := conv.editInfo()
	info.endEntry()
	info.Kind, info.Peer, info.Problem, info.Rewound = kind, peer, "", false
	k.settleRemovals(conv, nil)
	k.settleWanted(conv)
	if _, err := tx.takeStoredWelcome(conv.id); err != nil { // an invitation to the same group
		return err
	}
	return k.reportGroup(tx, conv, e)
}

// takeStoredWelcome returns the Welcome that was stored for a conversation, and deletes it; nil
// if there is none.
func (t *tx) takeStoredWelcome(conversation string) (*welcome, error) {
	var w welcome
	found, err := t.Welcomes.Take(conversation, &w)
	if err != nil || !found {
		return nil, err
	}
	return &w, nil
}

// checkJoiner refuses an external commit by an account that is not in the group. The server
// hands out what is needed to enter, so it could admit any account; accounts are added by
// members, and enter on their own only with further devices.
func (a authority) checkJoiner(before *mls.Group, p *mls.Processed) error {
	if p.Kind != mls.Commit || p.SenderKind != mls.SentByJoiner || hasAccount(before, string(p.Sender.Credential)) {
		return nil
	}
	return &refusedJoin{who: a.memberOf(p.Sender),
		why: fmt.Errorf("%w: external commit of %s, an account that is not in the group", ErrUncertified, p.Sender.Credential)}
}
