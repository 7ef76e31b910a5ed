package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// accountInfo separates account keys from other keys derived from a seed, and algorithms from
// each other.
const accountInfo = "waxwing account v1 ES256 "

// Account is an identity: a P-256 key, with its did:key as the name. There is no registration;
// holding the key is being the account. An Account signs service tokens and device
// certificates, and is safe for concurrent use.
type Account struct {
	signer crypto.Signer
	public *ecdsa.PublicKey
	did    string
}

// NewAccount makes an account with a fresh random key. The key cannot be recovered: use
// AccountFromSeed, or AccountFromSigner over a stored key, for an account that outlives the
// process.
func NewAccount() (*Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make account key: %w", err)
	}
	return AccountFromSigner(key)
}

// AccountFromSeed derives the account called name from a secret seed, deterministically: 48
// bytes of HKDF-SHA256 over the seed, without salt, with the info "waxwing account v1 ES256 " +
// name, taken as a big-endian number x, give the private scalar (x mod (n-1)) + 1. `waxwing
// token` and `waxwing did` derive the same key. The seed must have the entropy of a key: it is
// not stretched.
func AccountFromSeed(seed []byte, name string) (*Account, error) {
	if len(seed) == 0 {
		return nil, errors.New("empty account seed")
	}
	wide, err := hkdf.Key(sha256.New, seed, nil, accountInfo+name, 48)
	if err != nil {
		return nil, fmt.Errorf("derive account key: %w", err)
	}
	one := big.NewInt(1)
	scalar := new(big.Int).SetBytes(wide)
	scalar.Mod(scalar, new(big.Int).Sub(elliptic.P256().Params().N, one))
	scalar.Add(scalar, one)
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar.FillBytes(make([]byte, 32)))
	if err != nil {
		return nil, fmt.Errorf("derive account key: %w", err)
	}
	return AccountFromSigner(key)
}

// AccountFromSigner makes an account of a key held elsewhere, such as in a hardware token. The
// signer's public key must be an *ecdsa.PublicKey on P-256, and its signatures ASN.1, as
// crypto.Signer specifies.
func AccountFromSigner(signer crypto.Signer) (*Account, error) {
	public, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("account key is not on P-256")
	}
	did, err := didOfP256(public)
	if err != nil {
		return nil, err
	}
	return &Account{signer: signer, public: public, did: did}, nil
}

// DID returns the account's name, a did:key.
func (a *Account) DID() string { return a.did }

// sign signs the SHA-256 of message: r and s of 32 bytes each, s in the lower half of the group
// order, as all verifiers of service tokens require.
func (a *Account) sign(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	der, err := a.signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with account key: %w", err)
	}
	var pair struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &pair); err != nil || len(rest) != 0 {
		return nil, errors.New("sign with account key: not an ASN.1 signature")
	}
	n := elliptic.P256().Params().N
	if pair.R.Sign() <= 0 || pair.R.Cmp(n) >= 0 || pair.S.Sign() <= 0 || pair.S.Cmp(n) >= 0 {
		return nil, errors.New("sign with account key: signature out of range")
	}
	if pair.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		pair.S.Sub(n, pair.S)
	}
	signature := make([]byte, 64)
	pair.R.FillBytes(signature[:32])
	pair.S.FillBytes(signature[32:])
	return signature, nil
}

// verifyP256 checks a signature in the form that sign makes; it refuses a high s.
func verifyP256(public *ecdsa.PublicKey, message, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if s.Cmp(new(big.Int).Rsh(elliptic.P256().Params().N, 1)) > 0 {
		return false
	}
	digest := sha256.Sum256(message)
	return ecdsa.Verify(public, digest[:], r, s)
}

// tokenLife is the lifetime of a service token. It is used within a second; the rest allows for
// clock differences. The server accepts up to 5 minutes.
const tokenLife = 2 * time.Minute

// serviceToken signs a JWT by which the account calls method at the service audience, once: the
// jti is random and the service remembers it.
func (a *Account) serviceToken(audience, method string, now time.Time) (string, error) {
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Method   string `json:"lxm"`
		ID       string `json:"jti"`
		Issued   int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{a.did, audience, method, randomID(), now.Unix(), now.Add(tokenLife).Unix()})
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	signature, err := a.sign([]byte(signed))
	if err != nil {
		return "", err
	}
	return signed + "." + encode(signature), nil
}

// newMessageID returns a msg_id for a message or commit: a random UUID (RFC 9562, section 5.4),
// which every door of the server accepts.
func newMessageID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return formatUUID(id)
}

func formatUUID(id [16]byte) string {
	text := hex.EncodeToString(id[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// randomID returns 128 random bits in 22 url-safe characters, such as a jti.
func randomID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(id[:])
}
