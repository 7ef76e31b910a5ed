package wire

// Sender is the sender of a framed message. RFC 9420, section 6.
type Sender struct {
	Type  SenderType
	Index uint32 // the leaf of a member, or the index in external_senders
}

func (s *Sender) Code(c *Coder) {
	c.U8((*uint8)(&s.Type))
	switch s.Type {
	case MemberSender, ExternalSender:
		c.U32(&s.Index)
	case NewMemberProposalSender, NewMemberCommitSender:
	default:
		c.Fail("sender type %d", s.Type)
	}
}

// FramedContent is the content of a message before it is protected; ContentType decides which
// of the last three fields is used. RFC 9420, section 6.
type FramedContent struct {
	GroupID           []byte
	Epoch             uint64
	Sender            Sender
	AuthenticatedData []byte
	ContentType       ContentType
	Application       []byte
	Proposal          *Proposal
	Commit            *Commit
}

func (f *FramedContent) Code(c *Coder) {
	c.Bytes(&f.GroupID)
	c.U64(&f.Epoch)
	f.Sender.Code(c)
	c.Bytes(&f.AuthenticatedData)
	c.U8((*uint8)(&f.ContentType))
	f.codeBody(c)
}

func (f *FramedContent) codeBody(c *Coder) {
	switch f.ContentType {
	case ApplicationContent:
		c.Bytes(&f.Application)
	case ProposalContent:
		Variant(c, &f.Proposal)
	case CommitContent:
		Variant(c, &f.Commit)
	default:
		c.Fail("content type %d", f.ContentType)
	}
}

// AuthenticatedContent is content with its signature and, for a commit, the confirmation tag. RFC
// 9420, section 6.1.
type AuthenticatedContent struct {
	WireFormat      WireFormat
	Content         FramedContent
	Signature       []byte
	ConfirmationTag []byte // of a commit
}

func (a *AuthenticatedContent) Code(c *Coder) {
	c.U16((*uint16)(&a.WireFormat))
	a.Content.Code(c)
	a.codeAuth(c)
}

func (a *AuthenticatedContent) codeAuth(c *Coder) {
	c.Bytes(&a.Signature)
	if a.Content.ContentType == CommitContent {
		c.Bytes(&a.ConfirmationTag)
	}
}

// SignedContent returns the bytes that the sender's signature covers (FramedContentTBS);
// context is used for members and new members that commit. RFC 9420, section 6.1.
func (a *AuthenticatedContent) SignedContent(context *GroupContext) []byte {
	return Marshal(Func(func(c *Coder) { a.codeSigned(c, context) }))
}

func (a *AuthenticatedContent) codeSigned(c *Coder, context *GroupContext) {
	version := MLS10
	c.U16(&version)
	c.U16((*uint16)(&a.WireFormat))
	a.Content.Code(c)
	if t := a.Content.Sender.Type; t == MemberSender || t == NewMemberCommitSender {
		context.Code(c)
	}
}

// TaggedContent returns the bytes that the membership tag of a PublicMessage covers
// (AuthenticatedContentTBM). RFC 9420, section 6.2.
func (a *AuthenticatedContent) TaggedContent(context *GroupContext) []byte {
	return Marshal(Func(func(c *Coder) {
		a.codeSigned(c, context)
		a.codeAuth(c)
	}))
}

// ConfirmedInput returns the bytes that a commit adds to the confirmed transcript hash
// (ConfirmedTranscriptHashInput). RFC 9420, section 8.2.
func (a *AuthenticatedContent) ConfirmedInput() []byte {
	return Marshal(Func(func(c *Coder) {
		c.U16((*uint16)(&a.WireFormat))
		a.Content.Code(c)
		c.Bytes(&a.Signature)
	}))
}

// PublicMessage is signed, readable content. RFC 9420, section 6.2.
type PublicMessage struct {
	Content         FramedContent
	Signature       []byte
	ConfirmationTag []byte // of a commit
	MembershipTag   []byte // of a member
}

func (m *PublicMessage) Code(c *Coder) {
	m.Content.Code(c)
	c.Bytes(&m.Signature)
	if m.Content.ContentType == CommitContent {
		c.Bytes(&m.ConfirmationTag)
	}
	if m.Content.Sender.Type == MemberSender {
		c.Bytes(&m.MembershipTag)
	}
}

// Authenticated returns the message without its membership tag.
func (m *PublicMessage) Authenticated() *AuthenticatedContent {
	return &AuthenticatedContent{
		WireFormat: PublicMessageFormat, Content: m.Content,
		Signature: m.Signature, ConfirmationTag: m.ConfirmationTag,
	}
}

// PrivateMessage is content that only members can read. RFC 9420, section 6.3.
type PrivateMessage struct {
	GroupID             []byte
	Epoch               uint64
	ContentType         ContentType
	AuthenticatedData   []byte
	EncryptedSenderData []byte
	Ciphertext          []byte
}

func (m *PrivateMessage) Code(c *Coder) {
	m.codeHead(c)
	c.Bytes(&m.EncryptedSenderData)
	c.Bytes(&m.Ciphertext)
}

func (m *PrivateMessage) codeHead(c *Coder) {
	m.codeSenderAAD(c)
	if m.ContentType < ApplicationContent || m.ContentType > CommitContent {
		c.Fail("content type %d", m.ContentType)
	}
	c.Bytes(&m.AuthenticatedData)
}

func (m *PrivateMessage) codeSenderAAD(c *Coder) {
	c.Bytes(&m.GroupID)
	c.U64(&m.Epoch)
	c.U8((*uint8)(&m.ContentType))
}

// ContentAAD returns the bytes authenticated with the ciphertext (PrivateContentAAD). RFC 9420,
// section 6.3.1.
func (m *PrivateMessage) ContentAAD() []byte { return Marshal(Func(m.codeHead)) }

// SenderDataAAD returns the bytes authenticated with the sender data. RFC 9420, section 6.3.2.
func (m *PrivateMessage) SenderDataAAD() []byte { return Marshal(Func(m.codeSenderAAD)) }

// SenderData identifies the key that encrypts a PrivateMessage. RFC 9420, section 6.3.2.
type SenderData struct {
	Leaf       uint32
	Generation uint32
	ReuseGuard [4]byte
}

func (s *SenderData) Code(c *Coder) {
	c.U32(&s.Leaf)
	c.U32(&s.Generation)
	c.Fixed(s.ReuseGuard[:])
}

// PrivateContent is the plaintext of a PrivateMessage: the body and the authentication of
// Message, then padding. To decode, set Message's ContentType first. RFC 9420, section 6.3.1.
type PrivateContent struct {
	Message *AuthenticatedContent
	Padding int // zero bytes at the end
}

func (p *PrivateContent) Code(c *Coder) {
	p.Message.Content.codeBody(c)
	p.Message.codeAuth(c)
	zeros := make([]byte, p.Padding)
	c.Rest(&zeros)
	p.Padding = len(zeros)
	for _, b := range zeros {
		if b != 0 {
			c.Fail("padding that is not zero")
			return
		}
	}
}

// Message is the outermost structure of MLS; WireFormat decides which of the other fields is
// used. RFC 9420, section 6 (MLSMessage).
type Message struct {
	WireFormat WireFormat
	Public     *PublicMessage
	Private    *PrivateMessage
	Welcome    *Welcome
	GroupInfo  *GroupInfo
	KeyPackage *KeyPackage
}

// Code visits the fields of RFC 9420, section 6. Only version mls10 is accepted.
func (m *Message) Code(c *Coder) {
	version := MLS10
	c.U16(&version)
	if version != MLS10 {
		c.Fail("protocol version %d", version)
		return
	}
	c.U16((*uint16)(&m.WireFormat))
	switch m.WireFormat {
	case PublicMessageFormat:
		Variant(c, &m.Public)
	case PrivateMessageFormat:
		Variant(c, &m.Private)
	case WelcomeFormat:
		Variant(c, &m.Welcome)
	case GroupInfoFormat:
		Variant(c, &m.GroupInfo)
	case KeyPackageFormat:
		Variant(c, &m.KeyPackage)
	default:
		c.Fail("wire format %d", m.WireFormat)
	}
}
