package identity

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
)

// tokenError is a reason to refuse a token, with its own words for the debug log. Neither they
// nor the message for the caller repeat any content of the token.
type tokenError struct {
	text    string
	reason  ds.Reason
	message string
}

func (e *tokenError) Error() string { return e.text }

// The reasons to refuse a token.
var (
	errMalformed     = badToken("not a signed token in compact form")
	errTooLong       = badToken("token is too long")
	errHeader        = badToken("header is not that of a service token")
	errClaim         = badToken("claim is missing or of a wrong type")
	errUnknownMethod = badToken("the call has no method")

	errKeyID     = &tokenError{"kid names no key of the issuer", ds.BadSignature, "the token's kid names no key of its issuer"}
	errAlgorithm = &tokenError{"alg is not the one of the issuer's key", ds.BadSignature, "the token's alg is not that of its issuer's key"}
	errSignature = &tokenError{"signature does not verify", ds.BadSignature, "the token's signature does not verify"}
	errSubject   = &tokenError{"sub is not the issuer", ds.BadIssuer, "the token's sub is not its iss"}
	errIssuer    = &tokenError{"issuer cannot sign tokens here", ds.BadIssuer, "the token's issuer cannot be verified"}
	errNoKey     = &tokenError{"the document has no key for this", ds.BadIssuer, "the token's issuer publishes no usable key"}
	errAudience  = &tokenError{"aud is not this service", ds.BadAudience, "the token is not for this service"}
	errMethod    = &tokenError{"lxm is not the called method", ds.BadMethod, "the token is not for this method"}
	errTokenID   = &tokenError{"jti is missing, empty or too long", ds.BadToken, "the token has no usable jti"}
	errExpired   = &tokenError{"expired", ds.TokenExpired, "the token has expired"}
	errTooFar    = &tokenError{"valid for too long", ds.BadToken, "the token is valid for too long"}
	errReplayed  = &tokenError{"used before", ds.TokenReplayed, "Replay detected: the token was used before"}
	// errNotYet is about a token with an iat or nbf ahead of this server's clock by more than
	// clockSkew: the one reason that people can fix by setting a clock.
	errNotYet = &tokenError{"iat or nbf is in the future", ds.TokenNotYet, "the token is from the future: check the clock of the machine that made it"}
)

func badToken(text string) *tokenError {
	return &tokenError{text, ds.BadToken, "the token is not a valid service token"}
}

// isAboutToken reports whether err is a reason to refuse a token, and not a limit or a fault.
func isAboutToken(err error) bool {
	_, ok := errors.AsType[*tokenError](err)
	return ok
}

// signedRefusal is the refusal of a token that its issuer has signed, so that only the issuer
// is charged. No issuer means that the signature could not be verified.
type signedRefusal struct {
	issuer ds.AccountID
	reason error
}

func (r *signedRefusal) Error() string { return r.reason.Error() }

func (r *signedRefusal) Unwrap() error { return r.reason }

// refuse turns an error about a token or about the rate of tokens into a refusal with its
// reason. Other errors are returned unchanged.
func (a *Authenticator) refuse(ctx context.Context, err error) error {
	if ds.IsUnavailable(err) {
		return err
	}
	if limit, ok := errors.AsType[*ds.Refusal](err); ok {
		if limit.Code == ds.RateLimited {
			return limit.Because(ds.TooManyTokens)
		}
		return err
	}
	about, ok := errors.AsType[*tokenError](err)
	if !ok {
		return err
	}
	if about == errReplayed {
		a.replays.Inc()
	}
	a.o.Logger.DebugContext(ctx, "service token refused", "err", err)
	return ds.Refuse(ds.Unauthorized, "%s", about.message).Because(about.reason)
}
