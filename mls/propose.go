package mls

import (
	"bytes"
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// ProposeOptions holds the parameters of Propose.
type ProposeOptions struct {
	Public            bool   // as a PublicMessage; else as a PrivateMessage
	AuthenticatedData []byte // readable by the delivery service
}

// Propose makes a proposal message for any member to commit. next, which replaces g, keeps the
// proposal, so that our own commit carries it out too; when the delivery service delivers it
// back, Process returns ErrOwnMessage, which can be ignored. If the delivery service refuses
// it, continue with next.WithoutProposal. Until it is committed, no member may send application
// messages. Errors wrap ErrRemoved, ErrReinitialized, ErrTooLarge, ErrMalformed or the error of
// the rule that c breaks. RFC 9420, section 12.1.
func (g *Group) Propose(c Change, o ProposeOptions) (message []byte, next *Group, err error) {
	if err := g.checkOpen("12.1"); err != nil {
		return nil, nil, err
	}
	if len(o.AuthenticatedData) > argumentBytesMax {
		return nil, nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	p := proposal{sender: g.sender()}
	if c.kind == wire.UpdateProposal {
		p.body, p.own, err = g.update(c.identity)
	} else {
		p.body, err = c.body(g.suite, g.context.GroupID, g.now(), g.limits.Lifetime)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := p.check(g); err != nil {
		return nil, nil, err
	}
	a := &wire.AuthenticatedContent{WireFormat: handshakeFormat(o.Public), Content: g.content(o.AuthenticatedData)}
	a.Content.ContentType, a.Content.Proposal = wire.ProposalContent, p.body
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		return nil, nil, err
	}
	p.ref = g.suite.ProposalRef(wire.Marshal(a))
	kept, err := keep(g.proposals, p, &g.limits)
	if err != nil {
		return nil, nil, err
	}
	if message, next, err = g.frame(a, SealOptions{}); err != nil {
		return nil, nil, err
	}
	next = next.clone()
	next.proposals = kept
	return message, next, nil
}

// update makes an Update of our own leaf. RFC 9420, section 12.1.2.
func (g *Group) update(id *Identity) (*wire.Proposal, *ownUpdate, error) {
	next, key, err := g.nextLeaf(id, g.context.Extensions)
	if err != nil {
		return nil, nil, err
	}
	private, public, err := g.suite.GenerateKeyPair()
	if err != nil {
		return nil, nil, err
	}
	next.EncryptionKey, next.Source, next.ParentHash = public, wire.UpdateLeaf, nil
	next.NotBefore, next.NotAfter = 0, 0
	if err := leaf.Sign(g.suite, key.private, &next, g.context.GroupID, g.own); err != nil {
		return nil, nil, err
	}
	own := &ownUpdate{pair: tree.KeyPair{Private: private, Public: public}, key: key}
	return &wire.Proposal{Type: wire.UpdateProposal, Update: &next}, own, nil
}

// WithoutProposal returns the group without the pending proposal with that ProposalRef: one that
// the delivery service refused, so that no other member has it. If other members have it they
// may commit it; Process then refuses their commit with ErrUnknownProposal. To leave a proposal
// out of our own commit, use CommitOptions.Skip.
func (g *Group) WithoutProposal(ref []byte) *Group {
	next := g.clone()
	next.proposals = slices.DeleteFunc(slices.Clone(g.proposals), func(p proposal) bool { return bytes.Equal(p.ref, ref) })
	return next
}

// PendingProposals lists the proposals of this epoch that no commit has carried out yet, our own
// included.
func (g *Group) PendingProposals() []ProposalInfo { return infos(g.proposals, g.tree) }
