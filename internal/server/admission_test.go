package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/server"
)

// startSession asks for a session of a new account of that name.
func startSession(t *testing.T, s *server.Server, name, code string) (status int, answer map[string]any) {
	t.Helper()
	key, err := identity.DeriveAccountKey([]byte("test seed"), name, identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return postSession(t, s, key, key.DID(), code)
}

// postSession asks for a session of the account issuer, with a token that key has signed.
func postSession(t *testing.T, s *server.Server, key *identity.AccountKey, issuer, code string) (status int, answer map[string]any) {
	t.Helper()
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{Issuer: issuer, Audience: s.DID(), Method: identity.SessionStartMethod, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	request := map[string]any{"auth_token": token, "device_id": "phone"}
	if code != "" {
		request["invite_code"] = code
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Post(s.URL()+"/v1/session/start", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

// ask sends an act of the operator to the socket of a running server.
func ask(t *testing.T, c server.Config, body string) server.AdminAnswer {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.Data, server.AdminSocket))
	}}, Timeout: 30 * time.Second}
	response, err := client.Post("http://admin/", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer server.AdminAnswer
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestAdmission: a code made by the operator admits an account through the gateway.
func TestAdmission(t *testing.T) {
	databases(t, func(t *testing.T, c server.Config) {
		c.Admission = "invite"
		j := keepsJournal(&c)
		s := start(t, c)
		ctx := context.Background()
		act := func(request server.AdminRequest) server.AdminAnswer {
			t.Helper()
			body, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			return ask(t, c, string(body))
		}
		var invite identity.Invite
		if err := json.Unmarshal(act(server.AdminRequest{Operation: server.AdminInviteCreate, Uses: 1, Life: time.Hour}).Result, &invite); err != nil || invite.Code == "" {
			t.Fatalf("made %+v, %v", invite, err)
		}
		for _, step := range []struct {
			name, code string
			status     int
			message    string
		}{
			{"ann", "", 403, "invite required"},
			{"ann", "wxi_nothing", 403, "invalid invite"},
			{"ann", strings.Repeat("x", 65), 400, "invalid invite_code"},
			{"ann", invite.Code, 200, ""},
			{"ann", "", 200, ""},
			{"bob", invite.Code, 403, "invalid invite"},
		} {
			status, answer := startSession(t, s, step.name, step.code)
			if message, _ := answer["message"].(string); status != step.status || message != step.message {
				t.Errorf("%s with %q: %d %v", step.name, step.code, status, answer)
			}
		}
		if answer := act(server.AdminRequest{Operation: "shutdown"}); answer.Error != "unknown operation" {
			t.Errorf("got %+v", answer)
		}
		if _, err := server.Administer(ctx, c, server.AdminRequest{Operation: server.AdminInviteList}); (err == nil) != (c.Database != "") {
			t.Errorf("the database is used beside the server: %v", err)
		}
		if info, err := os.Stat(filepath.Join(c.Data, server.AdminSocket)); err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("socket: %v, %v", info.Mode(), err)
		}
		for _, garbage := range []string{"", "{", "[]", `"x"`, `{"uses":"many"}`, "{\"note\":\"" + strings.Repeat("x", 1<<17)} {
			if answer := ask(t, c, garbage); answer.Error != "malformed request" {
				t.Errorf("%.20q: %+v", garbage, answer)
			}
		}
		var invites []identity.Invite
		by := fmt.Sprint("local:", os.Getuid())
		if err := json.Unmarshal(act(server.AdminRequest{Operation: server.AdminInviteList}).Result, &invites); err != nil || len(invites) != 1 || invites[0].CreatedBy != by {
			t.Errorf("listed %+v, %v", invites, err)
		}
		if !strings.Contains(j.String(), "operation=invite.create by="+by) {
			t.Errorf("the log does not say who: %s", j)
		}
		if c.Database != "" { // the socket of the first server stays
			other := c
			other.ServiceKey = ""
			if err := start(t, other).Close(); err != nil {
				t.Error(err)
			}
			act(server.AdminRequest{Operation: server.AdminInviteList})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if strings.Contains(entry.Name(), "admin") {
				t.Errorf("left %s", entry.Name())
			}
		}
		if answer, err := server.Administer(ctx, c, server.AdminRequest{Operation: server.AdminInviteList}); err != nil || !strings.Contains(string(answer.Result), invite.ID) {
			t.Errorf("without a server: %+v, %v", answer, err)
		}
	})
}

// TestAdmissionByDefault: who can connect decides.
func TestAdmissionByDefault(t *testing.T) {
	for listen, want := range map[string]int{"127.0.0.1:0": 200, "localhost:0": 200, "0.0.0.0:0": 403, ":0": 403} {
		c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
		c.Listen = listen
		c.PublicURL = "http://localhost:8420"
		s := start(t, c)
		if status, answer := startSession(t, s, "ann", ""); status != want {
			t.Errorf("%s: %d %v", listen, status, answer)
		}
		s.Close()
	}
}

// TestDevelopmentOnly: what weakens security needs --dev, on both ways into a server.
func TestDevelopmentOnly(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("harness\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*server.Config){
		"dev-secret":      func(c *server.Config) { c.DevSecret = secret },
		"egress-loopback": func(c *server.Config) { c.EgressLoopback = true },
		"egress-resolver": func(c *server.Config) { c.EgressResolver = "127.0.0.1:53" },
		"haste":           func(c *server.Config) { c.Haste = 2 },
		"plc-directory":   func(c *server.Config) { c.PLCDirectory = "http://127.0.0.1:1" },
	} {
		c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := server.Start(context.Background(), c); err == nil {
			t.Errorf("%s: started", name)
		}
	}
	c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
	c.Dev, c.DevSecret, c.EgressLoopback, c.PLCDirectory = true, secret, true, "http://127.0.0.1:1"
	c.OpsListen = "127.0.0.1:0"
	s := start(t, c)
	if status, body := get(t, s.OpsURL()+"/metrics"); status != 200 || !strings.Contains(body, `waxwing_egress_refused_total{reason="address"} 0`) {
		t.Errorf("metrics: %d", status)
	}
}

// TestLimitsAreDocumented: each rate that can be set has a row.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rates := limits.Default()
	for _, name := range []string{limits.AddressCalls, limits.AddressBadTokens, limits.AddressSessions, limits.AddressLookups, limits.FirstContacts, limits.HostLookups} {
		if rates[name].Count == 0 {
			t.Errorf("%s does not limit", name)
		}
	}
	for name := range rates {
		if !regexp.MustCompile("(?m)^\\| [^|]*`" + name + "`[^|]* \\|").Match(text) {
			t.Errorf("%s is not documented", name)
		}
	}
}
