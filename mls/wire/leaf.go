package wire

// Extension is a typed, opaque addition. RFC 9420, section 13.
type Extension struct {
	Type uint16
	Data []byte
}

func (e *Extension) Code(c *Coder) {
	c.U16(&e.Type)
	c.Bytes(&e.Data)
}

// FindExtension returns the data of the first extension of type t.
func FindExtension(list []Extension, t uint16) ([]byte, bool) {
	for _, e := range list {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

// RepeatedExtension returns a type that occurs twice in list, if there is one. RFC 9420, section
// 13.4.
func RepeatedExtension(list []Extension) (t uint16, found bool) {
	seen := make(map[uint16]bool, len(list))
	for _, e := range list {
		if seen[e.Type] {
			return e.Type, true
		}
		seen[e.Type] = true
	}
	return 0, false
}

// Credential names the client of a leaf. RFC 9420, section 5.3.
type Credential struct {
	Type         uint16
	Identity     []byte   // of a basic credential
	Certificates [][]byte // of an X.509 credential, the leaf certificate first
}

func (d *Credential) Code(c *Coder) {
	c.U16(&d.Type)
	switch d.Type {
	case BasicCredential:
		c.Bytes(&d.Identity)
	case X509Credential:
		Vector(c, &d.Certificates, func(c *Coder, b *[]byte) { c.Bytes(b) })
	default:
		c.Fail("credential type %d", d.Type)
	}
}

// Capabilities lists the features that a client supports. RFC 9420, section 7.2.
type Capabilities struct {
	Versions     []uint16
	CipherSuites []uint16
	Extensions   []uint16
	Proposals    []uint16
	Credentials  []uint16
}

func (a *Capabilities) Code(c *Coder) {
	c.U16s(&a.Versions)
	c.U16s(&a.CipherSuites)
	c.U16s(&a.Extensions)
	c.U16s(&a.Proposals)
	c.U16s(&a.Credentials)
}

// RequiredCapabilities lists the features that a group requires of every member's Capabilities,
// the data of the required_capabilities extension. RFC 9420, section 11.1.
type RequiredCapabilities struct {
	Extensions  []uint16
	Proposals   []uint16
	Credentials []uint16
}

func (a *RequiredCapabilities) Code(c *Coder) {
	c.U16s(&a.Extensions)
	c.U16s(&a.Proposals)
	c.U16s(&a.Credentials)
}

// LeafNode holds the keys, the credential and the capabilities of a member. Source selects which of
// NotBefore, NotAfter and ParentHash are used. RFC 9420, section 7.2.
type LeafNode struct {
	EncryptionKey []byte
	SignatureKey  []byte
	Credential    Credential
	Capabilities  Capabilities
	Source        LeafNodeSource
	NotBefore     uint64 // KeyPackageLeaf: seconds since 1970
	NotAfter      uint64 // KeyPackageLeaf: seconds since 1970
	ParentHash    []byte // CommitLeaf
	Extensions    []Extension
	Signature     []byte
}

func (n *LeafNode) Code(c *Coder) {
	n.codeSigned(c)
	c.Bytes(&n.Signature)
}

func (n *LeafNode) codeSigned(c *Coder) {
	c.Bytes(&n.EncryptionKey)
	c.Bytes(&n.SignatureKey)
	n.Credential.Code(c)
	n.Capabilities.Code(c)
	c.U8((*uint8)(&n.Source))
	switch n.Source {
	case KeyPackageLeaf:
		c.U64(&n.NotBefore)
		c.U64(&n.NotAfter)
	case UpdateLeaf:
	case CommitLeaf:
		c.Bytes(&n.ParentHash)
	default:
		c.Fail("leaf node source %d", n.Source)
	}
	Structs(c, &n.Extensions)
}

// SignedContent returns the bytes that the leaf's signature covers (LeafNodeTBS). The group and
// the index are not used for a leaf of a KeyPackage. RFC 9420, section 7.2.
func (n *LeafNode) SignedContent(groupID []byte, index uint32) []byte {
	return Marshal(Func(func(c *Coder) {
		n.codeSigned(c)
		if n.Source != KeyPackageLeaf {
			c.Bytes(&groupID)
			c.U32(&index)
		}
	}))
}

// KeyPackage allows others to add a client that is offline. RFC 9420, section 10.
type KeyPackage struct {
	Version     ProtocolVersion
	CipherSuite uint16
	InitKey     []byte
	Leaf        LeafNode
	Extensions  []Extension
	Signature   []byte
}

func (k *KeyPackage) Code(c *Coder) {
	k.codeSigned(c)
	c.Bytes(&k.Signature)
}

func (k *KeyPackage) codeSigned(c *Coder) {
	c.U16(&k.Version)
	c.U16(&k.CipherSuite)
	c.Bytes(&k.InitKey)
	k.Leaf.Code(c)
	Structs(c, &k.Extensions)
}

// SignedContent returns the bytes that the KeyPackage's own signature covers (KeyPackageTBS).
// RFC 9420, section 10.
func (k *KeyPackage) SignedContent() []byte { return Marshal(Func(k.codeSigned)) }
