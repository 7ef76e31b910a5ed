package identity

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// The names of refusals in XRPC.
const (
	NameNoToken        = "AuthenticationRequired"
	NameBadToken       = "BadJwt"
	NameExpired        = "JwtExpired"
	NameBadAudience    = "BadJwtAudience"
	NameBadMethod      = "BadJwtLexiconMethod"
	NameBadIssuer      = "BadJwtIss"
	NameBadSignature   = "BadJwtSignature"
	NameReplayed       = "Replay detected"
	NameRateLimited    = "RateLimitExceeded"
	NameInviteRequired = "InviteRequired"
	NameInvalidInvite  = "InvalidInvite"
	NameNotAllowed     = "NotAllowed"
)

// TokenRefusal is a refusal with its name in XRPC. The refusal is its cause, for errors.As and
// ds.CodeOf.
type TokenRefusal struct {
	Name string
	*ds.Refusal
}

func (r *TokenRefusal) Unwrap() error { return r.Refusal }

// messageFuture is the message about a token with an iat or nbf ahead of this server's clock
// by more than clockSkew: the one reason that people can fix by setting a clock.
const messageFuture = "the token is from the future: check the clock of the machine that made it"

// refusalNames maps a reason to refuse a token to its name; any other reason is a bad token.
var refusalNames = []struct {
	reason  error
	name    string
	message string
}{
	{errReplayed, NameReplayed, "Replay detected: the token was used before"},
	{errExpired, NameExpired, "the token has expired"},
	{errAudience, NameBadAudience, "the token is not for this service"},
	{errMethod, NameBadMethod, "the token is not for this method"},
	{errSubject, NameBadIssuer, "the token's sub is not its iss"},
	{errIssuer, NameBadIssuer, "the token's issuer cannot be verified"},
	{errNoKey, NameBadIssuer, "the token's issuer publishes no usable key"},
	{errKeyID, NameBadSignature, "the token's kid names no key of its issuer"},
	{errAlgorithm, NameBadSignature, "the token's alg is not that of its issuer's key"},
	{errSignature, NameBadSignature, "the token's signature does not verify"},
	{errTooFar, NameBadToken, "the token is valid for too long"},
	{errNotYet, NameBadToken, messageFuture},
	{errTokenID, NameBadToken, "the token has no usable jti"},
}

// nameRefusal returns the refusal of a token for the reason err. It does not repeat any content
// of the token.
func nameRefusal(err error) *TokenRefusal {
	for _, named := range refusalNames {
		if errors.Is(err, named.reason) {
			return &TokenRefusal{named.name, &ds.Refusal{Code: ds.Unauthorized, Message: named.message}}
		}
	}
	return &TokenRefusal{NameBadToken, ds.Refuse(ds.Unauthorized, "the token is not a valid service token")}
}

// Proof is a caller that has signed a token for this call.
type Proof struct {
	Account ds.AccountID // the signing DID, which is the only identity: also a peer's
	Hint    string       // the part of iss after a #: a device or a service, unverified
}

// Caller returns the account with one of its devices, "" for none in particular.
func (p Proof) Caller(device ds.DeviceID) ds.Caller {
	return ds.Caller{Account: p.Account, Device: device}
}

// XRPC verifies the caller of an XRPC method by the token that followed "Bearer ", "" if there
// was none, and uses the token up. method is the name in the path; address is the key of limits
// per address, "" for none. The account is admitted if it may be.
//
// An error is a *TokenRefusal (ds.Unauthorized, ds.RateLimited, ds.Forbidden), or a fault,
// after which the token may or may not be used up.
func (a *Authenticator) XRPC(ctx context.Context, bearer, method, address string) (Proof, error) {
	return a.prove(ctx, bearer, call{method: method, address: address, fragments: accountKeys, admits: true})
}

// XRPCPeer does the work of XRPC for methods between delivery services. A service's separate
// signing key is preferred; services are not admitted like accounts, because peers have a
// policy of their own.
func (a *Authenticator) XRPCPeer(ctx context.Context, bearer, method, address string) (Proof, error) {
	return a.prove(ctx, bearer, call{method: method, address: address, fragments: peerKeys})
}

// RedeemInvite does the work of XRPC for the one method that is open to accounts that are not
// admitted: the code is used up together with the token. For an account that is admitted
// already the code stays unused.
func (a *Authenticator) RedeemInvite(ctx context.Context, bearer, method, address, code string) (Proof, error) {
	return a.prove(ctx, bearer, call{method: method, address: address, fragments: accountKeys, admits: true, code: code})
}

var (
	accountKeys = []string{keyAccount}
	peerKeys    = []string{keyService, keyAccount}
)

// call describes the use of a token.
type call struct {
	method, address string
	fragments       []string // of the methods that may sign
	admits          bool
	code            string // of an invite
}

// prove checks in the order of cost: the limits of the address, the claims, the key and its
// signature, and last the database.
func (a *Authenticator) prove(ctx context.Context, bearer string, c call) (Proof, error) {
	if bearer == "" {
		return Proof{}, &TokenRefusal{NameNoToken, ds.Refuse(ds.Unauthorized, "a service token is required")}
	}
	v, err := verifyToken(ctx, bearer, a.expect(c.method, true), &issuers{a: a, fragments: c.fragments, address: c.address, take: func() error {
		if err := a.penalties.check(c.address, a.o.Now()); err != nil {
			return err
		}
		return a.take(limits.AddressCalls, c.address)
	}})
	if err != nil {
		return Proof{}, a.refuseProof(ctx, err, c.address)
	}
	j := &job{nonce: &v.nonce}
	if c.admits {
		if j.admit, err = a.admission(ctx, v.issuer, c.code, c.address); err != nil {
			return Proof{}, withXRPCName(err)
		}
	}
	if err := a.writer.do(ctx, j); err != nil {
		if errors.Is(err, errReplayed) {
			err = &signedRefusal{v.issuer, err}
		}
		return Proof{}, a.refuseProof(ctx, err, c.address)
	}
	a.chargeAccepted(v.issuer)
	if c.admits {
		a.welcome(v.issuer, j.admit)
	}
	return Proof{Account: v.issuer, Hint: v.hint}, nil
}

// welcome records that an account is admitted, after its token was used up.
func (a *Authenticator) welcome(account ds.AccountID, admit *admission) {
	if admit != nil {
		a.admitted.add(account, a.o.Now())
	}
	if a.o.Resolver != nil {
		a.o.Resolver.prove(string(account))
	}
}

// expect describes a token for a method of this service.
func (a *Authenticator) expect(method string, fragments bool) expectation {
	return expectation{method: method, audiences: a.o.Audience(), now: a.o.Now(), fragments: fragments, devSecret: a.o.DevSecret}
}

// refuseProof names the reason of a refusal and charges it. Errors that are not about the token
// are returned unchanged.
func (a *Authenticator) refuseProof(ctx context.Context, err error, address string) error {
	a.chargeRefused(err, address)
	if ds.IsUnavailable(err) {
		return err
	}
	if ds.CodeOf(err) != "" {
		return withXRPCName(err)
	}
	if !isAboutToken(err) {
		return err
	}
	a.o.Logger.DebugContext(ctx, "service token refused", "err", err)
	return nameRefusal(err)
}

// withXRPCName adds the XRPC name to a refusal that is not about the token.
func withXRPCName(err error) error {
	var named *TokenRefusal
	var refusal *ds.Refusal
	if errors.As(err, &named) || !errors.As(err, &refusal) {
		return err
	}
	name := NameRateLimited
	if refusal.Code != ds.RateLimited {
		name = NameBadToken
	}
	return &TokenRefusal{name, refusal}
}
