package core

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// GroupInfo returns the GroupInfo with which a member can enter the conversation's group by
// itself: that of the last commit that carried one. It may be of a past epoch, if later
// commits carried none. Refusals: forbidden, not_found.
func (s *Service) GroupInfo(ctx context.Context, who ds.Caller, id ds.ConversationID) (info []byte, head ds.Conversation, err error) {
	err = s.viewAsMember(ctx, who, id, func(tx *store.Tx) (err error) {
		if head, err = tx.Logs.Head(id); err == nil {
			info, err = tx.Conversations.GroupInfo(id)
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && info == nil {
		err = ds.Refuse(ds.NotFound, "nobody has sent a group_info yet")
	}
	return info, head, err
}

// checkExternal checks that the caller may make an external commit (RFC 9420, section
// 12.4.3.2): its leaf must name the caller's account, that account must be in the group
// already, and only its own leaves may be removed. Whether the group accepts it is
// up to the members.
//
// It is checked against the GroupInfo of its epoch. That epoch is compared again when the
// commit is decided, so the data read here cannot be out of date.
func (s *Service) checkExternal(ctx context.Context, who ds.Caller, id ds.ConversationID, body []byte) error {
	x, err := readExternal(who, body)
	if err != nil {
		return err
	}
	info, head, err := s.GroupInfo(ctx, who, id)
	if err != nil {
		return err
	}
	if x.epoch != uint64(head.Epoch) {
		return refuseEpoch(head.Epoch)
	}
	leaves, err := leavesIn(info, x.epoch)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(leaves, func(leaf *wire.LeafNode) bool { return leaf != nil && isOwnLeaf(leaf, who) }) {
		return ds.Refuse(ds.Forbidden, "no device of the account is in the group: a member has to add it")
	}
	return x.checkRemoves(who, leaves)
}

// external holds the visible parts of an external commit.
type external struct {
	epoch   uint64
	removes []uint32
}

// readExternal parses an external commit by a device of the caller, with the contents that RFC
// 9420, section 12.2, allows.
func readExternal(who ds.Caller, body []byte) (external, error) {
	var m wire.Message
	if err := wire.Unmarshal(body, &m); err != nil || m.Public == nil || m.Public.Content.Commit == nil {
		return external{}, ds.Refuse(ds.InvalidRequest, "commit is not an MLS commit").Because(ds.BadCommit)
	}
	commit := m.Public.Content.Commit
	if commit.Path == nil || !isOwnLeaf(&commit.Path.Leaf, who) {
		return external{}, ds.Refuse(ds.Forbidden, "an external commit is for a device of the caller's own account").Because(ds.NotAllowed)
	}
	x, inits := external{epoch: m.Public.Content.Epoch}, 0
	for _, p := range commit.Proposals {
		switch {
		case p.Proposal == nil:
			return x, ds.Refuse(ds.InvalidRequest, "an external commit cannot refer to proposals").Because(ds.BadCommit)
		case p.Proposal.Type == wire.RemoveProposal:
			x.removes = append(x.removes, p.Proposal.Remove)
		case p.Proposal.Type == wire.ExternalInitProposal:
			inits++
		case p.Proposal.Type != wire.PSKProposal:
			return x, ds.Refuse(ds.InvalidRequest, "an external commit changes nothing else than who commits").Because(ds.BadCommit)
		}
	}
	if inits != 1 {
		return x, ds.Refuse(ds.InvalidRequest, "an external commit has one external_init").Because(ds.BadCommit)
	}
	return x, nil
}

// checkRemoves refuses to remove leaves of other accounts.
func (x external) checkRemoves(who ds.Caller, leaves []*wire.LeafNode) error {
	for _, index := range x.removes {
		if index >= uint32(len(leaves)) || leaves[index] == nil || !isOwnLeaf(leaves[index], who) {
			return ds.Refuse(ds.Forbidden, "an external commit removes leaves of the caller's own account only").Because(ds.NotAllowed)
		}
	}
	return nil
}

// entry is the status of an account that enters the group of a conversation by itself.
type entry struct {
	until   int64 // the pos at which the last stay ended; 0 for a member
	leftMS  int64
	hasLeft bool // by itself, not removed by another member
	// isHeir: it left as the owner, after all other members, and none has returned. On
	// returning it is the owner again: no other account was responsible for the conversation.
	isHeir bool
}

// judgeEntry checks an external commit by which the caller enters a group, as far as that is
// possible without the conversation's lock: it does the checks of checkExternal for members
// with no device in the group, and for former members. Removed leaves are looked up in the
// GroupInfo of its epoch.
func (s *Service) judgeEntry(ctx context.Context, who ds.Caller, b Bundle) (*entry, store.Entered, error) {
	x, wrong := readExternal(who, b.Commit)
	var entered store.Entered
	st, err := s.standing(ctx, who, b.ConversationID, len(x.removes) > 0, func(tx *store.Tx) error {
		own, err := ownDevice(tx, who.Account, b.Device)
		if own != "" {
			entered.Devices = []ds.Device{{Account: who.Account, ID: own}}
		}
		return err
	})
	switch {
	case err != nil:
	case wrong != nil:
		err = wrong
	case len(x.removes) > 0:
		var leaves []*wire.LeafNode
		if leaves, err = leavesIn(st.info, x.epoch); err == nil {
			err = x.checkRemoves(who, leaves)
		}
	}
	return &st.entry, entered, err
}

// standing is the status of an account in a conversation, as a member or a former one.
type standing struct {
	entry
	head ds.Conversation
	info []byte // the newest GroupInfo, if it was requested and exists
}

// standing reads the status of the caller. An account that was never a member gets the refusal
// of a conversation that does not exist.
func (s *Service) standing(ctx context.Context, who ds.Caller, id ds.ConversationID, withInfo bool, also ...func(tx *store.Tx) error) (st standing, err error) {
	if !ds.IsValidID(string(id)) {
		return st, refuseNotMember
	}
	key := store.MemberKey{Conversation: id, Account: who.Account}
	err = s.store.View(ctx, func(tx *store.Tx) error {
		intervals, err := tx.Conversations.Intervals([]store.MemberKey{key})
		if err != nil {
			return err
		}
		stays := intervals[key]
		if len(stays) == 0 {
			return refuseNotMember
		}
		if st.head, err = tx.Logs.Head(id); err != nil {
			return err
		}
		if st.entry, err = lastStay(tx, who.Account, id, stays); err != nil {
			return err
		}
		if st.until != 0 && st.head.Members == 0 && stays[len(stays)-1].Role == ds.Owner {
			isPeopled, err := tx.Conversations.HasStaysAfter(id, st.until)
			if err != nil {
				return err
			}
			st.isHeir = !isPeopled
		}
		if withInfo {
			if st.info, err = tx.Conversations.GroupInfo(id); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		for _, read := range also {
			if err := read(tx); err != nil {
				return err
			}
		}
		return nil
	})
	return st, err
}

// lastStay returns how the last stay of an account ended, if it did. If its record is gone,
// the account counts as removed.
func lastStay(tx *store.Tx, account ds.AccountID, id ds.ConversationID, stays []ds.Interval) (entry, error) {
	e := entry{until: stays[len(stays)-1].Until}
	if e.until == 0 {
		return e, nil
	}
	list, err := tx.Logs.RecordsAfter(ds.ConversationLog(id), e.until-1, 1, 1)
	if err != nil || len(list) == 0 || list[0].Pos != e.until || list[0].Kind != ds.Membership {
		return e, err
	}
	var change ds.MembershipChange
	if err := json.Unmarshal(list[0].Body, &change); err != nil {
		return e, err
	}
	e.leftMS, e.hasLeft = list[0].CreatedMS, change.By == account
	return e, nil
}

// mayReturn reports whether the account may enter the conversation again by itself.
func (e entry) mayReturn(policy ds.Policy, nowMS int64) bool {
	if e.until == 0 {
		return true
	}
	window := policy.RejoinWindowDays * 24 * time.Hour.Milliseconds()
	return e.hasLeft && policy.AllowExternalCommits && policy.AllowRejoin && !policy.RequireInviteForJoin &&
		(policy.RejoinWindowDays == 0 || nowMS-e.leftMS <= window)
}

// mayEnter checks the right to enter a group by itself: members have it, and former members if
// the rules of the conversation allow it.
func mayEnter(c *logs.Conversation, account ds.AccountID, e *entry, nowMS int64) error {
	stays := c.Stays(account)
	switch {
	case !c.Head.IsBound():
		return ds.Refuse(ds.InvalidRequest, "there is no group to enter yet").Because(ds.BadCommit)
	case c.IsMember(account):
		return nil
	case stays[len(stays)-1].Until != e.until:
		return ds.Unavailable(errors.New("the membership has changed meanwhile"))
	case !e.mayReturn(c.Head.Policy, nowMS):
		return refuseRights
	case c.Head.Members+1 > memberLimit(c):
		return refuseMembers(memberLimit(c))
	}
	return nil
}

func isOwnLeaf(leaf *wire.LeafNode, who ds.Caller) bool {
	return leaf.Credential.Type == wire.BasicCredential && string(leaf.Credential.Identity) == string(who.Account)
}

// leavesIn lists the leaves of the tree in a GroupInfo of that epoch, by their index, nil
// where blank.
func leavesIn(info []byte, epoch uint64) ([]*wire.LeafNode, error) {
	parsed, err := readGroupInfo(info)
	if err != nil || parsed.Context.Epoch != epoch {
		return nil, ds.Refuse(ds.InvalidRequest, "there is no group_info of this epoch to join by").Because(ds.BadCommit)
	}
	data, _ := wire.FindExtension(parsed.Extensions, wire.RatchetTreeExtension)
	var tree wire.RatchetTree
	if err := wire.Unmarshal(data, &tree); err != nil {
		return nil, ds.Refuse(ds.InvalidRequest, "the group_info of this epoch has no tree to join by").Because(ds.BadCommit)
	}
	leaves := make([]*wire.LeafNode, 0, len(tree)/2+1)
	for i := 0; i < len(tree); i += 2 {
		if tree[i] == nil {
			leaves = append(leaves, nil)
		} else {
			leaves = append(leaves, tree[i].Leaf)
		}
	}
	return leaves, nil
}
