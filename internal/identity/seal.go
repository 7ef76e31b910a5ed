package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
)

// Session and resume tokens: a prefix and 16 random bytes in base64url, 22 characters.
const (
	sessionPrefix = "st_"
	resumePrefix  = "rt_"
	tokenBytes    = 16
)

// ContainsToken reports whether a text contains the beginning of a session or resume token.
func ContainsToken(text string) bool {
	return strings.Contains(text, sessionPrefix) || strings.Contains(text, resumePrefix)
}

// secret is the random part of a session or resume token.
type secret [tokenBytes]byte

func newSecret() (s secret) {
	_, _ = rand.Read(s[:]) // never fails (crypto/rand)
	return s
}

func (s secret) text(prefix string) string {
	return prefix + base64.RawURLEncoding.EncodeToString(s[:])
}

// parseSecret reads a token; it accepts only the spelling that text writes.
func parseSecret(prefix, token string) (s secret, ok bool) {
	encoded, ok := strings.CutPrefix(token, prefix)
	if !ok || len(encoded) != base64.RawURLEncoding.EncodedLen(tokenBytes) || strings.ContainsAny(encoded, "\r\n") {
		return s, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(s[:], []byte(encoded))
	return s, err == nil && n == tokenBytes
}

// hash returns the hash by which the store finds a token. The token is random, so its hash
// needs no salt.
func (s secret) hash(prefix string) [32]byte { return sha256.Sum256([]byte(s.text(prefix))) }

// A row's resume_sealed is one or two seals, each opened by the resume token that it is sealed
// with:
//
//	with the resume token itself: session token (44 bytes)
//	with its predecessor, while that is accepted: session token, resume token (60 bytes)
//
// So the holder of a token can be given the whole answer, again and again, and a reader of the
// database learns no token from it.
const (
	sealOverhead   = 12 + 16 // the nonce and the tag of AES-GCM
	currentBytes   = sealOverhead + tokenBytes
	sealedBytesMax = currentBytes + sealOverhead + 2*tokenBytes
	sealInfo       = "waxwing resume v1"
)

var errSealed = errors.New("identity: the seal of a resume token does not open")

// sealFor encrypts the secrets for the holder of resume. The session's hash is bound to the
// seal, so that it opens in no other row.
func sealFor(resume secret, sessionHash []byte, secrets ...secret) ([]byte, error) {
	aead, err := sealCipher(resume)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, 0, 2*tokenBytes)
	for _, s := range secrets {
		plain = append(plain, s[:]...)
	}
	return aead.Seal(nil, nil, plain, sessionHash), nil
}

// openSealed decrypts n secrets that sealFor encrypted.
func openSealed(resume secret, sessionHash, sealed []byte, n int) ([]secret, error) {
	aead, err := sealCipher(resume)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, sessionHash)
	if err != nil || len(plain) != n*tokenBytes {
		return nil, errSealed
	}
	secrets := make([]secret, n)
	for i := range secrets {
		copy(secrets[i][:], plain[i*tokenBytes:])
	}
	return secrets, nil
}

func sealCipher(resume secret) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, resume[:], nil, sealInfo, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
