package mls

import "bytes"

// PendingCommit is a commit of ours that the delivery service has not delivered yet: the message
// to send, and the group that it leads to. Save it (MarshalBinary) together with Base before
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

// Welcome returns the MLSMessage for the added members, nil if there are none. Send it only
// after the delivery service has accepted the commit.
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

// Base returns the group to continue with until a commit of this epoch is delivered: the one
// that the commit was made from, without the message key that it used. It returns nil for a
// loaded PendingCommit: continue with the group that was saved with it.
func (p *PendingCommit) Base() *Group { return p.base }

// Group returns the group after the commit, without the keys of past epochs: late messages do not
// open. Prefer Apply.
func (p *PendingCommit) Group() *Group { return p.group }

// IsExternal reports whether we join by the commit (JoinExternal).
func (p *PendingCommit) IsExternal() bool { return p.external }

// Apply returns the group after the commit. current is Base or a successor of it in the same
// epoch: its keys of past epochs are kept, and its settings (hook, limits) apply.
// For an external commit current is ignored and may be nil. Errors wrap ErrWrongGroup or
// ErrWrongEpoch. RFC 9420, section 12.4.
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
