package mls

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// StateKeyBytes is the size of a key for EncryptState.
const StateKeyBytes = 32

// EncryptState encrypts saved state for storage, with AES-256-GCM and a random nonce in front.
// name is authenticated: state that was encrypted under one name does not decrypt under another.
// Use one key for at most 2^32 states.
func EncryptState(key [StateKeyBytes]byte, name string, state []byte) ([]byte, error) {
	a, err := stateCipher(key)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, state, []byte(name)), nil
}

// DecryptState decrypts the output of EncryptState; the error wraps ErrCorruptState. It accepts
// older states of the same name: the storage must prevent rollback.
func DecryptState(key [StateKeyBytes]byte, name string, encrypted []byte) ([]byte, error) {
	a, err := stateCipher(key)
	if err != nil {
		return nil, err
	}
	state, err := a.Open(nil, nil, encrypted, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%w: it does not decrypt with this key and name", ErrCorruptState)
	}
	return state, nil
}

func stateCipher(key [StateKeyBytes]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("state cipher: %w", err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("state cipher: %w", err)
	}
	return a, nil
}
