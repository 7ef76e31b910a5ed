// Package leaf checks leaf nodes: what RFC 9420 demands of a member's place in
// the tree by itself (section 7.3). What depends on the other members (unique
// keys, common credential types) is checked by package tree, and whether the
// credential is believed is the application's decision.
package leaf

import (
	"errors"
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var (
	// ErrInvalid is wrapped when a leaf node breaks a rule of RFC 9420.
	ErrInvalid = errors.New("invalid leaf node")
	// ErrSignature is wrapped when a signature does not verify.
	ErrSignature = errors.New("invalid signature")
)

func invalid(section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC 9420, section %s)", ErrInvalid, fmt.Sprintf(format, args...), section)
}

// Check verifies everything about n that n alone can show: the form of its keys,
// its signature, and that its capabilities cover itself and the suite. For a leaf
// that did not come from a KeyPackage, groupID and index say where it stands.
// Errors wrap ErrInvalid, ErrSignature or suite.ErrKey. RFC 9420, section 7.3.
func Check(s *suite.Suite, n *wire.LeafNode, groupID []byte, index uint32) error {
	if err := s.CheckPublicKey(n.EncryptionKey); err != nil {
		return err
	}
	if err := checkCapabilities(s, n); err != nil {
		return err
	}
	if n.Source == wire.KeyPackageLeaf && n.NotBefore >= n.NotAfter {
		return invalid("7.2", "the lifetime ends before it begins")
	}
	if !s.VerifyWithLabel(n.SignatureKey, "LeafNodeTBS", n.SignedContent(groupID, index), n.Signature) {
		return fmt.Errorf("%w: leaf node (RFC 9420, section 7.3)", ErrSignature)
	}
	return nil
}

// checkCapabilities checks that n lists what n itself uses.
func checkCapabilities(s *suite.Suite, n *wire.LeafNode) error {
	has := &n.Capabilities
	switch {
	case !slices.Contains(has.Versions, wire.MLS10):
		return invalid("7.2", "version mls10 is not among the capabilities")
	case !slices.Contains(has.CipherSuites, s.ID()):
		return invalid("7.2", "the cipher suite is not among the capabilities")
	case !slices.Contains(has.Credentials, n.Credential.Type):
		return invalid("7.3", "the credential type is not among the capabilities")
	}
	seen := make(map[uint16]bool, len(n.Extensions))
	supported := set(has.Extensions)
	for _, e := range n.Extensions {
		if seen[e.Type] {
			return invalid("13.4", "extension type %#x occurs twice", e.Type)
		}
		seen[e.Type] = true
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

// CheckRequired verifies that n supports what the group requires of everybody.
// Values that mean nothing (GREASE) are supported by nobody, whatever the lists say.
// RFC 9420, sections 11.1 and 13.5.
func CheckRequired(n *wire.LeafNode, required *wire.RequiredCapabilities) error {
	missing := func(want, have []uint16, isDefault func(uint16) bool) (uint16, bool) {
		supported := func(t uint16) bool { return slices.Contains(have, t) }
		if len(want) > 4 { // a long list of a hostile sender must not cost its square
			m := set(have)
			supported = func(t uint16) bool { return m[t] }
		}
		for _, t := range want {
			if !isDefault(t) && (wire.IsGrease(t) || !supported(t)) {
				return t, true
			}
		}
		return 0, false
	}
	never := func(uint16) bool { return false }
	if t, bad := missing(required.Extensions, n.Capabilities.Extensions, wire.IsDefaultExtension); bad {
		return invalid("11.1", "required extension type %#x is not supported", t)
	}
	if t, bad := missing(required.Proposals, n.Capabilities.Proposals, wire.IsDefaultProposal); bad {
		return invalid("11.1", "required proposal type %#x is not supported", t)
	}
	if t, bad := missing(required.Credentials, n.Capabilities.Credentials, never); bad {
		return invalid("11.1", "required credential type %#x is not supported", t)
	}
	return nil
}

// Sign fills in n's signature with the private key. RFC 9420, section 7.2.
func Sign(s *suite.Suite, private []byte, n *wire.LeafNode, groupID []byte, index uint32) error {
	signature, err := s.SignWithLabel(private, "LeafNodeTBS", n.SignedContent(groupID, index))
	n.Signature = signature
	return err
}
