package mls

import (
	"bytes"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// plan holds the effects of the proposals of a commit, in the order in which they are applied.
// RFC 9420, section 12.3.
type plan struct {
	list         []proposal
	sender       wire.Sender      // of the commit
	extensions   []wire.Extension // of the group after the commit
	updates      []proposal
	removes      []uint32
	adds         []*wire.KeyPackage
	psks         []wire.PreSharedKeyID
	reInit       *wire.ReInit
	externalInit []byte
	needsPath    bool
	own          *ownUpdate // if one of updates is ours

	touched  map[uint32]bool // leaves with an Update or a Remove
	extended bool
}

// newPlan verifies list, the proposals of a commit by sender, as a whole and returns their
// effects. Rules about the resulting tree (unique keys, capabilities) are verified on that tree,
// and signatures by checkCommitted. RFC 9420, section 12.2.
func newPlan(g *Group, list []proposal, sender wire.Sender) (*plan, error) {
	c := &plan{list: list, sender: sender, extensions: g.context.Extensions, needsPath: len(list) == 0, touched: map[uint32]bool{}}
	for _, p := range list {
		if err := p.checkForm(g); err != nil {
			return nil, err
		}
	}
	for _, p := range list {
		if err := c.include(p); err != nil {
			return nil, err
		}
	}
	if c.reInit != nil && len(list) > 1 {
		return nil, broken(ErrInvalidProposal, "12.2", "a ReInit proposal with other proposals")
	}
	if sender.Type == wire.NewMemberCommitSender {
		return c, c.checkExternal()
	}
	return c, c.checkAdds(g.tree)
}

// include adds one more proposal to the plan.
func (c *plan) include(p proposal) error {
	isMember := c.sender.Type == wire.MemberSender
	switch p.body.Type {
	case wire.AddProposal:
		c.adds = append(c.adds, p.body.Add)
	case wire.UpdateProposal:
		if isMember && p.sender.Index == c.sender.Index {
			return broken(ErrInvalidProposal, "12.2", "an Update of the committer")
		}
		c.updates = append(c.updates, p)
		if p.own != nil {
			c.own = p.own
		}
		return c.touch(p.sender.Index)
	case wire.RemoveProposal:
		if isMember && p.body.Remove == c.sender.Index {
			return broken(ErrInvalidProposal, "12.2", "the committer removes itself")
		}
		c.removes = append(c.removes, p.body.Remove)
		return c.touch(p.body.Remove)
	case wire.GroupContextExtensionsProposal:
		if c.extended {
			return broken(ErrInvalidProposal, "12.2", "two GroupContextExtensions proposals")
		}
		c.extended, c.needsPath, c.extensions = true, true, p.body.Extensions
	case wire.PSKProposal:
		c.psks = append(c.psks, *p.body.PSK)
	case wire.ReInitProposal:
		c.reInit = p.body.ReInit
	case wire.ExternalInitProposal:
		if c.externalInit != nil {
			return broken(ErrInvalidProposal, "12.2", "two ExternalInit proposals")
		}
		c.needsPath, c.externalInit = true, append([]byte{}, p.body.ExternalInit...)
	}
	return nil
}

// touch records that a proposal changes leaf i.
func (c *plan) touch(i uint32) error {
	if c.touched[i] {
		return broken(ErrInvalidProposal, "12.2", "two proposals change leaf %d", i)
	}
	c.touched[i], c.needsPath = true, true
	return nil
}

// checkExternal verifies that an external commit has its mandatory proposals; mayPropose holds
// the permitted ones. RFC 9420, sections 12.2 and 12.4.3.2.
func (c *plan) checkExternal() error {
	if c.externalInit == nil {
		return broken(ErrInvalidProposal, "12.2", "an external commit without an ExternalInit proposal")
	}
	if len(c.removes) > 1 {
		return broken(ErrInvalidProposal, "12.2", "an external commit removes %d members", len(c.removes))
	}
	return nil
}

// checkAdds verifies that no client is added that is already a member, or twice: a client is
// identified by its signature key. RFC 9420, section 12.2.
func (c *plan) checkAdds(t *tree.Tree) error {
	if len(c.adds) == 0 {
		return nil
	}
	clients := make(map[string]bool, len(c.adds))
	for _, k := range c.adds {
		if clients[string(k.Leaf.SignatureKey)] {
			return broken(ErrInvalidProposal, "12.2", "a client is added twice")
		}
		clients[string(k.Leaf.SignatureKey)] = true
	}
	removed := indexSet(c.removes)
	for i, n := range t.Leaves() {
		if !removed[i] && clients[string(n.SignatureKey)] {
			return broken(ErrInvalidProposal, "12.2", "the client of leaf %d is added again", i)
		}
	}
	return nil
}

// checkInitKeys verifies that no two packages have the same init key, which would let one of
// their owners open the Welcome of the other. It applies to our own commits only: RFC 9420 does
// not let members refuse such packages in commits of others.
func (c *plan) checkInitKeys(keys suite.PublicKeys) error {
	seen := make(map[string]bool, len(c.adds))
	for _, k := range c.adds {
		key := string(keys.Canonical(k.InitKey))
		if seen[key] {
			return broken(ErrInvalidKeyPackage, "10", "two packages have the same init key")
		}
		seen[key] = true
	}
	return nil
}

// apply applies c to t and returns the leaf indices of the added members. RFC 9420, section
// 12.3.
func (c *plan) apply(t *tree.Tree) []uint32 {
	for _, p := range c.updates {
		t.Update(p.sender.Index, p.body.Update)
	}
	for _, i := range c.removes {
		t.Remove(i)
	}
	var added []uint32
	for _, k := range c.adds {
		added = append(added, t.Add(&k.Leaf))
	}
	return added
}

// removed lists the members that c removes, as they are in t.
func (c *plan) removed(t *tree.Tree) []seat {
	var list []seat
	for _, i := range c.removes {
		list = append(list, seat{index: i, node: t.Leaf(i)})
	}
	return list
}

// sameCredential reports whether two leaves have the same credential.
func sameCredential(a, b *wire.LeafNode) bool {
	return bytes.Equal(wire.Marshal(&a.Credential), wire.Marshal(&b.Credential))
}

func indexSet(list []uint32) map[uint32]bool {
	set := make(map[uint32]bool, len(list))
	for _, i := range list {
		set[i] = true
	}
	return set
}
