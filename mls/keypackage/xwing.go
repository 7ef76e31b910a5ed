package keypackage

import (
	"crypto/hpke"
	"errors"

	"waxwing.im/waxwing/mls/suite"
)

// XWing is the number that clients use for MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519.
// Its hash and its signatures are those of suite 3. The groups of this module do not
// have it, but a directory can tell whether a package of it is good: that takes a look
// at its keys, no use of them.
const XWing suite.ID = 0x004d

// directorySuite returns what packages of a suite are checked with: its hash and
// signatures, and its HPKE keys. The error wraps suite.ErrUnsupported.
func directorySuite(id suite.ID) (*suite.Suite, suite.PublicKeys, error) {
	s, err := suite.Lookup(id)
	if err == nil {
		return s, s.PublicKeys(), nil
	}
	if id != XWing || !errors.Is(err, suite.ErrUnsupported) {
		return nil, suite.PublicKeys{}, err
	}
	s, err = suite.Lookup(suite.X25519ChaCha20Poly1305)
	return s, suite.PublicKeysOf(hpke.MLKEM768X25519()), err
}
