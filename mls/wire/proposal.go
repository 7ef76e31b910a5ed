package wire

// Proposal is a proposal; Type selects which of the other fields is used. RFC 9420, section 12.1.
type Proposal struct {
	Type         ProposalType
	Add          *KeyPackage
	Update       *LeafNode
	Remove       uint32 // leaf index
	PSK          *PreSharedKeyID
	ReInit       *ReInit
	ExternalInit []byte // kem_output
	Extensions   []Extension
}

// Code visits the fields of RFC 9420, section 12.1. The length of a proposal of an unknown type
// is unknown, so it cannot be decoded.
func (p *Proposal) Code(c *Coder) {
	c.U16((*uint16)(&p.Type))
	switch p.Type {
	case AddProposal:
		Variant(c, &p.Add)
	case UpdateProposal:
		Variant(c, &p.Update)
	case RemoveProposal:
		c.U32(&p.Remove)
	case PSKProposal:
		Variant(c, &p.PSK)
	case ReInitProposal:
		Variant(c, &p.ReInit)
	case ExternalInitProposal:
		c.Bytes(&p.ExternalInit)
	case GroupContextExtensionsProposal:
		Structs(c, &p.Extensions)
	default:
		c.Fail("proposal type %d", p.Type)
	}
}

// PreSharedKeyID identifies a pre-shared key; Kind selects which of the other fields are used. RFC
// 9420, section 8.4.
type PreSharedKeyID struct {
	Kind    uint8
	ID      []byte // ExternalPSK
	Usage   uint8  // ResumptionPSK
	GroupID []byte // ResumptionPSK
	Epoch   uint64 // ResumptionPSK
	Nonce   []byte
}

func (p *PreSharedKeyID) Code(c *Coder) {
	c.U8(&p.Kind)
	switch p.Kind {
	case ExternalPSK:
		c.Bytes(&p.ID)
	case ResumptionPSK:
		c.U8(&p.Usage)
		if p.Usage < 1 || p.Usage > 3 {
			c.Fail("resumption usage %d", p.Usage)
		}
		c.Bytes(&p.GroupID)
		c.U64(&p.Epoch)
	default:
		c.Fail("pre-shared key kind %d", p.Kind)
	}
	c.Bytes(&p.Nonce)
}

// ReInit proposes to continue in a new group. RFC 9420, section 12.1.5.
type ReInit struct {
	GroupID     []byte
	Version     ProtocolVersion
	CipherSuite uint16
	Extensions  []Extension
}

func (r *ReInit) Code(c *Coder) {
	c.Bytes(&r.GroupID)
	c.U16(&r.Version)
	c.U16(&r.CipherSuite)
	Structs(c, &r.Extensions)
}

// ProposalOrRef is a proposal of the committer, or, if Proposal is nil, the reference of one
// that was sent before (its ProposalRef). RFC 9420, section 12.4.
type ProposalOrRef struct {
	Proposal  *Proposal
	Reference []byte
}

func (p *ProposalOrRef) Code(c *Coder) {
	kind := uint8(2)
	if p.Proposal != nil {
		kind = 1
	}
	c.U8(&kind)
	switch kind {
	case 1:
		Variant(c, &p.Proposal)
	case 2:
		c.Bytes(&p.Reference)
	default:
		c.Fail("proposal or reference kind %d", kind)
	}
}

// Commit carries out proposals and opens the next epoch. RFC 9420, section 12.4.
type Commit struct {
	Proposals []ProposalOrRef
	Path      *UpdatePath
}

func (m *Commit) Code(c *Coder) {
	Structs(c, &m.Proposals)
	Optional(c, &m.Path)
}
