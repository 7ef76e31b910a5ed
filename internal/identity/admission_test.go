package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// TestAdmission: who is not admitted keeps the token, and is asked about once a call.
func TestAdmission(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a := w.node()
		full := &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: time.Second}
		ann := ds.AccountID(testKey(w.t, "ann", ES256).DID())
		asked := 0
		refuse := func(account ds.AccountID) error {
			if asked++; account != ann {
				w.t.Errorf("asked about %s", account)
			}
			return full
		}
		start := Start{Token: w.token("ann"), Device: "phone"}
		start.Admit = func(_ context.Context, account ds.AccountID) error { return refuse(account) }
		for range 3 {
			if _, err := a.StartSession(ctx, start); !errors.Is(err, full) {
				w.t.Fatal(err)
			}
		}
		start.Token = "garbage"
		if _, err := a.StartSession(ctx, start); ds.CodeOf(err) != ds.Unauthorized {
			w.t.Error(err)
		}
		if asked != 3 {
			w.t.Errorf("asked %d times", asked)
		}
		start.Token, start.Admit = w.token("ann"), func(context.Context, ds.AccountID) error { return nil }
		ready, err := a.StartSession(ctx, start)
		if err != nil {
			w.t.Fatal(err)
		}
		asked = 0
		for range 3 {
			if _, err := a.ResumeSession(ctx, ready.ResumeToken, refuse); !errors.Is(err, full) {
				w.t.Fatal(err)
			}
		}
		if _, err := a.ResumeSession(ctx, "rt_AAAAAAAAAAAAAAAAAAAAAA", refuse); ds.CodeOf(err) != ds.ResumeFailed {
			w.t.Error(err)
		}
		if asked != 3 {
			w.t.Errorf("asked %d times", asked)
		}
		next := w.resume(a, ready.ResumeToken)
		if _, err := a.ResumeSession(ctx, ready.ResumeToken, refuse); !errors.Is(err, full) { // a repeat counts too
			w.t.Error(err)
		}
		if again := w.resume(a, ready.ResumeToken); again.ResumeToken != next.ResumeToken {
			w.t.Error("the refused ones made a successor")
		}
	})
}

func TestIsKnown(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a := w.node()
		ready := w.start(a, "ann")
		isKnown := func(account ds.AccountID) (is bool) {
			if err := w.db.Read(ctx, func(tx *store.Tx) (err error) {
				is, err = tx.Sessions.HasAccount(account)
				return err
			}); err != nil {
				w.t.Error(err)
			}
			return is
		}
		for account, want := range map[ds.AccountID]bool{ready.Account: true, "did:key:nobody": false, "": false} {
			if got := isKnown(account); got != want {
				w.t.Errorf("%q: %v", account, got)
			}
		}
		if err := a.Logout(ctx, ready.Session); err != nil {
			w.t.Fatal(err)
		}
		if !isKnown(ready.Account) {
			w.t.Error("unknown after the logout")
		}
	})
}

// TestRevokedElsewhere: what another node revoked is found by the next poll, and who
// looks into it is woken once.
func TestRevokedElsewhere(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a, b := w.node(), w.node()
		one, other := w.start(a, "ann"), w.start(a, "ann")
		defer b.Attach(one.Session)()
		defer b.Attach(other.Session)()
		if err := b.pollRevoked(ctx); err != nil {
			w.t.Fatal(err)
		}
		select {
		case <-b.Ended(one.Session):
			w.t.Fatal("ended too early")
		case <-b.Ends():
			w.t.Fatal("woken for nothing")
		default:
		}
		if err := a.Logout(ctx, one.Session); err != nil {
			w.t.Fatal(err)
		}
		w.clock.add(10 * time.Second)
		if err := b.pollRevoked(ctx); err != nil {
			w.t.Fatal(err)
		}
		<-b.Ended(one.Session)
		<-b.Ends()
		select {
		case <-b.Ended(other.Session):
			w.t.Error("the wrong session has ended")
		default:
		}
	})
}
