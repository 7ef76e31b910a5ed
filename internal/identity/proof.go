package identity

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// Proof is a caller that has signed a token for this call.
type Proof struct {
	Account ds.AccountID // the signing DID, which is the only identity: also a peer's
	Hint    string       // the part of iss after a #: a device or a service, unverified
}

// Caller returns the account with one of its devices, "" for none in particular.
func (p Proof) Caller(device ds.DeviceID) ds.Caller {
	return ds.Caller{Account: p.Account, Device: device}
}

// Prove verifies the caller of a method by a service token, "" if there was none, and uses the
// token up. address is the key of limits per address, "" for none. The account is admitted if
// it may be.
//
// An error is a refusal (ds.Unauthorized, ds.RateLimited, ds.Forbidden), or a fault, after
// which the token may or may not be used up.
func (a *Authenticator) Prove(ctx context.Context, token, method, address string) (Proof, error) {
	return a.prove(ctx, token, call{method: method, address: address, fragments: accountKeys, admits: true})
}

// ProvePeer does the work of Prove for methods between delivery services. A service's separate
// signing key is preferred; services are not admitted like accounts, because peers have a
// policy of their own.
func (a *Authenticator) ProvePeer(ctx context.Context, token, method, address string) (Proof, error) {
	return a.prove(ctx, token, call{method: method, address: address, fragments: peerKeys})
}

// RedeemInvite does the work of Prove for the one method that is open to accounts that are not
// admitted: the code is used up together with the token. For an account that is admitted
// already the code stays unused.
func (a *Authenticator) RedeemInvite(ctx context.Context, token, method, address, code string) (Proof, error) {
	return a.prove(ctx, token, call{method: method, address: address, fragments: accountKeys, admits: true, code: code})
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
func (a *Authenticator) prove(ctx context.Context, token string, c call) (Proof, error) {
	if token == "" {
		return Proof{}, ds.Refuse(ds.Unauthorized, "a service token is required")
	}
	v, err := verifyToken(ctx, token, a.expect(c.method, true), &issuers{a: a, fragments: c.fragments, address: c.address, take: func() error {
		if err := a.penalties.check(c.address, a.o.Now()); err != nil {
			return err
		}
		return a.take(limits.AddressCalls, c.address)
	}})
	if err != nil {
		a.chargeRefused(err, c.address)
		return Proof{}, a.refuse(ctx, err)
	}
	j := &job{nonce: &v.nonce}
	if c.admits {
		if j.admit, err = a.admission(ctx, v.issuer, c.code, c.address); err != nil {
			return Proof{}, a.refuse(ctx, err)
		}
	}
	if err := a.writer.do(ctx, j); err != nil {
		if errors.Is(err, errReplayed) {
			err = &signedRefusal{v.issuer, err}
		}
		a.chargeRefused(err, c.address)
		return Proof{}, a.refuse(ctx, err)
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
		a.believe(account, a.o.Now())
	}
	if a.o.Resolver != nil {
		a.o.Resolver.prove(string(account))
	}
}

// expect describes a token for a method of this service.
func (a *Authenticator) expect(method string, fragments bool) expectation {
	return expectation{method: method, audiences: a.o.Audience(), now: a.o.Now(), fragments: fragments, devSecret: a.o.DevSecret}
}
