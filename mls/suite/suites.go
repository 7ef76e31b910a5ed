package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"

	"golang.org/x/crypto/chacha20poly1305"
)

var suites = map[ID]*Suite{
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
