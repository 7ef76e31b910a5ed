package home

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// StorageKeyBytes is the length of a storage key.
const StorageKeyBytes = chacha20poly1305.KeySize

const sealVersion = 1

// sealer protects secret or readable data at rest. A sealed value is a version byte, a random
// nonce of 24 bytes and the XChaCha20-Poly1305 ciphertext; its associated data are its table,
// row and column, so a value moved elsewhere does not open.
type sealer struct {
	aead  cipher.AEAD
	index []byte // key for names of rows that must be found but not read
}

func newSealer(storageKey []byte) (*sealer, error) {
	if len(storageKey) != StorageKeyBytes {
		return nil, fmt.Errorf("length of the storage key is not %d bytes", StorageKeyBytes)
	}
	key, err := hkdf.Key(sha256.New, storageKey, nil, "waxwing client seal v1", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	index, err := hkdf.Key(sha256.New, storageKey, nil, "waxwing client index v1", sha256.Size)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return &sealer{aead: aead, index: index}, nil
}

// place identifies a value in the database unambiguously.
func place(table, row, column string) []byte {
	var out []byte
	for _, s := range []string{table, row, column} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return out
}

func (s *sealer) seal(table, row, column string, plain []byte) []byte {
	nonce := chacha20poly1305.NonceSizeX
	out := make([]byte, 1+nonce, 1+nonce+len(plain)+s.aead.Overhead())
	out[0] = sealVersion
	rand.Read(out[1:])
	return s.aead.Seal(out, out[1:1+nonce], plain, place(table, row, column))
}

func (s *sealer) open(table, row, column string, sealed []byte) ([]byte, error) {
	nonce := chacha20poly1305.NonceSizeX
	if len(sealed) < 1+nonce || sealed[0] != sealVersion {
		return nil, fmt.Errorf("%w: %s.%s", ErrStorageKey, table, column)
	}
	plain, err := s.aead.Open(nil, sealed[1:1+nonce], sealed[1+nonce:], place(table, row, column))
	if err != nil {
		return nil, fmt.Errorf("%w: %s.%s", ErrStorageKey, table, column)
	}
	return plain, nil
}

// name returns a keyed hash of fields: it finds the same row again, and does not disclose or
// confirm the fields without the storage key.
func (s *sealer) name(table string, fields ...string) []byte {
	mac := hmac.New(sha256.New, s.index)
	for _, f := range append([]string{table}, fields...) {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(f)))
		mac.Write(length[:])
		mac.Write([]byte(f))
	}
	return mac.Sum(nil)
}
