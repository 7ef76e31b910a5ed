package suite

import (
	"bytes"
	"crypto/hpke"
	"fmt"
	"slices"
)

// KEM numbers. RFC 9180, section 7.1, and draft-connolly-cfrg-xwing-kem.
const (
	kemP256   = 0x0010
	kemX25519 = 0x0020
	kemXWing  = 0x647a // an ML-KEM-768 key and an X25519 one behind it
)

// x25519Bytes is the size of an X25519 public key.
const x25519Bytes = 32

// PublicKeys checks and compares public keys of a KEM, those in messages of others above all.
type PublicKeys struct{ kem hpke.KEM }

// PublicKeysOf returns the checks for keys of kem.
func PublicKeysOf(kem hpke.KEM) PublicKeys { return PublicKeys{kem} }

// PublicKeys returns the checks for HPKE keys of the suite.
func (s *Suite) PublicKeys() PublicKeys { return PublicKeys{s.kem} }

// Check verifies that secrets can be encrypted to public; the error wraps ErrKey. It refuses points
// that are not on the curve, and X25519 keys of low order: a secret shared with one of those is
// zero, which RFC 9180, section 7.1.4, requires to refuse, so no commit could be made in a tree
// with such a key. P-256 keys are uncompressed points. RFC 9420, section 5.1.1.
func (p PublicKeys) Check(public []byte) error {
	if _, err := p.kem.NewPublicKey(public); err != nil {
		return fmt.Errorf("%w: public HPKE key (RFC 9420, section 5.1.1)", ErrKey)
	}
	if x := p.x25519(public); x != nil && isLowOrder(x) {
		return fmt.Errorf("%w: public HPKE key of low order (RFC 9180, section 7.1.4)", ErrKey)
	}
	return nil
}

// Canonical returns the encoding by which keys are compared. By RFC 7748, section 5, X25519 accepts
// several encodings of one key: with bit 255 set, and of numbers above the prime of the field. The
// result may share memory with public.
func (p PublicKeys) Canonical(public []byte) []byte {
	x := p.x25519(public)
	if x == nil {
		return public
	}
	canonical := canonicalX25519(x)
	if bytes.Equal(canonical[:], x) {
		return public
	}
	return append(slices.Clone(public[:len(public)-x25519Bytes]), canonical[:]...)
}

// x25519 returns the X25519 part of a key, or nil if there is none.
func (p PublicKeys) x25519(public []byte) []byte {
	if id := p.kem.ID(); id != kemX25519 && id != kemXWing || len(public) < x25519Bytes {
		return nil
	}
	return public[len(public)-x25519Bytes:]
}

// canonicalX25519 returns the coordinate that X25519 computes with, below 2^255 - 19.
func canonicalX25519(x []byte) (out [x25519Bytes]byte) {
	copy(out[:], x)
	out[31] &= 0x7f
	if out[31] != 0x7f || out[0] < 0xed {
		return out
	}
	for _, b := range out[1:31] {
		if b != 0xff {
			return out
		}
	}
	return [x25519Bytes]byte{out[0] - 0xed}
}

// isLowOrder reports whether x is a point of order 1, 2, 4 or 8, on the curve or its twist.
func isLowOrder(x []byte) bool { return slices.Contains(lowOrder[:], canonicalX25519(x)) }

// lowOrder lists the coordinates of these points: 0, 1, -1 and the two of order 8.
var lowOrder = [...][x25519Bytes]byte{
	{},
	{1},
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
}
