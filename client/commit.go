package client

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/mls"
)

// pendingCommit is a commit of our own that the log has not shown yet. It is applied on its
// echo and not before: the server may accept another one instead.
type pendingCommit struct {
	MessageID string      `json:"message"`
	Add       []string    `json:"add,omitempty"`    // accounts that become members on the server
	Remove    []string    `json:"remove,omitempty"` // accounts that stop being members
	To        []recipient `json:"to,omitempty"`
	State     []byte      `json:"state"` // commit
	// Seq is the place in the log of an external commit: where this device begins to read. 0
	// until the server has sent it.
	Seq int64 `json:"seq,omitempty"`

	commit *mls.PendingCommit
}

// MarshalBinary encodes the commit with the resulting group.
func (p *pendingCommit) MarshalBinary() ([]byte, error) {
	out := *p
	var err error
	if out.State, err = p.commit.MarshalBinary(); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

func unmarshalPending(data []byte, o mls.LoadOptions) (*pendingCommit, error) {
	var p pendingCommit
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, err
	}
	var err error
	p.commit, err = mls.LoadPendingCommit(p.State, o)
	p.State = nil
	return &p, err
}

// request returns the request for the commit. Retries send the same one.
func (p *pendingCommit) request(conversation string) commitRequest {
	out := commitRequest{Conversation: conversation, ID: p.MessageID, Commit: p.commit.Message(),
		GroupInfo: p.commit.GroupInfo(), Add: p.Add, Remove: p.Remove}
	if welcome := p.commit.Welcome(); welcome != nil {
		out.Welcome = &commitWelcome{Message: welcome, To: p.To}
	}
	return out
}

// addsMax bounds the devices that one commit adds, so that its Welcome stays well under the
// server's limit; the rest follow with the next commit.
const addsMax = 256

// invitee is a device that a commit is to add.
type invitee struct {
	account string
	isNamed bool // the account is a member on the server already, or named by another device
	fetchedPackage
}

// invitees returns the devices that the next commit adds, as far as their packages have been
// fetched.
func (k keeper) invitees(conv *conversation) []invitee {
	var list []invitee
	added := map[string]bool{}
	accountsMax := k.c.traits.accountsMax
	for _, w := range conv.info.Wanted {
		for _, f := range w.Packages {
			isNamed := !w.Add || added[w.Account]
			if len(list) == addsMax || hasLeaf(conv.group, f.SignatureKey) || !isNamed && len(added) == accountsMax {
				continue
			}
			if w.Add {
				added[w.Account] = true
			}
			list = append(list, invitee{w.Account, !w.Add, f})
		}
	}
	return list
}

// commitTriesMax bounds the attempts at one commit: each leaves out the devices that made the
// previous one fail.
const commitTriesMax = 8

// errNoInvitees reports that no device is left to be added.
var errNoInvitees = errors.New("no device is left to be added")

// makeCommit prepares a commit that adds every wanted device with a fetched package. Without
// any it is an empty commit with a fresh path, by which a group that has only its founder is
// bound to its conversation. Devices with packages that make the commit fail are left out, and
// the application receives an EventLeftOut for each; members are removed if their keys cannot
// be encrypted to.
func (k keeper) makeCommit(tx *tx, conv *conversation) error {
	accountsMax := k.c.traits.accountsMax
	unwanted := slices.Clone(conv.info.Unwanted[:min(len(conv.info.Unwanted), accountsMax)])
	removals := k.removals(conv, unwanted)
	var list []invitee
	if len(unwanted) == 0 && len(removals) == 0 {
		list = k.invitees(conv) // else with the next commit, so that a refusal concerns only one of the two
	}
	isForAdds := len(list) > 0
	var commit *mls.PendingCommit
	err := errNoInvitees
	for range commitTriesMax {
		if isForAdds && len(list) == 0 && len(removals) == 0 && !conv.mayCommitNothing() {
			return errNoInvitees
		}
		var packages [][]byte
		for _, i := range list {
			packages = append(packages, i.Message)
		}
		commit, err = conv.group.Commit(mls.CommitOptions{Add: packages, Remove: removals,
			// A non-member may propose its own addition, and the server may do so in any
			// account's name.
			Skip: func(p mls.ProposalInfo) bool { return p.SenderKind != mls.SentByMember }})
		if err == nil {
			break
		}
		var bad mls.ChangeErrors
		var key *mls.KeyError
		switch {
		case errors.As(err, &bad):
			if list, err = k.leaveOut(tx, conv, list, bad); err != nil {
				return err
			}
		case errors.As(err, &key):
			leaf, ok := key.Leaf()
			if !ok || leaf == conv.group.OwnLeaf().Index || slices.Contains(removals, leaf) {
				return fmt.Errorf("make commit: %w", err)
			}
			removals, list = append(removals, leaf), nil
		default:
			return fmt.Errorf("make commit: %w", err)
		}
	}
	if err != nil {
		return fmt.Errorf("make commit: %w", err)
	}
	p := &pendingCommit{MessageID: newMessageID(), Remove: unwanted, commit: commit}
	for _, i := range list {
		p.To = append(p.To, recipient{Account: i.account, Device: i.Device, KeyPackageRef: i.Ref})
		if !i.isNamed && !slices.Contains(p.Add, i.account) {
			p.Add = append(p.Add, i.account)
		}
	}
	conv.setGroup(commit.Base()) // without the key that the commit was sealed with
	conv.setPending(p)
	return nil
}

// mayCommitNothing reports whether a commit that adds and removes no one is useful: it binds a
// room to its group, brings fresh keys, or carries out proposals of others.
func (c *conversation) mayCommitNothing() bool {
	return c.phase == Founding && c.info.Kind == Room || c.phase == Joined && c.info.Refresh || c.group.Proposals() > 0
}

// leaveOut removes from the list the devices with packages that make a commit fail, reports
// them, and deletes their packages. A fault of anything else is an error.
func (k keeper) leaveOut(tx *tx, conv *conversation, list []invitee, bad mls.ChangeErrors) ([]invitee, error) {
	out := map[int]bool{}
	for _, e := range bad {
		if e.Field != "Add" || e.Index >= len(list) {
			return nil, fmt.Errorf("make commit: %w", bad)
		}
		out[e.Index] = true
		i := list[e.Index]
		why := &LeftOutError{Account: i.account, Device: i.name(), Index: e.Index, Problem: e.Err.Error()}
		if err := tx.report(Event{Type: EventLeftOut, Conversation: conv.id, Time: k.c.now(), Index: e.Index, Code: problemLeftOut, Problem: why.Problem,
			From: Member{Account: why.Account, Device: why.Device, Fingerprint: fingerprint(i.SignatureKey)}}); err != nil {
			return nil, err
		}
		conv.refusePackage(i.account, i.Ref, k.c.now())
	}
	var left []invitee
	for at, i := range list {
		if !out[at] {
			left = append(left, i)
		}
	}
	return left, nil
}

// The waits before packages are fetched again for an account whose last ones were unusable.
const (
	refetchMin = time.Second
	refetchMax = 15 * time.Minute
)

// refusePackage deletes an unusable package. If it was the account's last one, packages are
// fetched again later; a device of our own is given up.
func (c *conversation) refusePackage(account, ref string, now time.Time) {
	info := c.editInfo()
	for k := range info.Wanted {
		w := &info.Wanted[k]
		if w.Account != account {
			continue
		}
		before := len(w.Packages)
		w.Packages = slices.DeleteFunc(slices.Clone(w.Packages), func(f fetchedPackage) bool { return f.Ref == ref })
		if len(w.Packages) == 0 && before > 0 {
			w.Refused++
			w.NotBefore = now.Add(backoff(w.Refused, refetchMin, refetchMax)).UnixMilli()
		}
	}
	info.Wanted = slices.DeleteFunc(info.Wanted, func(w wanted) bool { return w.Own && w.Refused > 0 && len(w.Packages) == 0 })
}

// isPendingEcho reports whether a message of the log is our pending commit. It compares the
// bytes: any client may use any msg_id, and XRPC has names of its own for commits.
func (c *conversation) isPendingEcho(message []byte) bool {
	return c.pending != nil && string(c.pending.commit.Message()) == string(message)
}

// enterEpoch moves the conversation to the group after a commit, our own or another's. A commit
// of our own that lost the race is dropped; its remaining changes stay wanted, and the next
// commit makes them.
func (k keeper) enterEpoch(tx *tx, conv *conversation, next *mls.Group, e Event, digest [sha256.Size]byte, own *pendingCommit) error {
	e.By, e.From = e.From, Member{}
	if own != nil {
		e.By = k.c.Self()
	}
	e.Members, e.Gone = k.c.authority.membersChanged(conv.group, next)
	e.nameAccounts(conv.group, next, conv.info.Left)
	conv.before = conv.group
	conv.setGroup(next)
	var done []string
	switch {
	case own != nil:
		done = own.Remove
		if conv.info.Refresh { // any commit of our own has a fresh path
			info := conv.editInfo()
			info.Refresh, info.RefreshAfter = info.RefreshAfter == own.MessageID, ""
		}
		tx.stats.Commits++
	case conv.pending != nil:
		tx.stats.LostRaces++
		k.observed("lost", conv.id, conv.epoch(), nil)
	}
	if conv.pending != nil {
		conv.setPending(nil)
	}
	k.settleRemovals(conv, done)
	k.settleWanted(conv)
	if slices.ContainsFunc(slices.Concat(e.Removed, e.Left), func(account string) bool { return conv.roleOf(account) == RoleOwner }) {
		conv.editInfo().RolesDue = true
	}
	wasFounding := conv.phase == Founding
	if wasFounding {
		conv.setPhase(Joined)
	}
	if conv.info.Problem != "" {
		conv.editInfo().Problem = ""
	}
	if wasFounding {
		e.Type = EventJoined
		return k.reportGroup(tx, conv, e)
	}
	if len(e.Members)+len(e.Gone) == 0 {
		return nil
	}
	if len(e.Members) > 0 {
		k.met(conv)
	}
	isOwnEntry := own == nil && slices.ContainsFunc(e.Members, func(m Member) bool { return m == e.By && m.Account == k.c.account.DID() })
	if own != nil && len(e.Members) > 0 || isOwnEntry && conv.isFirstDevice(k.c.account.DID()) {
		conv.repeatTitle()
		if err := sendTitle(k, tx, conv); err != nil {
			return err
		}
	}
	if err := k.meet(tx, conv, e.Members, e.Time); err != nil {
		return err
	}
	e.Type = EventMembers
	return tx.saveChange(conv, e, &digest)
}

// settleWanted removes the accounts that are in the group now from the wanted list.
func (k keeper) settleWanted(conv *conversation) {
	if len(conv.info.Wanted) == 0 {
		return
	}
	var left []wanted
	for _, w := range conv.info.Wanted {
		var packages []fetchedPackage
		for _, f := range w.Packages {
			if !hasLeaf(conv.group, f.SignatureKey) {
				packages = append(packages, f)
			}
		}
		if len(packages) == 0 && len(w.Packages) > 0 && w.Own {
			continue // all devices that were found are in
		}
		if len(packages) == 0 && !w.Own && hasAccount(conv.group, w.Account) && !slices.Contains(conv.info.Missing, w.Account) {
			continue
		}
		w.Packages = packages
		left = append(left, w)
	}
	conv.editInfo().Wanted = left
}

// dropPackages deletes fetched packages, so that they are fetched again: a commit with them
// could not be made or was refused.
func (c *conversation) dropPackages() {
	info := c.editInfo()
	for i := range info.Wanted {
		info.Wanted[i].Packages = nil
	}
}
