package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// becomes waits until a client is offline for a reason, and returns the state.
func (p *person) becomes(reason Reason) State {
	p.w.t.Helper()
	for {
		state, changed := p.State()
		if state.Link == Offline && state.Reason() == reason {
			return state
		}
		select {
		case <-changed:
		case <-p.w.ctx.Done():
			p.w.t.Fatalf("%s is %s for %q: %q (%v), not for %q", p.name, state.Link, state.Reason(), state.Problem(), state.Err, reason)
		}
	}
}

// TestReasons: a client says why it is offline.
func TestReasons(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
	}
	fails := func(err error) func(o *Options) {
		return func(o *Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: err}
			}
		}
	}
	nowhere := closedPort(t)
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		change  func(o *Options)
		reason  Reason
		problem string // a part of it
	}{
		"host":        {nil, fails(&net.DNSError{Name: "chat.exampl", Err: "no such host", IsNotFound: true}), ReasonNoHost, "no such host: 127.0.0.1"},
		"lookup":      {nil, fails(&net.DNSError{Name: "chat.example", Err: "server misbehaving"}), ReasonNoHost, "the address of chat.example cannot be looked up"},
		"port":        {nil, func(o *Options) { o.Server = "http://" + nowhere }, ReasonConnection, "refuses the connection"},
		"route":       {nil, fails(syscall.EHOSTUNREACH), ReasonUnreachable, "does not answer"},
		"plain http":  {answer(200, ""), func(o *Options) { o.Server = strings.Replace(o.Server, "http:", "https:", 1) }, ReasonTLS, "does not speak https"},
		"web site":    {answer(404, "<html>"), nil, ReasonNoWaxwing, "is no Waxwing service"},
		"every page":  {answer(200, "<html>"), nil, ReasonNoWaxwing, "is no Waxwing service"},
		"other DID":   {answer(200, `{"id":""}`), nil, ReasonNoWaxwing, "is no Waxwing service"},
		"moved":       {http.RedirectHandler("http://chat.example", http.StatusMovedPermanently).ServeHTTP, nil, ReasonNoWaxwing, "is no Waxwing service"},
		"proxy":       {answer(502, "bad gateway"), nil, ReasonUnavailable, "busy or shutting down"},
		"busy":        {answer(503, `{"code":"unavailable","message":"try again"}`), nil, ReasonUnavailable, "busy or shutting down"},
		"limit":       {answer(429, `{"code":"rate_limited","message":"rate limited","retry_after_s":90}`), nil, ReasonRateLimited, "rate limited until "},
		"invite":      {answer(403, `{"code":"forbidden","message":"invite required"}`), nil, ReasonInviteRequired, "requires an invite"},
		"bad invite":  {answer(403, `{"code":"forbidden","message":"invalid invite"}`), nil, ReasonInvalidInvite, "does not accept the invite"},
		"expelled":    {answer(403, `{"code":"forbidden","message":"expelled by the operator of the service"}`), nil, ReasonExpelled, "operator has expelled"},
		"not allowed": {answer(403, `{"code":"forbidden","message":"not on the allowlist"}`), nil, ReasonNotAllowed, "not on the server's list"},
		"forbidden":   {answer(403, `{"code":"forbidden","message":"forbidden"}`), nil, ReasonRefused, "server refused: this account may not do that"},
		"not found":   {answer(404, `{"code":"not_found","message":"not_found"}`), nil, ReasonRefused, "server refused: the server has nothing of that name"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
		}, nil, ReasonLost, "was lost: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t}
			w.limit(time.Minute)
			server := httptest.NewServer(test.handler)
			t.Cleanup(server.Close)
			w.url = server.URL
			p := w.person("ann")
			if test.change != nil {
				test.change(&p.options)
			}
			p.open()
			state := p.becomes(test.reason)
			if !strings.Contains(state.Problem(), test.problem) {
				t.Errorf("problem %q, want %q (%v)", state.Problem(), test.problem, state.Err)
			}
			if wait := time.Until(state.Next); test.reason == ReasonRateLimited && (wait < 80*time.Second || wait > 90*time.Second) {
				t.Errorf("the next attempt is in %s", wait)
			}
		})
	}
}

// closedPort returns an address at which no server listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

// TestReasonOtherService: a server with another DID than before gets no token, until the DID is
// given.
func TestReasonOtherService(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	ann.close()
	w.stopServer()
	before := w.config
	w.config.Data, w.config.PublicURL = t.TempDir(), "https://other.example"
	w.startServer()
	ann.open()
	state := ann.becomes(ReasonOtherService)
	if !errors.Is(state.Err, ErrOtherService) || !strings.Contains(state.Problem(), `another service than expected: it is "did:web:other.example", and was did:web:localhost`) {
		t.Errorf("%q: %v", state.Problem(), state.Err)
	}
	ann.close()
	ann.options.ServerDID = "did:web:other.example"
	ann.open()
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	ann.close()
	ann.options.ServerDID = ""
	ann.open()
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	ann.close()
	w.stopServer()
	w.config = before
	w.startServer()
	ann.open()
	ann.becomes(ReasonOtherService)
}

// TestReasonInvite: a server that admits by invites says so.
func TestReasonInvite(t *testing.T) {
	for _, overXRPC := range []bool{false, true} {
		t.Run(fmt.Sprintf("XRPC %v", overXRPC), func(t *testing.T) {
			w := newWorld(t)
			w.stopServer()
			w.config.Admission = "invite"
			w.startServer()
			w.overXRPC = func(string) bool { return overXRPC }
			ann := w.people("ann")[0]
			ann.becomes(ReasonInviteRequired)
			ann.close()
			ann.options.InviteCode = "wx-nonsense"
			ann.open()
			ann.becomes(ReasonInvalidInvite)
		})
	}
}

// certificates is an authority, known to clients, and what it issues.
type certificates struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	root  *x509.Certificate
	roots *x509.CertPool
}

func newCertificates(t *testing.T) *certificates {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificates{t: t, key: key, roots: x509.NewCertPool()}
	c.root = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, c.root, c.root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c.root, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	c.roots.AddCert(c.root)
	return c
}

// issue returns a certificate for 127.0.0.1, after a change.
func (c *certificates) issue(change func(*x509.Certificate)) *tls.Certificate {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	change(leaf)
	raw, err := x509.CreateCertificate(rand.Reader, leaf, c.root, &c.key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: c.key}
}

// TestReasonCertificate: a client is offline while the server's certificate is not good, says why,
// and loses nothing.
func TestReasonCertificate(t *testing.T) {
	for _, overXRPC := range []bool{false, true} {
		t.Run(fmt.Sprintf("XRPC %v", overXRPC), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.overXRPC = func(name string) bool { return overXRPC }
			bob := w.people("bob")[0]
			target, err := url.Parse(w.url)
			if err != nil {
				t.Fatal(err)
			}
			ours, foreign := newCertificates(t), newCertificates(t)
			var shown atomic.Pointer[tls.Certificate]
			proxy := httputil.NewSingleHostReverseProxy(target)
			proxy.ErrorLog = log.New(io.Discard, "", 0)
			front := httptest.NewUnstartedServer(proxy)
			front.Config.ErrorLog = log.New(io.Discard, "", 0)
			front.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{Certificates: []tls.Certificate{*shown.Load()}}, nil
			}}
			front.StartTLS()
			t.Cleanup(front.Close)
			ann := w.person("ann")
			ann.options.Server, ann.options.ServerDID = front.URL, w.server.DID()
			ann.options.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ours.roots}}}
			shown.Store(foreign.issue(func(*x509.Certificate) {}))
			ann.open()
			dm := ann.dm(bob)
			ann.says(dm, "sooner or later")
			for _, test := range []struct {
				certificate *tls.Certificate
				reason      Reason
				problem     string
			}{
				{shown.Load(), ReasonUnknownAuthority, " is signed by an unknown authority"},
				{ours.issue(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }), ReasonWrongHost,
					" does not match the host: it is for other.example"},
				{ours.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ReasonExpired, " has expired on 20"},
				{ours.issue(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), ReasonExpired, " is not valid before 20"},
				{ours.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), ReasonCertificate,
					" is not accepted: x509: certificate specifies an incompatible key usage"},
			} {
				shown.Store(test.certificate)
				var state State
				w.limit(10 * time.Second) // for each
				w.eventually(test.problem, func() bool {
					state, _ = ann.State()
					return state.Reason() == test.reason && strings.Contains(state.Problem(), test.problem)
				})
				if got := state.Problem(); !strings.HasPrefix(got, "the certificate of 127.0.0.1:") {
					t.Errorf("problem %q", got)
				}
			}
			shown.Store(ours.issue(func(*x509.Certificate) {}))
			bob.reads("sooner or later")
			if state, _ := ann.State(); state.Problem() != "" || state.Reason() != "" {
				t.Errorf("online for the reason %q", state.Reason())
			}
		})
	}
}

// TestLogIsDiscreet: the log tells what the client does, and neither texts nor secrets.
func TestLogIsDiscreet(t *testing.T) {
	w := newWorld(t)
	var text bytes.Buffer // read once the client has ended
	people := w.people("bob")
	ann, bob := w.person("ann"), people[0]
	ann.options.Logger = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ann.open()
	dm := ann.dm(bob)
	ann.tells(dm, "a secret text", bob, ann)
	kept, err := read(w.ctx, ann.db, func(tx *tx) (tokens, error) { return setting[tokens](tx, "tokens") })
	if err != nil || kept.Session == "" {
		t.Fatal(err)
	}
	ann.close()
	for _, want := range []string{"msg=connecting server=http", "msg=online transport=websocket", `msg="sends a commit"`, `msg="sends a message"`,
		"msg=received", "outcome=applied"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, text.String())
		}
	}
	for _, secret := range []string{"a secret text", kept.Session, kept.Resume} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if bytes.Contains(text.Bytes(), []byte("eyJ")) {
		t.Error("the log has a token")
	}
}
