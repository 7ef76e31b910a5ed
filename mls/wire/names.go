package wire

// ProtocolVersion is the version of RFC 9420, section 6.
type ProtocolVersion = uint16

// MLS10 is the version of RFC 9420.
const MLS10 ProtocolVersion = 1

// WireFormat is the kind of content that a Message carries. RFC 9420, section 6.
type WireFormat uint16

// The wire formats of RFC 9420, section 17.2.
const (
	PublicMessageFormat  WireFormat = 1
	PrivateMessageFormat WireFormat = 2
	WelcomeFormat        WireFormat = 3
	GroupInfoFormat      WireFormat = 4
	KeyPackageFormat     WireFormat = 5
)

// ContentType is the kind of content that a framed message carries. RFC 9420, section 6.
type ContentType uint8

// The content types of RFC 9420, section 6.
const (
	ApplicationContent ContentType = 1
	ProposalContent    ContentType = 2
	CommitContent      ContentType = 3
)

// SenderType is the kind of sender of a framed message. RFC 9420, section 6.
type SenderType uint8

// The sender types of RFC 9420, section 6.
const (
	MemberSender            SenderType = 1
	ExternalSender          SenderType = 2
	NewMemberProposalSender SenderType = 3
	NewMemberCommitSender   SenderType = 4
)

// ProposalType is the type of a proposal. RFC 9420, section 17.4.
type ProposalType uint16

// The proposal types of RFC 9420, section 12.1.
const (
	AddProposal                    ProposalType = 1
	UpdateProposal                 ProposalType = 2
	RemoveProposal                 ProposalType = 3
	PSKProposal                    ProposalType = 4
	ReInitProposal                 ProposalType = 5
	ExternalInitProposal           ProposalType = 6
	GroupContextExtensionsProposal ProposalType = 7
)

// Credential types of RFC 9420, section 17.5.
const (
	BasicCredential uint16 = 1
	X509Credential  uint16 = 2
)

// Extension types of RFC 9420, section 17.3, and of the MLS extensions document
// (last_resort_key_package).
const (
	ApplicationIDExtension        uint16 = 1
	RatchetTreeExtension          uint16 = 2
	RequiredCapabilitiesExtension uint16 = 3
	ExternalPubExtension          uint16 = 4
	ExternalSendersExtension      uint16 = 5
	LastResortExtension           uint16 = 10
)

// LeafNodeSource is the kind of message that contained a leaf. RFC 9420, section 7.2.
type LeafNodeSource uint8

// The sources of RFC 9420, section 7.2.
const (
	KeyPackageLeaf LeafNodeSource = 1
	UpdateLeaf     LeafNodeSource = 2
	CommitLeaf     LeafNodeSource = 3
)

// Node types of RFC 9420, section 7.8.
const (
	leafNodeType   uint8 = 1
	parentNodeType uint8 = 2
)

// Kinds of pre-shared keys. RFC 9420, section 8.4.
const (
	ExternalPSK   uint8 = 1
	ResumptionPSK uint8 = 2
)

// Usages of resumption pre-shared keys. RFC 9420, section 8.4.
const (
	ApplicationUsage uint8 = 1
	ReInitUsage      uint8 = 2
	BranchUsage      uint8 = 3
)

// IsGrease reports whether v is one of the values without meaning that lists of capabilities may
// contain. RFC 9420, section 13.5.
func IsGrease(v uint16) bool {
	return v&0x0f0f == 0x0a0a && v>>8 == v&0xff && v != 0xfafa
}

// IsDefaultExtension reports whether every client supports the extension type t, so that
// capabilities do not list it. RFC 9420, section 7.2.
func IsDefaultExtension(t uint16) bool {
	return t >= ApplicationIDExtension && t <= ExternalSendersExtension
}

// IsDefaultProposal reports whether every client supports the proposal type t, so that
// capabilities do not list it. RFC 9420, section 7.2.
func IsDefaultProposal(t uint16) bool {
	return t >= uint16(AddProposal) && t <= uint16(GroupContextExtensionsProposal)
}
