package identity

import (
	"cmp"
	"context"
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

// Bounds of service tokens.
const (
	tokenBytesMax    = 8 << 10
	tokenIDBytesMax  = 128
	tokenLifetimeMax = 5 * time.Minute
	clockSkew        = 30 * time.Second
)

// signingMethod is a JOSE algorithm over our keys. golang-jwt has no ES256K, and its own ES256
// signs with either value of s.
type signingMethod string

func (m signingMethod) Alg() string { return string(m) }

// Verify is not used: tokens are verified by their issuer's key, which knows its algorithm
// (unverified.verify).
func (m signingMethod) Verify(string, []byte, any) error { return errAlgorithm }

func (m signingMethod) Sign(signing string, key any) ([]byte, error) {
	k, ok := key.(Signer)
	if !ok || k.Alg() != string(m) {
		return nil, errAlgorithm
	}
	return k.Sign([]byte(signing))
}

func init() {
	// The parser looks names up in a table of the whole process, which lacks this one.
	jwt.RegisterSigningMethod(ES256K, func() jwt.SigningMethod { return signingMethod(ES256K) })
}

// verified holds the verified content of a token.
type verified struct {
	issuer ds.AccountID // without a fragment
	hint   string       // the fragment of iss
	nonce  store.Nonce
}

// expectation describes the tokens that a call accepts.
type expectation struct {
	method    string // lxm
	audiences []string
	now       time.Time
	// fragments lets iss name a device or a service after a #. It proves nothing: the signer is
	// the DID before it.
	fragments bool
	// devSecret, if set, verifies HS256 tokens; see checkDevClaims.
	devSecret []byte
}

// unverified is a token of which only the form was checked.
type unverified struct {
	alg     string
	kid     string
	signed  string // the signed content
	sig     []byte
	claims  jwt.MapClaims
	keyless error // the fault of the header, reported after the claims
}

// parseToken reads a token without verifying its content.
func parseToken(token string) (unverified, error) {
	if len(token) > tokenBytesMax {
		return unverified{}, errTooLong
	}
	// Go's base64 skips line breaks, which would give one token many spellings.
	if strings.ContainsAny(token, "\r\n") {
		return unverified{}, errMalformed
	}
	parser := jwt.NewParser(jwt.WithStrictDecoding())
	claims := jwt.MapClaims{}
	t, parts, err := parser.ParseUnverified(token, claims)
	switch {
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return unverified{}, errAlgorithm
	case err != nil || len(parts) != 3:
		return unverified{}, errMalformed // its own error may quote the token
	}
	u := unverified{alg: t.Method.Alg(), signed: parts[0] + "." + parts[1], claims: claims}
	if u.sig, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return unverified{}, errMalformed
	}
	if typ, ok := t.Header["typ"]; ok {
		if s, isText := typ.(string); !isText || !strings.EqualFold(s, "JWT") {
			u.keyless = errHeader
		}
	}
	if _, ok := t.Header["crit"]; ok { // RFC 7515, 4.1.11: no extension is supported
		u.keyless = errHeader
	}
	if kid, ok := t.Header["kid"]; ok {
		if u.kid, ok = kid.(string); !ok || u.kid == "" || len(u.kid) > documentIDMax {
			u.keyless = cmp.Or[error](u.keyless, errKeyID)
		}
	}
	return u, nil
}

// keyring decides which tokens are verified, and verifies them with the keys of their issuers.
type keyring interface {
	// count counts a token that names no issuer; its error refuses the token.
	count() error
	// begin is called before any costly step for a token that names an issuer. reason is the
	// fault of its claims. Its error refuses the token.
	begin(ctx context.Context, issuer ds.AccountID, reason error) error
	// verify checks the signature with the issuer's key.
	verify(ctx context.Context, u unverified, issuer string) error
}

// verifyToken checks everything about a service token except that it is used for the first
// time. The cheap checks come first. A token that they refuse is verified nevertheless, because
// its signer is charged for it.
func verifyToken(ctx context.Context, token string, want expectation, keys keyring) (verified, error) {
	u, v, reason := readToken(token, want)
	if v.issuer == "" {
		if penalty := keys.count(); penalty != nil {
			return verified{}, penalty
		}
		return verified{}, reason
	}
	if err := keys.begin(ctx, v.issuer, reason); err != nil {
		return verified{}, err
	}
	if u.alg == algDev && len(want.devSecret) > 0 {
		return verifyDevToken(u, want)
	}
	err := keys.verify(ctx, u, string(v.issuer))
	switch {
	case reason == nil && err == nil:
		return v, nil
	case reason == nil:
		return verified{}, err
	case err == nil:
		return verified{}, &signedRefusal{v.issuer, reason}
	case !isAboutToken(err):
		return verified{}, &signedRefusal{"", reason}
	}
	return verified{}, reason
}

// readToken reads a token and checks its claims. It returns the issuer that it names with the
// reason to refuse it, or no issuer if none can have signed it.
func readToken(token string, want expectation) (unverified, verified, error) {
	if want.method == "" {
		return unverified{}, verified{}, errUnknownMethod
	}
	u, err := parseToken(token)
	if err != nil {
		return unverified{}, verified{}, err
	}
	if u.alg == algDev && len(want.devSecret) > 0 {
		v, err := checkIssuer(u.claims, want)
		return u, v, err
	}
	if !slices.Contains(Algorithms, u.alg) {
		return unverified{}, verified{}, errAlgorithm
	}
	v, err := checkClaims(u.claims, want)
	if err == nil {
		err = u.keyless
	}
	return u, v, err
}

// verify checks the signature. The key determines the algorithm.
func (u unverified) verify(key publicKey) error {
	if u.alg != key.alg {
		return errAlgorithm
	}
	if key.verify([]byte(u.signed), u.sig) != nil {
		return errSignature
	}
	return nil
}

// checkClaims checks the content of a token against the call, this service and the time. It
// returns the issuer, if the token names one, also with an error.
func checkClaims(claims jwt.MapClaims, want expectation) (verified, error) {
	v, err := checkIssuer(claims, want)
	if err != nil {
		return v, err
	}
	if aud := oneAudience(claims["aud"]); aud == "" || !slices.Contains(want.audiences, aud) {
		return v, errAudience
	}
	if method, _ := claims["lxm"].(string); method != want.method {
		return v, errMethod
	}
	id, _ := claims["jti"].(string)
	if id == "" || len(id) > tokenIDBytesMax {
		return v, errTokenID
	}
	expires, err := checkTimes(claims, want.now, tokenLifetimeMax)
	if err != nil {
		return v, err
	}
	v.nonce = store.Nonce{
		Hash:      sha256.Sum256([]byte(string(v.issuer) + "\x00" + id)),
		ExpiresMS: expires.Add(clockSkew).UnixMilli(),
	}
	return v, nil
}

// checkIssuer returns the issuer that claims to have signed, also if sub names another account.
func checkIssuer(claims jwt.MapClaims, want expectation) (verified, error) {
	full, _ := claims["iss"].(string)
	if !ds.IsValidAccount(full) {
		return verified{}, fmt.Errorf("iss: %w", errClaim)
	}
	issuer, hint, hasHint := strings.Cut(full, "#")
	if hasHint && (!want.fragments || issuer == "" || hint == "" || strings.Contains(hint, "#")) {
		return verified{}, errIssuer
	}
	v := verified{issuer: ds.AccountID(issuer), hint: hint}
	if sub, ok := claims["sub"]; ok && sub != any(full) && sub != any(issuer) {
		return v, errSubject
	}
	return v, nil
}

// oneAudience returns the only audience of a token, or "". A token for several services could
// be used again at each of them by any other, so it is valid for none.
func oneAudience(aud any) string {
	if list, ok := aud.([]any); ok && len(list) == 1 {
		aud = list[0]
	}
	s, _ := aud.(string)
	return s
}

// checkTimes checks exp, nbf and iat and returns exp. Clocks may differ by clockSkew; a token's
// own iat makes its lifetime exact.
func checkTimes(claims jwt.MapClaims, now time.Time, lifetimeMax time.Duration) (time.Time, error) {
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
	latest := now.Add(lifetimeMax)
	if hasIssued {
		latest = latest.Add(clockSkew)
	}
	switch {
	case !now.Before(expires.Add(clockSkew)):
		return time.Time{}, errExpired
	case hasIssued && issued.After(now.Add(clockSkew)), hasBegin && begins.After(now.Add(clockSkew)):
		return time.Time{}, errNotYet // before errTooFar: a fast clock causes both
	case expires.After(latest), hasIssued && expires.Sub(issued) > lifetimeMax:
		return time.Time{}, errTooFar
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
	// Alg returns the algorithm of the key.
	Alg() string
	// Sign returns a signature of content in the form of JOSE.
	Sign(content []byte) ([]byte, error)
}

// Claims holds the claims of a service token.
type Claims struct {
	Issuer    string // the DID of the signer
	Audience  string // the DID of the service it is for
	Method    string // lxm: the called method
	ID        string // jti; "" makes a random one
	KeyID     string // kid: a fragment of the signer's document; "" for none
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// SignToken makes a service token. It signs any claims, including those that no service would
// accept; times are truncated to seconds.
func SignToken(key Signer, c Claims) (string, error) {
	if c.ID == "" {
		var random [16]byte
		_, _ = rand.Read(random[:]) // never fails (crypto/rand)
		c.ID = base64.RawURLEncoding.EncodeToString(random[:])
	}
	t := jwt.NewWithClaims(signingMethod(key.Alg()), jwt.MapClaims{
		"iss": c.Issuer,
		"aud": c.Audience,
		"lxm": c.Method,
		"jti": c.ID,
		"iat": c.IssuedAt.Unix(),
		"exp": c.ExpiresAt.Unix(),
	})
	if c.KeyID != "" {
		t.Header["kid"] = c.KeyID
	}
	token, err := t.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
