package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/internal/testwait"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// databases runs a test on an embedded and on a PostgreSQL database.
func databases(t *testing.T, test func(t *testing.T, c server.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, server.DefaultConfig(filepath.Join(t.TempDir(), "data"))) })
	t.Run("postgres", func(t *testing.T) {
		c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
		c.Database = pgtest.URL(t)
		test(t, c)
	})
}

func start(t *testing.T, c server.Config) *server.Server {
	t.Helper()
	s, err := server.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestServerAnswers(t *testing.T) {
	databases(t, func(t *testing.T, c server.Config) {
		c.OpsListen = "127.0.0.1:0"
		c.Version = "test"
		s := start(t, c)
		if want := "did:web:localhost%3A" + s.URL()[strings.LastIndex(s.URL(), ":")+1:]; s.DID() != want {
			t.Errorf("DID %s, want %s", s.DID(), want)
		}
		_, text := get(t, s.URL()+"/.well-known/did.json")
		var document struct{ ID string }
		if err := json.Unmarshal([]byte(text), &document); err != nil || document.ID != s.DID() {
			t.Errorf("did.json is of %q (%v), want %s", document.ID, err, s.DID())
		}
		for _, row := range []struct {
			url, want string
			status    int
		}{
			{s.URL() + "/healthz", "", 200},
			{s.URL() + "/nowhere", "", 404},
			{s.URL() + "/metrics", "", 404},
			{s.OpsURL() + "/livez", "ok", 200},
			{s.OpsURL() + "/readyz", "ok", 200},
			{s.OpsURL() + "/debug/pprof/heap?debug=1", "heap profile", 200},
			{s.OpsURL() + "/debug/pprof/cmdline", "", 404},
			{s.OpsURL() + "/metrics", `waxwing_build_info{version="test"} 1`, 200},
			{s.OpsURL() + "/v1/conversations", "", 404},
		} {
			if status, body := get(t, row.url); status != row.status || !strings.Contains(body, row.want) {
				t.Errorf("%s: %d %.200q, want %d with %q", row.url, status, body, row.status, row.want)
			}
		}
	})
}

func TestServerComesBackAsItWas(t *testing.T) {
	databases(t, func(t *testing.T, c server.Config) {
		began := time.Now()
		first := start(t, c)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the start took %s", took)
		}
		_, document := get(t, first.URL()+"/.well-known/did.json")
		c.Listen = strings.TrimPrefix(first.URL(), "http://")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		second := start(t, c)
		if _, again := get(t, second.URL()+"/.well-known/did.json"); again != document {
			t.Errorf("the service changed from %s to %s", document, again)
		}
	})
}

func TestServerIsReadyUntilItStops(t *testing.T) {
	database := pgtest.Start(t, pgtest.Options{})
	c := server.DefaultConfig(t.TempDir())
	c.Database, c.OpsListen = database.URL(), "127.0.0.1:0"
	s := start(t, c)
	database.Kill()
	if status, body := get(t, s.OpsURL()+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "database") {
		t.Errorf("without its database the server says %d %q", status, body)
	}
	if status, _ := get(t, s.OpsURL()+"/livez"); status != http.StatusOK {
		t.Errorf("without its database the server counts as dead: %d", status)
	}
	if err := database.Restart(); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the server finds its database again", func() bool {
		status, _ := get(t, s.OpsURL()+"/readyz")
		return status == http.StatusOK
	})
}

// TestSilentConnectionDelaysNoEnd: a connection on which no request has come does not keep the
// server from ending.
func TestSilentConnectionDelaysNoEnd(t *testing.T) {
	s := start(t, server.DefaultConfig(t.TempDir()))
	for range 3 {
		network, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer network.Close()
	}
	get(t, s.URL()+"/healthz") // accepted after them
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 4*time.Second { // net/http waits for five
		t.Errorf("the end took %s", d)
	}
}

func TestSecondServerOnADirectoryIsRefused(t *testing.T) {
	c := server.DefaultConfig(t.TempDir())
	start(t, c)
	s, err := server.Start(context.Background(), c)
	if err == nil {
		s.Close()
		t.Fatal("two servers run on one directory")
	}
	if !strings.Contains(err.Error(), c.Data) {
		t.Errorf("the refusal does not name the directory: %v", err)
	}
}

func TestServerLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := server.DefaultConfig(t.TempDir())
	c.OpsListen = "127.0.0.1:0"
	s, err := server.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(c.Data, "service.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("service key: %v, %v", info, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)

	for _, spoil := range []func(*server.Config){
		func(c *server.Config) {
			c.ServiceKey = filepath.Join(c.Data, "nowhere", "key")
			c.Listen = "192.0.2.1:0"
		},
		func(c *server.Config) { c.OpsListen = "192.0.2.1:0" },
		func(c *server.Config) { c.Database = "postgres://nobody@127.0.0.1:1/none" },
	} {
		bad := c
		spoil(&bad)
		if s, err := server.Start(context.Background(), bad); err == nil {
			s.Close()
			t.Error("a server started that cannot")
		}
		goleak.VerifyNone(t, before)
	}
}

func TestValidate(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(*server.Config)
		want  string // in the error; "" for none
	}{
		{"defaults", func(c *server.Config) {}, ""},
		{"no port", func(c *server.Config) { c.Listen = "localhost" }, "listen"},
		{"ops without port", func(c *server.Config) { c.OpsListen = "localhost" }, "ops-listen"},
		{"no data", func(c *server.Config) { c.Data = "" }, "data"},
		{"another database", func(c *server.Config) { c.Database = "mysql://secret@h/db" }, "database"},
		{"broken database URL", func(c *server.Config) { c.Database = "postgres://u:secret%zz@h/db" }, "database"},
		{"public https", func(c *server.Config) { c.PublicURL = "https://chat.example.org" }, ""},
		{"public http", func(c *server.Config) { c.PublicURL = "http://chat.example.org" }, "public-url"},
		{"local http", func(c *server.Config) { c.PublicURL = "http://localhost:8420" }, ""},
		{"public path", func(c *server.Config) { c.PublicURL = "https://chat.example.org/x" }, "public-url"},
		{"keypackages", func(c *server.Config) { c.Keypackages = "some" }, "keypackages"},
		{"busy pings", func(c *server.Config) { c.PingInterval = 0 }, "ping-interval"},
		{"misses", func(c *server.Config) { c.PingMisses = -1 }, "ping-misses"},
		{"ttl", func(c *server.Config) { c.SessionTTL = 0 }, "session-ttl"},
		{"limits", func(c *server.Config) { c.Limit = []string{"sends=1/s", "all=off"} }, ""},
		{"unknown limit", func(c *server.Config) { c.Limit = []string{"letters=1/s"} }, "letters"},
		{"proxies", func(c *server.Config) { c.TrustedProxies = []string{"10.0.0.0/8", "fd00::/8", "192.0.2.1", "::1"} }, ""},
		{"proxy by name", func(c *server.Config) { c.TrustedProxies = []string{"proxy.example"} }, "trusted-proxies"},
		{"broken network", func(c *server.Config) { c.TrustedProxies = []string{"10.0.0.0/33"} }, "trusted-proxies"},
		{"broken limit", func(c *server.Config) { c.Limit = []string{"sends=many"} }, "many"},
	} {
		c := server.DefaultConfig("data")
		row.spoil(&c)
		err := c.Validate()
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: %v, want something about %s", row.name, err, row.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: a secret is in the error: %v", row.name, err)
		}
	}
}
