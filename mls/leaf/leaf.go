// Package leaf checks single leaf nodes by the rules of RFC 9420, section 7.3. Rules that
// depend on the other members (unique keys, common credential types) are checked by package
// tree, and credentials are verified by the application.
package leaf

import (
	"errors"
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var (
	// ErrInvalid reports a leaf node that breaks a rule of RFC 9420.
	ErrInvalid = errors.New("invalid leaf node")
	// ErrSignature reports a signature that does not verify, of a leaf node, a KeyPackage or a
	// message.
	ErrSignature = errors.New("invalid signature")
)

func invalid(section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC 9420, section %s)", ErrInvalid, fmt.Sprintf(format, args...), section)
}

// CheckForm verifies all of n that does not depend on other nodes, except for its signature: its
// encryption key, the order of its lifetime, and that its capabilities cover itself and the suite.
// It takes a hundredth of the time of CheckSignature. Errors wrap ErrInvalid or suite.ErrKey. RFC
// 9420, section 7.3.
func CheckForm(s *suite.Suite, n *wire.LeafNode) error {
	if err := s.CheckPublicKey(n.EncryptionKey); err != nil {
		return err
	}
	return CheckContent(s.ID(), n)
}

// CheckContent does the checks of CheckForm except for the key, for suites of which only the
// number is known.
func CheckContent(id suite.ID, n *wire.LeafNode) error {
	if err := checkCapabilities(id, n); err != nil {
		return err
	}
	if n.Source == wire.KeyPackageLeaf && n.NotBefore >= n.NotAfter {
		return invalid("7.2", "the lifetime ends before it begins")
	}
	return nil
}

// CheckSignature verifies the signature of n. groupID and index are those of the leaf; they are not
// used for one of a KeyPackage. The error wraps ErrSignature. RFC 9420, section 7.3.
func CheckSignature(s *suite.Suite, n *wire.LeafNode, groupID []byte, index uint32) error {
	if !s.VerifyWithLabel(n.SignatureKey, "LeafNodeTBS", n.SignedContent(groupID, index), n.Signature) {
		return fmt.Errorf("%w: leaf node (RFC 9420, section 7.3)", ErrSignature)
	}
	return nil
}

// checkCapabilities checks that n lists what n itself uses.
func checkCapabilities(id suite.ID, n *wire.LeafNode) error {
	has := &n.Capabilities
	switch {
	case !slices.Contains(has.Versions, wire.MLS10):
		return invalid("7.2", "version mls10 is not among the capabilities")
	case !slices.Contains(has.CipherSuites, id):
		return invalid("7.2", "the cipher suite is not among the capabilities")
	case !slices.Contains(has.Credentials, n.Credential.Type):
		return invalid("7.3", "the credential type is not among the capabilities")
	}
	if t, found := wire.RepeatedExtension(n.Extensions); found {
		return invalid("13.4", "extension type %#x occurs twice", t)
	}
	supported := set(has.Extensions)
	for _, e := range n.Extensions {
		if !supported[e.Type] && !wire.IsDefaultExtension(e.Type) {
			return invalid("7.3", "extension type %#x is not among the capabilities", e.Type)
		}
	}
	return nil
}

func set(list []uint16) map[uint16]bool {
	m := make(map[uint16]bool, len(list))
	for _, v := range list {
		m[v] = true
	}
	return m
}

// Requirement holds the types that the members of a group must support, each once and without
// default ones. The cost of Check is thus small for the groups of RFC 9420; a hostile list of
// many types is refused at the first member.
type Requirement struct {
	extensions, proposals, credentials []uint16
}

// NewRequirement returns the requirements of a required_capabilities extension. RFC 9420, section
// 11.1.
func NewRequirement(required *wire.RequiredCapabilities) *Requirement {
	never := func(uint16) bool { return false }
	return &Requirement{
		extensions:  distinct(required.Extensions, wire.IsDefaultExtension),
		proposals:   distinct(required.Proposals, wire.IsDefaultProposal),
		credentials: distinct(required.Credentials, never),
	}
}

// distinct returns the values of list once each, without the default ones.
func distinct(list []uint16, isDefault func(uint16) bool) []uint16 {
	list = slices.DeleteFunc(slices.Clone(list), isDefault)
	slices.Sort(list)
	return slices.Compact(list)
}

// Check verifies that n supports the required types; the error wraps ErrInvalid. GREASE values count
// as unsupported, even if a leaf lists them. RFC 9420, sections 11.1 and 13.5.
func (r *Requirement) Check(n *wire.LeafNode) error {
	if t, isMissing := missing(r.extensions, n.Capabilities.Extensions); isMissing {
		return invalid("11.1", "required extension type %#x is not supported", t)
	}
	if t, isMissing := missing(r.proposals, n.Capabilities.Proposals); isMissing {
		return invalid("11.1", "required proposal type %#x is not supported", t)
	}
	if t, isMissing := missing(r.credentials, n.Capabilities.Credentials); isMissing {
		return invalid("11.1", "required credential type %#x is not supported", t)
	}
	return nil
}

// missing returns a value of want that is not in have.
func missing(want, have []uint16) (uint16, bool) {
	supported := func(t uint16) bool { return slices.Contains(have, t) }
	if len(want) > 4 {
		m := set(have)
		supported = func(t uint16) bool { return m[t] }
	}
	for _, t := range want {
		if wire.IsGrease(t) || !supported(t) {
			return t, true
		}
	}
	return 0, false
}

// Sign sets the signature of n, made with the key private; groupID and index are as for
// CheckSignature. The error wraps suite.ErrKey. RFC 9420, section 7.2.
func Sign(s *suite.Suite, private []byte, n *wire.LeafNode, groupID []byte, index uint32) error {
	signature, err := s.SignWithLabel(private, "LeafNodeTBS", n.SignedContent(groupID, index))
	n.Signature = signature
	return err
}
