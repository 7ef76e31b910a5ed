package mls

import (
	"bytes"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// proposal is a proposal with its sender and, if it was sent in its own message, its reference.
type proposal struct {
	ref    []byte
	sender wire.Sender
	body   *wire.Proposal
	own    *ownUpdate // of our own Update
	bytes  int        // the bytes that a kept proposal takes
}

// ownUpdate holds the private keys of our own Update until it is committed.
type ownUpdate struct {
	pair tree.KeyPair // of the leaf
	key  SignatureKey
}

// mayPropose lists the proposal types that each kind of sender may make. Members of the group
// cannot make an ExternalInit; a joiner makes its proposals in its commit. RFC 9420, sections
// 12.1.8 and 12.2.
var mayPropose = map[wire.SenderType]map[wire.ProposalType]bool{
	wire.MemberSender: {
		wire.AddProposal: true, wire.UpdateProposal: true, wire.RemoveProposal: true, wire.PSKProposal: true,
		wire.ReInitProposal: true, wire.GroupContextExtensionsProposal: true,
	},
	wire.ExternalSender: {
		wire.AddProposal: true, wire.RemoveProposal: true, wire.PSKProposal: true,
		wire.ReInitProposal: true, wire.GroupContextExtensionsProposal: true,
	},
	wire.NewMemberProposalSender: {wire.AddProposal: true},
	wire.NewMemberCommitSender:   {wire.ExternalInitProposal: true, wire.RemoveProposal: true, wire.PSKProposal: true},
}

// checkProposal verifies a single proposal. RFC 9420, section 12.1.
func (g *Group) checkProposal(p proposal) error {
	if err := g.checkForm(p); err != nil {
		return err
	}
	return g.checkSignatures(p)
}

// checkSignatures verifies the signatures inside a proposal.
// RFC 9420, sections 7.3 and 10.1.
func (g *Group) checkSignatures(p proposal) error {
	switch p.body.Type {
	case wire.AddProposal:
		return keypackage.CheckSignatures(g.suite, p.body.Add)
	case wire.UpdateProposal:
		return leaf.CheckSignature(g.suite, p.body.Update, g.context.GroupID, p.sender.Index)
	}
	return nil
}

// checkCommitted verifies the signatures inside the proposals that a commit brings, on all
// processors. A commit of 32 KiB can hold two hundred, so this check is last: it runs only for
// a commit that is valid otherwise. Those of proposals by reference were verified on receipt.
func (g *Group) checkCommitted(list []proposal) error {
	return suite.Parallel(len(list), func(i int) error {
		if list[i].ref != nil {
			return nil
		}
		return g.checkSignatures(list[i])
	})
}

// checkForm does the checks of checkProposal other than signatures.
func (g *Group) checkForm(p proposal) error {
	if !mayPropose[p.sender.Type][p.body.Type] {
		section := "12.2"
		if p.sender.Type == wire.ExternalSender || p.sender.Type == wire.NewMemberProposalSender {
			section = "12.1.8"
		}
		return broken(ErrInvalidProposal, section, "a sender of type %d proposes type %d", p.sender.Type, p.body.Type)
	}
	switch p.body.Type {
	case wire.AddProposal:
		if err := keypackage.CheckForm(g.suite, p.body.Add); err != nil {
			return err
		}
		// A receiver does not check that the lifetime has begun and not ended: it may read the
		// message long after it was sent. It does check the duration.
		return keypackage.CheckDuration(&p.body.Add.Leaf, g.limits.Lifetime)
	case wire.UpdateProposal:
		return g.checkLeafForm(p.body.Update, wire.UpdateLeaf, p.sender.Index, g.tree.Leaf(p.sender.Index))
	case wire.RemoveProposal:
		if g.tree.Leaf(p.body.Remove) == nil {
			return broken(ErrInvalidProposal, "12.1.3", "there is no member at leaf %d", p.body.Remove)
		}
	case wire.PSKProposal:
		return g.checkPSK(p.body.PSK)
	case wire.ReInitProposal:
		if p.body.ReInit.Version < g.context.Version {
			return broken(ErrInvalidProposal, "12.1.5", "version %d after %d", p.body.ReInit.Version, g.context.Version)
		}
		return checkContextExtensions(ErrInvalidProposal, p.body.ReInit.Extensions)
	case wire.GroupContextExtensionsProposal:
		return checkContextExtensions(ErrInvalidProposal, p.body.Extensions)
	}
	return nil
}

// checkNewLeaf verifies the leaf that replaces old at index. A joiner by external commit has no
// old leaf, or one that it removes. RFC 9420, sections 7.3 and 12.2.
func (g *Group) checkNewLeaf(n *wire.LeafNode, source wire.LeafNodeSource, index uint32, old *wire.LeafNode) error {
	if err := g.checkLeafForm(n, source, index, old); err != nil {
		return err
	}
	return leaf.CheckSignature(g.suite, n, g.context.GroupID, index)
}

// checkLeafForm does the checks of checkNewLeaf other than the signature.
func (g *Group) checkLeafForm(n *wire.LeafNode, source wire.LeafNodeSource, index uint32, old *wire.LeafNode) error {
	if n.Source != source {
		return broken(ErrInvalidLeaf, "7.3", "leaf node source %d instead of %d", n.Source, source)
	}
	if keys := g.suite.PublicKeys(); old != nil && bytes.Equal(keys.Canonical(old.EncryptionKey), keys.Canonical(n.EncryptionKey)) {
		return broken(ErrInvalidLeaf, "7.3", "the encryption key of leaf %d is not new", index)
	}
	return leaf.CheckForm(g.suite, n)
}

// resolve replaces the references of a commit by the proposals received. RFC 9420, sections
// 12.4.2 and 12.4.3.2.
func (g *Group) resolve(list []wire.ProposalOrRef, committer wire.Sender) ([]proposal, error) {
	received := make(map[string]proposal, len(g.proposals))
	for _, p := range g.proposals {
		received[string(p.ref)] = p
	}
	out := make([]proposal, 0, min(len(list), 1000))
	for _, p := range list {
		if p.Proposal != nil {
			out = append(out, proposal{sender: committer, body: p.Proposal})
			continue
		}
		if committer.Type == wire.NewMemberCommitSender {
			return nil, broken(ErrInvalidCommit, "12.4.3.2", "an external commit with a proposal by reference")
		}
		found, known := received[string(p.Reference)]
		if !known {
			return nil, broken(ErrUnknownProposal, "12.4.2", "reference %x", p.Reference)
		}
		out = append(out, found)
	}
	return out, nil
}
