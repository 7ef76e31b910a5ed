package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/mls"
)

// pendingCommit is a commit of our own that the log has not shown yet. It is applied
// on its echo and not before (I10): the server may let another one win.
type pendingCommit struct {
	MessageID string              `json:"message"`
	Add       []string            `json:"add,omitempty"`    // accounts that become members on the server
	Remove    []string            `json:"remove,omitempty"` // and who cease to be
	To        []gateway.WelcomeTo `json:"to,omitempty"`
	State     []byte              `json:"state"` // commit
	// Seq is the place in the log of an external commit: where this device begins to
	// read. 0 until the server has told.
	Seq int64 `json:"seq,omitempty"`

	commit *mls.PendingCommit
}

// MarshalBinary encodes the commit with the group it leads to.
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

// frameBody is what conv.commit carries. Retries send the same.
func (p *pendingCommit) frameBody(conversation string) gateway.Commit {
	encode := base64.StdEncoding.EncodeToString
	out := gateway.Commit{ConvID: conversation, MsgID: p.MessageID, Commit: encode(p.commit.Message()), Add: p.Add, Remove: p.Remove}
	if welcome := p.commit.Welcome(); welcome != nil {
		out.Welcome = &gateway.CommitWelcome{Env: encode(welcome), To: p.To}
	}
	if info := p.commit.GroupInfo(); info != nil {
		text := encode(info)
		out.GroupInfo = &text
	}
	return out
}

// addsMax bounds the devices that one commit adds, so that its Welcome stays well
// under what the server takes; the rest follow with the next commit.
const addsMax = 256

// accountsMax is how many accounts one commit may add to a conversation, or remove.
func (c *Client) accountsMax() int {
	if c.xrpc != nil {
		return xrpcMembersMax
	}
	return math.MaxInt
}

// makeCommit prepares a commit that adds every wanted device whose package is at
// hand. With none it is an empty commit with a fresh path, by which a group that
// has only its founder is bound to its conversation.
func (c *Client) makeCommit(conv *conversation) error {
	accountsMax := c.accountsMax()
	p := &pendingCommit{MessageID: newMessageID(), Remove: slices.Clone(conv.info.Unwanted[:min(len(conv.info.Unwanted), accountsMax)])}
	var packages [][]byte
	removals := c.removals(conv, p.Remove)
	list := conv.info.Wanted
	if len(p.Remove) > 0 || len(removals) > 0 {
		list = nil // with the next commit, so that a refusal is of the one or the other
	}
	for _, w := range list {
		for _, f := range w.Packages {
			isNamed := !w.Add || slices.Contains(p.Add, w.Account)
			if len(packages) == addsMax || hasLeaf(conv.group, f.SignatureKey) || !isNamed && len(p.Add) == accountsMax {
				continue
			}
			packages = append(packages, f.Message)
			p.To = append(p.To, gateway.WelcomeTo{UserID: w.Account, DeviceID: f.Device, KeyPackageRef: f.Ref})
			if !isNamed {
				p.Add = append(p.Add, w.Account)
			}
		}
	}
	commit, err := conv.group.Commit(mls.CommitOptions{Add: packages, Remove: removals,
		// Who is not in the group may ask to be, and the server may ask in anybody's name.
		Skip: func(p mls.ProposalInfo) bool { return p.SenderKind != mls.SentByMember }})
	if err != nil {
		return fmt.Errorf("make commit: %w", err)
	}
	p.commit = commit
	conv.setGroup(commit.Base()) // without the key that the commit was sealed with
	conv.setPending(p)
	return nil
}

// isPendingEcho says whether a message of the log is our pending commit. The bytes
// decide: anybody may use any msg_id, and XRPC has names of its own for commits.
func (c *conversation) isPendingEcho(message []byte) bool {
	return c.pending != nil && string(c.pending.commit.Message()) == string(message)
}

// enterEpoch moves the conversation to the group after a commit, whoever made it.
// A commit of our own that lost the race is dropped; what it was to do and is still
// missing stays wanted, and the next commit does it.
func (c *Client) enterEpoch(tx *tx, conv *conversation, next *mls.Group, e Event, own *pendingCommit) error {
	added, gone := c.membersChanged(conv.group, next)
	conv.before = conv.group
	conv.setGroup(next)
	var done []string
	switch {
	case own != nil:
		done = own.Remove
		if conv.info.Refresh {
			conv.editInfo().Refresh = false // whatever the commit was for, it had a fresh path
		}
		c.stats.commits.Add(1)
	case conv.pending != nil:
		c.stats.lostRaces.Add(1)
		c.observed("lost", conv.id, conv.epoch(), nil)
	}
	if conv.pending != nil {
		conv.setPending(nil)
	}
	c.settleRemovals(conv, done)
	c.settleWanted(conv)
	wasFounding := conv.phase == Founding
	if wasFounding {
		conv.setPhase(Joined)
	}
	if conv.info.Problem != "" {
		conv.editInfo().Problem = ""
	}
	if err := tx.meet(conv.id, added, e.Time); err != nil {
		return err
	}
	if wasFounding {
		joined := e
		joined.Type = EventJoined
		for _, l := range next.Members() {
			joined.Members = append(joined.Members, c.memberOf(l))
		}
		return tx.report(joined)
	}
	if len(added)+len(gone) == 0 {
		return nil
	}
	e.Type, e.Members, e.Gone = EventMembers, added, gone
	return tx.report(e)
}

// settleWanted takes off the list whoever is in the group now.
func (c *Client) settleWanted(conv *conversation) {
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

// dropPackages forgets what was fetched, so that it is fetched anew: a commit with
// it could not be made or was refused.
func (c *conversation) dropPackages() {
	info := c.editInfo()
	for i := range info.Wanted {
		info.Wanted[i].Packages = nil
	}
}
