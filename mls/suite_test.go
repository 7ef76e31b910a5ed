package mls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"
	"testing"

	"waxwing.im/waxwing/mls/suite"
)

// borrowed signs as suite 2 does.
type borrowed struct{ s *suite.Suite }

func (b borrowed) Generate() ([]byte, error)             { return b.s.GenerateSignatureKey() }
func (b borrowed) Public(private []byte) ([]byte, error) { return b.s.SignaturePublicKey(private) }
func (b borrowed) Sign(private, message []byte) ([]byte, error) {
	return b.s.SignWithLabel(private, "borrowed", message)
}

func (b borrowed) Verify(public, message, signature []byte) bool {
	return b.s.VerifyWithLabel(public, "borrowed", message, signature)
}

// A registered suite works in all operations.
func TestRegisteredSuite(t *testing.T) {
	const own Suite = 0xf0a2
	p256, err := lookup(P256_AES128GCM_SHA256_P256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSignatureKey(own); err == nil { // with -count, it is there from the run before
		t.Log("registered before")
	} else if err := suite.Register(suite.Config{
		ID: uint16(own), KEM: hpke.DHKEM(ecdh.X25519()), HPKEAEAD: hpke.AES256GCM(), KeyBytes: 32, Signature: borrowed{p256},
		NewAEAD: func(key []byte) (cipher.AEAD, error) {
			block, err := aes.NewCipher(key)
			if err != nil {
				return nil, err
			}
			return cipher.NewGCM(block)
		},
	}); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, own, "ann", "bob")
	w.reads("bob", w.seal("ann", "hello"), "hello")
	w.join("cay", identity(t, own, "cay"), w.groupInfo("bob"), ExternalJoinOptions{})
	w.reload()
	w.commit("cay", CommitOptions{})
	w.agree()
}
