package identity

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

const (
	resumeRefused  = "resume token invalid or expired"
	sessionRefused = "invalid session_token"
	notAToken      = "the token is not a valid service token"
)

func TestStartSession(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a := w.node()
		ready, err := a.StartSession(ctx, Start{
			Token: w.token("ann"), Device: "phone", ClientLabel: "my phone",
			Features: []string{"bundle", "marker"},
		})
		if err != nil {
			w.t.Fatal(err)
		}
		ann := ds.AccountID(testKey(w.t, "ann", ES256).DID())
		if ready.Account != ann || ready.Device != "phone" || ready.FromResume || ready.ClientLabel != "my phone" {
			w.t.Errorf("got %+v", ready)
		}
		if !slices.Equal(ready.Features, []string{"bundle", "marker"}) || !ready.Has("marker") || ready.Has("device") {
			w.t.Errorf("features: %q", ready.Features)
		}
		for token, form := range map[string]string{
			ready.SessionToken: `^st_[A-Za-z0-9_-]{22}$`, ready.ResumeToken: `^rt_[A-Za-z0-9_-]{22}$`, ready.ID: `^sid_[A-Za-z0-9_-]{22}$`,
		} {
			if !regexp.MustCompile(form).MatchString(token) {
				w.t.Errorf("%q is not %s", token, form)
			}
		}
		if want := w.clock.Now().Add(time.Hour).UnixMilli(); ready.ExpiresMS != want {
			w.t.Errorf("expires at %d, want %d", ready.ExpiresMS, want)
		}
		session, err := a.Session(ctx, ready.SessionToken)
		if err != nil || session.Caller != ready.Caller || session.ID != ready.ID || !slices.Equal(session.Features, ready.Features) {
			w.t.Errorf("got %+v, %v", session, err)
		}
		// Another session of the same device lives beside it, and on other nodes.
		second := w.start(a, "ann")
		for _, token := range []string{ready.SessionToken, second.SessionToken} {
			if _, err := w.node().Session(ctx, token); err != nil {
				w.t.Error(err)
			}
		}
	})
}

// TestStartWithBadToken: a token that is refused is not used up.
func TestStartWithBadToken(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	token := w.token("ann")
	for _, bad := range []string{"", "Bearer " + token, "x", token + "x"} {
		_, err := a.StartSession(context.Background(), Start{Token: bad, Device: "d"})
		wantRefusal(t, err, ds.Unauthorized, notAToken)
	}
	if _, err := a.StartSession(context.Background(), Start{Token: token, Device: "d"}); err != nil {
		t.Error(err)
	}
}

func TestResumeLineage(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a, b := w.node(), w.node()
		first := w.start(a, "ann")

		// The answer is lost three times; each time it is the same, wherever it is asked for.
		second := w.resume(a, first.ResumeToken)
		if second.SessionToken != first.SessionToken || second.ResumeToken == first.ResumeToken || !second.FromResume {
			w.t.Fatalf("got %+v", second)
		}
		for _, node := range []*Authenticator{a, b, b} {
			again := w.resume(node, first.ResumeToken)
			if again.ResumeToken != second.ResumeToken || again.SessionToken != second.SessionToken {
				w.t.Error("a repeated resume has another answer")
			}
		}
		// Neither the session token nor an answer to a start proves anything, nor does time.
		if _, err := a.Session(ctx, second.SessionToken); err != nil {
			w.t.Error(err)
		}
		if err := a.Answered(ctx, first); err != nil {
			w.t.Error(err)
		}
		w.clock.add(predecessorFor)
		if w.resume(b, first.ResumeToken).ResumeToken != second.ResumeToken {
			w.t.Error("the predecessor died too early")
		}

		// The successor is presented: the first token is dead, the second repeats.
		third := w.resume(b, second.ResumeToken)
		_, err := a.ResumeSession(ctx, first.ResumeToken, nil)
		wantRefusal(w.t, err, ds.ResumeFailed, resumeRefused)
		if w.resume(a, second.ResumeToken).ResumeToken != third.ResumeToken {
			w.t.Error("a repeated resume has another answer")
		}

		// That the second answer was written late does not touch the third.
		if err := a.Answered(ctx, second); err != nil {
			w.t.Error(err)
		}
		w.clock.add(predecessorFor)
		w.resume(a, second.ResumeToken)

		// The third was written: the second is good for another minute.
		if err := b.Answered(ctx, third); err != nil {
			w.t.Error(err)
		}
		w.clock.add(predecessorFor - time.Millisecond)
		w.resume(a, second.ResumeToken)
		w.clock.add(time.Millisecond)
		for _, node := range []*Authenticator{a, b} {
			_, err = node.ResumeSession(ctx, second.ResumeToken, nil)
			wantRefusal(w.t, err, ds.ResumeFailed, resumeRefused)
			if err := node.sweep(ctx); err != nil {
				w.t.Error(err)
			}
		}
		fourth := w.resume(a, third.ResumeToken)
		if fourth.SessionToken != first.SessionToken || fourth.ID != first.ID || fourth.Caller != first.Caller {
			w.t.Errorf("got %+v", fourth)
		}
	})
}

// Two nodes resume one token many times at once: all get one successor.
func TestResumeRace(t *testing.T) {
	onEach(t, func(w *world) {
		nodes := []*Authenticator{w.node(), w.node()}
		token := w.start(nodes[0], "ann").ResumeToken
		for range 10 {
			var (
				mu         sync.Mutex
				successors = map[string]int{}
				wg         sync.WaitGroup
			)
			for i := range 12 {
				wg.Go(func() {
					ready, err := nodes[i%2].ResumeSession(context.Background(), token, nil)
					if err != nil {
						w.t.Errorf("resume: %v", err)
						return
					}
					mu.Lock()
					successors[ready.ResumeToken]++
					mu.Unlock()
				})
			}
			wg.Wait()
			if len(successors) != 1 {
				w.t.Fatalf("got %d successors", len(successors))
			}
			for successor := range successors {
				token = successor
			}
		}
	})
}

func TestResumeRefuses(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	ready := w.start(a, "ann")
	good := ready.ResumeToken
	other := "A"
	if strings.HasSuffix(good, other) {
		other = "Q" // the last character carries two bits
	}
	for _, bad := range []string{"", "rt_", ready.SessionToken, "st_" + good[3:], good[3:], good + "A", good[:24], good[:24] + "\n" + good[24:],
		good + "\n", good[:24] + other, "rt_" + strings.Repeat("A", 22), strings.Repeat("x", 1<<20)} {
		_, err := a.ResumeSession(context.Background(), bad, nil)
		wantRefusal(t, err, ds.ResumeFailed, resumeRefused)
		_, err = a.Session(context.Background(), bad)
		if bad != ready.SessionToken {
			wantRefusal(t, err, ds.Unauthorized, sessionRefused)
		}
	}
	w.resume(a, good)
}

func TestExpiry(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a := w.node()
		ready := w.start(a, "ann")
		w.clock.add(59 * time.Minute)
		if _, err := a.Session(ctx, ready.SessionToken); err != nil {
			w.t.Error(err)
		}
		resumed := w.resume(a, ready.ResumeToken)
		if want := w.clock.Now().Add(time.Hour).UnixMilli(); resumed.ExpiresMS != want {
			w.t.Errorf("a resume does not slide the expiry: %d, want %d", resumed.ExpiresMS, want)
		}
		w.clock.add(30 * time.Minute)
		if again := w.resume(a, ready.ResumeToken); again.ExpiresMS != w.clock.Now().Add(time.Hour).UnixMilli() {
			w.t.Error("a repeated resume does not slide the expiry")
		}
		w.clock.add(time.Hour)
		_, err := a.Session(ctx, ready.SessionToken)
		wantRefusal(w.t, err, ds.Unauthorized, sessionRefused)
		for _, token := range []string{ready.ResumeToken, resumed.ResumeToken} {
			_, err = a.ResumeSession(ctx, token, nil)
			wantRefusal(w.t, err, ds.ResumeFailed, resumeRefused)
		}
	})
}

// settle waits until the writer has done everything it was given.
func settle(a *Authenticator) error { return a.writer.do(context.Background(), &job{}) }

func TestAttachedSessionsDoNotExpire(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a, other := w.node(), w.node()
		ready := w.start(a, "ann")
		w.clock.add(59*time.Minute + 50*time.Second)
		session, err := a.Session(ctx, ready.SessionToken)
		if err != nil {
			w.t.Fatal(err)
		}
		detach, second := a.Attach(session), a.Attach(session)
		if err := settle(a); err != nil {
			w.t.Fatal(err)
		}
		expiry := func() int64 {
			w.t.Helper()
			s, err := other.Session(ctx, ready.SessionToken)
			if err != nil {
				w.t.Fatal(err)
			}
			return s.ExpiresMS
		}
		slid := expiry()
		if slid != w.clock.Now().Add(time.Hour).UnixMilli() {
			w.t.Error("attaching late does not slide the expiry")
		}
		w.clock.add(30 * time.Second)
		if err := a.slide(ctx); err != nil || expiry() != slid {
			w.t.Errorf("written twice in a minute (%v)", err)
		}
		for range 180 { // three hours
			w.clock.add(time.Minute)
			if err := a.slide(ctx); err != nil {
				w.t.Fatal(err)
			}
		}
		if expiry() != w.clock.Now().Add(time.Hour).UnixMilli() {
			w.t.Error("the expiry does not slide")
		}
		// Where the slide could not be written, this node still knows better.
		w.clock.add(2 * time.Hour)
		if _, err := a.Session(ctx, ready.SessionToken); err != nil {
			w.t.Errorf("attached, but expired: %v", err)
		}
		detach()
		detach()
		if _, err := a.Session(ctx, ready.SessionToken); err != nil {
			w.t.Errorf("still attached once, but expired: %v", err)
		}
		second()
		if err := settle(a); err != nil {
			w.t.Fatal(err)
		}
		if expiry() != w.clock.Now().Add(time.Hour).UnixMilli() {
			w.t.Error("a detached session does not live for its full time")
		}
		w.clock.add(time.Hour)
		if err := a.slide(ctx); err != nil {
			w.t.Fatal(err)
		}
		_, err = a.Session(ctx, ready.SessionToken)
		wantRefusal(w.t, err, ds.Unauthorized, sessionRefused)
	})
}

func TestLastSeen(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	ready := w.start(a, "ann")
	seen := func() int64 {
		t.Helper()
		s, err := a.Session(context.Background(), ready.SessionToken)
		if err != nil {
			t.Fatal(err)
		}
		if err := settle(a); err != nil {
			t.Fatal(err)
		}
		return s.LastSeenMS
	}
	started := w.clock.Now().UnixMilli()
	w.clock.add(29 * time.Second)
	seen()
	if got := seen(); got != started {
		t.Errorf("moved after 29 s: %d", got-started)
	}
	w.clock.add(time.Second)
	seen()
	if got := seen(); got != w.clock.Now().UnixMilli() {
		t.Errorf("did not move after 30 s: %d", got-started)
	}
}

func TestRevoke(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a, b := w.node(), w.node()
		start := func(name string, device ds.DeviceID) Ready {
			ready, err := a.StartSession(ctx, Start{Token: w.token(name), Device: device})
			if err != nil {
				w.t.Fatal(err)
			}
			return ready
		}
		phone, tablet, desk, eve := start("ann", "phone"), start("ann", "tablet"), start("ann", "desk"), start("eve", "phone")
		isAlive := func(r Ready) bool {
			_, sessionErr := b.Session(ctx, r.SessionToken)
			_, resumeErr := b.ResumeSession(ctx, r.ResumeToken, nil)
			if (sessionErr == nil) != (resumeErr == nil) {
				w.t.Errorf("half alive: %v, %v", sessionErr, resumeErr)
			}
			return sessionErr == nil
		}
		list, err := a.Sessions(ctx, phone.Session)
		if err != nil || len(list) != 3 || list[0].ID != phone.ID || list[1].ID != desk.ID || list[2].ID != tablet.ID {
			w.t.Errorf("got %+v, %v", list, err)
		}

		_, err = a.Revoke(ctx, phone.Session, Selection{})
		wantRefusal(w.t, err, ds.InvalidRequest, "exactly one of session_id and device_id is required")
		_, err = a.Revoke(ctx, phone.Session, Selection{SessionID: phone.ID})
		wantRefusal(w.t, err, ds.InvalidRequest, "refusing to revoke current session without include_self")
		for _, nobody := range []Selection{{SessionID: eve.ID}, {SessionID: "sid_x"}, {DeviceID: "none"}, {DeviceID: "phone"}} {
			if ids, err := a.Revoke(ctx, phone.Session, nobody); err != nil || ids == nil || len(ids) != 0 {
				w.t.Errorf("%+v: got %q, %v", nobody, ids, err)
			}
		}

		// What is attached hears of it: here at once, elsewhere with the next slide.
		defer a.Attach(tablet.Session)()
		defer b.Attach(tablet.Session)()
		here, there := a.Ended(tablet.Session), b.Ended(tablet.Session)
		ids, err := a.Revoke(ctx, phone.Session, Selection{SessionID: tablet.ID})
		if err != nil || !slices.Equal(ids, []string{tablet.ID}) {
			w.t.Errorf("got %q, %v", ids, err)
		}
		<-here
		late := a.Attach(tablet.Session) // looked up before
		<-a.Ended(tablet.Session)
		late()
		w.clock.add(2 * time.Minute)
		if err := b.slide(ctx); err != nil {
			w.t.Fatal(err)
		}
		<-there
		if isAlive(tablet) || !isAlive(phone) || !isAlive(desk) || !isAlive(eve) {
			w.t.Error("the wrong session was revoked")
		}

		if n, err := a.LogoutAll(ctx, phone.Session, false); err != nil || n != 1 || isAlive(desk) || !isAlive(phone) {
			w.t.Errorf("logout_all: %d, %v", n, err)
		}
		if err := a.Logout(ctx, phone.Session); err != nil || isAlive(phone) || !isAlive(eve) {
			w.t.Errorf("logout: %v", err)
		}
	})
}

// A reader of the database finds no token there, nor a way to make one.
func TestRowsHoldNoTokens(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	first := w.start(a, "ann")
	second := w.resume(a, first.ResumeToken)
	hash := first.hash
	var row store.Session
	err := w.db.View(context.Background(), func(tx *store.Tx) (err error) {
		row, err = tx.Sessions.Get(hash[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stored := slices.Concat(row.Hash, []byte(row.ID), row.ResumeHash, row.ResumeSealed, row.PreviousHash)
	for prefix, token := range map[string]string{"st_": first.SessionToken, "rt_": first.ResumeToken, "rt_ ": second.ResumeToken} {
		s, ok := parseSecret(prefix[:3], token)
		if !ok {
			t.Fatalf("%q does not parse", prefix)
		}
		if bytes.Contains(stored, s[:]) || bytes.Contains(stored, []byte(token[3:])) {
			t.Errorf("a %s token is in the row", prefix)
		}
	}
	// What is sealed for one token opens with no other and in no other row.
	previous, _ := parseSecret("rt_", first.ResumeToken)
	current, _ := parseSecret("rt_", second.ResumeToken)
	if _, err := openSealed(current, row.Hash, row.ResumeSealed[currentBytes:], 2); !errors.Is(err, errSealed) {
		t.Errorf("opened with another token: %v", err)
	}
	if _, err := openSealed(previous, make([]byte, 32), row.ResumeSealed[currentBytes:], 2); !errors.Is(err, errSealed) {
		t.Errorf("opened in another row: %v", err)
	}
	if err := a.Answered(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	w.clock.add(predecessorFor)
	if err := a.sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	err = w.db.View(context.Background(), func(tx *store.Tx) (err error) {
		row, err = tx.Sessions.Get(hash[:])
		return err
	})
	if err != nil || len(row.ResumeSealed) != currentBytes || row.PreviousHash != nil {
		t.Errorf("ended, but the predecessor's answer is kept: %d bytes, %v", len(row.ResumeSealed), err)
	}
}

// The store goes away while tokens are presented: no verdict is given.
func TestFaultsAreNoVerdicts(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	ready := w.start(a, "ann")
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	_, verify := a.verifyServiceToken(ctx, w.token("ann"), SessionStartMethod)
	_, start := a.StartSession(ctx, Start{Token: w.token("ann"), Device: "d"})
	_, resume := a.ResumeSession(ctx, ready.ResumeToken, nil)
	_, session := a.Session(ctx, ready.SessionToken)
	answered := a.Answered(ctx, Ready{SessionToken: ready.SessionToken, ResumeToken: ready.ResumeToken, FromResume: true})
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, gone := a.verifyServiceToken(cancelled, w.token("ann"), SessionStartMethod)
	for name, err := range map[string]error{"verify": verify, "start": start, "resume": resume, "session": session, "answered": answered, "cancelled": gone} {
		if !ds.IsUnavailable(err) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
}

// A random walk of resumes, lost and late answers over two nodes, beside a
// model: the token that is current, and its predecessor while it is accepted.
func TestResumeModel(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		nodes := []*Authenticator{w.node(), w.node()}
		seed := uint64(time.Now().UnixNano())
		w.t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		last := w.start(nodes[0], "ann")
		current, previous, dead := last.ResumeToken, "", []string{}
		for step := range 150 {
			node := nodes[random.IntN(2)]
			switch random.IntN(4) {
			case 0: // the answer arrives and is used
				last = w.resume(node, current)
				if previous != "" {
					dead = append(dead, previous)
				}
				previous, current = current, last.ResumeToken
			case 1: // an answer was lost
				if previous == "" {
					continue
				}
				if again := w.resume(node, previous); again.ResumeToken != current || again.SessionToken != last.SessionToken {
					w.t.Fatalf("step %d: another answer", step)
				}
			case 2: // the answer was written a while ago
				if err := node.Answered(ctx, last); err != nil {
					w.t.Fatal(err)
				}
				w.clock.add(predecessorFor)
				if previous != "" {
					dead, previous = append(dead, previous), ""
				}
			case 3: // a dead token is tried
				if len(dead) == 0 {
					continue
				}
				_, err := node.ResumeSession(ctx, dead[random.IntN(len(dead))], nil)
				wantRefusal(w.t, err, ds.ResumeFailed, resumeRefused)
			}
		}
	})
}
