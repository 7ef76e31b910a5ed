package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// pastEpoch is the part of a past epoch that is kept: to open late messages, and as a source of
// resumption keys.
type pastEpoch struct {
	context    wire.GroupContext
	senderData []byte
	resumption []byte
	secrets    schedule.SecretTree
	leaves     []*wire.LeafNode // nil where blank
}

// leaf returns the node of leaf i, nil if it was blank or outside the tree.
func (p *pastEpoch) leaf(i uint32) *wire.LeafNode {
	if i >= uint32(len(p.leaves)) {
		return nil
	}
	return p.leaves[i]
}

// remember returns g's history with the kept part of g's own epoch appended.
func (g *Group) remember() []pastEpoch {
	past := append(slices.Clone(g.past), pastEpoch{
		context: g.context, senderData: g.epoch.SenderData, resumption: g.epoch.Resumption, secrets: g.secrets, leaves: leafNodes(g.tree),
	})
	return past[max(0, len(past)-g.limits.PastEpochs):]
}

// origin returns the history of a pending commit: which epoch it is for. The keys of that epoch and
// of those before it stay in the group alone, which goes on to use them and to delete what was
// used. The only leaf is blank, so that nothing opens.
func (g *Group) origin() []pastEpoch {
	return []pastEpoch{{
		context: g.context, senderData: g.epoch.SenderData, resumption: g.epoch.Resumption,
		secrets: g.secretTree(1, make([]byte, suite.HashBytes)), leaves: []*wire.LeafNode{nil},
	}}
}

// pastIndex returns the index of an epoch in g.past, -1 if it is not kept.
func (g *Group) pastIndex(epoch uint64) int {
	return slices.IndexFunc(g.past, func(p pastEpoch) bool { return p.context.Epoch == epoch })
}

// resumption returns the resumption key of an epoch that g remembers, or nil. RFC 9420, section
// 8.6.
func (g *Group) resumption(groupID []byte, epoch uint64) []byte {
	if g == nil || !bytes.Equal(groupID, g.context.GroupID) {
		return nil
	}
	if g.epoch != nil && epoch == g.context.Epoch {
		return g.epoch.Resumption
	}
	if i := g.pastIndex(epoch); i >= 0 {
		return g.past[i].resumption
	}
	return nil
}
