package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"waxwing.im/waxwing/mls/wire"
)

// Sealer encrypts to many keys with one label and one context. It hashes the context once: that
// of a Welcome contains the ratchet tree. It is safe for concurrent use. RFC 9420, section 5.1.3.
type Sealer struct {
	suite   *Suite
	info    []byte // only if curve is nil
	curve   ecdh.Curve
	newAEAD func(key []byte) (cipher.AEAD, error)
	kemID   []byte // suite_id of the KEM, RFC 9180, section 4.1
	hpkeID  []byte // and of HPKE, section 5.1
	context []byte // key_schedule_context, section 5.1
	keySize int
}

// hpkeVersion begins every labelled input of HPKE. RFC 9180, section 4.
const hpkeVersion = "HPKE-v1"

// modeBase and kdfSHA256 are HPKE's numbers. RFC 9180, sections 5 and 7.2.
const (
	modeBase  = 0
	kdfSHA256 = 1
)

// NewSealer returns a Sealer for label and context.
func (s *Suite) NewSealer(label string, context []byte) *Sealer {
	out := &Sealer{suite: s}
	switch s.kem.ID() {
	case kemX25519:
		out.curve = ecdh.X25519()
	case kemP256:
		out.curve = ecdh.P256()
	}
	switch s.hpkeAEAD.ID() { // RFC 9180, section 7.3
	case 1:
		out.newAEAD, out.keySize = newAESGCM, 16
	case 2:
		out.newAEAD, out.keySize = newAESGCM, 2*aes.BlockSize
	case 3:
		out.newAEAD, out.keySize = chacha20poly1305.New, chacha20poly1305.KeySize
	}
	if out.curve == nil || out.newAEAD == nil {
		out.curve, out.info = nil, withLabel(label, context)
		return out
	}
	out.kemID = binary.BigEndian.AppendUint16([]byte("KEM"), s.kem.ID())
	out.hpkeID = binary.BigEndian.AppendUint16([]byte("HPKE"), s.kem.ID())
	out.hpkeID = binary.BigEndian.AppendUint16(out.hpkeID, kdfSHA256)
	out.hpkeID = binary.BigEndian.AppendUint16(out.hpkeID, s.hpkeAEAD.ID())
	pskID := labeledExtract(nil, out.hpkeID, "psk_id_hash", nil)
	out.context = append([]byte{modeBase}, pskID[:]...)
	out.context = append(out.context, infoHash(out.hpkeID, label, context)...)
	return out
}

// infoHash returns the hash of the labelled context, without a copy of it.
func infoHash(hpkeID []byte, label string, context []byte) []byte {
	h := hmac.New(sha256.New, nil)
	h.Write([]byte(hpkeVersion))
	h.Write(hpkeID)
	h.Write([]byte("info_hash"))
	h.Write(wire.AppendLength(nil, len(labelPrefix)+len(label)))
	h.Write([]byte(labelPrefix + label))
	h.Write(wire.AppendLength(nil, len(context)))
	h.Write(context)
	return h.Sum(nil)
}

// Seal encrypts plaintext to the owner of public. The error wraps ErrKey.
func (e *Sealer) Seal(public, plaintext []byte) (wire.HPKECiphertext, error) {
	if e.curve == nil {
		return e.sealGeneric(public, plaintext)
	}
	key, err := e.curve.NewPublicKey(public)
	if err != nil {
		return wire.HPKECiphertext{}, fmt.Errorf("%w: public HPKE key (RFC 9420, section 5.1.1)", ErrKey)
	}
	ephemeral, err := e.curve.GenerateKey(rand.Reader)
	if err != nil {
		return wire.HPKECiphertext{}, fmt.Errorf("generate an HPKE key: %w", err)
	}
	dh, err := ephemeral.ECDH(key)
	if err != nil {
		return wire.HPKECiphertext{}, fmt.Errorf("%w: encapsulate to a public HPKE key", ErrKey)
	}
	output := ephemeral.PublicKey().Bytes()
	// RFC 9180, section 4.1: ExtractAndExpand.
	prk := labeledExtract(nil, e.kemID, "eae_prk", dh)
	shared := labeledExpand(prk[:], e.kemID, "shared_secret", append(output[:len(output):len(output)], public...), HashBytes)
	// RFC 9180, section 5.1: KeySchedule.
	secret := labeledExtract(shared, e.hpkeID, "secret", nil)
	aeadKey := labeledExpand(secret[:], e.hpkeID, "key", e.context, e.keySize)
	nonce := labeledExpand(secret[:], e.hpkeID, "base_nonce", e.context, NonceBytes)
	aead, err := e.newAEAD(aeadKey)
	if err != nil {
		return wire.HPKECiphertext{}, fmt.Errorf("seal: %w", err)
	}
	sealed := wire.HPKECiphertext{KEMOutput: output, Ciphertext: aead.Seal(nil, nonce, plaintext, nil)}
	for _, gone := range [][]byte{dh, prk[:], shared, secret[:], aeadKey} {
		clear(gone)
	}
	return sealed, nil
}

// sealGeneric does the work of Seal for KEMs that only crypto/hpke implements.
func (e *Sealer) sealGeneric(public, plaintext []byte) (wire.HPKECiphertext, error) {
	output, sender, err := e.suite.sender(public, e.info)
	if err != nil {
		return wire.HPKECiphertext{}, err
	}
	ciphertext, err := sender.Seal(nil, plaintext)
	return wire.HPKECiphertext{KEMOutput: output, Ciphertext: ciphertext}, err
}

// labeledExtract implements LabeledExtract of RFC 9180, section 4; salt is at most one block.
func labeledExtract(salt, suiteID []byte, label string, ikm []byte) [HashBytes]byte {
	var room [macShort]byte
	data := append(append(append(room[:0], hpkeVersion...), suiteID...), label...)
	out := mac(salt, append(data, ikm...))
	clear(room[:])
	return out
}

// labeledExpand implements LabeledExpand of RFC 9180, section 4, for at most one hash.
func labeledExpand(prk, suiteID []byte, label string, info []byte, length int) []byte {
	var room [macShort]byte
	data := binary.BigEndian.AppendUint16(room[:0], uint16(length))
	data = append(append(append(append(data, hpkeVersion...), suiteID...), label...), info...)
	sum := mac(prk, append(data, 1))
	return append(make([]byte, 0, length), sum[:length]...)
}
