package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// What a service token may be (design, 7).
const (
	tokenBytesMax    = 4096
	tokenIDBytesMax  = 128
	tokenLifetimeMax = 5 * time.Minute
	clockSkew        = 30 * time.Second
)

// The reasons to refuse a token. They go to the debug log; callers only learn that
// the token is not valid.
var (
	errMalformed     = errors.New("not a signed token in compact form")
	errTooLong       = errors.New("token is too long")
	errHeader        = errors.New("header is not that of a service token")
	errKeyID         = errors.New("kid names no key of the issuer")
	errAlgorithm     = errors.New("alg is not the one of the issuer's key")
	errClaim         = errors.New("claim is missing or of a wrong type")
	errSubject       = errors.New("sub is not the issuer")
	errAudience      = errors.New("aud is not this service")
	errMethod        = errors.New("lxm is not the called method")
	errTokenID       = errors.New("jti is missing, empty or too long")
	errExpired       = errors.New("expired")
	errTooFar        = errors.New("valid for too long")
	errNotYet        = errors.New("not valid yet")
	errIssuer        = errors.New("issuer is not a did:key")
	errReplayed      = errors.New("used before")
	errUnknownMethod = errors.New("asked for no method")
)

// signingMethod is a JOSE algorithm over our keys. golang-jwt's own has no ES256K
// and accepts both values of s.
type signingMethod string

func (m signingMethod) Alg() string { return string(m) }

func (m signingMethod) Verify(signed string, sig []byte, key any) error {
	k, ok := key.(publicKey)
	if !ok || k.alg != string(m) {
		return errAlgorithm
	}
	if k.verify([]byte(signed), sig) != nil {
		return errSignature
	}
	return nil
}

func (m signingMethod) Sign(signing string, key any) ([]byte, error) {
	k, ok := key.(Signer)
	if !ok || k.Alg() != string(m) {
		return nil, errAlgorithm
	}
	return k.Sign([]byte(signing))
}

func init() {
	// The parser looks names up in a table of the whole process. Only the name that
	// is missing there is added; the others are replaced per token, in key.
	jwt.RegisterSigningMethod(ES256K, func() jwt.SigningMethod { return signingMethod(ES256K) })
}

// verified is what a token proves.
type verified struct {
	issuer ds.AccountID
	nonce  store.Nonce
}

// verifyToken checks everything about a service token but that it is used for the
// first time. The cheap checks come first; the signature is the last.
func verifyToken(token, lxm string, audiences []string, now time.Time) (verified, error) {
	if lxm == "" {
		return verified{}, errUnknownMethod
	}
	if len(token) > tokenBytesMax {
		return verified{}, errTooLong
	}
	// Go's base64 skips line breaks, which would give one token many spellings.
	if strings.ContainsAny(token, "\r\n") {
		return verified{}, errMalformed
	}
	var v verified
	parser := jwt.NewParser(jwt.WithValidMethods(Algorithms), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	_, err := parser.ParseWithClaims(token, jwt.MapClaims{}, func(t *jwt.Token) (any, error) {
		claims, ok := t.Claims.(jwt.MapClaims)
		if !ok {
			return nil, errMalformed
		}
		var err error
		if v, err = checkClaims(claims, lxm, audiences, now); err != nil {
			return nil, err
		}
		return issuerKey(t, string(v.issuer))
	})
	switch {
	case err == nil:
		return v, nil
	case errors.Is(err, jwt.ErrTokenMalformed):
		return verified{}, errMalformed // its own words may quote the token
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && !errors.Is(err, errSignature):
		return verified{}, errAlgorithm
	}
	return verified{}, err
}

// issuerKey checks the header against the key that the issuer's DID holds, and
// makes the token be verified with that key's algorithm.
func issuerKey(t *jwt.Token, issuer string) (publicKey, error) {
	if typ, ok := t.Header["typ"]; ok {
		if s, isText := typ.(string); !isText || !strings.EqualFold(s, "JWT") {
			return publicKey{}, errHeader
		}
	}
	if _, ok := t.Header["crit"]; ok { // RFC 7515, 4.1.11: we know no extension
		return publicKey{}, errHeader
	}
	if !strings.HasPrefix(issuer, didKeyPrefix) {
		return publicKey{}, errIssuer
	}
	key, err := parseDIDKey(issuer)
	if err != nil {
		return publicKey{}, fmt.Errorf("%w: %w", errIssuer, err)
	}
	if kid, ok := t.Header["kid"]; ok {
		// A did:key has one method, named after the key. "#atproto" is what signers
		// that know one name for the key of any DID write.
		multibase := strings.TrimPrefix(issuer, didKeyPrefix)
		s, isText := kid.(string)
		if !isText || !slices.Contains([]string{"#" + multibase, issuer + "#" + multibase, "#atproto"}, s) {
			return publicKey{}, errKeyID
		}
	}
	if t.Method.Alg() != key.alg {
		return publicKey{}, errAlgorithm
	}
	t.Method = signingMethod(key.alg)
	return key, nil
}

// checkClaims checks what a token says against what was called, here and now.
func checkClaims(claims jwt.MapClaims, lxm string, audiences []string, now time.Time) (verified, error) {
	issuer, _ := claims["iss"].(string)
	if !ds.IsValidAccount(issuer) {
		return verified{}, fmt.Errorf("iss: %w", errClaim)
	}
	if sub, ok := claims["sub"]; ok && sub != any(issuer) {
		return verified{}, errSubject
	}
	if aud := oneAudience(claims["aud"]); aud == "" || !slices.Contains(audiences, aud) {
		return verified{}, errAudience
	}
	if method, _ := claims["lxm"].(string); method != lxm {
		return verified{}, errMethod
	}
	id, _ := claims["jti"].(string)
	if id == "" || len(id) > tokenIDBytesMax {
		return verified{}, errTokenID
	}
	expires, err := checkTimes(claims, now)
	if err != nil {
		return verified{}, err
	}
	return verified{
		issuer: ds.AccountID(issuer),
		nonce: store.Nonce{
			Hash:      sha256.Sum256([]byte(issuer + "\x00" + id)),
			ExpiresMS: expires.Add(clockSkew).UnixMilli(),
		},
	}, nil
}

// oneAudience is the only audience of a token, or "". A token for several services
// could be used again at each of them by any other, so it is for none.
func oneAudience(aud any) string {
	if list, ok := aud.([]any); ok && len(list) == 1 {
		aud = list[0]
	}
	s, _ := aud.(string)
	return s
}

// checkTimes checks exp, nbf and iat and returns exp. Clocks may differ by
// clockSkew; a token's own iat makes its lifetime exact.
func checkTimes(claims jwt.MapClaims, now time.Time) (time.Time, error) {
	expires, ok, err := timeClaim(claims, "exp")
	if err != nil || !ok {
		return time.Time{}, fmt.Errorf("exp: %w", errClaim)
	}
	issued, hasIssued, err := timeClaim(claims, "iat")
	if err != nil {
		return time.Time{}, err
	}
	begins, hasBegin, err := timeClaim(claims, "nbf")
	if err != nil {
		return time.Time{}, err
	}
	latest := now.Add(tokenLifetimeMax)
	if hasIssued {
		latest = latest.Add(clockSkew)
	}
	switch {
	case !now.Before(expires.Add(clockSkew)):
		return time.Time{}, errExpired
	case expires.After(latest), hasIssued && expires.Sub(issued) > tokenLifetimeMax:
		return time.Time{}, errTooFar
	case hasIssued && issued.After(now.Add(clockSkew)), hasBegin && begins.After(now.Add(clockSkew)):
		return time.Time{}, errNotYet
	}
	return expires, nil
}

// timeClaim reads a NumericDate (RFC 7519, section 2): seconds, which may have a fraction.
func timeClaim(claims jwt.MapClaims, name string) (t time.Time, ok bool, err error) {
	value, ok := claims[name]
	if !ok {
		return time.Time{}, false, nil
	}
	seconds, ok := value.(float64)
	if !ok || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, false, fmt.Errorf("%s: %w", name, errClaim)
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))), true, nil
}

// Signer signs tokens: an account or this service.
type Signer interface {
	// Alg is the algorithm of the key.
	Alg() string
	// Sign returns a signature of content in the form that JOSE wants.
	Sign(content []byte) ([]byte, error)
}

// Claims is what a service token says.
type Claims struct {
	Issuer    string // the DID of the signer
	Audience  string // the DID of the service it is for
	Method    string // lxm: the called method
	ID        string // jti; "" makes a random one
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// SignToken makes a service token. It signs what it is told to, also what no
// service would accept; times are cut to seconds.
func SignToken(key Signer, c Claims) (string, error) {
	if c.ID == "" {
		var random [16]byte
		_, _ = rand.Read(random[:]) // never fails (crypto/rand)
		c.ID = base64.RawURLEncoding.EncodeToString(random[:])
	}
	token, err := jwt.NewWithClaims(signingMethod(key.Alg()), jwt.MapClaims{
		"iss": c.Issuer,
		"aud": c.Audience,
		"lxm": c.Method,
		"jti": c.ID,
		"iat": c.IssuedAt.Unix(),
		"exp": c.ExpiresAt.Unix(),
	}).SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
