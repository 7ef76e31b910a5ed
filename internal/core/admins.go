package core

import (
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// SetAdmins is an Op by which the owner makes members admins, or with Take makes admins plain
// members. The owner, accounts that are not members, members with that role already and, with
// Take, moderators are left unchanged.
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

// roleBytes estimates the storage cost of a changed role beside its names: its record, with
// indexes, and the row of the stay.
const roleBytes = 512

// judge counts each change as stored by the caller: it is a record of its own.
func (in SetAdmins) judge(c *logs.Conversation, _ *action) (verdict, error) {
	bytes := 0
	for _, account := range in.changed(c) {
		bytes += roleBytes + len(account)
	}
	return verdict{bytes: bytes}, nil
}

// changed lists the accounts whose role changes, each once.
func (in SetAdmins) changed(c *logs.Conversation) []ds.AccountID {
	var list []ds.AccountID
	seen := map[ds.AccountID]bool{}
	for _, account := range in.Accounts {
		has := c.Role(account)
		if changes := has == ds.Admin && in.Take || (has == ds.Plain || has == ds.Moderator) && !in.Take; changes && !seen[account] {
			seen[account] = true
			list = append(list, account)
		}
	}
	return list
}

func (in SetAdmins) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	role := ds.Admin
	if in.Take {
		role = ds.Plain
	}
	for _, account := range in.changed(c) {
		changeRole(c, a.who.Account, account, role, nowMS)
	}
	return Result{}
}
