package core

import (
	"context"
	"errors"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// GroupInfo is what a member needs to enter the conversation's group by itself: the
// GroupInfo that the last commit which carried one came with. It may be of an epoch
// that is over, if later commits carried none. Refusals: forbidden, not_found.
func (s *Service) GroupInfo(ctx context.Context, who ds.Caller, id ds.ConversationID) (info []byte, head ds.Conversation, err error) {
	head, err = s.asMember(ctx, who, id, func(tx *store.Tx) (err error) {
		info, err = tx.GroupInfo(id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && info == nil {
		err = ds.Refuse(ds.NotFound, "nobody has sent a group_info yet")
	}
	return info, head, err
}

// asMember reads the head of a conversation, and whatever read does, for a member.
func (s *Service) asMember(ctx context.Context, who ds.Caller, id ds.ConversationID, read func(tx *store.Tx) error) (head ds.Conversation, err error) {
	if !ds.IsValidID(string(id)) {
		return head, refuseNotMember
	}
	key := store.MemberKey{Conversation: id, Account: who.Account}
	err = s.store.View(ctx, func(tx *store.Tx) error {
		intervals, err := tx.Intervals([]store.MemberKey{key})
		if err != nil {
			return err
		}
		if stays := intervals[key]; len(stays) == 0 || stays[len(stays)-1].Until != 0 {
			return refuseNotMember
		}
		if head, err = tx.Head(id); err != nil {
			return err
		}
		return read(tx)
	})
	return head, err
}

// checkExternal refuses an external commit (RFC 9420, section 12.4.3.2) that is not
// the caller's to make: its leaf names the caller's account, that account is in the
// group already, and only leaves of its own are removed (design 5). Whether the group
// accepts it is for the members to say.
//
// It is judged by the GroupInfo of the epoch that it is for. That epoch is compared
// again where the commit is decided, so what was read here cannot be out of date.
func (s *Service) checkExternal(ctx context.Context, who ds.Caller, id ds.ConversationID, body []byte) error {
	var m wire.Message
	if err := wire.Unmarshal(body, &m); err != nil || m.Public == nil || m.Public.Content.Commit == nil {
		return ds.Refuse(ds.InvalidRequest, "commit is not an MLS commit")
	}
	commit, epoch := m.Public.Content.Commit, m.Public.Content.Epoch
	if commit.Path == nil || !isOwnLeaf(&commit.Path.Leaf, who) {
		return ds.Refuse(ds.Forbidden, "an external commit is for a device of the caller's own account")
	}
	info, head, err := s.GroupInfo(ctx, who, id)
	if err != nil {
		return err
	}
	if epoch != uint64(head.Epoch) {
		return refuseEpoch(head.Epoch)
	}
	leaves, err := leavesIn(info, epoch)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(leaves, func(leaf *wire.LeafNode) bool { return leaf != nil && isOwnLeaf(leaf, who) }) {
		return ds.Refuse(ds.Forbidden, "no device of the account is in the group: a member has to add it")
	}
	for _, p := range commit.Proposals {
		if p.Proposal == nil {
			return ds.Refuse(ds.InvalidRequest, "an external commit cannot refer to proposals")
		}
		if p.Proposal.Type != wire.RemoveProposal {
			continue
		}
		index := p.Proposal.Remove
		if index >= uint32(len(leaves)) || leaves[index] == nil || !isOwnLeaf(leaves[index], who) {
			return ds.Refuse(ds.Forbidden, "an external commit removes leaves of the caller's own account only")
		}
	}
	return nil
}

func isOwnLeaf(leaf *wire.LeafNode, who ds.Caller) bool {
	return leaf.Credential.Type == wire.BasicCredential && string(leaf.Credential.Identity) == string(who.Account)
}

// leavesIn lists the leaves of the tree that a GroupInfo of that epoch carries, by
// their index, nil where blank.
func leavesIn(info []byte, epoch uint64) ([]*wire.LeafNode, error) {
	var m wire.Message
	if err := wire.Unmarshal(info, &m); err != nil || m.GroupInfo == nil || m.GroupInfo.Context.Epoch != epoch {
		return nil, ds.Refuse(ds.InvalidRequest, "there is no group_info of this epoch to join by")
	}
	data, _ := wire.FindExtension(m.GroupInfo.Extensions, wire.RatchetTreeExtension)
	var tree wire.RatchetTree
	if err := wire.Unmarshal(data, &tree); err != nil {
		return nil, ds.Refuse(ds.InvalidRequest, "the group_info of this epoch has no tree to join by")
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
