package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"math/big"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/mr-tron/base58"
)

// The signature algorithms, by their names in JOSE. The kind of a key determines its algorithm;
// a token never does.
const (
	ES256  = "ES256"  // P-256
	ES256K = "ES256K" // secp256k1
	EdDSA  = "EdDSA"  // Ed25519; only for did:key
)

// Algorithms lists the algorithms that accounts may use; the first is the default.
var Algorithms = []string{ES256, ES256K, EdDSA}

const (
	didKeyPrefix = "did:key:"
	// multibaseBytesMax is well above the longest key of the three kinds (51 bytes); decoding
	// base58 takes time that grows with the square of the length.
	multibaseBytesMax = 72
)

// The multicodec prefixes of supported public keys, as unsigned varints.
var (
	multicodecP256    = []byte{0x80, 0x24}
	multicodecK256    = []byte{0xe7, 0x01}
	multicodecEd25519 = []byte{0xed, 0x01}
)

// publicKey is a key that service tokens are verified with. It is immutable.
type publicKey struct {
	alg string
	// verify returns nil if sig is a signature of content of 64 bytes. For the ECDSA kinds it
	// accepts both values of s, as the network's own libraries do: a token's jti makes the
	// second spelling useless. Other signed data, such as a receipt or
	// a certificate, must be low-S and is not verified with this.
	verify func(content, sig []byte) error
	// multibase is the key as a Multikey.
	multibase string
}

// parseDIDKey returns the key of a did:key.
func parseDIDKey(did string) (publicKey, error) {
	multibase, ok := strings.CutPrefix(did, didKeyPrefix)
	if !ok {
		return publicKey{}, errors.New("not a did:key")
	}
	return parseMultibase(multibase)
}

// parseMultibase reads a public key with the multicodec prefix of its kind. The text must be
// the key's canonical encoding, so that one key is one account.
func parseMultibase(multibase string) (publicKey, error) {
	if len(multibase) > multibaseBytesMax {
		return publicKey{}, errors.New("key is too long")
	}
	if !strings.HasPrefix(multibase, "z") {
		return publicKey{}, errors.New("key is not in base58btc")
	}
	data, err := base58.Decode(multibase[1:])
	if err != nil || len(data) < 2 {
		return publicKey{}, errors.New("key is not base58btc")
	}
	if base58.Encode(data) != multibase[1:] {
		return publicKey{}, errors.New("key is not written in its canonical form")
	}
	codec, key := data[:2], data[2:]
	switch {
	case bytes.Equal(codec, multicodecP256) && len(key) == 33:
		k, err := atcrypto.ParsePublicBytesP256(key)
		if err != nil {
			return publicKey{}, errors.New("key is not a point of P-256")
		}
		return publicKey{ES256, k.HashAndVerifyLenient, strings.Clone(multibase)}, nil
	case bytes.Equal(codec, multicodecK256) && len(key) == 33:
		k, err := atcrypto.ParsePublicBytesK256(key)
		if err != nil {
			return publicKey{}, errors.New("key is not a point of secp256k1")
		}
		return publicKey{ES256K, k.HashAndVerifyLenient, strings.Clone(multibase)}, nil
	case bytes.Equal(codec, multicodecEd25519) && len(key) == ed25519.PublicKeySize:
		if isWeakEd25519(key) {
			return publicKey{}, errors.New("key is a weak Ed25519 key")
		}
		return publicKey{EdDSA, func(content, sig []byte) error {
			if len(sig) != ed25519.SignatureSize || !ed25519.Verify(key, content, sig) {
				return errSignature
			}
			return nil
		}, strings.Clone(multibase)}, nil
	}
	return publicKey{}, errors.New("a kind of key that is not supported")
}

// curve25519 is the prime 2^255 - 19.
var curve25519 = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))

// isWeakEd25519 reports whether the key is written in a second form or is a point of small
// order, for which anyone can make signatures. The standard library accepts both. The test
// moves the point to Curve25519 (u = (1+y)/(1-y), RFC 7748, section 4.1), where crypto/ecdh
// refuses points of small order.
func isWeakEd25519(key []byte) bool {
	little := slices.Clone(key)
	little[31] &= 0x7f // the sign of x
	slices.Reverse(little)
	y := new(big.Int).SetBytes(little)
	if y.Cmp(curve25519) >= 0 {
		return true
	}
	one := big.NewInt(1)
	inverse := new(big.Int).ModInverse(new(big.Int).Mod(new(big.Int).Sub(one, y), curve25519), curve25519)
	if inverse == nil { // y = 1, the neutral element
		return true
	}
	u := new(big.Int).Mul(new(big.Int).Add(one, y), inverse)
	encoded := u.Mod(u, curve25519).FillBytes(make([]byte, 32))
	slices.Reverse(encoded)
	point, err := ecdh.X25519().NewPublicKey(encoded)
	if err != nil {
		return true
	}
	_, err = smallOrderProbe.ECDH(point)
	return err != nil
}

// smallOrderProbe is any scalar: clamping makes it a multiple of the cofactor.
var smallOrderProbe = func() *ecdh.PrivateKey {
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		panic(err) // a constant of the right length is always a key
	}
	return k
}()

// encodeDIDKey writes a public key, in its compressed form, as a did:key.
func encodeDIDKey(codec, key []byte) string {
	return didKeyPrefix + "z" + base58.Encode(slices.Concat(codec, key))
}
