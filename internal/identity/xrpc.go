package identity

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
)

// The limits of this package, by their names on the command line. Options.Limit
// counts them; addresses are what the doors count requests under, "" is not counted.
const (
	LimitAddressCalls     = "address_xrpc_calls"     // calls with a token, good or not
	LimitAddressBadTokens = "address_bad_tokens"     // tokens that were refused, by who is charged for them
	LimitAddressStarts    = "address_session_starts" // sessions started, or tried to
	LimitAddressSessions  = "address_bad_sessions"   // session tokens that were nobody's
	LimitAddressLookups   = "address_did_lookups"    // documents that a token made us fetch
	LimitFirstContacts    = "address_first_contacts" // accounts that were not here before
	LimitIssuerTokens     = "issuer_tokens"          // tokens of one issuer that were used up
)

// The names of refusals, as XRPC says them.
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

// TokenRefusal is a refusal with its name in XRPC. The refusal is its cause, for
// errors.As and ds.CodeOf.
type TokenRefusal struct {
	Name string
	*ds.Refusal
}

func (r *TokenRefusal) Unwrap() error { return r.Refusal }

// messageFuture is the sentence about a token whose iat or nbf is ahead of this server's
// clock by more than clockSkew: the one reason that people mend by setting a clock.
const messageFuture = "the token is from the future: check the clock of the machine that made it"

// refusalNames says how a reason to refuse a token is named; what is not listed is a
// bad token.
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

// nameRefusal is the answer to a token that is not good, for the reason err. Nothing
// that the token says is repeated.
func nameRefusal(err error) *TokenRefusal {
	for _, named := range refusalNames {
		if errors.Is(err, named.reason) {
			return &TokenRefusal{named.name, &ds.Refusal{Code: ds.Unauthorized, Message: named.message}}
		}
	}
	return &TokenRefusal{NameBadToken, ds.Refuse(ds.Unauthorized, "the token is not a valid service token")}
}

// Proof is a caller who has signed a token for this call.
type Proof struct {
	Account ds.AccountID // the DID that signed, which is the only identity: also a peer's
	Hint    string       // what iss had after a #: a device or a service, unproven
}

// Caller is the account with one of its devices, "" for none in particular.
func (p Proof) Caller(device ds.DeviceID) ds.Caller {
	return ds.Caller{Account: p.Account, Device: device}
}

// XRPC proves the caller of an XRPC method with the token that followed "Bearer ", "" if
// there was none, and uses the token up. method is the name in the path; address is
// what limits per address count, "" for none. The account is admitted if it may be.
//
// An error is a *TokenRefusal (ds.Unauthorized, ds.RateLimited, ds.Forbidden), or a
// fault, after which the token may or may not be used up.
func (a *Authenticator) XRPC(ctx context.Context, bearer, method, address string) (Proof, error) {
	return a.prove(ctx, bearer, call{method: method, address: address, fragments: accountKeys, admits: true})
}

// XRPCPeer is XRPC for methods between delivery services. A key that a service has
// for that is preferred; services are not admitted like accounts, for peers have a
// policy of their own.
func (a *Authenticator) XRPCPeer(ctx context.Context, bearer, method, address string) (Proof, error) {
	return a.prove(ctx, bearer, call{method: method, address: address, fragments: peerKeys})
}

// RedeemInvite is XRPC for the one method that is open to accounts that are not
// admitted: the code is used up together with the token. For an account that is
// admitted already the code stays unused.
func (a *Authenticator) RedeemInvite(ctx context.Context, bearer, method, address, code string) (Proof, error) {
	return a.prove(ctx, bearer, call{method: method, address: address, fragments: accountKeys, admits: true, code: code})
}

var (
	accountKeys = []string{keyAccount}
	peerKeys    = []string{keyService, keyAccount}
)

// call is what a token is presented for.
type call struct {
	method, address string
	fragments       []string // of the methods that sign here
	admits          bool
	code            string // of an invite
}

// prove checks in the order of cost: what an address may still do, the claims, the
// key and its signature, and last the database.
func (a *Authenticator) prove(ctx context.Context, bearer string, c call) (Proof, error) {
	if bearer == "" {
		return Proof{}, &TokenRefusal{NameNoToken, ds.Refuse(ds.Unauthorized, "a service token is required")}
	}
	v, err := verifyToken(ctx, bearer, a.expect(c.method, true), &issuers{a: a, fragments: c.fragments, address: c.address, take: func() error {
		if err := a.penalties.check(c.address, a.o.Now()); err != nil {
			return err
		}
		return a.take(LimitAddressCalls, c.address)
	}})
	if err != nil {
		return Proof{}, a.refuseProof(ctx, err, c.address)
	}
	j := &job{nonce: &v.nonce}
	if c.admits {
		if j.admit, err = a.admission(ctx, v.issuer, c.code, c.address); err != nil {
			return Proof{}, limited(err)
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

// welcome notes that an account is admitted, whose token was used up.
func (a *Authenticator) welcome(account ds.AccountID, admit *admission) {
	if admit != nil {
		a.admitted.add(account, a.o.Now())
	}
	if a.o.Resolver != nil {
		a.o.Resolver.prove(string(account))
	}
}

// expect is what a token for a method of this service must be.
func (a *Authenticator) expect(method string, fragments bool) expectation {
	return expectation{method: method, audiences: a.o.Audience(), now: a.o.Now(), fragments: fragments, devSecret: a.o.DevSecret}
}

// refuseProof names the reason of a refusal and charges it. What is not about the token
// stays what it is.
func (a *Authenticator) refuseProof(ctx context.Context, err error, address string) error {
	a.chargeRefused(err, address)
	if ds.IsUnavailable(err) {
		return err
	}
	if ds.CodeOf(err) != "" {
		return limited(err)
	}
	if !isAboutToken(err) {
		return err
	}
	a.o.Logger.DebugContext(ctx, "service token refused", "err", err)
	return nameRefusal(err)
}

// limited gives a refusal that is not about the token its name.
func limited(err error) error {
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
