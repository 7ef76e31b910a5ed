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

// check verifies a single proposal in the epoch of g. RFC 9420, section 12.1.
func (p *proposal) check(g *Group) error {
	if err := p.checkForm(g); err != nil {
		return err
	}
	return p.checkSignatures(g.suite, g.context.GroupID)
}

// checkForm does the checks of check other than signatures.
func (p *proposal) checkForm(g *Group) error {
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
		return checkNewLeaf(g.suite, p.body.Update, wire.UpdateLeaf, p.sender.Index, g.tree.Leaf(p.sender.Index))
	case wire.RemoveProposal:
		if g.tree.Leaf(p.body.Remove) == nil {
			return broken(ErrInvalidProposal, "12.1.3", "there is no member at leaf %d", p.body.Remove)
		}
	case wire.PSKProposal:
		return checkPSK(p.body.PSK, g.usage)
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

// checkSignatures verifies the signatures inside a proposal to a group. RFC 9420, sections 7.3
// and 10.1.
func (p *proposal) checkSignatures(s *suite.Suite, groupID []byte) error {
	switch p.body.Type {
	case wire.AddProposal:
		return keypackage.CheckSignatures(s, p.body.Add)
	case wire.UpdateProposal:
		return leaf.CheckSignature(s, p.body.Update, groupID, p.sender.Index)
	}
	return nil
}

// checkNewLeaf verifies the leaf that replaces old at index, except for its signature. A joiner
// by external commit has no old leaf, or one that it removes. RFC 9420, sections 7.3 and 12.2.
func checkNewLeaf(s *suite.Suite, n *wire.LeafNode, source wire.LeafNodeSource, index uint32, old *wire.LeafNode) error {
	if n.Source != source {
		return broken(ErrInvalidLeaf, "7.3", "leaf node source %d instead of %d", n.Source, source)
	}
	if keys := s.PublicKeys(); old != nil && bytes.Equal(keys.Canonical(old.EncryptionKey), keys.Canonical(n.EncryptionKey)) {
		return broken(ErrInvalidLeaf, "7.3", "the encryption key of leaf %d is not new", index)
	}
	return leaf.CheckForm(s, n)
}

// ProposalInfo describes a proposal.
type ProposalInfo struct {
	Ref        []byte // ProposalRef; nil for a proposal by value in a commit
	Type       ProposalType
	SenderKind SenderKind
	Sender     uint32 // leaf index of a member, index of an external sender
	// Leaf is the new leaf of an Add or an Update; its Index is set for an Update only.
	Leaf       *Leaf
	Removed    *Leaf       // by a Remove
	PSKID      []byte      // of an external pre-shared key
	Extensions []Extension // of the GroupContext
	ReInit     *ReInit
}

// info describes p to a group with the tree t. RFC 9420, section 12.1.
func (p *proposal) info(t *tree.Tree) ProposalInfo {
	i := ProposalInfo{Ref: bytes.Clone(p.ref), Type: ProposalType(p.body.Type), SenderKind: SenderKind(p.sender.Type), Sender: p.sender.Index}
	switch p.body.Type {
	case wire.AddProposal:
		l := newLeaf(0, &p.body.Add.Leaf)
		i.Leaf = &l
	case wire.UpdateProposal:
		l := newLeaf(p.sender.Index, p.body.Update)
		i.Leaf = &l
	case wire.RemoveProposal:
		if n := t.Leaf(p.body.Remove); n != nil {
			l := newLeaf(p.body.Remove, n)
			i.Removed = &l
		}
	case wire.PSKProposal:
		i.PSKID = bytes.Clone(p.body.PSK.ID)
	case wire.GroupContextExtensionsProposal:
		i.Extensions = fromWire(p.body.Extensions)
	case wire.ReInitProposal:
		i.ReInit = newReInit(p.body.ReInit)
	}
	return i
}

func infos(list []proposal, t *tree.Tree) []ProposalInfo {
	var out []ProposalInfo
	for _, p := range list {
		out = append(out, p.info(t))
	}
	return out
}
