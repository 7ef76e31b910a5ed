package mls

import "bytes"

// PendingCommit is a commit of ours that may or may not win: the message to send, and the group
// it leads to. It survives a restart with MarshalBinary; save it together with Base before
// sending.
type PendingCommit struct {
	base      *Group // nil once loaded
	group     *Group
	message   []byte
	welcome   []byte
	groupInfo []byte
	added     []seat
	removed   []seat
	external  bool // we joined by this commit
}

// Message returns the commit, an MLSMessage.
func (p *PendingCommit) Message() []byte { return bytes.Clone(p.message) }

// Welcome returns the MLSMessage for the added members, nil if there are none. Deliver it only
// after the commit has won.
func (p *PendingCommit) Welcome() []byte { return bytes.Clone(p.welcome) }

// GroupInfo returns the MLSMessage that describes the group after the commit; nil if the commit
// ends the group.
func (p *PendingCommit) GroupInfo() []byte { return bytes.Clone(p.groupInfo) }

// Epoch returns the epoch in which the commit was made.
func (p *PendingCommit) Epoch() uint64 { return p.group.context.Epoch - 1 }

// Added lists the members that the commit adds.
func (p *PendingCommit) Added() []Leaf { return leaves(p.added) }

// Removed lists the members that the commit removes.
func (p *PendingCommit) Removed() []Leaf { return leaves(p.removed) }

// Base returns the group to continue with until the commit wins or loses: the one it was made
// from, without the message key that the commit used. A loaded PendingCommit has none (nil):
// Base is then the group that was saved with it.
func (p *PendingCommit) Base() *Group { return p.base }

// Group returns the group after the commit, provided that nothing happened in the old epoch
// since the commit was made. Prefer Apply.
func (p *PendingCommit) Group() *Group { return p.group }

// IsExternal reports whether we join by the commit (JoinExternal).
func (p *PendingCommit) IsExternal() bool { return p.external }

// Apply returns the group after the commit, starting from current, a successor of Base in the
// same epoch: messages that current has opened stay opened, and cannot be replayed. For an
// external commit it returns the joined group and ignores current, which may be nil. The error
// wraps ErrWrongGroup or ErrWrongEpoch.
func (p *PendingCommit) Apply(current *Group) (*Group, error) {
	if p.external {
		return p.group, nil
	}
	if !bytes.Equal(current.context.GroupID, p.group.context.GroupID) {
		return nil, broken(ErrWrongGroup, "12.4", "the pending commit is for another group")
	}
	if current.context.Epoch != p.Epoch() || current.removed || len(p.group.past) == 0 ||
		!bytes.Equal(current.epoch.SenderData, p.group.past[len(p.group.past)-1].senderData) {
		return nil, broken(ErrWrongEpoch, "12.4", "the pending commit is for epoch %d", p.Epoch())
	}
	next := p.group.clone()
	next.past = current.remember()
	next.settings = current.settings
	return next, nil
}
