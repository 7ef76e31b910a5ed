package server_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
)

// journal is all that a server logs at debug level.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// keepsJournal makes a server log all that it can.
func keepsJournal(c *server.Config) *journal {
	j := &journal{}
	c.LogTo, c.LogLevel = j, "debug"
	return j
}

// telling lists what a log may not contain: DIDs but the service's, tokens, and bodies.
var telling = regexp.MustCompile(`did:(plc|key|web):[A-Za-z0-9._:%-]+|eyJ[A-Za-z0-9_-]{8,}|[Bb]earer [^\s"]|\$bytes|ciphertext"|[A-Za-z0-9+/]{100,}`)

// tellsNothing holds the log against what may not be in it.
func (j *journal) tellsNothing(t testing.TB, service string, secrets ...string) {
	t.Helper()
	text := j.String()
	if !strings.Contains(text, "listening") {
		t.Errorf("the log is not that of the server: %.300s", text)
	}
	for _, found := range telling.FindAllString(text, -1) {
		if !strings.HasPrefix(service, strings.TrimRight(found, ".:")) {
			t.Errorf("the log has %.80q", found)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %.80q", secret)
		}
	}
}

// TestLogsTellNobody: neither what is done nor what goes wrong puts a DID, a token, or
// anything of a body into the log or the metrics, at debug level either.
func TestLogsTellNobody(t *testing.T) {
	n := newNetwork(t)
	c := server.DefaultConfig(t.TempDir())
	j := keepsJournal(&c)
	c.Dev, c.EgressLoopback, c.PLCDirectory = true, true, n.directory.URL
	c.Listen, c.OpsListen = "127.0.0.1:0", "127.0.0.1:0"
	s := start(t, c)
	n.service = s
	ann := n.account("ann")
	const send = chat + "sendMessage"
	var secrets []string
	post := func(token, nsid, body string) int {
		t.Helper()
		r, err := http.NewRequest("POST", s.URL()+"/xrpc/"+nsid+"?marker=in-the-query", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("User-Agent", "marker-of-the-client")
		response, err := testClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		return response.StatusCode
	}
	sign := func(did string, change func(c *identity.Claims)) string {
		t.Helper()
		claims := identity.Claims{Issuer: did, Audience: s.DID(), Method: send, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)}
		if change != nil {
			change(&claims)
		}
		token, err := identity.SignToken(ann.key, claims)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, token, strings.Split(token, ".")[1])
		return token
	}
	good := sign(ann.did, nil)
	body := fmt.Sprintf(`{"convoId":"marker-convo","msgId":"01ARZ3NDEKTSV4RRFFQ69G5FAV","ciphertext":{"$bytes":%q},"epoch":0,"paddedSize":512}`, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("secret"), 86)[:512]))
	tries := map[string]struct {
		token, body string
		want        int
	}{
		"good":                  {good, body, 403},
		"nothing":               {sign(ann.did, nil), `{}`, 400},
		"nonsense":              {sign(ann.did, nil), `{"marker-field":`, 400},
		"of another key":        {sign(n.account("ben").did, nil), body, 401},
		"for another":           {sign(ann.did, func(c *identity.Claims) { c.Audience = "did:web:marker.example" }), body, 401},
		"for another method":    {sign(ann.did, func(c *identity.Claims) { c.Method = "marker.method" }), body, 401},
		"old":                   {sign(ann.did, func(c *identity.Claims) { c.ExpiresAt = time.Now().Add(-time.Hour) }), body, 401},
		"of nobody":             {sign("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", nil), body, 401},
		"of no method":          {sign("did:marker:x", nil), body, 401},
		"of no host":            {sign("did:web:marker.invalid", nil), body, 401},
		"of a private host":     {sign("did:web:10.0.0.1", nil), body, 401},
		"of no DID":             {sign("marker-issuer", nil), body, 401},
		"with a kid of nothing": {sign(ann.did, func(c *identity.Claims) { c.KeyID = "marker-kid" }), body, 401},
		"no token":              {"marker-token", body, 401},
	}
	for name, try := range tries {
		if status := post(try.token, send, try.body); status != try.want {
			t.Errorf("%s: %d, want %d", name, status, try.want)
		}
	}
	if status := post(good, send, body); status != 401 {
		t.Errorf("again: %d", status)
	}
	post(sign(ann.did, func(c *identity.Claims) { c.Method = "marker.nothing" }), "marker.nothing", "{}")
	_, metrics := get(t, s.OpsURL()+"/metrics")
	if !strings.Contains(metrics, `waxwing_xrpc_calls_total{method="`+send+`",result="NotMember"} 1`) {
		t.Error("the calls are not in the metrics")
	}
	for _, found := range append(telling.FindAllString(metrics, -1), regexp.MustCompile(`.*marker.*`).FindAllString(metrics, -1)...) {
		t.Errorf("the metrics have %.80q", found)
	}
	if !strings.Contains(j.String(), "service token refused") {
		t.Error("the log says nothing of tokens that are refused")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	j.tellsNothing(t, s.DID(), append(secrets, "marker", ann.did, "01ARZ3NDEKTSV4RRFFQ69G5FAV")...)
}
