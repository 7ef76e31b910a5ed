package core

import (
	"bytes"
	"fmt"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// readGroupInfo parses a GroupInfo, alone or in an MLSMessage.
func readGroupInfo(data []byte) (*wire.GroupInfo, error) {
	var m wire.Message
	if err := wire.Unmarshal(data, &m); err == nil && m.GroupInfo != nil {
		return m.GroupInfo, nil
	}
	info := new(wire.GroupInfo)
	if err := wire.Unmarshal(data, info); err != nil {
		return nil, fmt.Errorf("group info: %w", err)
	}
	return info, nil
}

func refuseInfo(sentence string) *ds.Refusal {
	return ds.Refuse(ds.InvalidRequest, "%s", sentence).Because(ds.BadGroupInfo)
}

// GroupInfoUpdate is an Op that stores a GroupInfo of the current epoch, with which members
// can enter the group by themselves. Only the first one of each epoch is stored. Its result
// has the epoch, and whether this one was stored. Refusals: also invalid_request because of
// ds.BadGroupInfo; epoch_conflict, with the current epoch.
type GroupInfoUpdate struct {
	ConversationID ds.ConversationID
	GroupInfo      []byte // MLSMessage or GroupInfo
	// Epoch is the epoch that the caller states. If it is nil, a second GroupInfo of an epoch
	// is ignored without a refusal.
	Epoch *int64
}

func (in GroupInfoUpdate) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in GroupInfoUpdate) check(a *action) error {
	if err := checkConversationID(in.ConversationID); err != nil {
		return err
	}
	if len(in.GroupInfo) > blobBytesMax {
		return refuseInfo("group_info too large")
	}
	parsed, err := readGroupInfo(in.GroupInfo)
	switch {
	case err != nil:
		return refuseInfo("groupInfo is not an MLS GroupInfo")
	case parsed.Context.Epoch > 1<<62 || in.Epoch != nil && *in.Epoch != int64(parsed.Context.Epoch):
		return refuseInfo("groupInfo is of another epoch")
	}
	a.seen = sight{group: parsed.Context.GroupID, epoch: int64(parsed.Context.Epoch)}
	a.needs.GroupInfo, a.bytes = true, len(in.GroupInfo)
	return nil
}

func (GroupInfoUpdate) limits() []string { return []string{limits.Sends} }

func (GroupInfoUpdate) may(*logs.Conversation, *action, int64) error { return nil }

func (in GroupInfoUpdate) judge(c *logs.Conversation, a *action) (verdict, error) {
	isLate := c.InfoEpoch >= c.Head.Epoch
	switch {
	case !c.Head.IsBound() || !bytes.Equal(a.seen.group, c.Head.GroupID):
		return verdict{}, refuseInfo("groupInfo is of another group")
	case a.seen.epoch != c.Head.Epoch || isLate && in.Epoch != nil:
		return verdict{}, refuseEpoch(c.Head.Epoch).Because(ds.LostRace)
	case isLate:
		return verdict{}, nil
	}
	return verdict{bytes: len(in.GroupInfo)}, nil
}

func (in GroupInfoUpdate) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	if c.InfoEpoch >= c.Head.Epoch {
		return Result{Epoch: a.seen.epoch}
	}
	r := c.Note(ds.SettingsEvent, ds.SettingsChange{Fields: []string{"groupInfo"}}, nowMS) // By would reveal the author of the previous commit
	c.Out.Infos = append(c.Out.Infos, store.GroupInfo{Conversation: c.Head.ID, Pos: r.Pos, Epoch: c.Head.Epoch, Body: in.GroupInfo})
	c.InfoEpoch = c.Head.Epoch
	return Result{Record: r, Epoch: a.seen.epoch, IsNew: true}
}

// GroupInfoRequest is an Op that asks the members for a current GroupInfo, with which the
// caller can enter the group. Members and former members may do so. Its result has the number
// of members that are asked, for members only.
type GroupInfoRequest struct{ ConversationID ds.ConversationID }

func (in GroupInfoRequest) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in GroupInfoRequest) check(a *action) error {
	a.admits = everMembers
	return checkConversationID(in.ConversationID)
}

func (GroupInfoRequest) limits() []string { return []string{limits.GroupInfoRequests} }

func (GroupInfoRequest) may(*logs.Conversation, *action, int64) error { return nil }

func (GroupInfoRequest) judge(*logs.Conversation, *action) (verdict, error) { return verdict{}, nil }

func (GroupInfoRequest) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	result := Result{Record: c.Note(ds.RequestEvent, ds.Request{By: a.who.Account, Wants: ds.WantsGroupInfo}, nowMS)}
	if c.IsMember(a.who.Account) {
		result.Asked = c.Head.Members
	}
	return result
}
