package core

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// PolicyChange says which rules of a conversation are to be others; nil leaves one as
// it is.
type PolicyChange struct {
	AllowExternalCommits, RequireInviteForJoin, AllowRejoin, PreventRemovingLastAdmin *bool
	AllowInvites, AdminOnlyInvites, AllowMemberAdd, AllowMemberRemove                 *bool
	RequireAdminApproval                                                              *bool
	RejoinWindowDays                                                                  *int64 // 0: without end
	MaxMembers                                                                        *int64 // 2 to 1000
}

// apply is p with the change.
func (change PolicyChange) apply(p ds.Policy) ds.Policy {
	for _, flag := range []struct{ to, from *bool }{
		{&p.AllowExternalCommits, change.AllowExternalCommits}, {&p.RequireInviteForJoin, change.RequireInviteForJoin},
		{&p.AllowRejoin, change.AllowRejoin}, {&p.PreventRemovingLastAdmin, change.PreventRemovingLastAdmin},
		{&p.AllowInvites, change.AllowInvites}, {&p.AdminOnlyInvites, change.AdminOnlyInvites},
		{&p.AllowMemberAdd, change.AllowMemberAdd}, {&p.AllowMemberRemove, change.AllowMemberRemove},
		{&p.RequireAdminApproval, change.RequireAdminApproval},
	} {
		if flag.from != nil {
			*flag.to = *flag.from
		}
	}
	if change.RejoinWindowDays != nil {
		p.RejoinWindowDays = *change.RejoinWindowDays
	}
	if change.MaxMembers != nil {
		p.MaxMembers = *change.MaxMembers
	}
	return p
}

// UpdatePolicy changes the rules of a conversation and answers them. Nobody is put out
// by them: where there are more members than there may be, no further one enters.
// Refusals: forbidden, for all but owner and admins; invalid_request; rate_limited.
func (s *Service) UpdatePolicy(ctx context.Context, who ds.Caller, id ds.ConversationID, change PolicyChange) (ds.Policy, error) {
	switch {
	case !ds.IsValidID(string(id)):
		return ds.Policy{}, refuseNotMember
	case change == PolicyChange{}:
		return ds.Policy{}, ds.Refuse(ds.InvalidRequest, "no rule to change")
	case change.MaxMembers != nil && (*change.MaxMembers < ruleMembersMin || *change.MaxMembers > RuleMembersMax):
		return ds.Policy{}, ds.Refuse(ds.InvalidRequest, "maxMembers must be %d to %d", ruleMembersMin, RuleMembersMax)
	case change.RejoinWindowDays != nil && (*change.RejoinWindowDays < 0 || *change.RejoinWindowDays > rejoinDaysMax):
		return ds.Policy{}, ds.Refuse(ds.InvalidRequest, "rejoinWindowDays must be 0 to %d", rejoinDaysMax)
	}
	var policy ds.Policy
	r := &request{conversation: id, who: who}
	r.rule = func(c *conversation, nowMS int64) error {
		if err := s.admitManager(c, who); err != nil {
			return err
		}
		policy = change.apply(c.head.Policy)
		c.head.Policy = policy
		c.out.Policies = append(c.out.Policies, store.PolicyChange{Conversation: id, By: who.Account})
		c.note(ds.SettingsEvent, ds.SettingsChange{By: who.Account, Fields: []string{"policy"}}, nowMS)
		return nil
	}
	if err := s.submit(ctx, r); err != nil {
		return ds.Policy{}, err
	}
	return policy, nil
}

// admitManager is the order of decisions for what only owner and admins may change.
func (s *Service) admitManager(c *conversation, who ds.Caller) error {
	if _, _, err := c.admit(who, ""); err != nil {
		return err
	}
	if r := s.charge(c, limits.Invites, who); r != nil {
		return r
	}
	if !c.role(who.Account).MayManage() {
		return refuseRights
	}
	return c.isHome()
}

// readGroupInfo reads a GroupInfo, by itself or as an MLSMessage.
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

// UpdateGroupInfo stores a GroupInfo of the current epoch, by which members can enter
// the group by themselves. There is one for each epoch: the first that comes. epoch is
// what the caller says that it is of; nil says nothing, and then one that comes later is
// passed over without a refusal. It answers the epoch, and whether this one was stored.
// Refusals: forbidden; invalid_request because of ds.BadGroupInfo; epoch_conflict, with
// the current epoch; rate_limited.
func (s *Service) UpdateGroupInfo(ctx context.Context, who ds.Caller, id ds.ConversationID, info []byte, epoch *int64) (current int64, stored bool, err error) {
	if !ds.IsValidID(string(id)) {
		return 0, false, refuseNotMember
	}
	if len(info) > blobBytesMax {
		return 0, false, refuseInfo("group_info too large")
	}
	parsed, err := readGroupInfo(info)
	switch {
	case err != nil:
		return 0, false, refuseInfo("groupInfo is not an MLS GroupInfo")
	case parsed.Context.Epoch > 1<<62 || epoch != nil && *epoch != int64(parsed.Context.Epoch):
		return 0, false, refuseInfo("groupInfo is of another epoch")
	}
	r := &request{conversation: id, who: who, infoEpoch: true, bytes: len(info)}
	isStored := false // read only if it has succeeded: the rule may run after a caller who has gone
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		isStored, err = s.decideGroupInfo(c, who, info, &parsed.Context, epoch != nil, nowMS)
		return err
	}
	if err := s.submit(ctx, r); err != nil {
		return 0, false, err
	}
	return int64(parsed.Context.Epoch), isStored, nil
}

// decideGroupInfo is the rule of UpdateGroupInfo. It changes c only when it accepts.
func (s *Service) decideGroupInfo(c *conversation, who ds.Caller, info []byte, of *wire.GroupContext, isStated bool, nowMS int64) (stored bool, err error) {
	if _, _, err := c.admit(who, ""); err != nil {
		return false, err
	}
	if r := s.charge(c, limits.Sends, who); r != nil {
		return false, r
	}
	if err := c.isHome(); err != nil {
		return false, err
	}
	switch {
	case !c.head.IsBound() || !bytes.Equal(of.GroupID, c.head.GroupID):
		return false, refuseInfo("groupInfo is of another group")
	case int64(of.Epoch) != c.head.Epoch || c.infoEpoch >= c.head.Epoch && isStated:
		return false, refuseEpoch(c.head.Epoch).Because(ds.LostRace)
	case c.infoEpoch >= c.head.Epoch:
		return false, nil
	}
	if r := s.chargeBytes(c, who, len(info)); r != nil {
		return false, r
	}
	r := c.note(ds.SettingsEvent, ds.SettingsChange{Fields: []string{"groupInfo"}}, nowMS) // by whom would tell whose the commit before it was
	c.out.Infos = append(c.out.Infos, store.GroupInfo{Conversation: c.head.ID, Pos: r.Pos, Epoch: c.head.Epoch, Body: info})
	c.infoEpoch = c.head.Epoch
	return true, nil
}

// RequestGroupInfo asks the members for a current GroupInfo, by which the caller can
// enter the group. Members may, and who was one: one request in 30 s each. It answers
// how many members are asked, which only a member is told. Refusals: forbidden,
// rate_limited.
func (s *Service) RequestGroupInfo(ctx context.Context, who ds.Caller, id ds.ConversationID) (members int64, err error) {
	if !ds.IsValidID(string(id)) {
		return 0, refuseNotMember
	}
	r := &request{conversation: id, who: who}
	var asked int64 // read only if it has succeeded, as above
	r.rule = func(c *conversation, nowMS int64) error {
		if !c.exists || len(c.stays(who.Account)) == 0 {
			return refuseNotMember
		}
		if r := s.charge(c, limits.GroupInfoRequests, who); r != nil {
			return r
		}
		if err := c.isHome(); err != nil {
			return err
		}
		c.note(ds.RequestEvent, ds.Request{By: who.Account, Wants: ds.WantsGroupInfo}, nowMS)
		if asked = 0; c.isMember(who.Account) {
			asked = c.head.Members
		}
		return nil
	}
	if err := s.submit(ctx, r); err != nil {
		return 0, err
	}
	return asked, nil
}

// newCode is a code that invites, and what is kept of it.
func newCode() (code string, hash []byte) {
	code = rand.Text()
	return code, codeHash(code)
}

func codeHash(code string) []byte {
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// mayMakeInvite is who may make codes that invite to a conversation.
func (c *conversation) mayMakeInvite(account ds.AccountID) bool {
	role := c.role(account)
	return role != ds.NoRole && c.head.Policy.AllowInvites && (role.MayManage() || !c.head.Policy.AdminOnlyInvites)
}

// RevokeInvite makes a code that invites to a conversation invalid. Only owner and
// admins may. Refusals: forbidden, not_found.
func (s *Service) RevokeInvite(ctx context.Context, who ds.Caller, id ds.ConversationID, code string) error {
	if !ds.IsValidID(string(id)) {
		return refuseNotMember
	}
	key := store.MemberKey{Conversation: id, Account: who.Account}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		intervals, err := tx.Intervals([]store.MemberKey{key})
		if err != nil {
			return err
		}
		c := conversation{intervals: map[ds.AccountID][]ds.Interval{who.Account: intervals[key]}}
		switch role := c.role(who.Account); {
		case role == ds.NoRole:
			return refuseNotMember
		case !role.MayManage():
			return refuseRights
		}
		return tx.RevokeConversationInvite(id, codeHash(code))
	})
	if errors.Is(err, store.ErrNotFound) {
		return ds.Refuse(ds.NotFound, "no such invite")
	}
	return err
}
