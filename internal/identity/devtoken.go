package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Development mode also accepts tokens of test harnesses, which share a secret with the server
// and can claim any identity. They require Options.DevSecret, which the configuration refuses
// outside --dev.
const (
	algDev              = "HS256"
	devAudience         = "did:web:localhost"
	devTokenLifetimeMax = 2 * time.Hour
)

// verifyDevToken checks an HS256 token by the rules of a service token, but for any issuer,
// with a longer life, with lxm only if it is present, and also for localhost.
func verifyDevToken(u unverified, want expectation) (verified, error) {
	want.audiences = append(slices.Clone(want.audiences), devAudience)
	v, err := checkIssuer(u.claims, want)
	if err != nil {
		return verified{}, err
	}
	if u.keyless != nil {
		return verified{}, u.keyless
	}
	if !slices.Contains(want.audiences, oneAudience(u.claims["aud"])) {
		return verified{}, errAudience
	}
	if lxm, ok := u.claims["lxm"]; ok && lxm != any(want.method) {
		return verified{}, errMethod
	}
	id, _ := u.claims["jti"].(string)
	if id == "" || len(id) > tokenIDBytesMax {
		return verified{}, errTokenID
	}
	expires, err := checkTimes(u.claims, want.now, devTokenLifetimeMax)
	if err != nil {
		return verified{}, err
	}
	mac := hmac.New(sha256.New, want.devSecret)
	mac.Write([]byte(u.signed))
	if !hmac.Equal(mac.Sum(nil), u.sig) {
		return verified{}, errSignature
	}
	if !ds.IsValidAccount(string(v.issuer)) {
		return verified{}, errClaim
	}
	v.nonce = store.Nonce{
		Hash:      sha256.Sum256([]byte(string(v.issuer) + "\x00" + id)),
		ExpiresMS: expires.Add(clockSkew).UnixMilli(),
	}
	return v, nil
}
