package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"waxwing.im/waxwing/mls"
)

// Invite adds accounts to a room: all their devices that have a key package. An account without
// one is added once it has one. It needs the rights of the room's owner or an admin, which the
// server checks (EventProblem). If one of them is not a DID the error wraps ErrAccount, and
// none is invited.
func (c *Client) Invite(ctx context.Context, room string, members ...string) error {
	return c.manage(ctx, room, func(conv *conversation) error { return c.keeper.want(conv, members) })
}

// Remove removes accounts from a room with all their devices: from the server's list, which
// ends delivery to them, and from the MLS group, so that they cannot read later messages.
// Messages sent after Remove wait in the outbox until they are removed. It needs the rights of
// the room's owner or an admin, which the server checks (EventProblem); the owner cannot be
// removed. Accounts that are not in the room are ignored. An EventMembers reports the
// completion.
func (c *Client) Remove(ctx context.Context, room string, members ...string) error {
	return c.manage(ctx, room, func(conv *conversation) error {
		info := conv.editInfo()
		for _, account := range members {
			if err := checkAccount(account); err != nil {
				return fmt.Errorf("remove: %w", err)
			}
			if account == c.account.DID() {
				return fmt.Errorf("remove: %w: own account, use Leave", ErrAccount)
			}
			info.Wanted = slices.DeleteFunc(info.Wanted, func(w wanted) bool { return w.Account == account })
			if !slices.Contains(info.Unwanted, account) {
				info.Unwanted = append(info.Unwanted, account)
			}
		}
		return nil
	})
}

// manage changes the wanted members of a room.
func (c *Client) manage(ctx context.Context, room string, change func(conv *conversation) error) error {
	return c.change(ctx, room, func(_ *tx, conv *conversation) error {
		switch {
		case conv.info.Kind == DM:
			return ErrDirect
		case conv.phase == Removed || conv.phase == Waiting || conv.info.Leave != nil:
			return ErrNoGroup
		}
		if conv.info.Problem != "" {
			conv.editInfo().Problem = "" // it may not remain
		}
		return change(conv)
	})
}

// Leave removes this account with all its devices from a conversation, once its messages in the
// outbox are delivered or cannot be. The other members remove its devices from the group. If
// the account is the owner, the first admin becomes it, or else the first other member. The
// last event is an EventRemoved; an invitation brings the account back.
func (c *Client) Leave(ctx context.Context, conversation string) error {
	return c.leaveTo(ctx, conversation, "")
}

// LeaveTo is Leave for an owner that names its successor; the error wraps ErrAccount if
// newOwner is not a DID. Other members just leave. With WithXRPC it is ErrNotOverXRPC: there
// the server chooses the successor.
func (c *Client) LeaveTo(ctx context.Context, conversation, newOwner string) error {
	if err := checkAccount(newOwner); err != nil {
		return fmt.Errorf("leave: new owner: %w", err)
	}
	if !c.traits.namesSuccessor {
		return fmt.Errorf("leave: new owner: %w", ErrNotOverXRPC)
	}
	return c.leaveTo(ctx, conversation, newOwner)
}

func (c *Client) leaveTo(ctx context.Context, id, newOwner string) error {
	return c.change(ctx, id, func(tx *tx, conv *conversation) error {
		switch conv.phase {
		case Removed:
			return nil
		case Creating: // unknown to the server and to others
			return c.keeper.leave(tx, conv, c.now(), "left")
		}
		if conv.info.Leave == nil && conv.phase == Joined {
			// The members may learn of it when the server's record is past.
			if err := c.keeper.addContent(tx, conv, contentRoom, roomContent{Leaving: true}); err != nil && !errors.Is(err, ErrOutboxFull) {
				return err
			}
		}
		conv.editInfo().Leave = &departure{NewOwner: newOwner}
		return nil
	})
}

// Refresh gives this device fresh keys in a conversation's group: an attacker with a copy of
// the old ones, or of the home, cannot read later messages. Every commit of this device does
// that too.
func (c *Client) Refresh(ctx context.Context, id string) error {
	return c.change(ctx, id, func(_ *tx, conv *conversation) error {
		if conv.phase != Joined {
			return ErrNoGroup
		}
		info := conv.editInfo()
		info.Refresh, info.RefreshAfter = true, ""
		if conv.pending != nil {
			info.RefreshAfter = conv.pending.MessageID
		}
		return nil
	})
}

// leaveOnServer notifies the server that the account leaves. It is repeated after a crash: an
// account that is no longer a member has left.
func (e errands) leaveOnServer(ctx context.Context, by service, id string) error {
	conv, err := e.c.snapshot(ctx, id)
	if err != nil || conv == nil || conv.info.Leave == nil || conv.phase == Removed {
		return err
	}
	list, err := by.members(ctx, id)
	if err == nil {
		err = by.leave(ctx, id, e.successor(list, conv.info.Leave.NewOwner))
	}
	refusal := asRefusal(err)
	isOut := err == nil || errors.Is(err, errNotMember)
	if !isOut && (refusal == nil || refusal.mayPass() || refusal.Code == codeUnauthorized) {
		return fmt.Errorf("leave: %w", err)
	}
	return e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error {
		if conv.info.Leave == nil {
			return nil
		}
		if isOut {
			return e.c.keeper.leave(tx, conv, e.c.now(), "left")
		}
		conv.editInfo().Leave = nil
		return e.c.keeper.reportProblem(tx, conv, refusal)
	})
}

// successor returns the owner of the conversation after this account, its owner, has left: the
// named one, else the first of the list, which begins with the admins; "" if none is needed.
func (e errands) successor(members []RoleChange, named string) string {
	isOwner, first := false, ""
	for _, m := range members {
		switch {
		case m.Account == e.c.account.DID():
			isOwner = m.Role == RoleOwner
		case first == "":
			first = m.Account
		}
	}
	if !isOwner || first == "" {
		return ""
	}
	return cmp.Or(named, first)
}

// roster is the server's list of a conversation's accounts, and the epoch of the group before
// the request.
type roster struct {
	accounts []string
	role     string
	epoch    uint64
	changes  int // conversation.rosterChanges
}

// applyRoster compares the server's list with the group. An account in the group that is no
// longer in the list gets no deliveries and must not be able to read on. The list
// never adds an account: a server could put any into it. The result is false if the group or the
// accounts have changed since the request, so that the list may be older.
func (k keeper) applyRoster(conv *conversation, r roster) bool {
	if conv.phase != Joined || !slices.Contains(r.accounts, k.c.account.DID()) {
		return true
	}
	if r.role != "" && conv.info.Role != r.role {
		info := conv.editInfo()
		info.RolesDue = info.RolesDue || info.Role != ""
		info.Role = r.role
	}
	if conv.epoch() != r.epoch || conv.rosterChanges != r.changes {
		return false
	}
	var missing []string
	for _, leaf := range conv.group.Members() {
		account := string(leaf.Credential)
		if !slices.Contains(r.accounts, account) && !slices.Contains(missing, account) {
			missing = append(missing, account)
		}
	}
	if !slices.Equal(missing, conv.info.Missing) {
		conv.editInfo().Missing = missing
	}
	return true
}

// requestRoster requests the accounts of a conversation.
func (e errands) requestRoster(ctx context.Context, by service, id string) error {
	conv, err := e.c.snapshot(ctx, id)
	if err != nil || conv == nil || conv.phase != Joined {
		return err
	}
	r := roster{epoch: conv.epoch(), changes: conv.rosterChanges}
	list, err := by.members(ctx, id)
	if err != nil {
		if refusal := asRefusal(err); refusal != nil && refusal.Code == codeForbidden {
			return nil // the log shows it too
		}
		return fmt.Errorf("request members: %w", err)
	}
	for _, m := range list {
		r.accounts = append(r.accounts, m.Account)
		if m.Account == e.c.account.DID() {
			r.role = m.Role
		}
	}
	return e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error {
		if !e.c.keeper.applyRoster(conv, r) {
			return errRosterOutdated
		}
		if conv.phase != Joined {
			return nil
		}
		if conv.info.RolesDue {
			conv.editInfo().RolesDue = false
		}
		return conv.listRoles(tx, e.c.account.DID(), list, e.c.now())
	})
}

// rosterTries bounds consecutive requests for the members; departures are reported again on the
// next connection.
const rosterTries = 3

var errRosterOutdated = errors.New("group changed while its members were requested")

// accountsChanged applies a change of accounts in its place in the log: the commits before it
// are in the group already.
func (b *batch) accountsChanged(m accountsChanged) error {
	conv := b.tx.conversation(m.conversation)
	if conv == nil || conv.phase != Joined {
		return nil
	}
	conv.rosterChanges++
	info := conv.editInfo()
	for _, account := range m.remove {
		if hasAccount(conv.group, account) && account != b.s.c.account.DID() && !slices.Contains(info.Missing, account) {
			info.Missing = append(info.Missing, account)
			conv.hasLeft(account)
		}
	}
	for _, account := range m.add {
		conv.stays(account)
	}
	info.Missing = slices.DeleteFunc(info.Missing, func(account string) bool { return slices.Contains(m.add, account) })
	b.then(conv.id, func(*subscription) {})
	return nil
}

// removals returns the leaves that a commit of ours removes from the group: those of the
// unwanted accounts that it is for and of missing ones, of this account's lost devices, and the
// leaf of an earlier home of this device.
func (k keeper) removals(conv *conversation, unwanted []string) []uint32 {
	var out []uint32
	for _, leaf := range conv.group.Members() {
		account := string(leaf.Credential)
		switch {
		case leaf.Index == conv.group.OwnLeaf().Index:
		case slices.Contains(unwanted, account) || slices.Contains(conv.info.Missing, account),
			account == k.c.account.DID() && k.c.authority.isStale(leaf):
			out = append(out, leaf.Index)
		}
	}
	return out
}

// mustRemove reports whether there are leaves for a commit to remove. It scans the leaves once
// in each epoch.
func (s *session) mustRemove(conv *conversation, sub *subscription) bool {
	if len(conv.info.Unwanted)+len(conv.info.Missing) > 0 {
		return true
	}
	if at := (removalCheck{conv.epoch() + 1, s.c.lostChanges.Load()}); sub.checkedForRemovals != at {
		if len(s.c.keeper.removals(conv, conv.info.Unwanted)) > 0 {
			return true
		}
		sub.checkedForRemovals = at
	}
	return false
}

// removalCheck is an epoch (plus one), and the count of declarations of lost devices.
type removalCheck struct {
	epoch uint64
	lost  int64
}

// isStale reports whether a leaf of our account belongs to a lost device, or to an earlier home
// of this one.
func (a authority) isStale(leaf mls.Leaf) bool {
	device := a.memberOf(leaf).Device
	return device != "" && (device == a.c.options.DeviceID && string(leaf.SignatureKey) != string(a.c.identity.Key.Public()) || a.isLost(device))
}

// The waits before a commit that another member may make as well: for admins, and for others,
// which only step in.
const (
	removeSoon  = 200 * time.Millisecond
	removeLater = 5 * time.Second
)

// mayRemove reports whether this device should commit removals now. Those requested here are
// due; a pending removal is the task of admins at once, and of any member that wants to send or
// finds it still pending after a wait.
func (s *session) mayRemove(conv *conversation, sub *subscription, hasOutgoing bool) bool {
	if len(conv.info.Unwanted) > 0 || len(conv.info.Missing) == 0 || hasOutgoing {
		sub.remove.ok()
		return true
	}
	if sub.remove.at.IsZero() && sub.remove.failed == 0 {
		wait := rand.N(removeSoon)
		if !mayManage(conv.info.Role) {
			wait = removeLater + rand.N(removeLater)
		}
		sub.remove = retry{failed: 1, at: time.Now().Add(wait)}
	}
	if !sub.remove.isReady() {
		return false
	}
	sub.remove.ok()
	return true
}

// settleRemovals deletes from the lists the accounts that are no longer in the group; done are
// the accounts that our own commit removed from the server's list.
func (k keeper) settleRemovals(conv *conversation, done []string) {
	isOut := func(account string) bool { return !hasAccount(conv.group, account) }
	if len(conv.info.Missing) > 0 {
		info := conv.editInfo()
		info.Missing = slices.DeleteFunc(info.Missing, isOut)
	}
	if len(conv.info.Left) > 0 {
		info := conv.editInfo()
		info.Left = slices.DeleteFunc(info.Left, isOut)
	}
	if len(conv.info.Unwanted) > 0 {
		info := conv.editInfo()
		info.Unwanted = slices.DeleteFunc(info.Unwanted, func(account string) bool {
			return slices.Contains(done, account) || isOut(account) && hadAccount(conv, account)
		})
	}
}

// hadAccount reports whether the account was in the group before its last commit.
func hadAccount(conv *conversation, account string) bool {
	return conv.before != nil && hasAccount(conv.before, account)
}
