package wire

// GroupContext is the state on which all members agree in an epoch. RFC 9420, section 8.1.
type GroupContext struct {
	Version                 ProtocolVersion
	CipherSuite             uint16
	GroupID                 []byte
	Epoch                   uint64
	TreeHash                []byte
	ConfirmedTranscriptHash []byte
	Extensions              []Extension
}

func (g *GroupContext) Code(c *Coder) {
	c.U16(&g.Version)
	c.U16(&g.CipherSuite)
	c.Bytes(&g.GroupID)
	c.U64(&g.Epoch)
	c.Bytes(&g.TreeHash)
	c.Bytes(&g.ConfirmedTranscriptHash)
	Structs(c, &g.Extensions)
}

// GroupInfo describes a group to a client that joins it. RFC 9420, section 12.4.3.
type GroupInfo struct {
	Context         GroupContext
	Extensions      []Extension
	ConfirmationTag []byte
	Signer          uint32 // leaf index
	Signature       []byte
}

func (g *GroupInfo) Code(c *Coder) {
	g.codeSigned(c)
	c.Bytes(&g.Signature)
}

func (g *GroupInfo) codeSigned(c *Coder) {
	g.Context.Code(c)
	Structs(c, &g.Extensions)
	c.Bytes(&g.ConfirmationTag)
	c.U32(&g.Signer)
}

// SignedContent returns the bytes that the signature covers (GroupInfoTBS). RFC 9420, section
// 12.4.3.
func (g *GroupInfo) SignedContent() []byte { return Marshal(Func(g.codeSigned)) }

// ExternalPub is the public key with which clients join by external commit, the data of the
// external_pub extension. RFC 9420, section 12.4.3.2.
type ExternalPub struct {
	Key []byte
}

func (e *ExternalPub) Code(c *Coder) { c.Bytes(&e.Key) }

// ExternalParty (ExternalSender in the RFC) is a party outside the group that may propose
// changes. RFC 9420, section 12.1.8.1.
type ExternalParty struct {
	SignatureKey []byte
	Credential   Credential
}

func (s *ExternalParty) Code(c *Coder) {
	c.Bytes(&s.SignatureKey)
	s.Credential.Code(c)
}

// ExternalSenders is the data of the external_senders extension.
// RFC 9420, section 12.1.8.1.
type ExternalSenders []ExternalParty

func (l *ExternalSenders) Code(c *Coder) {
	list := []ExternalParty(*l)
	Structs(c, &list)
	*l = list
}

// PathSecret is an option inside GroupSecrets. RFC 9420, section 12.4.3.
type PathSecret struct {
	Secret []byte
}

func (p *PathSecret) Code(c *Coder) { c.Bytes(&p.Secret) }

// GroupSecrets holds the secrets in a Welcome for one new member. RFC 9420, section 12.4.3.
type GroupSecrets struct {
	JoinerSecret []byte
	PathSecret   *PathSecret
	PSKs         []PreSharedKeyID
}

func (g *GroupSecrets) Code(c *Coder) {
	c.Bytes(&g.JoinerSecret)
	Optional(c, &g.PathSecret)
	Structs(c, &g.PSKs)
}

// EncryptedGroupSecrets are GroupSecrets sealed to the init key of a KeyPackage.
// RFC 9420, section 12.4.3.1.
type EncryptedGroupSecrets struct {
	NewMember []byte // KeyPackageRef
	Secrets   HPKECiphertext
}

func (e *EncryptedGroupSecrets) Code(c *Coder) {
	c.Bytes(&e.NewMember)
	e.Secrets.Code(c)
}

// Welcome invites new members to a group. RFC 9420, section 12.4.3.1.
type Welcome struct {
	CipherSuite        uint16
	Secrets            []EncryptedGroupSecrets
	EncryptedGroupInfo []byte
}

func (w *Welcome) Code(c *Coder) {
	c.U16(&w.CipherSuite)
	Structs(c, &w.Secrets)
	c.Bytes(&w.EncryptedGroupInfo)
}
