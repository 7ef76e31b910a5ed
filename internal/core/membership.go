package core

import (
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// Invite is an Op that makes accounts members of a conversation; present members are left
// unchanged. Refusals: also limit_exceeded.
type Invite struct {
	ConversationID ds.ConversationID
	Accounts       []ds.AccountID
}

func (in Invite) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in Invite) check(a *action) error { return a.checkList(in.ConversationID, in.Accounts) }

func (Invite) limits() []string { return []string{limits.Invites} }

func (in Invite) may(c *logs.Conversation, a *action, _ int64) error {
	if !mayAdd(c, a.who.Account) {
		return refuseRights
	}
	return nil
}

func (in Invite) judge(c *logs.Conversation, _ *action) (verdict, error) {
	return verdict{bytes: enteringBytes(c, in.Accounts)}, hasRoom(c, in.Accounts, nil)
}

func (in Invite) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	changeMembers(c, ds.MembershipChange{By: a.who.Account, Add: in.Accounts}, nowMS)
	return Result{}
}

// checkList checks the names of an operation on accounts, and sets their stays to be loaded.
func (a *action) checkList(id ds.ConversationID, accounts []ds.AccountID) error {
	a.needs.Accounts, a.bytes = accounts, nameBytes(accounts)
	if err := checkConversationID(id); err != nil {
		return err
	}
	return checkAccounts(accounts)
}

// Remove is an Op that ends the membership of accounts other than the caller. A list with the
// owner removes no account. Its result has the epoch afterwards. Refusals: also
// invalid_request because of ds.TargetNotMember; epoch_conflict.
type Remove struct {
	ConversationID ds.ConversationID
	Accounts       []ds.AccountID
	// Strict refuses accounts that are not members, which are ignored otherwise.
	Strict bool
	// Handshake is the commit that removes the accounts from the group, or nil. It takes
	// effect together with the removal. The same handshake again is answered as before; one
	// that was submitted in another way before, and ended nothing, is not appended to the log
	// again.
	Handshake   []byte       // MLSMessage
	HandshakeID ds.MessageID // its message id
}

func (in Remove) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, in.HandshakeID }

func (in Remove) check(a *action) error {
	if err := a.checkList(in.ConversationID, in.Accounts); err != nil {
		return err
	}
	return a.checkHandshake(in.ConversationID, in.HandshakeID, in.Handshake, false, in.Accounts)
}

func (Remove) limits() []string { return []string{limits.Removes} }

func (in Remove) repeat(c *logs.Conversation, a *action, answer store.Answer) (Result, bool, error) {
	return repeatEnd(c, a, answer, in.Accounts)
}

func (in Remove) may(c *logs.Conversation, a *action, _ int64) error {
	if len(in.Accounts) == 0 && !c.Role(a.who.Account).MayManage() {
		return refuseRights
	}
	for _, account := range in.Accounts {
		switch {
		case !mayRemove(c, a.who.Account, account):
			return refuseRights
		case in.Strict && !c.IsMember(account):
			return refuseTarget
		}
	}
	return nil
}

func (Remove) judge(*logs.Conversation, *action) (verdict, error) { return verdict{}, nil }

func (in Remove) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	changeMembers(c, ds.MembershipChange{By: a.who.Account, Remove: in.Accounts}, nowMS)
	return Result{Epoch: c.Head.Epoch}
}

// Leave is an Op that ends the caller's own membership; delivery to it ends with the record of
// that. The owner leaves as the last member, or names another member as the new owner; no
// other member may name one. Its result has the epoch afterwards. Refusals: also
// epoch_conflict.
type Leave struct {
	ConversationID ds.ConversationID
	NewOwner       ds.AccountID // or ""
	// PassOn lets the owner leave without naming a successor: see succeed.
	PassOn bool
	// Handshake is as in Remove. No member can commit its own removal (RFC 9420, section
	// 12.2): it is a proposal to remove the caller, which leaves the epoch unchanged, or
	// a commit that does something else; the others' clients commit the removal.
	Handshake   []byte       // MLSMessage
	HandshakeID ds.MessageID // its message id
}

func (in Leave) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, in.HandshakeID }

func (in Leave) check(a *action) error {
	var named []ds.AccountID
	if in.NewOwner != "" {
		named = []ds.AccountID{in.NewOwner}
	}
	if err := a.checkList(in.ConversationID, named); err != nil {
		return err
	}
	a.needs.Everyone = in.PassOn
	return a.checkHandshake(in.ConversationID, in.HandshakeID, in.Handshake, true, nil)
}

func (Leave) limits() []string { return []string{limits.Removes} }

func (Leave) repeat(c *logs.Conversation, a *action, answer store.Answer) (Result, bool, error) {
	return repeatEnd(c, a, answer, []ds.AccountID{a.who.Account})
}

// may checks the ownership rules: an owner with other members must name a successor, or
// pass ownership on.
func (in Leave) may(c *logs.Conversation, a *action, _ int64) error {
	isOwner := c.Role(a.who.Account) == ds.Owner
	switch {
	case in.NewOwner == "" && isOwner && c.Head.Members > 1 && !in.PassOn:
		return ds.Refuse(ds.Forbidden, "the owner must name a new_owner")
	case in.NewOwner == "":
		return nil
	case !isOwner:
		return refuseRights
	case in.NewOwner == a.who.Account || !c.IsMember(in.NewOwner):
		return ds.Refuse(ds.InvalidRequest, "new_owner is not another member")
	}
	return nil
}

func (Leave) judge(*logs.Conversation, *action) (verdict, error) { return verdict{}, nil }

func (in Leave) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	account := a.who.Account
	switch {
	case in.NewOwner != "":
		changeRole(c, account, in.NewOwner, ds.Owner, nowMS)
	case in.PassOn && c.Role(account) == ds.Owner:
		succeed(c, account, nowMS)
	}
	changeMembers(c, ds.MembershipChange{By: account, Remove: []ds.AccountID{account}}, nowMS)
	return Result{Epoch: c.Head.Epoch}
}

// repeatEnd answers a Leave or Remove with a handshake that is in the log and that ended the
// membership of the accounts.
func repeatEnd(c *logs.Conversation, a *action, answer store.Answer, accounts []ds.AccountID) (Result, bool, error) {
	switch {
	case answer.Pos == 0:
		return Result{}, false, nil
	case answer.Kind != a.seen.kind:
		return Result{}, false, refuseReused
	}
	for _, account := range accounts {
		if c.IsMemberSince(account, answer.Pos) {
			return Result{}, false, nil
		}
	}
	return Result{Epoch: answer.Epoch}, true, nil
}

// checkHandshake checks the handshake of a Leave, which is the caller's own, or of a Remove of
// accounts.
func (a *action) checkHandshake(id ds.ConversationID, message ds.MessageID, handshake []byte, isOwn bool, remove []ds.AccountID) error {
	if len(handshake) == 0 {
		return nil
	}
	var err error
	if a.seen, err = checkLeaving(handshake, isOwn); err != nil {
		return err
	}
	a.bytes += len(handshake)
	a.with = &action{service: a.service, who: a.who, seen: a.seen}
	if a.seen.kind == ds.Proposal {
		a.with.op = Send{ConversationID: id, ID: message, Body: handshake, Encoding: ds.Binary}
		return nil
	}
	a.with.op, a.with.found = Bundle{ConversationID: id, ID: message, Commit: handshake, Encoding: ds.Binary, Remove: remove}, &found{}
	return nil
}

// checkLeaving checks such a handshake alone.
func checkLeaving(handshake []byte, isOwn bool) (sight, error) {
	if len(handshake) > commitBytesMax {
		return sight{}, ds.Refuse(ds.InvalidRequest, "commit too large")
	}
	seen := look(handshake, ds.Binary)
	switch {
	case seen.opaque || seen.external || seen.kind == ds.App || seen.kind == ds.Proposal && !isOwn:
		return sight{}, ds.Refuse(ds.InvalidRequest, "commit is not an MLS commit of a member").Because(ds.BadCommit)
	case removesItself(handshake):
		return sight{}, ds.Refuse(ds.InvalidRequest, "a commit cannot remove its committer").Because(ds.BadCommit)
	}
	return seen, nil
}

// removesItself reports whether a commit that shows its proposals removes the leaf that
// sent it. No member could process that.
func removesItself(handshake []byte) bool {
	var m wire.Message
	if err := wire.Unmarshal(handshake, &m); err != nil || m.Public == nil || m.Public.Content.Commit == nil {
		return false
	}
	for _, p := range m.Public.Content.Commit.Proposals {
		if p.Proposal != nil && p.Proposal.Type == wire.RemoveProposal && p.Proposal.Remove == m.Public.Content.Sender.Index {
			return true
		}
	}
	return false
}

// changeMembers adds and removes accounts by one control record, begins and ends their stays
// with it, and notifies each of them in its account log. Accounts that already have the
// requested state are omitted; without any change there is no record. A new conversation's
// first account is its owner. asked is not modified.
func changeMembers(c *logs.Conversation, asked ds.MembershipChange, nowMS int64) {
	change := ds.MembershipChange{By: asked.By, Settings: asked.Settings}
	for _, account := range asked.Add {
		if c.IsMember(account) || slices.Contains(change.Add, account) {
			continue
		}
		change.Add = append(change.Add, account)
		if at, isElsewhere := asked.At[account]; isElsewhere {
			if change.At == nil {
				change.At = map[ds.AccountID]ds.Binding{}
			}
			change.At[account] = at
		}
	}
	for _, account := range asked.Remove {
		if c.IsMember(account) && !slices.Contains(change.Remove, account) {
			change.Remove = append(change.Remove, account)
		}
	}
	if len(change.Add) == 0 && len(change.Remove) == 0 {
		return
	}
	r := c.Note(ds.Membership, change, nowMS)
	for _, account := range change.Remove {
		stay, _ := c.Stay(account)
		stay.Until = r.Pos
		c.ChangeStay(account, stay)
		c.Out.Stays = append(c.Out.Stays, store.Stay{Conversation: c.Head.ID, Account: account, Interval: stay})
		c.Notify(account, "", ds.MembersEvent, ds.DeviceEvent{Remove: []ds.AccountID{account}})
	}
	for _, account := range change.Add {
		role := ds.Plain
		if r.Pos == 1 && c.Head.Members == 0 {
			role = ds.Owner
		}
		stay := ds.Interval{From: r.Pos, Role: role, Service: change.At[account].Service}
		c.BeginStay(account, stay)
		c.Out.Stays = append(c.Out.Stays, store.Stay{Conversation: c.Head.ID, Account: account, Interval: stay, AtMS: r.CreatedMS})
		c.Notify(account, "", ds.MembersEvent, ds.DeviceEvent{Add: []ds.AccountID{account}})
		c.Head.Members++
	}
	c.Head.Members -= int64(len(change.Remove))
}
