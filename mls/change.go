package mls

import (
	"bytes"
	"slices"
	"time"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// Change is one change to propose: alone with Group.Propose, ExternalProposal or
// NewMemberProposal, or inside a commit with CommitOptions.Changes. Make one with Add, Remove,
// Update, ExternalPSK, ResumptionPSK, SetExtensions or Reinit. RFC 9420, section 12.1.
type Change struct {
	kind       wire.ProposalType
	keyPackage []byte
	leaf       uint32
	identity   *Identity
	psk        wire.PreSharedKeyID
	extensions []Extension
	reInit     ReInit
}

// Add returns a change that adds the owner of keyPackage, an MLSMessage with a KeyPackage. RFC
// 9420, section 12.1.1.
func Add(keyPackage []byte) Change {
	return Change{kind: wire.AddProposal, keyPackage: bytes.Clone(keyPackage)}
}

// Remove returns a change that removes the member with a leaf index. RFC 9420, section 12.1.3.
func Remove(leaf uint32) Change { return Change{kind: wire.RemoveProposal, leaf: leaf} }

// Update returns a change that replaces the encryption key of our own leaf and, unless id is nil,
// its identity. It is for Group.Propose only: our own commit does the same by its path. RFC 9420,
// section 12.1.2.
func Update(id *Identity) Change { return Change{kind: wire.UpdateProposal, identity: id} }

// ExternalPSK returns a change that mixes the pre-shared key with the given id into the next
// epoch. RFC 9420, section 12.1.4.
func ExternalPSK(id []byte) Change {
	return Change{kind: wire.PSKProposal, psk: wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: bytes.Clone(id)}}
}

// ResumptionPSK returns a change that mixes the resumption key of a past epoch of the same group
// into the next one: only members of both epochs can compute it. RFC 9420, section 8.6.
func ResumptionPSK(epoch uint64) Change {
	return Change{kind: wire.PSKProposal, psk: wire.PreSharedKeyID{Kind: wire.ResumptionPSK, Usage: wire.ApplicationUsage, Epoch: epoch}}
}

// SetExtensions returns a change that replaces all extensions of the GroupContext. Every member
// must support them. RFC 9420, section 12.1.7.
func SetExtensions(list []Extension) Change {
	return Change{kind: wire.GroupContextExtensionsProposal, extensions: slices.Clone(list)}
}

// Reinit returns a change that ends the group and continues it in another one: see
// Group.Successor. It must be the only change of its commit. RFC 9420, section 12.1.5.
func Reinit(r ReInit) Change { return Change{kind: wire.ReInitProposal, reInit: r} }

// ReInit describes the group that continues a reinitialized group. RFC 9420, section 12.1.5.
type ReInit struct {
	GroupID    []byte
	Suite      Suite // may be one that this package does not implement
	Extensions []Extension
}

func newReInit(r *wire.ReInit) *ReInit {
	if r == nil {
		return nil
	}
	return &ReInit{GroupID: bytes.Clone(r.GroupID), Suite: Suite(r.CipherSuite), Extensions: fromWire(r.Extensions)}
}

// body encodes the proposal for a group; an Update is made elsewhere. lifetime is the longest
// lifetime that a KeyPackage may have.
func (c Change) body(s *suite.Suite, groupID []byte, now time.Time, lifetime time.Duration) (*wire.Proposal, error) {
	p := &wire.Proposal{Type: c.kind, Remove: c.leaf}
	switch c.kind {
	case wire.AddProposal:
		var err error
		p.Add, err = keyPackageToAdd(s, c.keyPackage, now, lifetime)
		return p, err
	case wire.PSKProposal:
		id := c.psk
		if id.Kind == wire.ResumptionPSK {
			id.GroupID = bytes.Clone(groupID)
		}
		p.PSK = &id
		return p, addNonce(p.PSK)
	case wire.GroupContextExtensionsProposal:
		p.Extensions = toWire(c.extensions)
	case wire.ReInitProposal:
		p.ReInit = &wire.ReInit{
			GroupID: bytes.Clone(c.reInit.GroupID), Version: wire.MLS10, CipherSuite: uint16(c.reInit.Suite),
			Extensions: toWire(c.reInit.Extensions),
		}
	case wire.UpdateProposal:
		return nil, broken(ErrInvalidProposal, "12.2", "an Update is possible only with Group.Propose")
	case wire.RemoveProposal:
	default:
		return nil, broken(ErrInvalidProposal, "12.1", "an empty change")
	}
	return p, nil
}

// keyPackageToAdd decodes and verifies a KeyPackage that we are about to use.
// RFC 9420, section 10.1.
func keyPackageToAdd(s *suite.Suite, raw []byte, now time.Time, lifetime time.Duration) (*wire.KeyPackage, error) {
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m.KeyPackage == nil {
		return nil, broken(ErrUnexpectedMessage, "12.1.1", "a KeyPackage is expected")
	}
	if err := keypackage.Check(s, m.KeyPackage); err != nil {
		return nil, err
	}
	return m.KeyPackage, keypackage.CheckLifetime(&m.KeyPackage.Leaf, now, lifetime)
}

// ProposalType is the type of a proposal. RFC 9420, section 17.4.
type ProposalType uint16

// The types of proposals. RFC 9420, section 12.1.
const (
	AddProposal           = ProposalType(wire.AddProposal)
	UpdateProposal        = ProposalType(wire.UpdateProposal)
	RemoveProposal        = ProposalType(wire.RemoveProposal)
	PSKProposal           = ProposalType(wire.PSKProposal)
	ReInitProposal        = ProposalType(wire.ReInitProposal)
	ExternalInitProposal  = ProposalType(wire.ExternalInitProposal)
	SetExtensionsProposal = ProposalType(wire.GroupContextExtensionsProposal)
)

// SenderKind is the kind of the sender of a message. RFC 9420, section 6.
type SenderKind uint8

// The kinds of senders. RFC 9420, section 6.
const (
	SentByMember         = SenderKind(wire.MemberSender)
	SentByExternalSender = SenderKind(wire.ExternalSender)          // listed in the group's extensions
	SentByNewMember      = SenderKind(wire.NewMemberProposalSender) // a client that asks to be added
	SentByJoiner         = SenderKind(wire.NewMemberCommitSender)   // a client that joins by external commit
)
