package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

var (
	mu    sync.RWMutex // guards known and order
	order = []ID{X25519AES128GCM, P256AES128GCM, X25519ChaCha20Poly1305}
)

var known = map[ID]*Suite{
	X25519AES128GCM: {
		id: X25519AES128GCM, keyBytes: 16, newAEAD: newAESGCM, signature: ed25519Scheme{},
		kem: hpke.DHKEM(ecdh.X25519()), hpkeAEAD: hpke.AES128GCM(),
	},
	P256AES128GCM: {
		id: P256AES128GCM, keyBytes: 16, newAEAD: newAESGCM, signature: p256Scheme{},
		kem: hpke.DHKEM(ecdh.P256()), hpkeAEAD: hpke.AES128GCM(),
	},
	X25519ChaCha20Poly1305: {
		id: X25519ChaCha20Poly1305, keyBytes: chacha20poly1305.KeySize, newAEAD: chacha20poly1305.New, signature: ed25519Scheme{},
		kem: hpke.DHKEM(ecdh.X25519()), hpkeAEAD: hpke.ChaCha20Poly1305(),
	},
}

func newAESGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Lookup returns the suite with the number id. The error wraps ErrUnsupported.
func Lookup(id ID) (*Suite, error) {
	mu.RLock()
	defer mu.RUnlock()
	if s := known[id]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w: %d", ErrUnsupported, id)
}

// IDs lists all suites, the preferred one first and registered ones last.
func IDs() []ID {
	mu.RLock()
	defer mu.RUnlock()
	return slices.Clone(order)
}

// Config describes a suite that this package does not implement. Its hash is SHA-256 and its KDF
// HKDF with SHA-256: all secrets are HashBytes long.
type Config struct {
	ID        ID // 0xf000 to 0xffff are for private use
	KEM       hpke.KEM
	HPKEAEAD  hpke.AEAD
	KeyBytes  int // of NewAEAD
	NewAEAD   func(key []byte) (cipher.AEAD, error)
	Signature SignatureScheme
}

// Register adds a suite, which is then available in all packages of mls and listed in the
// capabilities of new leaves. Call it when the program starts: groups of a suite that is not
// registered do not load. RFC 9420, section 13.1.
func Register(c Config) error {
	if c.KEM == nil || c.HPKEAEAD == nil || c.NewAEAD == nil || c.Signature == nil {
		return errors.New("register a cipher suite: a part is missing")
	}
	a, err := c.NewAEAD(make([]byte, c.KeyBytes))
	if err != nil {
		return fmt.Errorf("register a cipher suite: %w", err)
	}
	if a.NonceSize() != NonceBytes || a.Overhead() != TagBytes {
		return fmt.Errorf("register a cipher suite: an AEAD with a nonce of %d bytes and a tag of %d", a.NonceSize(), a.Overhead())
	}
	mu.Lock()
	defer mu.Unlock()
	if known[c.ID] != nil {
		return fmt.Errorf("register a cipher suite: number %d is taken", c.ID)
	}
	known[c.ID] = &Suite{id: c.ID, keyBytes: c.KeyBytes, kem: c.KEM, hpkeAEAD: c.HPKEAEAD, newAEAD: c.NewAEAD, signature: c.Signature}
	order = append(order, c.ID)
	return nil
}
