package server_test

import (
	"net/http"
	"testing"

	"waxwing.im/waxwing/internal/server"
)

// TestOrigins: pages of any origin may read each answer of the public listener, also those that
// no door gives, and nothing of the listener for operators.
func TestOrigins(t *testing.T) {
	c := server.DefaultConfig(t.TempDir())
	c.OpsListen = "127.0.0.1:0"
	s := start(t, c)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, row := range []struct {
		verb, url string
		status    int
		want      string
	}{
		{"GET", s.URL() + "/", 200, "*"},
		{"GET", s.URL() + "/docs", 307, "*"},
		{"GET", s.URL() + "/lexicons", 307, "*"},
		{"GET", s.URL() + "//v1/conversations", 307, "*"},
		{"GET", s.URL() + "/v1/conversations", 401, "*"},
		{"GET", s.URL() + "/xrpc/com.example.none", 501, "*"},
		{"GET", s.URL() + "/nowhere", 404, "*"},
		{"GET", s.URL() + "/health", 200, "*"},
		{"GET", s.URL() + "/health/ready", 200, "*"},
		{"GET", s.OpsURL() + "/metrics", 200, ""},
		{"GET", s.OpsURL() + "/readyz", 200, ""},
		{"OPTIONS", s.OpsURL() + "/metrics", 405, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), row.verb, row.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "null")
		r.Header.Set("Access-Control-Request-Method", "GET")
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.Header.Get("Access-Control-Allow-Origin"); answer.StatusCode != row.status || got != row.want {
			t.Errorf("%s %s: %d with origins %q, want %d with %q", row.verb, row.url, answer.StatusCode, got, row.status, row.want)
		}
	}
}
