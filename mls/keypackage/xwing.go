package keypackage

import (
	"crypto/hpke"
	"errors"
	"fmt"

	"waxwing.im/waxwing/mls/suite"
)

// XWing is the number that clients use for MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519.
// Its hash and its signatures are those of suite 3. The groups of this module do not
// have it, but a directory can tell whether a package of it is good: that takes a look
// at its keys, no use of them.
const XWing suite.ID = 0x004d

// directorySuite is what packages of a suite are checked with: its hash and signatures,
// and the form of its HPKE keys. The error wraps suite.ErrUnsupported.
func directorySuite(id suite.ID) (*suite.Suite, func([]byte) error, error) {
	s, err := suite.Lookup(id)
	if err == nil {
		return s, s.CheckPublicKey, nil
	}
	if id != XWing || !errors.Is(err, suite.ErrUnsupported) {
		return nil, nil, err
	}
	s, err = suite.Lookup(suite.X25519ChaCha20Poly1305)
	return s, checkXWingKey, err
}

// checkXWingKey says whether public can be an X-Wing key: an ML-KEM-768 one and an X25519
// one behind it. The error wraps suite.ErrKey.
func checkXWingKey(public []byte) error {
	if _, err := hpke.MLKEM768X25519().NewPublicKey(public); err != nil {
		return fmt.Errorf("%w: public X-Wing key", suite.ErrKey)
	}
	return nil
}
