package xrpcserver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
)

// TestOneAddressOfMany: behind a PDS, bad calls of one account under the published limits
// exclude neither known accounts nor new ones; unsigned calls exclude new ones only.
func TestOneAddressOfMany(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		call := func(token string) (int, string) {
			r := httptest.NewRequest(http.MethodGet, "/xrpc/"+xrpc.GetConvos, nil)
			r.RemoteAddr = "192.0.2.1:1"
			r.Header.Set("Authorization", "Bearer "+token)
			answer := httptest.NewRecorder()
			w.server.ServeHTTP(answer, r)
			return answer.Code, answer.Body.String()
		}
		expect := func(name string, want int) {
			t.Helper()
			if status, body := call(w.token(name, xrpc.GetConvos)); status != want {
				t.Errorf("%s: %d %s", name, status, body)
			}
		}
		bad := func(change func(*identity.Claims)) string {
			eve := w.key("eve")
			c := identity.Claims{Issuer: eve.DID(), Audience: testDID, Method: xrpc.GetConvos, IssuedAt: w.now(), ExpiresAt: w.now().Add(time.Minute)}
			change(&c)
			token, err := identity.SignToken(eve, c)
			must(t, err)
			return token
		}
		expect("ann", http.StatusOK)
		for range 121 {
			call(bad(func(c *identity.Claims) { c.Audience = "did:web:other.net" }))
			call(bad(func(c *identity.Claims) { c.Method = xrpc.GetMessages }))
			call(bad(func(c *identity.Claims) {
				c.IssuedAt, c.ExpiresAt = w.now().Add(-time.Hour), w.now().Add(-59*time.Minute)
			}))
		}
		expect("eve", http.StatusTooManyRequests)
		expect("ann", http.StatusOK)
		expect("ben", http.StatusOK)
		for range 122 {
			token := w.token("ann", xrpc.GetConvos)
			call(token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 86))
		}
		expect("cid", http.StatusTooManyRequests)
		expect("ann", http.StatusOK)
		expect("ben", http.StatusOK)
	}, func(s *setup) { must(t, s.limits.Set(limits.AddressBadTokens+"=120/1m")) })
}
