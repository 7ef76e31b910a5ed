package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/netguard"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
)

// TestAccountsOfADirectory: a did:plc account signs in through a running server, which
// asks only the directory, once; hosts that strangers name are not called.
func TestAccountsOfADirectory(t *testing.T) {
	const ann = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	key, err := identity.DeriveAccountKey([]byte("test seed"), "ann", identity.ES256K)
	if err != nil {
		t.Fatal(err)
	}
	fetched := make(chan string, 100)
	directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched <- r.URL.Path
		if r.URL.Path != "/"+ann {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"id":%q,"verificationMethod":[{"id":%q,"type":"Multikey","controller":%q,"publicKeyMultibase":%q}]}`,
			ann, ann+"#atproto", ann, strings.TrimPrefix(key.DID(), "did:key:"))
	}))
	defer directory.Close()
	var mu sync.Mutex
	var dialled []netguard.Dial
	c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
	c.Dev, c.EgressLoopback, c.PLCDirectory = true, true, directory.URL
	c.OnDial = func(d netguard.Dial) {
		mu.Lock()
		defer mu.Unlock()
		dialled = append(dialled, d)
	}
	s := start(t, c)
	for range 3 {
		if status, _ := postSession(t, s, key, ann, ""); status != http.StatusOK {
			t.Errorf("%s: %d", ann, status)
		}
	}
	for _, stranger := range []string{"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "did:web:169.254.169.254", "did:web:10.0.0.1", "did:web:metadata.google.internal",
		"did:web:db", "did:web:2130706433", "did:web:0x7f.1", "did:ion:x", ann + "#device"} {
		if status, _ := postSession(t, s, key, stranger, ""); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", stranger, status)
		}
	}
	if got := len(fetched); got != 2 || <-fetched != "/"+ann {
		t.Errorf("%d fetches", got)
	}
	mu.Lock()
	defer mu.Unlock()
	address := strings.TrimPrefix(directory.URL, "http://")
	for _, d := range dialled {
		if d.Refused || d.Address.String() != address {
			t.Errorf("dialled %v", d)
		}
	}
	if len(dialled) == 0 {
		t.Error("nothing was dialled: the hook is not connected")
	}
}

// TestDirectoryIsAwayAtBothDoors: an account that was here before gets in while the
// directory of did:plc is away, also after a restart; a stranger is told when to try again.
func TestDirectoryIsAwayAtBothDoors(t *testing.T) {
	databases := map[string]func(t *testing.T, c *server.Config){
		"sqlite":   func(*testing.T, *server.Config) {},
		"postgres": func(t *testing.T, c *server.Config) { c.Database = pgtest.URL(t) },
	}
	for name, choose := range databases {
		t.Run(name, func(t *testing.T) {
			const ann, bob = "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
			key, err := identity.DeriveAccountKey([]byte("test seed"), "ann", identity.ES256K)
			if err != nil {
				t.Fatal(err)
			}
			var isAway atomic.Bool
			directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isAway.Load() {
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				did := strings.TrimPrefix(r.URL.Path, "/")
				fmt.Fprintf(w, `{"id":%q,"verificationMethod":[{"id":%q,"type":"Multikey","controller":%q,"publicKeyMultibase":%q}]}`,
					did, did+"#atproto", did, strings.TrimPrefix(key.DID(), "did:key:"))
			}))
			defer directory.Close()
			c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
			c.Dev, c.EgressLoopback, c.PLCDirectory = true, true, directory.URL
			choose(t, &c)
			s := start(t, c)
			if status, answer := postSession(t, s, key, ann, ""); status != http.StatusOK {
				t.Fatal(status, answer)
			}
			isAway.Store(true)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = start(t, c)
			if status, answer := postSession(t, s, key, ann, ""); status != http.StatusOK {
				t.Errorf("an account that was here before: %d %v", status, answer)
			}
			if status, answer := callAs(t, s, key, ann); status != http.StatusOK {
				t.Errorf("by XRPC: %d %v", status, answer)
			}
			status, answer := postSession(t, s, key, bob, "")
			if wait, _ := answer["retry_after_s"].(float64); status != http.StatusServiceUnavailable || answer["code"] != "unavailable" || wait < 1 {
				t.Errorf("a stranger: %d %v", status, answer)
			}
			status, answer = callAs(t, s, key, bob)
			wait, _ := answer["retryAfterSeconds"].(float64)
			if message, _ := answer["message"].(string); status != http.StatusServiceUnavailable || wait < 1 || !strings.HasSuffix(message, fmt.Sprintf("; try again in %d s", int(wait))) {
				t.Errorf("a stranger by XRPC: %d %v", status, answer)
			}
		})
	}
}

// callAs calls an XRPC method with a token of issuer.
func callAs(t *testing.T, s *server.Server, key *identity.AccountKey, issuer string) (status int, answer map[string]any) {
	t.Helper()
	const method = "blue.catbird.mlsChat.getConvos"
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{Issuer: issuer, Audience: s.DID(), Method: method, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodGet, s.URL()+"/xrpc/"+method, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	return response.StatusCode, answer
}
