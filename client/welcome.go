package client

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/mls"
)

// applyWelcome joins the group of a Welcome from the account log, in the transaction that moves
// the log's cursor past it. A useless Welcome is reported and dropped: it would fail again the
// next time.
func (k keeper) applyWelcome(tx *tx, w *welcome) error {
	conv := tx.conversation(w.Conversation)
	if conv != nil && (conv.phase == Joined || conv.phase == Joining && conv.pending != nil) {
		// An invitation to return, before this device has read its removal. Earlier records of
		// the log can still be read with the present group.
		return tx.storeWelcome(w)
	}
	if conv != nil && conv.isOurs() {
		// The server knows the id from us, and an accomplice of it could found a group under
		// it, to receive the messages that wait here for the invited members.
		return tx.problem(w.Conversation, k.c.now(), fmt.Errorf("%w: room is being created by this device", ErrWelcome))
	}
	group, err := k.openWelcome(tx, w)
	if err != nil {
		if errors.Is(err, ErrStorageKey) {
			return err
		}
		return tx.problem(w.Conversation, k.c.now(), fmt.Errorf("%w: %w", ErrWelcome, err))
	}
	kind, peer, err := k.kindOf(w.Conversation, group, conv)
	if err != nil {
		return tx.problem(w.Conversation, k.c.now(), fmt.Errorf("%w: %w", ErrWelcome, err))
	}
	if conv == nil {
		conv = tx.addConversation(w.Conversation, Waiting, conversationInfo{}, k.c.now())
	}
	return k.join(tx, conv, group, kind, peer, w)
}

// openWelcome opens a Welcome with the private keys of the package it names. The certificates
// of all members are checked while joining.
func (k keeper) openWelcome(tx *tx, w *welcome) (*mls.Group, error) {
	p, err := tx.keyPackage(w.KeyPackageRef)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errors.New("unknown or used key package")
	}
	if w.Message == nil {
		return nil, errors.New("not an MLS message")
	}
	all := tx.conversations()
	return mls.Join(w.Message, p, mls.JoinOptions{Hook: k.c.authority.credentialHook, Now: k.c.now, Padding: mls.PadBuckets, Limits: k.c.authority.limits(), InUse: inUse(all, w.Conversation)})
}

// inUse returns a function that reports whether a conversation other than id has a group of
// some group id, or is about to enter one: a server could otherwise have an accomplice invite
// us into a second group under the id of one that we are in. A conversation that is named after
// its group is not blocked by others: strangers, who can compute that name for a direct
// conversation, could otherwise take it first, under another one.
func inUse(all []*conversation, id string) func(groupID []byte) bool {
	return func(groupID []byte) bool {
		return id != hex.EncodeToString(groupID) && slices.ContainsFunc(all, func(conv *conversation) bool {
			return conv.id != id && conv.holds(groupID)
		})
	}
}

// holds reports whether the conversation has a group of that id, or will have it once its
// external commit is in the log.
func (c *conversation) holds(groupID []byte) bool {
	isOf := func(g *mls.Group) bool { return g != nil && bytes.Equal(g.ID(), groupID) }
	return isOf(c.group) || c.pending != nil && isOf(c.pending.commit.Group())
}

// kindOf determines the kind of a group's conversation, from the id and the members alone: in a
// DM the id is that of the pair, which are its only members. Conversations of this package are
// named after their group_id. known is the home's record of the conversation, or nil: one that
// was started as a DM is for its peer only.
func (k keeper) kindOf(id string, group *mls.Group, known *conversation) (kind Kind, peer string, err error) {
	self := k.c.account.DID()
	accounts := map[string]bool{}
	for _, leaf := range group.Members() {
		if account := string(leaf.Credential); account != self {
			accounts[account] = true
			peer = account
		}
	}
	wanted := ""
	if known != nil && known.info.Kind == DM {
		wanted = known.info.Peer
	}
	switch {
	case isGroupID(id) && id != hex.EncodeToString(group.ID()):
		return "", "", errors.New("unexpected group ID")
	case k.isOwnRoom(id) && len(accounts) > 0:
		return "", "", errors.New("unexpected members of a room of own devices")
	case len(accounts) == 1 && (id == dmID(self, peer) || id == oldDMID(self, peer)):
		return DM, peer, nil
	case wanted != "" && len(accounts) == 0:
		return DM, wanted, nil // its peer has left
	case wanted != "":
		return "", "", errors.New("unexpected members of a direct conversation")
	}
	return Room, "", nil
}

// join makes the group the conversation's.
func (k keeper) join(tx *tx, conv *conversation, group *mls.Group, kind Kind, peer string, w *welcome) error {
	if conv.pending != nil {
		conv.setPending(nil)
	}
	info := conv.editInfo()
	info.Kind, info.Peer, info.Problem, info.Waiting = kind, peer, "", waiting{}
	if kind == DM {
		info.Wanted = nil
	}
	conv.setGroup(group)
	conv.invited = true
	k.settleWanted(conv)
	conv.setPhase(Joined)
	if !k.hasOtherDevice(group) {
		k.met(conv)
	}
	if err := tx.moveTo(conv, max(w.NextSeq, 1)); err != nil { // an earlier place if the log was rewound meanwhile
		return err
	}
	isLast, err := tx.KeyPackages.Use(w.KeyPackageRef, k.c.now())
	if err != nil {
		return err
	}
	if isLast {
		tx.wake(choreKeyPackages)
	}
	e := Event{Type: EventJoined, Conversation: conv.id, Seq: conv.nextSeq - 1, Time: k.c.now()}
	if inviter := group.Inviter(); inviter != nil {
		e.By = k.c.authority.memberOf(*inviter)
	}
	return k.reportGroup(tx, conv, e)
}

// storeWelcome stores a Welcome that cannot be used yet; there is at most one for each
// conversation, the newest.
func (t *tx) storeWelcome(w *welcome) error {
	return t.Welcomes.Keep(w.Pos, w.Conversation, w)
}

// leave ends the conversation on this device, unless an invitation to return is stored.
func (k keeper) leave(tx *tx, conv *conversation, now time.Time, why string) error {
	if conv.phase == Removed {
		return nil
	}
	if conv.pending != nil && (conv.group == nil || conv.phase == Joining) {
		conv.setPending(nil)
	} // otherwise the log may have it, and shows it if this device returns to its old position
	conv.setPhase(Removed)
	info := conv.editInfo()
	e := Event{Type: EventRemoved, Conversation: conv.id, Time: now, By: conv.by}
	if self := k.c.account.DID(); info.Leave != nil || slices.Contains(info.Left, self) {
		why, e.By, e.Left = "left", Member{}, []string{self} // whether or not the server reported it first
	}
	e.Problem = why
	info.Wanted, info.Unwanted, info.Missing, info.Left, info.Leave, info.Role, info.Introduce = nil, nil, nil, nil, nil, "", 0
	info.Managers, info.RolesDue, info.Appoint, info.Claims, info.TitleDue = nil, false, nil, nil, false
	info.endEntry()
	if err := tx.saveChange(conv, e, nil); err != nil {
		return err
	}
	was := conv.group
	if was == nil {
		was = conv.before
	}
	w, err := tx.takeStoredWelcome(conv.id)
	if err != nil {
		return err
	}
	if w != nil {
		if err := k.applyWelcome(tx, w); err != nil {
			return err
		}
	}
	if conv.phase == Joined && was != nil && isAmong(conv.group, was) {
		return nil
	}
	// Messages in the outbox were written for the former members; the sender of the invitation
	// may have it with others.
	return tx.refuseAll(conv.id, now, "forbidden", why)
}

// isAmong reports whether all accounts of a group were in another one.
func isAmong(group, in *mls.Group) bool {
	return !slices.ContainsFunc(group.Members(), func(l mls.Leaf) bool { return !hasAccount(in, string(l.Credential)) })
}
