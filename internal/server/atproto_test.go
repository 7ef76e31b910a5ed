package server_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
)

// network is the surroundings of a delivery service on the AT Protocol: a directory of
// did:plc accounts, and the server that their data lives on (PDS), through which their
// clients call. Both are thrown away with the test, and speak plain HTTP on loopback.
type network struct {
	t         testing.TB
	directory *httptest.Server
	pds       *httptest.Server
	service   *server.Server // set once it runs

	mu       sync.Mutex // guards the rest
	accounts map[string]*plcAccount
	fetched  int // documents
}

type plcAccount struct {
	did string
	key *identity.AccountKey
}

func newNetwork(t testing.TB) *network {
	n := &network{t: t, accounts: map[string]*plcAccount{}}
	n.directory = httptest.NewServer(http.HandlerFunc(n.serveDocument))
	n.pds = httptest.NewServer(http.HandlerFunc(n.serveProxy))
	t.Cleanup(func() {
		n.directory.Close()
		n.pds.Close()
	})
	return n
}

// account makes an account of that name, or finds it. Half of them have keys of either
// curve, as on the network.
func (n *network) account(name string) *plcAccount {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.accounts[name]; a != nil {
		return a
	}
	alg := identity.ES256K
	if len(n.accounts)%2 == 1 {
		alg = identity.ES256
	}
	key, err := identity.DeriveAccountKey([]byte("plc seed"), name, alg)
	if err != nil {
		n.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(name))
	a := &plcAccount{"did:plc:" + strings.ToLower(strings.NewReplacer("0", "a", "1", "b", "8", "c", "9", "d").Replace(fmt.Sprintf("%x", sum))[:24]), key}
	n.accounts[name] = a
	return a
}

func (n *network) serveDocument(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fetched++
	for _, a := range n.accounts {
		if r.URL.Path == "/"+a.did {
			w.Header().Set("Content-Type", "application/did+ld+json")
			fmt.Fprintf(w, `{"@context":["https://www.w3.org/ns/did/v1"],"id":%q,
				"verificationMethod":[{"id":%q,"type":"Multikey","controller":%q,"publicKeyMultibase":%q}],
				"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`,
				a.did, a.did+"#atproto", a.did, strings.TrimPrefix(a.key.DID(), "did:key:"), n.pds.URL)
			return
		}
	}
	http.NotFound(w, r)
}

// serveProxy does what a PDS does with a call that has the header atproto-proxy: it signs
// a token for it with the account's key and hands it on. Who calls stands in a header of
// the test's own, where a client would have its PDS's access token.
func (n *network) serveProxy(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	a := n.accounts[r.Header.Get("Test-Account")]
	n.mu.Unlock()
	nsid := strings.TrimPrefix(r.URL.Path, "/xrpc/")
	did, fragment, _ := strings.Cut(r.Header.Get("Atproto-Proxy"), "#")
	if a == nil || did != n.service.DID() || fragment != "atproto_mls" {
		http.Error(w, "no such service", http.StatusBadRequest)
		return
	}
	now := time.Now()
	token, err := identity.SignToken(a.key, identity.Claims{Issuer: a.did, Audience: did + "#" + fragment, Method: nsid,
		IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	on, err := http.NewRequestWithContext(r.Context(), r.Method, n.service.URL()+r.URL.RequestURI(), r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	on.ContentLength = r.ContentLength
	on.Header.Set("Authorization", "Bearer "+token)
	on.Header.Set("Content-Type", r.Header.Get("Content-Type"))
	answer, err := testClient.Do(on)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	for name := range answer.Header {
		w.Header().Set(name, answer.Header.Get(name))
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

var testClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: time.Minute}

// harness calls the methods of a running server in its own way.
// The field sign may be called by many goroutines.
type harness struct {
	t       testing.TB
	service *server.Server
	did     func(name string) string
	sign    func(r *http.Request, name, nsid string) // makes it a call of that person
}

// onNetwork runs a server for the accounts of a throw-away network, which is called
// through their PDS.
func onNetwork(t testing.TB, c server.Config) *harness {
	n := newNetwork(t)
	c.Dev, c.EgressLoopback, c.PLCDirectory = true, true, n.directory.URL
	n.service = begin(t, c)
	return &harness{t, n.service, func(name string) string { return n.account(name).did }, func(r *http.Request, name, _ string) {
		n.account(name)
		r.URL.Host = strings.TrimPrefix(n.pds.URL, "http://")
		r.Header.Set("Test-Account", name)
		r.Header.Set("Atproto-Proxy", n.service.DID()+"#atproto_mls")
	}}
}

// withSecret runs a server that shares a secret with its test harness, which signs HS256
// tokens without lxm in anybody's name.
func withSecret(t testing.TB, c server.Config) *harness {
	const secret = "a secret of tests, thirty-two bytes"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Dev, c.DevSecret = true, file
	did := func(name string) string {
		return fmt.Sprintf("did:plc:e2e-%x", sha256.Sum256([]byte(name)))[:40]
	}
	encode := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	var mu sync.Mutex
	used := 0
	return &harness{t, begin(t, c), did, func(r *http.Request, name, _ string) {
		mu.Lock()
		used++
		id := fmt.Sprint("token ", used)
		mu.Unlock()
		signed := encode(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + encode(map[string]any{"iss": did(name), "sub": did(name),
			"aud": "did:web:localhost", "jti": id, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(signed))
		r.Header.Set("Authorization", "Bearer "+signed+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	}}
}

// begin starts a server that lives as long as the test.
func begin(t testing.TB, c server.Config) *server.Server {
	t.Helper()
	s, err := server.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// call makes a call in the name of a person: a query when in is a string of parameters, a
// procedure with in as its body otherwise.
func (h *harness) call(name, nsid string, in any) (status int, body []byte) {
	h.t.Helper()
	status, body, err := h.try(name, nsid, in)
	if err != nil {
		h.t.Fatal(err)
	}
	return status, body
}

// try is call for goroutines that are not the test's.
func (h *harness) try(name, nsid string, in any) (status int, body []byte, err error) {
	verb, target, sent := "POST", h.service.URL()+"/xrpc/"+nsid, []byte(nil)
	if query, ok := in.(string); ok {
		verb, target = "GET", target+"?"+query
	} else if sent, err = json.Marshal(in); err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequest(verb, target, bytes.NewReader(sent))
	if err != nil {
		return 0, nil, err
	}
	if verb == "POST" {
		r.Header.Set("Content-Type", "application/json")
	}
	h.sign(r, name, nsid)
	answer, err := testClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}
