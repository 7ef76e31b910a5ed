// Package suite implements the cipher suites of MLS and the labelled primitives of RFC 9420,
// section 5. Every operation of MLS with a key uses one of these functions; those that derive,
// sign or encrypt to a public key add a label, so that their outputs cannot be confused.
//
// The primitives are those of the standard library: HPKE, HKDF, AES-GCM, Ed25519, ECDSA; and
// ChaCha20-Poly1305 of golang.org/x/crypto. Sizes are in bytes. All functions and methods are
// safe for concurrent use; slices that they return belong to the caller.
package suite

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"waxwing.im/waxwing/mls/wire"
)

// ID is the number of a cipher suite. RFC 9420, section 17.1.
type ID = uint16

// The suites of this package, by their names in RFC 9420, section 17.1.
const (
	X25519AES128GCM        ID = 1 // MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
	P256AES128GCM          ID = 2 // MLS_128_DHKEMP256_AES128GCM_SHA256_P256
	X25519ChaCha20Poly1305 ID = 3 // MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519
)

var (
	// ErrUnsupported reports a suite that is neither of this package nor registered.
	ErrUnsupported = errors.New("unsupported cipher suite")
	// ErrKey reports bytes that are not a valid key of the suite.
	ErrKey = errors.New("not a key of the cipher suite")
	// ErrOpen reports a ciphertext that does not decrypt.
	ErrOpen = errors.New("ciphertext does not open")
)

// Sizes in bytes that all suites of this package share.
const (
	HashBytes  = sha256.Size
	NonceBytes = 12
	TagBytes   = 16
)

// Suite is a cipher suite. Its methods are safe for concurrent use.
type Suite struct {
	id        ID
	keyBytes  int
	kem       hpke.KEM
	hpkeAEAD  hpke.AEAD
	newAEAD   func(key []byte) (cipher.AEAD, error)
	signature SignatureScheme
}

// ID returns the number of the suite.
func (s *Suite) ID() ID { return s.id }

// KeyBytes returns the size of an AEAD key (Nk of RFC 9180).
func (s *Suite) KeyBytes() int { return s.keyBytes }

// Hash returns the suite's hash of the concatenated parts.
func (s *Suite) Hash(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// AppendHash appends the suite's hash of data to b.
func (s *Suite) AppendHash(b, data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(b, sum[:]...)
}

// MAC returns the HMAC of data with key. RFC 9420, section 5.2.
func (s *Suite) MAC(key, data []byte) []byte {
	if len(key) > sha256.BlockSize {
		m := hmac.New(sha256.New, key)
		m.Write(data)
		return m.Sum(nil)
	}
	sum := mac(key, data)
	return bytes.Clone(sum[:])
}

// mac computes HMAC (RFC 2104) for keys of at most one block, which all keys of MLS are. It
// does not allocate while data is short: crypto/hmac makes eight objects each time, and a
// message takes five of these, a jump in a ratchet thousands.
func mac(key, data []byte) [HashBytes]byte {
	var room [sha256.BlockSize + macShort]byte
	block := room[:sha256.BlockSize]
	copy(block, key)
	for i := range block {
		block[i] ^= 0x36
	}
	inner := sha256.Sum256(append(block, data...))
	for i := range block {
		block[i] ^= 0x36 ^ 0x5c
	}
	sum := sha256.Sum256(append(block, inner[:]...))
	clear(room[:])
	return sum
}

// macShort is the size of data, in bytes, up to which mac does not allocate.
const macShort = 192

// MACEqual reports whether two MACs are equal, in constant time.
func (s *Suite) MACEqual(a, b []byte) bool { return hmac.Equal(a, b) }

// Extract implements KDF.Extract of RFC 5869.
func (s *Suite) Extract(salt, secret []byte) []byte {
	if len(salt) <= sha256.BlockSize { // RFC 5869, section 2.2
		return s.MAC(salt, secret)
	}
	out, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		// Only FIPS 140-only mode with short secrets gets here; every secret in MLS is longer.
		panic("suite: " + err.Error())
	}
	return out
}

// labelPrefix begins every label of the protocol. RFC 9420, section 5.1.2.
const labelPrefix = "MLS 1.0 "

// appendLabelled appends the two vectors of all structures with a label, without a Coder because a
// jump in a ratchet does this a thousand times.
func appendLabelled(b []byte, label string, content []byte) []byte {
	b = append(wire.AppendLength(b, len(labelPrefix)+len(label)), labelPrefix...)
	return wire.AppendBytes(append(b, label...), content)
}

func withLabel(label string, content []byte) []byte {
	return appendLabelled(make([]byte, 0, len(labelPrefix)+len(label)+len(content)+8), label, content)
}

// ExpandWithLabel derives length bytes from secret. It panics if length is more than
// ExpandBytesMax. RFC 9420, section 8.
func (s *Suite) ExpandWithLabel(secret []byte, label string, context []byte, length int) []byte {
	var room [macShort]byte // large enough for most expansions
	info := appendLabelled(binary.BigEndian.AppendUint16(room[:0], uint16(length)), label, context)
	if length <= HashBytes && len(secret) <= sha256.BlockSize {
		// RFC 5869, section 2.3, with one block: the most frequent operation of a ratchet.
		sum := mac(secret, append(info, 1))
		return append(make([]byte, 0, length), sum[:length]...)
	}
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		panic("suite: " + err.Error()) // length is too large
	}
	return out
}

// ExpandBytesMax is the largest length that ExpandWithLabel can derive.
const ExpandBytesMax = 255 * HashBytes

// DeriveSecret derives a secret of the hash's size. RFC 9420, section 8.
func (s *Suite) DeriveSecret(secret []byte, label string) []byte {
	return s.ExpandWithLabel(secret, label, nil, HashBytes)
}

// DeriveTreeSecret derives a secret of one generation of a ratchet. RFC 9420, section 9.1.
func (s *Suite) DeriveTreeSecret(secret []byte, label string, generation uint32, length int) []byte {
	var context [4]byte
	binary.BigEndian.PutUint32(context[:], generation)
	return s.ExpandWithLabel(secret, label, context[:], length)
}

// RefHash returns the hash that identifies a value; label is the full label. RFC 9420, section 5.2.
func (s *Suite) RefHash(label string, value []byte) []byte {
	return s.Hash(wire.AppendBytes(nil, []byte(label)), wire.AppendBytes(nil, value))
}

// KeyPackageRef returns the reference of an encoded KeyPackage. RFC 9420, section 5.2.
func (s *Suite) KeyPackageRef(keyPackage []byte) []byte {
	return s.RefHash("MLS 1.0 KeyPackage Reference", keyPackage)
}

// ProposalRef returns the reference of an encoded AuthenticatedContent that holds a proposal.
// RFC 9420, section 5.2.
func (s *Suite) ProposalRef(content []byte) []byte {
	return s.RefHash("MLS 1.0 Proposal Reference", content)
}

// Seal encrypts with the suite's AEAD. key and nonce have the suite's sizes; it panics if they do
// not. RFC 9420, section 5.1.
func (s *Suite) Seal(key, nonce, aad, plaintext []byte) []byte {
	a, err := s.newAEAD(key)
	if err != nil {
		panic("suite: " + err.Error()) // keys come from our own derivation
	}
	return a.Seal(nil, nonce, plaintext, aad)
}

// Open decrypts the output of Seal. The error wraps ErrOpen. key and nonce are those of Seal.
func (s *Suite) Open(key, nonce, aad, ciphertext []byte) ([]byte, error) {
	a, err := s.newAEAD(key)
	if err != nil {
		panic("suite: " + err.Error())
	}
	plaintext, err := a.Open(nil, nonce, ciphertext, aad)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}
