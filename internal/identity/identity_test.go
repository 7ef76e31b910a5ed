package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const serviceDID = "did:web:ds.example"

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func newClock() *clock { return &clock{now: time.UnixMilli(1_800_000_000_123)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a database and the authenticators of its nodes.
type world struct {
	t     testing.TB
	clock *clock
	db    *store.DB
}

// onEach runs a test on each database.
func onEach(t *testing.T, test func(w *world)) {
	pgtest.OnBoth(t, func(t *testing.T, url string) { test(newWorld(t, url)) })
}

func newWorld(t testing.TB, url string) *world {
	w := &world{t: t, clock: newClock()}
	db, err := store.Open(context.Background(), store.Options{URL: url, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.db = db
	return w
}

// node starts another authenticator on the world's database.
func (w *world) node() *Authenticator {
	a, err := New(Options{
		Store:    w.db,
		Audience: func() []string { return Audiences(serviceDID) },
		Now:      w.clock.Now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(a.Close)
	return a
}

func testKey(t testing.TB, name, alg string) *AccountKey {
	k, err := DeriveAccountKey([]byte("test seed"), name, alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// token is a good token of the account for starting a session.
func (w *world) token(name string) string {
	return goodToken(w.t, testKey(w.t, name, ES256), w.clock.Now())
}

func goodToken(t testing.TB, k *AccountKey, now time.Time) string {
	token, err := SignToken(k, Claims{
		Issuer: k.DID(), Audience: serviceDID, Method: SessionStartMethod, IssuedAt: now, ExpiresAt: now.Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (w *world) start(a *Authenticator, name string) Ready {
	w.t.Helper()
	ready, err := a.StartSession(context.Background(), Start{Token: w.token(name), Device: "phone"})
	if err != nil {
		w.t.Fatal(err)
	}
	return ready
}

func (w *world) resume(a *Authenticator, resumeToken string) Ready {
	w.t.Helper()
	ready, err := a.ResumeSession(context.Background(), resumeToken, nil)
	if err != nil {
		w.t.Fatalf("resume: %v", err)
	}
	return ready
}

func wantRefusal(t testing.TB, err error, code ds.Code, message string) {
	t.Helper()
	var r *ds.Refusal
	if !errors.As(err, &r) || r.Code != code || r.Message != message {
		t.Errorf("got %v, want %s: %s", err, code, message)
	}
}

// fields are a header or a set of claims; with returns a changed copy, in which nil
// takes a field away.
type fields map[string]any

func (f fields) with(name string, value any) fields {
	f = maps.Clone(f)
	if value == nil {
		delete(f, name)
	} else {
		f[name] = value
	}
	return f
}

// forge signs whatever it is given.
func forge(t testing.TB, header, claims any, sign func([]byte) ([]byte, error)) string {
	encode := func(v any) string {
		text, isRaw := v.(json.RawMessage)
		if !isRaw {
			var err error
			if text, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signing := encode(header) + "." + encode(claims)
	sig, err := sign([]byte(signing))
	if err != nil {
		t.Fatal(err)
	}
	return signing + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestCloseEndsGoroutines(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	ignore := goleak.IgnoreCurrent()
	a := w.node()
	token := w.token("ann")
	a.Close()
	a.Close()
	goleak.VerifyNone(t, ignore)
	if _, err := a.verifyServiceToken(context.Background(), token, SessionStartMethod); !ds.IsUnavailable(err) {
		t.Errorf("after Close: got %v, want unavailable", err)
	}
}

// verifyAlone verifies a token as a service does that knows did:key only.
func verifyAlone(token, lxm string, audiences []string, now time.Time) (verified, error) {
	a := &Authenticator{o: Options{Audience: func() []string { return audiences }, Now: func() time.Time { return now }}, keys: newKeyCache(), penalties: newPenalties()}
	return a.verify(context.Background(), token, lxm, "")
}

// verifyServiceToken checks a token for a call of method and uses it up.
func (a *Authenticator) verifyServiceToken(ctx context.Context, token, method string) (ds.AccountID, error) {
	v, err := a.verify(ctx, token, method, "")
	if err == nil {
		err = a.writer.do(ctx, &job{nonce: &v.nonce})
	}
	if err != nil {
		return "", a.refuse(ctx, err)
	}
	return v.issuer, nil
}
