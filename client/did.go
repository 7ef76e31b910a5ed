package client

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/mr-tron/base58"
)

// The multicodec prefixes of the public keys in a did:key, as unsigned varints.
const (
	codecP256    = "\x80\x24"
	codecEd25519 = "\xed\x01"
	// codecK256 marks keys that servers accept and this package cannot verify.
	codecK256 = "\xe7\x01"
)

const didKeyPrefix = "did:key:z"

// didSyntax is the syntax of DID Core 1.0, section 3.1, without a path, query or fragment.
var didSyntax = regexp.MustCompile(`^did:[a-z0-9]+:(?:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})*:)*(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+$`)

// checkDID returns an error for text that is not a DID, and for a did:key without a valid key.
func checkDID(did string) error {
	if !didSyntax.MatchString(did) {
		return errors.New("invalid DID syntax")
	}
	if !strings.HasPrefix(did, "did:key:") {
		return nil
	}
	key, err := keyOfDID(did)
	if err == nil && !key.isKnown() && !key.isK256 {
		err = errors.New("did:key: unsupported type of key")
	}
	return err
}

// base58CharsMax bounds the input of the decoder: base58 costs the square of its length, and
// all supported keys are shorter.
const base58CharsMax = 128

func decodeBase58(text string) ([]byte, error) {
	if len(text) > base58CharsMax {
		return nil, errors.New("base58 text is too long")
	}
	raw, err := base58.Decode(text)
	if err != nil {
		return nil, errors.New("not base58btc")
	}
	return raw, nil
}

// didOfP256 returns the did:key of a P-256 public key (compressed point).
func didOfP256(public *ecdsa.PublicKey) (string, error) {
	point, err := public.Bytes() // uncompressed: 4, x, y
	if err != nil || len(point) != 65 {
		return "", errors.New("account key is not a point on P-256")
	}
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	return didKeyPrefix + base58.Encode(append([]byte(codecP256), compressed...)), nil
}

// accountKey is the public key that a DID itself contains. Both keys are nil for a DID with a
// key that has to be looked up, or is of a type that this package cannot verify: certificates
// of such accounts prove nothing here.
type accountKey struct {
	p256    *ecdsa.PublicKey
	ed25519 ed25519.PublicKey
	isK256  bool // a type that only servers verify
}

func (k accountKey) isKnown() bool { return k.p256 != nil || k.ed25519 != nil }

func (k accountKey) verify(message, signature []byte) bool {
	switch {
	case k.p256 != nil:
		return verifyP256(k.p256, message, signature)
	case k.ed25519 != nil:
		return ed25519.Verify(k.ed25519, message, signature)
	}
	return false
}

// keyOfDID decodes the key in a did:key. An error means that did has the prefix of one and is
// malformed.
func keyOfDID(did string) (accountKey, error) {
	encoded, ok := strings.CutPrefix(did, didKeyPrefix)
	if !ok {
		return accountKey{}, nil
	}
	raw, err := decodeBase58(encoded)
	if err != nil {
		return accountKey{}, fmt.Errorf("did:key: %w", err)
	}
	if base58.Encode(raw) != encoded {
		return accountKey{}, errors.New("did:key: not in canonical form")
	}
	if point, ok := strings.CutPrefix(string(raw), codecP256); ok {
		x, y := elliptic.UnmarshalCompressed(elliptic.P256(), []byte(point))
		if x == nil {
			return accountKey{}, errors.New("did:key: not a point on P-256")
		}
		uncompressed := make([]byte, 65)
		uncompressed[0] = 4
		x.FillBytes(uncompressed[1:33])
		y.FillBytes(uncompressed[33:])
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
		if err != nil {
			return accountKey{}, errors.New("did:key: not a point on P-256")
		}
		return accountKey{p256: public}, nil
	}
	if point, ok := strings.CutPrefix(string(raw), codecEd25519); ok {
		if len(point) != ed25519.PublicKeySize {
			return accountKey{}, errors.New("did:key: wrong length of an Ed25519 key")
		}
		return accountKey{ed25519: ed25519.PublicKey(point)}, nil
	}
	point, ok := strings.CutPrefix(string(raw), codecK256)
	return accountKey{isK256: ok && len(point) == 33 && (point[0] == 2 || point[0] == 3)}, nil
}
