package core

import (
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// PolicyChange holds new values of rules of a conversation; nil leaves a rule unchanged.
type PolicyChange struct {
	AllowExternalCommits, RequireInviteForJoin, AllowRejoin, PreventRemovingLastAdmin *bool
	AllowInvites, AdminOnlyInvites, AllowMemberAdd, AllowMemberRemove                 *bool
	RequireAdminApproval                                                              *bool
	RejoinWindowDays                                                                  *int64 // 0: unlimited
	MaxMembers                                                                        *int64 // 2 to 1000
}

// apply returns p with the change.
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

// Settings is an Op that changes the rules of a conversation. It removes no member: if there
// are more members than allowed, no further one may enter. Only owner and admins may do so.
type Settings struct {
	ConversationID ds.ConversationID
	Policy         PolicyChange
}

func (in Settings) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in Settings) check(*action) error {
	if err := checkConversationID(in.ConversationID); err != nil {
		return err
	}
	switch change := in.Policy; {
	case change == PolicyChange{}:
		return ds.Refuse(ds.InvalidRequest, "no rule to change")
	case change.MaxMembers != nil && (*change.MaxMembers < ruleMembersMin || *change.MaxMembers > RuleMembersMax):
		return ds.Refuse(ds.InvalidRequest, "maxMembers must be %d to %d", ruleMembersMin, RuleMembersMax)
	case change.RejoinWindowDays != nil && (*change.RejoinWindowDays < 0 || *change.RejoinWindowDays > rejoinDaysMax):
		return ds.Refuse(ds.InvalidRequest, "rejoinWindowDays must be 0 to %d", rejoinDaysMax)
	}
	return nil
}

func (Settings) limits() []string { return []string{limits.Invites} }

func (Settings) may(c *logs.Conversation, a *action, _ int64) error {
	if !c.Role(a.who.Account).MayManage() {
		return refuseRights
	}
	return nil
}

func (Settings) judge(*logs.Conversation, *action) (verdict, error) { return verdict{}, nil }

func (in Settings) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	policy := in.Policy.apply(c.Head.Policy)
	c.Head.Policy = policy
	r := c.Note(ds.SettingsEvent, ds.SettingsChange{By: a.who.Account, Fields: []string{"policy"}, Settings: ds.Settings{Policy: &policy}}, nowMS)
	c.Out.Policies = append(c.Out.Policies, store.PolicyChange{Conversation: in.ConversationID, By: a.who.Account, AtMS: r.CreatedMS})
	return Result{Record: r}
}
