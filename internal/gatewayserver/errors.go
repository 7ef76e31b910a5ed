package gatewayserver

import (
	"errors"
	"net/http"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
)

// codes maps each code of a refusal to its name on the wire and its HTTP status.
var codes = map[ds.Code]struct {
	status int
	code   gateway.Code
}{
	ds.InvalidRequest:       {http.StatusBadRequest, gateway.CodeInvalidRequest},
	ds.Unauthorized:         {http.StatusUnauthorized, gateway.CodeUnauthorized},
	ds.ResumeFailed:         {http.StatusUnauthorized, gateway.CodeResumeFailed},
	ds.Forbidden:            {http.StatusForbidden, gateway.CodeForbidden},
	ds.NotFound:             {http.StatusNotFound, gateway.CodeNotFound},
	ds.EpochConflict:        {http.StatusConflict, gateway.CodeEpochConflict},
	ds.ReplayWindowExceeded: {http.StatusGone, gateway.CodeReplayWindowExceeded},
	ds.LogRewound:           {http.StatusGone, gateway.CodeLogRewound},
	ds.RateLimited:          {http.StatusTooManyRequests, gateway.CodeRateLimited},
	ds.LimitExceeded:        {http.StatusTooManyRequests, gateway.CodeLimitExceeded},
}

// answerTo returns the wire form of err: a refusal, `unavailable`, or an internal error.
func answerTo(err error) (status int, body *gateway.Error) {
	var refusal *ds.Refusal
	switch {
	case errors.As(err, &refusal):
		return refused(refusal)
	case ds.IsUnavailable(err):
		return http.StatusServiceUnavailable, &gateway.Error{
			Code: gateway.CodeUnavailable, Message: "try again", RetryAfterS: number(ds.RetryAfterSeconds(err))}
	}
	return http.StatusInternalServerError, &gateway.Error{Code: gateway.CodeInternal, Message: "internal error"}
}

func refused(r *ds.Refusal) (status int, body *gateway.Error) {
	known, ok := codes[r.Code]
	if !ok {
		return http.StatusInternalServerError, &gateway.Error{Code: gateway.CodeInternal, Message: "internal error"}
	}
	body = &gateway.Error{Code: known.code, Message: r.Message}
	switch r.Code {
	case ds.RateLimited:
		body.RetryAfterS = number(ds.RetryAfterSeconds(r))
	case ds.LimitExceeded:
		body.RetryAfterS = number(0)
	case ds.EpochConflict:
		body.CurrentEpoch = number(r.CurrentEpoch)
	case ds.ReplayWindowExceeded, ds.LogRewound:
		body.RequestedFromSeq = number(r.RequestedSeq)
		body.EarliestSeq = number(r.EarliestSeq)
		body.LatestSeq = number(r.LatestSeq)
	}
	if r.HasIndex {
		body.Index = number(int64(r.Index))
	}
	return known.status, body
}

// isFault reports whether err is a fault of this service, to be logged.
func isFault(err error) bool { return err != nil && ds.CodeOf(err) == "" }

// invalid turns an error of the wire types into the refusal that a client is shown.
func invalid(err error) error {
	return ds.Refuse(ds.InvalidRequest, "%s", err)
}

func number(n int64) *int64 { return &n }
