package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// SignatureScheme is a signature scheme; keys and signatures are encoded as in RFC 9420, section
// 5.1.2. Its methods are safe for concurrent use.
type SignatureScheme interface {
	// Generate returns a random private key.
	Generate() (private []byte, err error)
	// Public returns the public key of private; the error wraps ErrKey.
	Public(private []byte) ([]byte, error)
	// Sign signs with a key that Public accepts; the error wraps ErrKey.
	Sign(private, message []byte) ([]byte, error)
	// Verify reports whether the owner of public signed message.
	Verify(public, message, signature []byte) bool
}

// GenerateSignatureKey returns a random private signature key.
func (s *Suite) GenerateSignatureKey() ([]byte, error) { return s.signature.Generate() }

// SignaturePublicKey returns the public key of private; the error wraps ErrKey. Sign only with keys
// that it accepts.
func (s *Suite) SignaturePublicKey(private []byte) ([]byte, error) {
	return s.signature.Public(private)
}

// SignWithLabel signs content with label; the error wraps ErrKey. RFC 9420, section 5.1.2.
func (s *Suite) SignWithLabel(private []byte, label string, content []byte) ([]byte, error) {
	return s.signature.Sign(private, withLabel(label, content))
}

// VerifyWithLabel reports whether signature is a signature of the owner of public over content
// with label. RFC 9420, section 5.1.2.
func (s *Suite) VerifyWithLabel(public []byte, label string, content, signature []byte) bool {
	return s.signature.Verify(public, withLabel(label, content), signature)
}

type ed25519Scheme struct{}

func (ed25519Scheme) Generate() ([]byte, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a signature key: %w", err)
	}
	return k, nil
}

// key accepts a seed, and the longer form with the public key behind it, which saves half of
// the work of signing.
func (ed25519Scheme) key(private []byte) (ed25519.PrivateKey, error) {
	switch len(private) {
	case ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(private), nil
	case ed25519.PrivateKeySize:
		return ed25519.PrivateKey(private), nil
	}
	return nil, fmt.Errorf("%w: private Ed25519 key of %d bytes", ErrKey, len(private))
}

// Public also verifies that the longer form has the right public key: signatures made with another
// one would reveal the private key.
func (e ed25519Scheme) Public(private []byte) ([]byte, error) {
	k, err := e.key(private)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(ed25519.NewKeyFromSeed(k.Seed()), k) {
		return nil, fmt.Errorf("%w: the halves of a private Ed25519 key do not match", ErrKey)
	}
	return k.Public().(ed25519.PublicKey), nil
}

func (e ed25519Scheme) Sign(private, message []byte) ([]byte, error) {
	k, err := e.key(private)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(k, message), nil
}

func (ed25519Scheme) Verify(public, message, signature []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, message, signature)
}

type p256Scheme struct{}

func (p256Scheme) Generate() ([]byte, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a signature key: %w", err)
	}
	return k.Bytes()
}

// key also accepts a scalar that lost its leading zeros.
func (p256Scheme) key(private []byte) (*ecdsa.PrivateKey, error) {
	var scalar [32]byte
	if len(private) > len(scalar) {
		return nil, fmt.Errorf("%w: private P-256 key of %d bytes", ErrKey, len(private))
	}
	copy(scalar[len(scalar)-len(private):], private)
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
	if err != nil {
		return nil, fmt.Errorf("%w: private P-256 key", ErrKey)
	}
	return k, nil
}

func (p p256Scheme) Public(private []byte) ([]byte, error) {
	k, err := p.key(private)
	if err != nil {
		return nil, err
	}
	return k.PublicKey.Bytes()
}

func (p p256Scheme) Sign(private, message []byte) ([]byte, error) {
	k, err := p.key(private)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(message)
	return k.Sign(rand.Reader, digest[:], crypto.SHA256)
}

func (p256Scheme) Verify(public, message, signature []byte) bool {
	k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), public)
	if err != nil {
		return false
	}
	digest := sha256.Sum256(message)
	return ecdsa.VerifyASN1(k, digest[:], signature)
}
