package core

import (
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// SetAdmins is an Op by which the owner makes members admins, or with Take makes admins plain
// members. The owner, accounts that are not members, and members with that role already are left
// unchanged.
type SetAdmins struct {
	ConversationID ds.ConversationID
	Accounts       []ds.AccountID
	Take           bool
}

func (in SetAdmins) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in SetAdmins) check(a *action) error { return a.checkList(in.ConversationID, in.Accounts) }

func (SetAdmins) limits() []string { return []string{limits.Invites} }

func (SetAdmins) may(c *logs.Conversation, a *action, _ int64) error {
	if c.Role(a.who.Account) != ds.Owner {
		return refuseRights
	}
	return nil
}

func (SetAdmins) judge(*logs.Conversation, *action) (verdict, error) { return verdict{}, nil }

func (in SetAdmins) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	for _, account := range in.Accounts {
		switch has := c.Role(account); {
		case in.Take && has == ds.Admin:
			changeRole(c, a.who.Account, account, ds.Plain, nowMS)
		case !in.Take && (has == ds.Plain || has == ds.Moderator):
			changeRole(c, a.who.Account, account, ds.Admin, nowMS)
		}
	}
	return Result{}
}
