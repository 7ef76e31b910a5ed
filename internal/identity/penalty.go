package identity

import (
	"context"
	"errors"
	"runtime"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// An address may be many people's: those behind a PDS, a company, a carrier. So what one
// of them does is not charged to the others. Tokens that nobody has signed count for the
// address; tokens that somebody has signed and that are refused count for the address and
// the issuer together. An address that has sent too many is penalised for a while: its
// strangers are refused before anything is computed for them. Accounts that were here
// before still pass with a token that they have signed; as that costs a signature, few are
// verified at a time for all penalised addresses together.

// penalties are addresses, and issuers at an address, that are refused until a time.
type penalties struct{ memory[time.Time] }

// penaltiesBytesMax bounds what is remembered of them.
const penaltiesBytesMax = 8 << 20

func newPenalties() *penalties { return &penalties{memory[time.Time]{bytesMax: penaltiesBytesMax}} }

// check returns the refusal of a key that is penalised.
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

// ofIssuer is the key of an issuer at an address.
func ofIssuer(address string, issuer ds.AccountID) string {
	if address == "" {
		return ""
	}
	return address + " " + string(issuer)
}

// ofTokens is the key of an issuer wherever it is.
func ofTokens(issuer ds.AccountID) string { return "tokens of " + string(issuer) }

// take counts a call under a limit; nobody is counted under "".
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

// checkIssuer returns the refusal of an issuer for what it has done itself, here or at
// this address. Only tokens that it has signed count for that.
func (a *Authenticator) checkIssuer(address string, issuer ds.AccountID) error {
	now := a.o.Now()
	if err := a.penalties.check(ofTokens(issuer), now); err != nil {
		return err
	}
	return a.penalties.check(ofIssuer(address, issuer), now)
}

// chargeRefused counts a token that was refused for err: for its issuer at the address if
// that has signed it, for the address if nobody has. What could not be verified counts for
// nobody.
func (a *Authenticator) chargeRefused(err error, address string) {
	var signed *signedRefusal
	switch {
	case errors.As(err, &signed):
		if signed.issuer != "" {
			a.penalise(LimitAddressBadTokens, ofIssuer(address, signed.issuer))
		}
	case isAboutToken(err):
		a.penalise(LimitAddressBadTokens, address)
	}
}

// chargeSigned is chargeRefused for what counts for an issuer only, where every token
// counts for the address already.
func (a *Authenticator) chargeSigned(err error, address string) {
	var signed *signedRefusal
	if errors.As(err, &signed) {
		a.chargeRefused(err, address)
	}
}

// waitOut makes an issuer that a limit of its own has refused wait at the address, so that
// what it does meanwhile does not count for the others there.
func (a *Authenticator) waitOut(err error, address string, issuer ds.AccountID) {
	var refusal *ds.Refusal
	if key := ofIssuer(address, issuer); key != "" && errors.As(err, &refusal) && refusal.Code == ds.RateLimited {
		a.penalties.put(key, a.o.Now().Add(refusal.RetryAfter))
	}
}

// chargeAccepted counts a token that was used up, whose nonce is kept, for its issuer.
func (a *Authenticator) chargeAccepted(issuer ds.AccountID) {
	var refusal *ds.Refusal
	if errors.As(a.take(LimitIssuerTokens, string(issuer)), &refusal) {
		a.penalties.put(ofTokens(issuer), a.o.Now().Add(refusal.RetryAfter))
	}
}

// PassResume is asked about a resume from an address that has tried too many. It returns
// nil for a token that some session has, and refused for every other; few are looked up at
// a time.
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
	var found map[[32]byte]store.Session
	err = a.o.Store.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.SessionsByResume([][32]byte{token.hash(resumePrefix)})
		return err
	})
	if err == nil && len(found) == 0 {
		err = refused
	}
	return err
}

// wasHere reports whether the account was admitted once. It asks the database only if
// nothing is remembered of the account, and for few callers at a time; refused is the
// answer for those who find no turn.
func (a *Authenticator) wasHere(ctx context.Context, account ds.AccountID, refused error) (bool, error) {
	if a.admitted.isRemembered(account) {
		return true, nil
	}
	leave, err := a.looks.enter(ctx)
	if err != nil {
		return false, refused
	}
	defer leave()
	var isAdmitted bool
	err = a.o.Store.Read(ctx, func(tx *store.Tx) (err error) {
		isAdmitted, err = tx.IsAdmitted(account)
		return err
	})
	return isAdmitted, err
}

// lane lets few at a time do what costs something for those who may not be worth it, in
// the order in which they come.
type lane chan struct{}

const (
	// laneWait bounds the wait for a turn.
	laneWait = time.Second
	// looksMax bounds the looks at the database under way for penalised addresses.
	looksMax = 8
)

// signaturesMax bounds the signatures that are verified at a time for penalised addresses:
// half of the processors are left to everybody else.
func signaturesMax() int { return max(1, runtime.GOMAXPROCS(0)/2) }

var errLane = errors.New("too many wait for their turn")

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
