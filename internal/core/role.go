package core

import (
	"cmp"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// A conversation with members has one owner. To the AT Protocol's clients the owner is
// an admin like the others: it can be demoted and may leave, and ownership then passes
// to the longest-standing other admin, else to the longest-standing other member.

var (
	refuseLastAdmin = ds.Refuse(ds.InvalidRequest, "the conversation would have no admin").Because(ds.LastAdmin)
	refuseTarget    = ds.Refuse(ds.InvalidRequest, "that account is not a member").Because(ds.TargetNotMember)
	refuseSameRole  = ds.Refuse(ds.InvalidRequest, "the member has that role or more").Because(ds.AlreadyDone)
	refuseNotSo     = ds.Refuse(ds.InvalidRequest, "the member has another role")
)

// ChangeRole is an Op that gives a member a higher role, ds.Admin or ds.Moderator, or with
// Take revokes that role, which makes it a plain member. Only owner and admins may do so, and
// every member may revoke its own. Refusals: also invalid_request because of
// ds.TargetNotMember, ds.AlreadyDone, or ds.LastAdmin.
type ChangeRole struct {
	ConversationID ds.ConversationID
	Account        ds.AccountID
	Role           ds.Role
	Take           bool
}

func (in ChangeRole) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in ChangeRole) check(a *action) error {
	if err := checkConversationID(in.ConversationID); err != nil {
		return err
	}
	if !ds.IsValidAccount(string(in.Account)) {
		return refuseTarget
	}
	a.needs.Everyone = true
	return nil
}

func (ChangeRole) limits() []string { return []string{limits.Invites} }

func (in ChangeRole) may(c *logs.Conversation, a *action, _ int64) error {
	if isOwn := in.Take && a.who.Account == in.Account; !isOwn && !c.Role(a.who.Account).MayManage() {
		return refuseRights
	}
	return nil
}

func (in ChangeRole) judge(c *logs.Conversation, _ *action) (verdict, error) {
	has := c.Role(in.Account)
	switch {
	case has == ds.NoRole:
		return verdict{}, refuseTarget
	case !in.Take && rank(has) >= rank(in.Role):
		return verdict{}, refuseSameRole
	case !in.Take:
		return verdict{}, nil
	case has != in.Role && !(in.Role == ds.Admin && has == ds.Owner):
		return verdict{}, refuseNotSo
	case in.Role == ds.Admin && !hasOtherAdmin(c, in.Account) && (c.Head.Policy.PreventRemovingLastAdmin || c.Head.Members < 2):
		return verdict{}, refuseLastAdmin
	}
	return verdict{}, nil
}

func (in ChangeRole) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	role := in.Role
	if in.Take {
		role = ds.Plain
		if c.Role(in.Account) == ds.Owner {
			succeed(c, in.Account, nowMS)
		}
	}
	changeRole(c, a.who.Account, in.Account, role, nowMS)
	return Result{}
}

// rank orders the roles.
func rank(r ds.Role) int {
	return map[ds.Role]int{ds.Plain: 1, ds.Moderator: 2, ds.Admin: 3, ds.Owner: 4}[r]
}

// byTenure lists the members other than but, the longest-standing first. All members must be
// loaded.
func byTenure(c *logs.Conversation, but ds.AccountID) []ds.AccountID {
	var list []ds.AccountID
	for account := range c.Present {
		if account != but {
			list = append(list, account)
		}
	}
	since := func(a ds.AccountID) int64 { return c.Present[a].From }
	slices.SortFunc(list, func(a, b ds.AccountID) int { return cmp.Or(cmp.Compare(since(a), since(b)), cmp.Compare(a, b)) })
	return list
}

func hasOtherAdmin(c *logs.Conversation, account ds.AccountID) bool {
	return slices.ContainsFunc(byTenure(c, account), func(a ds.AccountID) bool { return c.Role(a).MayManage() })
}

// succeed passes ownership from its present holder to the longest-standing other admin, else
// to the longest-standing other member, if there is one.
func succeed(c *logs.Conversation, from ds.AccountID, nowMS int64) {
	others := byTenure(c, from)
	if len(others) == 0 {
		return
	}
	heir := others[0]
	if i := slices.IndexFunc(others, func(a ds.AccountID) bool { return c.Role(a).MayManage() }); i >= 0 {
		heir = others[i]
	}
	changeRole(c, from, heir, ds.Owner, nowMS)
}

// changeRole changes the role of a member by a control record of its own, so that every reader
// of the log knows each role and when it began.
func changeRole(c *logs.Conversation, by, account ds.AccountID, role ds.Role, nowMS int64) {
	r := c.Note(ds.Roles, ds.RoleChange{By: by, Account: account, Role: role}, nowMS)
	stay, _ := c.Stay(account)
	stay.Role = role
	c.ChangeStay(account, stay)
	c.Out.Roles = append(c.Out.Roles, store.Stay{Conversation: c.Head.ID, Account: account, Interval: stay, AtMS: r.CreatedMS, By: by})
}

// mayAdd reports whether an account may add members: owner and admins may, and every member if
// the rules of the conversation say so.
func mayAdd(c *logs.Conversation, account ds.AccountID) bool {
	role := c.Role(account)
	return role.MayManage() || role != ds.NoRole && c.Head.Policy.AllowMemberAdd && !c.Head.Policy.RequireAdminApproval
}

// mayRemove reports whether an account may remove target. Owner and admins may remove every
// member but the owner; moderators, and all members if the rules of the conversation say so,
// may remove plain members. A target that is not a member counts as a plain one.
func mayRemove(c *logs.Conversation, account, target ds.AccountID) bool {
	role, has := c.Role(account), c.Role(target)
	switch {
	case has == ds.Owner || role == ds.NoRole:
		return false
	case role.MayManage():
		return true
	case has == ds.Plain || has == ds.NoRole:
		return role == ds.Moderator || c.Head.Policy.AllowMemberRemove
	}
	return false
}
