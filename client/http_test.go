package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// TestAudience: a token is made out to the service at the address that was given, and
// to no other that it names.
func TestAudience(t *testing.T) {
	for _, test := range []struct {
		server, did, expected string
		want                  bool
	}{
		{"https://chat.example", "did:web:chat.example", "", true},
		{"https://Chat.example/", "did:web:chat.example", "", true},
		{"https://chat.example:443", "did:web:chat.example", "", true},
		{"https://chat.example:8443", "did:web:chat.example%3A8443", "", true},
		{"https://chat.example:8443", "did:web:chat.example%3a8443", "", true},
		{"https://chat.example:8443", "did:web:chat.example", "", false},
		{"https://chat.example", "did:web:other.example", "", false},
		{"https://chat.example", "did:web:chat.example.evil", "", false},
		{"https://chat.example", "did:web:chat.example:path", "", false},
		{"https://chat.example", "did:web:localhost%3A8420", "", false},
		{"https://chat.example", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "", false},
		{"https://10.0.0.7", "did:web:chat.example", "did:web:chat.example", true},
		{"https://10.0.0.7", "did:web:other.example", "did:web:chat.example", false},
		{"http://192.168.1.5:8420", "did:web:localhost%3A8420", "", true},
		{"http://192.168.1.5:8420", "did:web:other.example", "did:web:chat.example", false},
	} {
		base, err := url.Parse(test.server)
		if err != nil {
			t.Fatal(err)
		}
		if got := mayHaveDID(base, test.did, test.expected); got != test.want {
			t.Errorf("%s as %s, expected %q: %v", test.server, test.did, test.expected, got)
		}
	}
}

// TestOtherService: a server over https that names another service gets no token.
func TestOtherService(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/did.json" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		_, _ = w.Write([]byte(`{"id":"did:web:other.example"}`))
	}))
	defer server.Close()
	for name, options := range map[string][]Option{"gateway": nil, "XRPC": {WithXRPC()}} {
		account, err := AccountFromSeed([]byte("seed of the tests"), "ann")
		if err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), Options{Dir: t.TempDir(), StorageKey: make([]byte, StorageKeyBytes), Server: server.URL, Account: account,
			HTTPClient: server.Client()}, options...)
		if err != nil {
			t.Fatal(err)
		}
		for {
			state, changed := c.State()
			if errors.Is(state.Err, ErrOtherService) {
				break
			}
			select {
			case <-changed:
			case <-t.Context().Done():
				t.Fatalf("%s: %v", name, state.Err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
