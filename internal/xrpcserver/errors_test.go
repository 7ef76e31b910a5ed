package xrpcserver

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
)

// TestSecondsToWait holds what travels through a PDS, the name and the sentence, against
// what an error says of the time to wait.
func TestSecondsToWait(t *testing.T) {
	limited := &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: 17500 * time.Millisecond}
	for _, test := range []struct {
		err     error
		status  int
		name    string
		message string
		seconds int64
	}{
		{limited, 429, xrpc.ErrorRateLimited, "rate limited; try again in 18 s", 18},
		{&ds.Refusal{Code: ds.RateLimited, Message: "rate limited"}, 429, xrpc.ErrorRateLimited, "rate limited; try again in 1 s", 1},
		{limited.Because(ds.TooManyTokens), 429, "RateLimitExceeded", "rate limited; try again in 18 s", 18},
		{ds.Unavailable(errors.New("secret")), 503, xrpc.ErrorUnavailable, "unavailable; try again in 1 s", 1},
		{ds.UnavailableFor(errors.New("secret"), 40*time.Second), 503, xrpc.ErrorUnavailable, "unavailable; try again in 40 s", 40},
		{ds.Refuse(ds.LimitExceeded, "too many"), 429, "LimitExceeded", "too many", 0},
		{ds.Refuse(ds.Forbidden, "no"), 403, xrpc.ErrorForbidden, "no", 0},
		{errors.New("secret"), 500, xrpc.ErrorInternal, "internal error", 0},
	} {
		answer := answerTo(xrpc.SendMessage, test.err)
		body := answer.body()
		if answer.status != test.status || body.Error != test.name || body.Message != test.message || answer.retryAfterS != test.seconds {
			t.Errorf("%v: got %d %+v", test.err, answer.status, body)
		}
		if has := body.RetryAfterSeconds != nil; has != (test.seconds > 0) || has && *body.RetryAfterSeconds != test.seconds {
			t.Errorf("%v: retryAfterSeconds is %v", test.err, body.RetryAfterSeconds)
		}
	}
	onBoth(t, func(t *testing.T, w *world) {
		for range 5 {
			w.call("ann", xrpc.CreateConvo, object{}) // counts, whatever becomes of it
		}
		a := w.call("ann", xrpc.CreateConvo, object{})
		a.refused("429 RateLimited")
		if a.header.Get("Retry-After") == "" || a.status != http.StatusTooManyRequests {
			t.Errorf("%d, Retry-After %q", a.status, a.header.Get("Retry-After"))
		}
	}, func(s *setup) { must(t, s.limits.Set("xrpc_creates=5/1m")) })
}
