package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/netguard"
	"waxwing.im/waxwing/internal/server"
)

// TestAccountsOfADirectory: a did:plc account signs in through a running server, which
// asks the directory once and nobody else; what strangers name is not called.
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
