package identity

import (
	"context"
	"slices"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// TestRevokeWhatIsAttached: a session lives on while it is attached, even if its
// expiry could not be written for so long that its row has expired, or is gone; every
// way to end it ends it all the same.
func TestRevokeWhatIsAttached(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		for name, end := range map[string]func(a *Authenticator, other, s Session) ([]string, error){
			"logout": func(a *Authenticator, _, s Session) ([]string, error) { return []string{s.ID}, a.Logout(ctx, s) },
			"logout_all": func(a *Authenticator, other, s Session) ([]string, error) {
				_, err := a.LogoutAll(ctx, other, false)
				return []string{s.ID}, err
			},
			"by id": func(a *Authenticator, other, s Session) ([]string, error) {
				return a.Revoke(ctx, other, Selection{SessionID: s.ID})
			},
			"swept": func(a *Authenticator, _, s Session) ([]string, error) {
				if err := a.sweep(ctx); err != nil {
					return nil, err
				}
				return []string{s.ID}, a.Logout(ctx, s)
			},
		} {
			a, elsewhere := w.node(), w.node()
			ready := w.start(a, "ann")
			detach := []func(){a.Attach(ready.Session), elsewhere.Attach(ready.Session)}
			here, there := a.Ended(ready.Session), elsewhere.Ended(ready.Session)
			w.clock.add(2 * time.Hour)
			other := w.start(a, "ann")
			if ids, err := end(a, other.Session, ready.Session); err != nil || !slices.Equal(ids, []string{ready.ID}) {
				w.t.Errorf("%s: %q, %v", name, ids, err)
			}
			if err := elsewhere.slide(ctx); err != nil {
				w.t.Fatal(err)
			}
			for where, ended := range map[string]<-chan struct{}{"here": here, "elsewhere": there} {
				select {
				case <-ended:
				default:
					w.t.Errorf("%s: the session lives on %s", name, where)
				}
			}
			if _, err := a.Session(ctx, ready.SessionToken); ds.CodeOf(err) != ds.Unauthorized {
				w.t.Errorf("%s: its token is good for %v", name, err)
			}
			for _, f := range detach {
				f()
			}
		}
	})
}

// TestBadSessionsPerAddress: made-up session tokens are turned away, and sessions of others
// at the same address, elsewhere and on this machine are not.
func TestBadSessionsPerAddress(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressSessions: 3}}
	a.o.Limit = counted.take
	ready := w.start(a, "ann")
	look := func(token, address string) ds.Code {
		_, err := a.SessionFrom(t.Context(), token, address)
		return ds.CodeOf(err)
	}
	madeUp := func() string { return newSecret().text(sessionPrefix) }
	const bad, good = "192.0.2.1", "192.0.2.2"
	for range 10 {
		if code := look(ready.SessionToken, bad); code != "" {
			t.Fatalf("a good token: %q", code)
		}
	}
	for i := range 4 {
		if code := look(madeUp(), bad); code != ds.Unauthorized {
			t.Errorf("token %d: %q", i, code)
		}
	}
	for _, token := range []string{madeUp(), "garbage", ""} {
		if code := look(token, bad); code != ds.RateLimited {
			t.Errorf("beyond the limit: %q", code)
		}
	}
	if code := look(ready.SessionToken, bad); code != "" {
		t.Errorf("a session behind the same address: %q", code)
	}
	detach := a.Attach(ready.Session)
	for range cap(a.looks) { // of all who wait for a turn
		leave, err := a.looks.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	if code := look(ready.SessionToken, bad); code != "" {
		t.Errorf("a session with a socket behind the same address: %q", code)
	}
	detach()
	if n := counted.taken[limits.AddressSessions+" "+bad]; n != 4 {
		t.Errorf("%d were looked up", n)
	}
	if code := look(ready.SessionToken, good); code != "" {
		t.Errorf("from elsewhere: %q", code)
	}
	for range 10 {
		if code := look(madeUp(), ""); code != ds.Unauthorized {
			t.Errorf("from this machine: %q", code)
		}
	}
	w.clock.add(10 * time.Second)
	if code := look(madeUp(), bad); code != ds.Unauthorized {
		t.Errorf("afterwards: %q", code)
	}
}
