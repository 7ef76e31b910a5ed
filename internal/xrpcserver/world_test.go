package xrpcserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/lexicons"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const testDID = "did:web:ds.example"

// testTime is when every test begins. A world's clock stands still unless it is moved,
// so that answers are always the same.
var testTime = time.UnixMilli(1_800_000_000_123)

// world is a door on a real listener over a real store.
type world struct {
	t         testing.TB
	later     atomic.Int64 // ms that the clock has been moved
	store     *store.DB
	core      *core.Service
	logs      *logs.Engine
	directory *directory.Service
	limits    *limits.Limiter
	server    *Server
	http      *httptest.Server

	mu   sync.Mutex // guards keys
	keys map[string]*identity.AccountKey
}

// setup holds the options that a test may change.
type setup struct {
	store     store.Options
	core      core.Options
	logs      logs.Options
	directory directory.Options
	limits    limits.Rates
	door      Options
	identity  identity.Options
}

func newWorld(t testing.TB, change ...func(*setup)) *world {
	t.Helper()
	return newWorldOn(t, "sqlite:"+t.TempDir(), change...)
}

// onBoth runs a test on SQLite and on PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, w *world), change ...func(*setup)) {
	t.Helper()
	pgtest.OnBoth(t, func(t *testing.T, url string) { test(t, newWorldOn(t, url, change...)) })
}

func newWorldOn(t testing.TB, storeURL string, change ...func(*setup)) *world {
	t.Helper()
	w := &world{t: t, keys: map[string]*identity.AccountKey{}}
	rates := limits.Default()
	must(t, rates.Set("all=off"))
	s := setup{
		limits: rates,
		store:  store.Options{URL: storeURL, Now: w.now},
		core:   core.Options{Now: w.now},
		logs:   logs.Options{Now: w.now, PollInterval: 50 * time.Millisecond},
		door: Options{ServiceDID: func() string { return testDID },
			PublicURL: func() string { return "https://ds.example" }},
		identity: identity.Options{Now: w.now, PollInterval: 50 * time.Millisecond, Limit: func(name, key string) error { return w.limits.Take(name, key) },
			Audience: func() []string { return identity.Audiences(testDID) }},
	}
	for _, c := range change {
		c(&s)
	}
	db, err := store.Open(context.Background(), s.store)
	must(t, err)
	w.store = db
	t.Cleanup(func() { must(t, db.Close()) })
	s.identity.Store = db
	auth, err := identity.New(s.identity)
	must(t, err)
	t.Cleanup(auth.Close)
	s.core.Store, s.logs.Store = db, db
	w.limits = limits.New(s.limits, w.now)
	s.core.Limits, s.door.Limits = w.limits, w.limits
	w.logs = logs.New(s.logs)
	t.Cleanup(func() { must(t, w.logs.Close()) })
	s.directory.Store, s.directory.Now, s.directory.Limits, s.directory.Wake = db, w.now, w.limits, w.logs.WakeAccount
	w.directory = directory.New(s.directory)
	s.core.Logs, s.core.Directory = w.logs, w.directory
	w.core = core.New(s.core)
	t.Cleanup(w.core.Close)
	s.door.Core, s.door.Logs, s.door.Directory, s.door.Identity = w.core, w.logs, w.directory, auth
	w.server = New(s.door)
	w.http = httptest.NewServer(w.server)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		must(t, w.server.Shutdown(ctx))
		w.http.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return w
}

func (w *world) now() time.Time {
	return testTime.Add(time.Duration(w.later.Load()) * time.Millisecond)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) key(name string) *identity.AccountKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := w.keys[name]
	if key == nil {
		var err error
		key, err = identity.DeriveAccountKey([]byte("test seed"), name, identity.ES256)
		must(w.t, err)
		w.keys[name] = key
	}
	return key
}

// did is the account of a person.
func (w *world) did(name string) string { return w.key(name).DID() }

// token is a service token of a person for one call.
func (w *world) token(name, nsid string) string {
	key := w.key(name)
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: testDID + "#atproto_mls",
		Method: nsid, IssuedAt: w.now(), ExpiresAt: w.now().Add(time.Minute)})
	must(w.t, err)
	return token
}

// answer is the answer to a call.
type answer struct {
	t      testing.TB
	nsid   string
	status int
	header http.Header
	body   []byte
}

// request makes a call as name, or without a token for "". in is the body of a procedure, a
// string or a value to marshal, or the parameters of a query (url.Values).
func (w *world) request(name, nsid string, in any) *http.Request {
	w.t.Helper()
	target, verb, body := w.http.URL+"/xrpc/"+nsid, "POST", []byte(nil)
	switch in := in.(type) {
	case url.Values:
		verb = "GET"
		target += "?" + in.Encode()
	case string:
		body = []byte(in)
	default:
		var err error
		body, err = json.Marshal(in)
		must(w.t, err)
	}
	r, err := http.NewRequest(verb, target, bytes.NewReader(body))
	must(w.t, err)
	if verb == "POST" {
		r.Header.Set("Content-Type", "application/json")
	}
	if name != "" {
		r.Header.Set("Authorization", "Bearer "+w.token(name, nsid))
	}
	return r
}

// call makes a call and holds a good answer against the lexicons of both generations,
// or a bad one against the errors that the method may answer.
func (w *world) call(name, nsid string, in any) answer {
	w.t.Helper()
	return w.do(w.request(name, nsid, in), nsid, lexicons.A, lexicons.B)
}

// callAs is call for a method whose answers differ between the generations.
func (w *world) callAs(set lexicons.Set, name, nsid string, in any) answer {
	w.t.Helper()
	return w.do(w.request(name, nsid, in), nsid, set)
}

func (w *world) do(r *http.Request, nsid string, sets ...lexicons.Set) answer {
	w.t.Helper()
	response, err := http.DefaultClient.Do(r)
	must(w.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(w.t, err)
	a := answer{w.t, nsid, response.StatusCode, response.Header, body}
	if a.status == http.StatusOK {
		for _, set := range sets {
			if lexicons.Errors(set, nsid) == nil {
				continue // the generation has no such method
			}
			if err := lexicons.Validate(set, nsid, "output", body); err != nil {
				w.t.Errorf("%s: the answer is not what the lexicon of generation %v says: %v\n%s", nsid, set, err, body)
			}
		}
		return a
	}
	var e xrpc.ErrorBody
	if err := json.Unmarshal(body, &e); err != nil || e.Error == "" || e.Message == "" {
		w.t.Errorf("%s: %d is no error of XRPC: %s", nsid, a.status, body)
	}
	// A PDS passes on no more than the status, the name and the sentence.
	if wait := a.header.Get("Retry-After"); wait != "" && !strings.HasSuffix(e.Message, "; try again in "+wait+" s") {
		w.t.Errorf("%s: the sentence does not say when to try again: %s", nsid, body)
	}
	if waits := a.status == http.StatusServiceUnavailable || e.Error == xrpc.ErrorRateLimited; waits && a.header.Get("Retry-After") == "" {
		w.t.Errorf("%s: %d without Retry-After: %s", nsid, a.status, body)
	}
	if !slices.Contains(slices.Concat(generalErrors, lexicons.Errors(lexicons.A, nsid), lexicons.Errors(lexicons.B, nsid)), e.Error) {
		w.t.Errorf("%s answers %d %s, which its lexicons do not know", nsid, a.status, e.Error)
	}
	return a
}

// generalErrors are the names that any method may answer.
var generalErrors = []string{xrpc.ErrorInvalidRequest, xrpc.ErrorAuthenticationRequired, xrpc.ErrorForbidden, xrpc.ErrorPayloadTooLarge,
	xrpc.ErrorRateLimited, xrpc.ErrorInternal, xrpc.ErrorMethodNotImplemented, xrpc.ErrorUnavailable, "NotFound", "EpochMismatch", "LimitExceeded",
	"BadJwt", "JwtExpired", "BadJwtAudience", "BadJwtLexiconMethod", "BadJwtIss", "BadJwtSignature", "Replay detected", "RateLimitExceeded",
	"InviteRequired", "InvalidInvite", "NotAllowed"}

// into decodes a good answer; any other fails the test.
func (a answer) into(out any) {
	a.t.Helper()
	if a.status != http.StatusOK {
		a.t.Fatalf("%s: %d %s", a.nsid, a.status, a.body)
	}
	must(a.t, json.Unmarshal(a.body, out))
}

// fields is a good answer as it stands in JSON.
func (a answer) fields() map[string]any {
	a.t.Helper()
	out := map[string]any{}
	a.into(&out)
	return out
}

// refused holds an answer against a status and a name, "STATUS Name".
func (a answer) refused(want string) {
	a.t.Helper()
	var e xrpc.ErrorBody
	_ = json.Unmarshal(a.body, &e)
	if got := fmt.Sprintf("%d %s", a.status, e.Error); got != want {
		a.t.Errorf("%s: got %s, want %s (%s)", a.nsid, got, want, a.body)
	}
}

// name is that of the error.
func (a answer) name() string {
	var e xrpc.ErrorBody
	_ = json.Unmarshal(a.body, &e)
	return e.Error
}

// object is a JSON object to send.
type object = map[string]any

// blob is bytes as generation B sends them, text as A does.
func blob(data []byte) object { return object{"$bytes": base64.StdEncoding.EncodeToString(data)} }
func text(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
func params(pairs ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values
}

func TestMethodsOfNobody(t *testing.T) {
	w := newWorld(t)
	w.call("ann", "blue.catbird.mlsChat.report", object{}).refused("501 MethodNotImplemented")
	w.call("ann", "com.example.nothing", object{}).refused("501 MethodNotImplemented")
}

// apply applies an operation whose result does not matter.
func (w *world) apply(who ds.Caller, op core.Op) error {
	_, err := w.core.Apply(context.Background(), who, op)
	return err
}
