package mls

import (
	"bytes"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// proposal is a proposal with its sender and, if it came by itself, its name.
type proposal struct {
	ref    []byte
	sender uint32 // leaf index
	body   *wire.Proposal
}

// checkProposal verifies a proposal by itself. RFC 9420, section 12.1.
func (g *Group) checkProposal(p proposal) error {
	switch p.body.Type {
	case wire.AddProposal:
		return keypackage.Check(g.suite, p.body.Add)
	case wire.UpdateProposal:
		return g.checkNewLeaf(p.body.Update, wire.UpdateLeaf, p.sender)
	case wire.RemoveProposal:
		if g.tree.Leaf(p.body.Remove) == nil {
			return broken(ErrInvalidProposal, "12.1.3", "there is no member at leaf %d", p.body.Remove)
		}
	case wire.GroupContextExtensionsProposal:
		return checkExtensions(ErrInvalidProposal, p.body.Extensions)
	case wire.ExternalInitProposal:
		return broken(ErrInvalidProposal, "12.2", "an external init by a member")
	}
	return nil
}

// checkNewLeaf verifies the leaf that a member puts in its own place.
func (g *Group) checkNewLeaf(n *wire.LeafNode, source wire.LeafNodeSource, index uint32) error {
	if n.Source != source {
		return broken(ErrInvalidLeaf, "7.3", "leaf node source %d instead of %d", n.Source, source)
	}
	if old := g.tree.Leaf(index); old == nil || bytes.Equal(old.EncryptionKey, n.EncryptionKey) {
		return broken(ErrInvalidLeaf, "7.3", "the encryption key of leaf %d is not new", index)
	}
	return leaf.Check(g.suite, n, g.context.GroupID, index)
}

// change is what a list of proposals does, in the order in which it is done.
// RFC 9420, section 12.3.
type change struct {
	extensions []wire.Extension // of the group afterwards
	updates    []proposal
	removes    []uint32
	adds       []*wire.LeafNode
	psks       []wire.PreSharedKeyID
	needsPath  bool
}

// resolve replaces the references of a commit by the proposals received.
// RFC 9420, section 12.4.2.
func (g *Group) resolve(list []wire.ProposalOrRef, committer uint32) ([]proposal, error) {
	received := make(map[string]proposal, len(g.proposals))
	for _, p := range g.proposals {
		received[string(p.ref)] = p
	}
	var out []proposal
	for _, p := range list {
		if p.Proposal != nil {
			out = append(out, proposal{sender: committer, body: p.Proposal})
			continue
		}
		found, known := received[string(p.Reference)]
		if !known {
			return nil, broken(ErrUnknownProposal, "12.4.2", "reference %x", p.Reference)
		}
		out = append(out, found)
	}
	return out, nil
}

// plan verifies a list of proposals as a whole and says what it does. What needs
// the resulting tree (unique keys, capabilities) is verified there.
// RFC 9420, section 12.2.
func (g *Group) plan(list []proposal, committer uint32) (*change, error) {
	c := &change{extensions: g.context.Extensions, needsPath: len(list) == 0}
	touched := map[uint32]bool{} // leaves with an Update or a Remove
	touch := func(i uint32) error {
		if touched[i] {
			return broken(ErrInvalidProposal, "12.2", "two proposals change leaf %d", i)
		}
		touched[i] = true
		c.needsPath = true
		return nil
	}
	extended := false
	for _, p := range list {
		if err := g.checkProposal(p); err != nil {
			return nil, err
		}
		var err error
		switch p.body.Type {
		case wire.AddProposal:
			c.adds = append(c.adds, &p.body.Add.Leaf)
		case wire.UpdateProposal:
			if p.sender == committer {
				return nil, broken(ErrInvalidProposal, "12.2", "an update by the committer")
			}
			err = touch(p.sender)
			c.updates = append(c.updates, p)
		case wire.RemoveProposal:
			if p.body.Remove == committer {
				return nil, broken(ErrInvalidProposal, "12.2", "the committer removes itself")
			}
			err = touch(p.body.Remove)
			c.removes = append(c.removes, p.body.Remove)
		case wire.GroupContextExtensionsProposal:
			if extended {
				return nil, broken(ErrInvalidProposal, "12.2", "two proposals of group context extensions")
			}
			extended, c.needsPath, c.extensions = true, true, p.body.Extensions
		case wire.PSKProposal:
			c.psks = append(c.psks, *p.body.PSK)
		case wire.ReInitProposal:
			return nil, unsupported("12.1.5", "reinitialization")
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// apply carries out c on t and returns the leaf indices of the added members.
// RFC 9420, section 12.3.
func (c *change) apply(t *tree.Tree) []uint32 {
	for _, p := range c.updates {
		t.Update(p.sender, p.body.Update)
	}
	for _, i := range c.removes {
		t.Remove(i)
	}
	var added []uint32
	for _, n := range c.adds {
		added = append(added, t.Add(n))
	}
	return added
}

// removed lists the members that c removes, as they are in t.
func (c *change) removed(t *tree.Tree) []seat {
	var list []seat
	for _, i := range c.removes {
		list = append(list, seat{index: i, node: t.Leaf(i)})
	}
	return list
}

// credentials lists what c asks the hook about: added are the indices of c.adds.
func (c *change) credentials(before *tree.Tree, added []uint32, epoch uint64) []CredentialChange {
	var list []CredentialChange
	for _, p := range c.updates {
		was, is := newLeaf(p.sender, before.Leaf(p.sender)), newLeaf(p.sender, p.body.Update)
		list = append(list, CredentialChange{Kind: CredentialUpdate, Old: &was, New: &is, Epoch: epoch})
	}
	for k, n := range c.adds {
		is := newLeaf(added[k], n)
		list = append(list, CredentialChange{Kind: CredentialAdd, New: &is, Epoch: epoch})
	}
	return list
}
