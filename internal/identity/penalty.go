package identity

import (
	"context"
	"errors"
	"runtime"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Many clients may share an address: those of a PDS, a company, a carrier. So what one of them
// does is not charged to the others. Unsigned or forged tokens are counted for the address;
// signed tokens that are refused are counted for the address and the issuer together. An
// address that has sent too many is penalised for a while: its unknown accounts are refused
// before any computation. Accounts that were here before still pass with a token that they have
// signed; as that costs a signature, few are verified at a time for all penalised addresses
// together.

// penalties holds addresses, and issuers at an address, that are refused until a time.
type penalties struct{ memory[time.Time] }

// penaltiesBytesMax bounds the memory of penalties.
const penaltiesBytesMax = 8 << 20

func newPenalties() *penalties { return &penalties{memory[time.Time]{bytesMax: penaltiesBytesMax}} }

// check returns the refusal of a penalised key.
func (p *penalties) check(key string, now time.Time) error {
	if key == "" {
		return nil
	}
	until, ok := p.get(key)
	if !ok {
		return nil
	}
	if !now.Before(until) {
		p.remove(key)
		return nil
	}
	return &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: until.Sub(now)}
}

// ofIssuer returns the key of an issuer at an address.
func ofIssuer(address string, issuer ds.AccountID) string {
	if address == "" {
		return ""
	}
	return address + " " + string(issuer)
}

// ofTokens returns the key of an issuer at any address.
func ofTokens(issuer ds.AccountID) string { return "tokens of " + string(issuer) }

// take counts a call under a limit; calls under "" are not counted.
func (a *Authenticator) take(limit, key string) error {
	if a.o.Limit == nil || key == "" {
		return nil
	}
	return a.o.Limit(limit, key)
}

// penalise counts a call under a limit that penalises its key once it is exceeded.
func (a *Authenticator) penalise(limit, key string) {
	var refusal *ds.Refusal
	if errors.As(a.take(limit, key), &refusal) {
		a.penalties.put(key, a.o.Now().Add(refusal.RetryAfter))
	}
}

// checkIssuer returns the refusal of an issuer for its own earlier calls, here or at this
// address. Only tokens that it has signed are counted for that.
func (a *Authenticator) checkIssuer(address string, issuer ds.AccountID) error {
	now := a.o.Now()
	if err := a.penalties.check(ofTokens(issuer), now); err != nil {
		return err
	}
	return a.penalties.check(ofIssuer(address, issuer), now)
}

// chargeRefused counts a token that was refused for err: for its issuer at the address if the
// issuer signed it, else for the address. A token that could not be verified is not counted.
func (a *Authenticator) chargeRefused(err error, address string) {
	var signed *signedRefusal
	switch {
	case errors.As(err, &signed):
		if signed.issuer != "" {
			a.penalise(limits.AddressBadTokens, ofIssuer(address, signed.issuer))
		}
	case isAboutToken(err):
		a.penalise(limits.AddressBadTokens, address)
	}
}

// chargeSigned is chargeRefused for tokens that count for an issuer only, because every token
// is counted for the address already.
func (a *Authenticator) chargeSigned(err error, address string) {
	var signed *signedRefusal
	if errors.As(err, &signed) {
		a.chargeRefused(err, address)
	}
}

// waitOut makes an issuer that exceeded a limit of its own wait at the address, so that its
// calls meanwhile are not counted for the others there.
func (a *Authenticator) waitOut(err error, address string, issuer ds.AccountID) {
	var refusal *ds.Refusal
	if key := ofIssuer(address, issuer); key != "" && errors.As(err, &refusal) && refusal.Code == ds.RateLimited {
		a.penalties.put(key, a.o.Now().Add(refusal.RetryAfter))
	}
}

// chargeAccepted counts a used token, which has a stored nonce, for its issuer.
func (a *Authenticator) chargeAccepted(issuer ds.AccountID) {
	var refusal *ds.Refusal
	if errors.As(a.take(limits.IssuerTokens, string(issuer)), &refusal) {
		a.penalties.put(ofTokens(issuer), a.o.Now().Add(refusal.RetryAfter))
	}
}

// PassResume decides about a resume from an address that has tried too many. It returns nil for
// a token that belongs to a session, and refused for every other; few are looked up at a time.
func (a *Authenticator) PassResume(ctx context.Context, resumeToken string, refused error) error {
	token, ok := parseSecret(resumePrefix, resumeToken)
	if !ok {
		return refused
	}
	leave, err := a.looks.enter(ctx)
	if err != nil {
		return refused
	}
	defer leave()
	found, err := store.Get(ctx, a.o.Store.Read, func(tx *store.Tx) (map[[32]byte]store.Session, error) {
		return tx.Sessions.ByResume([][32]byte{token.hash(resumePrefix)})
	})
	if err == nil && len(found) == 0 {
		err = refused
	}
	return err
}

// wasHere reports whether the account was admitted once. It queries the database only if the
// account is not in memory, and for few callers at a time; the others get refused.
func (a *Authenticator) wasHere(ctx context.Context, account ds.AccountID, refused error) (bool, error) {
	if a.admitted.isRemembered(account) {
		return true, nil
	}
	leave, err := a.looks.enter(ctx)
	if err != nil {
		return false, refused
	}
	defer leave()
	return store.Get(ctx, a.o.Store.Read, func(tx *store.Tx) (bool, error) { return tx.Admission.Has(account) })
}

// lane lets a few callers at a time through to a costly step that may be wasted, in the order
// in which they arrive.
type lane chan struct{}

const (
	// laneWait bounds the wait for a turn.
	laneWait = time.Second
	// looksMax bounds the concurrent database lookups for penalised addresses.
	looksMax = 8
)

// signaturesMax returns the number of signatures verified at a time for penalised addresses:
// half of the processors are left to all others.
func signaturesMax() int { return max(1, runtime.GOMAXPROCS(0)/2) }

var errLane = errors.New("too many callers wait for a turn")

// enter waits for a turn, which ends with leave.
func (l lane) enter(ctx context.Context) (leave func(), err error) {
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	default:
	}
	late := time.NewTimer(laneWait)
	defer late.Stop()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ds.Unavailable(ctx.Err())
	case <-late.C:
		return nil, ds.Unavailable(errLane)
	}
}
