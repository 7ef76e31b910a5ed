package mls

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// Suite is the number of a cipher suite: one of the constants below, or one that the
// program added with suite.Register. RFC 9420, section 17.1.
type Suite uint16

// The cipher suites of this package, by their names in RFC 9420, section 17.1, without the prefix.
const (
	X25519_AES128GCM_SHA256_Ed25519        Suite = 1
	P256_AES128GCM_SHA256_P256             Suite = 2
	X25519_CHACHA20POLY1305_SHA256_Ed25519 Suite = 3
)

// SignatureKey is a private signature key: the identity of one client, in one group or in many.
// The zero value is not a valid key.
type SignatureKey struct {
	suite           Suite
	private, public []byte
}

// NewSignatureKey returns a random key for suite s.
func NewSignatureKey(s Suite) (SignatureKey, error) {
	cipher, err := lookup(s)
	if err != nil {
		return SignatureKey{}, err
	}
	private, err := cipher.GenerateSignatureKey()
	if err != nil {
		return SignatureKey{}, err
	}
	return signatureKey(cipher, private)
}

func signatureKey(s *suite.Suite, private []byte) (SignatureKey, error) {
	public, err := s.SignaturePublicKey(private)
	return SignatureKey{suite: Suite(s.ID()), private: private, public: public}, err
}

// Suite returns the cipher suite of the key.
func (k SignatureKey) Suite() Suite { return k.suite }

// Public returns the public key as it appears in a leaf. RFC 9420, section 5.1.2.
func (k SignatureKey) Public() []byte { return bytes.Clone(k.public) }

// Identity holds the credential, the signature key and the extensions that a client puts into
// its leaves.
type Identity struct {
	Credential []byte // identity of the basic credential, such as a DID
	// Certificates, of which the first is that of Key, make an X.509 credential instead;
	// Credential is then not used. This package does not parse them.
	Certificates [][]byte
	Key          SignatureKey
	// Extensions go into the leaf; their types are listed in its capabilities.
	Extensions []Extension
	// Supports lists further extension types for the capabilities: those that the application
	// understands in a group or in the leaves of others. A client cannot be a member of a group
	// that has extensions it does not list.
	Supports []uint16
	// SupportsX509 declares that the application's CredentialHook can verify X.509 credentials:
	// without it no member may have one.
	SupportsX509 bool
}

// cipher returns the implementation of s, in which id must be able to sign.
func (id *Identity) cipher(s Suite) (*suite.Suite, error) {
	if cipher, err := lookup(s); err != nil || id.Key.suite == s {
		return cipher, err
	}
	return nil, fmt.Errorf("%w: the signature key is for suite %d, not %d", ErrInvalidKey, id.Key.suite, s)
}

// leaf makes a leaf without its encryption key, source and signature. groupExtensions are those
// of a group that the client is in, and therefore supports.
func (id *Identity) leaf(groupExtensions []wire.Extension) wire.LeafNode {
	types := slices.Clone(id.Supports)
	for _, e := range id.Extensions {
		types = append(types, e.Type)
	}
	for _, e := range groupExtensions {
		types = append(types, e.Type)
	}
	types = append(types, wire.LastResortExtension)
	types = slices.DeleteFunc(types, wire.IsDefaultExtension)
	slices.Sort(types)
	credential := wire.Credential{Type: wire.BasicCredential, Identity: bytes.Clone(id.Credential)}
	credentials := []uint16{wire.BasicCredential}
	if len(id.Certificates) > 0 {
		credential = wire.Credential{Type: wire.X509Credential, Certificates: id.Certificates}
	}
	if len(id.Certificates) > 0 || id.SupportsX509 {
		credentials = append(credentials, wire.X509Credential)
	}
	return wire.LeafNode{
		SignatureKey: id.Key.Public(), Credential: credential,
		Capabilities: wire.Capabilities{
			Versions: []uint16{wire.MLS10}, CipherSuites: suite.IDs(),
			Extensions: slices.Compact(types), Credentials: credentials,
		},
		Extensions: toWire(id.Extensions),
	}
}

// Leaf is a member as the other members see it. RFC 9420, section 7.2.
type Leaf struct {
	Index          uint32
	CredentialType uint16   // 1 basic, 2 X.509
	Credential     []byte   // identity of a basic credential
	Certificates   [][]byte // of an X.509 credential, unverified
	SignatureKey   []byte
	EncryptionKey  []byte
	Extensions     []Extension
	// NotBefore and NotAfter are the lifetime of a leaf of a KeyPackage, else zero. An expired
	// one does not make a received commit invalid: it may be processed long after it was sent.
	NotBefore, NotAfter time.Time
}

func newLeaf(index uint32, n *wire.LeafNode) Leaf {
	l := Leaf{
		Index: index, CredentialType: n.Credential.Type, Credential: bytes.Clone(n.Credential.Identity),
		SignatureKey: bytes.Clone(n.SignatureKey), EncryptionKey: bytes.Clone(n.EncryptionKey), Extensions: fromWire(n.Extensions),
	}
	for _, c := range n.Credential.Certificates {
		l.Certificates = append(l.Certificates, bytes.Clone(c))
	}
	if n.Source == wire.KeyPackageLeaf {
		l.NotBefore, l.NotAfter = keypackage.Time(n.NotBefore), keypackage.Time(n.NotAfter)
	}
	return l
}

// seat is a leaf node with its index in the tree.
type seat struct {
	index uint32
	node  *wire.LeafNode
}

func leaves(list []seat) []Leaf {
	var out []Leaf
	for _, s := range list {
		out = append(out, newLeaf(s.index, s.node))
	}
	return out
}

// leafNodes lists the leaves of t, nil where blank.
func leafNodes(t *tree.Tree) []*wire.LeafNode {
	list := make([]*wire.LeafNode, t.Size())
	for i := range list {
		list[i] = t.Leaf(uint32(i))
	}
	return list
}

// members lists the members in t.
func members(t *tree.Tree) []Leaf {
	var list []Leaf
	for i, n := range t.Leaves() {
		list = append(list, newLeaf(i, n))
	}
	return list
}

// CredentialKind is the event for which a credential is verified. RFC 9420, section 5.3.1.
type CredentialKind int

// The events for which a CredentialHook is called.
const (
	CredentialAdd            CredentialKind = iota + 1 // a new member; Old is nil
	CredentialUpdate                                   // an Update proposal replaces Old by New
	CredentialPath                                     // the committer replaces Old by New
	CredentialExternalCommit                           // a new member adds itself; Old is its former leaf, if any
	CredentialWelcome                                  // a member of the group that we join, by Welcome or external commit; Old is nil
)

// CredentialChange is one leaf for the application to verify. Epoch is the epoch in which New
// is valid.
type CredentialChange struct {
	Kind     CredentialKind
	Old, New *Leaf
	GroupID  []byte
	Epoch    uint64
}

// CredentialHook verifies that the credential of New belongs to the owner of its signature key,
// and that it may replace Old. An error refuses the message with the leaf; the group then stays
// unchanged. The hook is called for every leaf in messages of others and for every KeyPackage
// that we add; for the messages of others, after all other checks. A nil hook accepts all:
// membership is then only as trustworthy as the delivery service. RFC 9420, section 5.3.1.
type CredentialHook func(CredentialChange) error

// check calls h, unless it is nil, for changes to a group until it refuses one.
func (h CredentialHook) check(groupID []byte, changes ...CredentialChange) error {
	if h == nil {
		return nil
	}
	for _, c := range changes {
		c.GroupID = bytes.Clone(groupID)
		if err := h(c); err != nil {
			return fmt.Errorf("%w (RFC 9420, section 5.3.1): %w", ErrRefused, err)
		}
	}
	return nil
}

// checkMembers calls h, unless it is nil, for the members of a group that we join, except the
// leaves in skip, until it refuses one.
func (h CredentialHook) checkMembers(t *tree.Tree, context *wire.GroupContext, skip ...uint32) error {
	if h == nil {
		return nil
	}
	for i, n := range t.Leaves() {
		if slices.Contains(skip, i) {
			continue
		}
		l := newLeaf(i, n)
		if err := h.check(context.GroupID, CredentialChange{Kind: CredentialWelcome, New: &l, Epoch: context.Epoch}); err != nil {
			return err
		}
	}
	return nil
}
