package suite_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"slices"
	"testing"

	"waxwing.im/waxwing/mls/suite"
)

// hashedEd25519 is a scheme that this package does not have.
type hashedEd25519 struct{}

func (hashedEd25519) Generate() ([]byte, error) {
	_, k, err := ed25519.GenerateKey(nil)
	return k, err
}

func (hashedEd25519) Public(private []byte) ([]byte, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, suite.ErrKey
	}
	return bytes.Clone(private[ed25519.SeedSize:]), nil
}

func (hashedEd25519) Sign(private, message []byte) ([]byte, error) {
	return ed25519.Sign(private, append([]byte("hashed"), message...)), nil
}

func (hashedEd25519) Verify(public, message, signature []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, append([]byte("hashed"), message...), signature)
}

func newGCM(size int) func(key []byte) (cipher.AEAD, error) {
	return func(key []byte) (cipher.AEAD, error) {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCMWithNonceSize(block, size)
	}
}

func TestRegister(t *testing.T) {
	good := suite.Config{
		ID: 0xf0a1, KEM: hpke.DHKEM(ecdh.P256()), HPKEAEAD: hpke.AES256GCM(), KeyBytes: 32, NewAEAD: newGCM(12), Signature: hashedEd25519{},
	}
	for name, spoil := range map[string]func(*suite.Config){
		"a number that is taken": func(c *suite.Config) { c.ID = suite.P256AES128GCM },
		"no KEM":                 func(c *suite.Config) { c.KEM = nil },
		"no signatures":          func(c *suite.Config) { c.Signature = nil },
		"a key of no size":       func(c *suite.Config) { c.KeyBytes = 7 },
		"another nonce":          func(c *suite.Config) { c.NewAEAD = newGCM(16) },
	} {
		bad := good
		spoil(&bad)
		if suite.Register(bad) == nil {
			t.Errorf("%s: registered", name)
		}
	}
	if _, err := suite.Lookup(good.ID); err == nil {
		t.Skip("registered by an earlier run in this process (-count): the first one has tested it")
	}
	if err := suite.Register(good); err != nil {
		t.Fatal(err)
	}
	s, err := suite.Lookup(good.ID)
	if err != nil || s.ID() != good.ID || s.KeyBytes() != 32 || !slices.Contains(suite.IDs(), good.ID) {
		t.Errorf("got %v, %v", s, err)
	}
	if suite.Register(good) == nil {
		t.Error("registered twice")
	}
}
