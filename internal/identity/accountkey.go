package identity

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// AccountKey is the private key of a did:key account. The key is the account: it needs no
// registration. It is immutable and safe for concurrent use.
type AccountKey struct {
	alg  string
	did  string
	sign func(content []byte) ([]byte, error)
}

// accountKeyInfo begins the HKDF info of an account key; the algorithm and the name follow.
const accountKeyInfo = "waxwing account v1 "

// secp256k1Order is the order of the group of secp256k1 (SEC 2, section 2.4.1).
var secp256k1Order, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)

// DeriveAccountKey derives the key for alg of the account called name from a seed: the same
// three always give the same key. 48 bytes of HKDF-SHA256(seed, no salt, "waxwing account v1
// ALG NAME") become the scalar (x mod (n-1))+1 of the two ECDSA kinds, which is practically
// uniform since 48 bytes are 128 bits more than n has (FIPS 186-5, A.2.1); their first 32 bytes
// are the seed of an Ed25519 key.
func DeriveAccountKey(seed []byte, name, alg string) (*AccountKey, error) {
	if len(seed) == 0 {
		return nil, errors.New("account key: empty seed")
	}
	if name == "" {
		return nil, errors.New("account key: empty name")
	}
	x, err := hkdf.Key(sha256.New, seed, nil, accountKeyInfo+alg+" "+name, 48)
	if err != nil {
		return nil, fmt.Errorf("account key: %w", err)
	}
	switch alg {
	case ES256:
		k, err := atcrypto.ParsePrivateBytesP256(scalar(x, elliptic.P256().Params().N))
		if err != nil {
			return nil, errors.New("account key: not a scalar of P-256")
		}
		return ecdsaAccountKey(alg, k)
	case ES256K:
		k, err := atcrypto.ParsePrivateBytesK256(scalar(x, secp256k1Order))
		if err != nil {
			return nil, errors.New("account key: not a scalar of secp256k1")
		}
		return ecdsaAccountKey(alg, k)
	case EdDSA:
		k := ed25519.NewKeyFromSeed(x[:ed25519.SeedSize])
		did := encodeDIDKey(multicodecEd25519, k.Public().(ed25519.PublicKey))
		return &AccountKey{alg, did, func(content []byte) ([]byte, error) { return ed25519.Sign(k, content), nil }}, nil
	}
	return nil, fmt.Errorf("account key: unknown algorithm %q", alg)
}

// scalar maps x to 1 … n-1.
func scalar(x []byte, n *big.Int) []byte {
	one := big.NewInt(1)
	s := new(big.Int).SetBytes(x)
	s.Mod(s, new(big.Int).Sub(n, one)).Add(s, one)
	return s.FillBytes(make([]byte, 32))
}

func ecdsaAccountKey(alg string, k atcrypto.PrivateKey) (*AccountKey, error) {
	public, err := k.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("account key: %w", err)
	}
	return &AccountKey{alg, public.DIDKey(), k.HashAndSign}, nil
}

// Alg returns the algorithm that the key signs with: ES256, ES256K or EdDSA.
func (k *AccountKey) Alg() string { return k.alg }

// DID returns the account: the did:key of the public key.
func (k *AccountKey) DID() string { return k.did }

// Sign signs content. A signature is 64 bytes, low-S for the ECDSA kinds.
func (k *AccountKey) Sign(content []byte) ([]byte, error) { return k.sign(content) }
