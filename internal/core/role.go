package core

import (
	"cmp"
	"context"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// A conversation with members has one owner. To the AT Protocol's clients the owner is
// an admin like the others: it can be demoted and may leave, and ownership then passes
// to whoever has been there for the longest time, an admin if there is another.

var (
	refuseLastAdmin = ds.Refuse(ds.InvalidRequest, "the conversation would have no admin").Because(ds.LastAdmin)
	refuseTarget    = ds.Refuse(ds.InvalidRequest, "that account is not a member").Because(ds.TargetNotMember)
	refuseSameRole  = ds.Refuse(ds.InvalidRequest, "the member has that role or more").Because(ds.AlreadyDone)
	refuseNotSo     = ds.Refuse(ds.InvalidRequest, "the member has another role")
)

// Promote gives a member a role that is more than its own: ds.Admin or ds.Moderator.
// Only owner and admins may. Refusals: forbidden; invalid_request because of
// ds.TargetNotMember, or ds.AlreadyDone; rate_limited.
func (s *Service) Promote(ctx context.Context, who ds.Caller, id ds.ConversationID, target ds.AccountID, role ds.Role) error {
	return s.changeRoleOf(ctx, who, id, target, func(c *conversation, nowMS int64) error { return c.promote(who.Account, target, role, nowMS) })
}

// Demote takes a role, ds.Admin or ds.Moderator, from a member, which then is a plain
// one. Owner and admins may, and everybody for itself. Refusals: as Promote, and
// invalid_request because of ds.LastAdmin.
func (s *Service) Demote(ctx context.Context, who ds.Caller, id ds.ConversationID, target ds.AccountID, role ds.Role) error {
	return s.changeRoleOf(ctx, who, id, target, func(c *conversation, nowMS int64) error { return c.demote(who.Account, target, role, nowMS) })
}

func (s *Service) changeRoleOf(ctx context.Context, who ds.Caller, id ds.ConversationID, target ds.AccountID, change func(c *conversation, nowMS int64) error) error {
	if !ds.IsValidID(string(id)) {
		return refuseNotMember
	}
	if !ds.IsValidAccount(string(target)) {
		return refuseTarget
	}
	r := &request{conversation: id, who: who, everyone: true}
	r.rule = func(c *conversation, nowMS int64) error {
		if _, _, err := c.admit(who, ""); err != nil {
			return err
		}
		if r := s.charge(c, limits.Invites, who); r != nil {
			return r
		}
		if err := c.isHome(); err != nil {
			return err
		}
		return change(c, nowMS)
	}
	return s.submit(ctx, r)
}

// rank orders the roles.
func rank(r ds.Role) int {
	return map[ds.Role]int{ds.Plain: 1, ds.Moderator: 2, ds.Admin: 3, ds.Owner: 4}[r]
}

func (c *conversation) promote(by, target ds.AccountID, role ds.Role, nowMS int64) error {
	switch {
	case !c.role(by).MayManage():
		return refuseRights
	case !c.isMember(target):
		return refuseTarget
	case rank(c.role(target)) >= rank(role):
		return refuseSameRole
	}
	c.changeRole(by, target, role, nowMS)
	return nil
}

func (c *conversation) demote(by, target ds.AccountID, role ds.Role, nowMS int64) error {
	has := c.role(target)
	switch {
	case by != target && !c.role(by).MayManage():
		return refuseRights
	case has == ds.NoRole:
		return refuseTarget
	case has != role && !(role == ds.Admin && has == ds.Owner):
		return refuseNotSo
	}
	if role == ds.Admin && !c.hasOtherAdmin(target) {
		if c.head.Policy.PreventRemovingLastAdmin || c.head.Members < 2 {
			return refuseLastAdmin
		}
	}
	if has == ds.Owner {
		c.succeed(target, nowMS)
	}
	c.changeRole(by, target, ds.Plain, nowMS)
	return nil
}

// standing lists the members other than account, the longest-standing first. It needs
// everyone loaded.
func (c *conversation) standing(but ds.AccountID) []ds.AccountID {
	var list []ds.AccountID
	for account := range c.current {
		if account != but {
			list = append(list, account)
		}
	}
	since := func(a ds.AccountID) int64 { return c.current[a].From }
	slices.SortFunc(list, func(a, b ds.AccountID) int { return cmp.Or(cmp.Compare(since(a), since(b)), cmp.Compare(a, b)) })
	return list
}

func (c *conversation) hasOtherAdmin(account ds.AccountID) bool {
	return slices.ContainsFunc(c.standing(account), func(a ds.AccountID) bool { return c.role(a).MayManage() })
}

// succeed passes ownership on from its present holder: to the longest-standing other
// admin, else to the longest-standing other member, if there is any.
func (c *conversation) succeed(from ds.AccountID, nowMS int64) {
	others := c.standing(from)
	if len(others) == 0 {
		return
	}
	heir := others[0]
	if i := slices.IndexFunc(others, func(a ds.AccountID) bool { return c.role(a).MayManage() }); i >= 0 {
		heir = others[i]
	}
	c.changeRole(from, heir, ds.Owner, nowMS)
}

// changeRole gives a member another role by a control record of its own, so that
// every reader of the log sees who may do what, and since when.
func (c *conversation) changeRole(by, account ds.AccountID, role ds.Role, nowMS int64) {
	r := c.note(ds.Roles, ds.RoleChange{By: by, Account: account, Role: role}, nowMS)
	stay, _ := c.stay(account)
	stay.Role = role
	c.change(account, stay)
	c.out.Roles = append(c.out.Roles, store.Stay{Conversation: c.head.ID, Account: account, Interval: stay, AtMS: r.CreatedMS, By: by})
}

// mayAdd is who may bring others in: owner and admins, and everybody where the rules of
// the conversation say so.
func (c *conversation) mayAdd(account ds.AccountID) bool {
	role := c.role(account)
	return role.MayManage() || role != ds.NoRole && c.head.Policy.AllowMemberAdd && !c.head.Policy.RequireAdminApproval
}

// mayRemove is who may put whom out: nobody the owner; owner and admins everybody else;
// moderators plain members; and so everybody where the rules of the conversation say it.
// One who is no member may be named by whoever may remove plain members.
func (c *conversation) mayRemove(account, target ds.AccountID) bool {
	role, has := c.role(account), c.role(target)
	switch {
	case has == ds.Owner || role == ds.NoRole:
		return false
	case role.MayManage():
		return true
	case has == ds.Plain || has == ds.NoRole:
		return role == ds.Moderator || c.head.Policy.AllowMemberRemove
	}
	return false
}

// loadWhole reads what few requests look at: all present members of their conversations,
// and of which epoch the stored GroupInfo is.
func loadWhole(tx *store.Tx, batch []*request, conversations map[ds.ConversationID]*conversation) error {
	var everyone, infos []ds.ConversationID
	for _, r := range batch {
		c := conversations[r.conversation]
		if r.everyone && c.current == nil {
			everyone = append(everyone, r.conversation)
			c.current = map[ds.AccountID]ds.Interval{}
		}
		if r.infoEpoch {
			infos = append(infos, r.conversation)
			c.infoEpoch = -1
		}
	}
	stays, err := tx.PresentStays(everyone)
	if err != nil {
		return err
	}
	for key, stay := range stays {
		conversations[key.Conversation].current[key.Account] = stay
	}
	epochs, err := tx.GroupInfoEpochs(infos)
	for id, epoch := range epochs {
		conversations[id].infoEpoch = epoch
	}
	return err
}
