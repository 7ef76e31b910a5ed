package keypackage

import (
	"crypto/hpke"
	"errors"

	"waxwing.im/waxwing/mls/suite"
)

// XWing is the number that clients use for MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519. Its hash
// and its signatures are those of suite 3. Groups of this module do not support it, but Validate
// does, because it checks only the form of keys.
const XWing suite.ID = 0x004d

// directorySuite returns the hash and signatures with which packages of a suite are checked,
// and its HPKE keys. The error wraps suite.ErrUnsupported.
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
