package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// gate is a service with a mode of admission.
type gate struct {
	*world
	admissions Admissions
	a          *Authenticator
}

func newGate(w *world, mode Admission) *gate {
	return &gate{w, Admissions{Store: w.db, Now: w.clock.Now}, gateNode(w, mode)}
}

// gateNode starts a node with that mode on the world's database.
func gateNode(w *world, mode Admission) *Authenticator {
	a, err := New(Options{Store: w.db, Now: w.clock.Now, Admission: mode, Audience: func() []string { return Audiences(serviceDID) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(a.Close)
	return a
}

func (g *gate) invite(uses int64, life time.Duration) Invite {
	g.t.Helper()
	i, err := g.admissions.CreateInvite(context.Background(), uses, life, "")
	if err != nil {
		g.t.Fatal(err)
	}
	return i
}

// session starts a session and returns what was refused, "" for nothing.
func (g *gate) session(name, code string) string {
	_, err := g.a.StartSession(context.Background(), Start{Token: g.token(name), Device: "phone", InviteCode: code})
	return messageOf(err)
}

// call calls an XRPC method.
func (g *gate) call(name string) string {
	_, err := g.a.Prove(context.Background(), g.methodToken(name, "1"), sendMethod, "")
	return reasonOf(err)
}

// methodToken is a token for sendMethod.
func (g *gate) methodToken(name, id string) string {
	k := testKey(g.t, name, ES256)
	now := g.clock.Now()
	token, err := SignToken(k, Claims{Issuer: k.DID(), Audience: serviceDID, Method: sendMethod, ID: id + fmt.Sprint(now.UnixNano()), IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		g.t.Fatal(err)
	}
	g.clock.add(time.Millisecond) // the next token is another
	return token
}

func messageOf(err error) string {
	var refusal *ds.Refusal
	if errors.As(err, &refusal) {
		return string(refusal.Code) + ": " + refusal.Message
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func (g *gate) did(name string) string { return testKey(g.t, name, ES256).DID() }

func (g *gate) uses(id string) int64 {
	g.t.Helper()
	list, err := g.admissions.Invites(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, i := range list {
		if i.ID == id {
			return i.Uses
		}
	}
	g.t.Fatalf("no invite %s", id)
	return 0
}

const (
	wantInvite     = "forbidden: invite required"
	wantGoodInvite = "forbidden: invalid invite"
	wantAllowed    = "forbidden: not on the allowlist"
)

func TestAdmissionByInvite(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		g := newGate(w, AdmissionInvite)
		steps := func(name, got, want string) {
			w.t.Helper()
			if got != want {
				w.t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		two := g.invite(2, time.Hour)
		if !strings.HasPrefix(two.Code, "wxi_") || len(two.Code) != 30 || two.ID == "" {
			w.t.Errorf("made %+v", two)
		}
		steps("no code", g.session("ann", ""), wantInvite)
		steps("no code, XRPC", g.call("ann"), string(ds.InviteRequired))
		steps("a wrong code", g.session("ann", two.Code+"x"), wantGoodInvite)
		steps("the id is no code", g.session("ann", two.ID), wantGoodInvite)
		token := g.token("ann")
		_, err := g.a.StartSession(ctx, Start{Token: token, Device: "phone"})
		steps("refused", messageOf(err), wantInvite)
		_, err = g.a.StartSession(ctx, Start{Token: token, Device: "phone", InviteCode: two.Code})
		steps("the refused token, with the code", messageOf(err), "")
		steps("admitted: no code", g.session("ann", ""), "")
		steps("admitted: XRPC", g.call("ann"), "")
		steps("admitted: another code stays unused", g.session("ann", two.Code), "")
		if got := g.uses(two.ID); got != 1 {
			w.t.Errorf("used %d times", got)
		}

		// The other way in.
		redeem := func(name, code string) string {
			_, err := g.a.RedeemInvite(ctx, g.methodToken(name, "r"), sendMethod, "", code)
			return reasonOf(err)
		}
		steps("redeem nothing", redeem("bob", ""), string(ds.InviteRequired))
		steps("redeem a wrong one", redeem("bob", "wxi_"), string(ds.InvalidInvite))
		steps("redeem", redeem("bob", two.Code), "")
		steps("redeemed: a session", g.session("bob", ""), "")
		steps("redeem again", redeem("bob", two.Code), "")
		steps("used up", g.session("cem", two.Code), wantGoodInvite)
		if got := g.uses(two.ID); got != 2 {
			w.t.Errorf("used %d times", got)
		}

		old := g.invite(1, time.Hour)
		w.clock.add(time.Hour)
		steps("expired", g.session("cem", old.Code), wantGoodInvite)
		endless := g.invite(1, 0)
		w.clock.add(24 * 365 * time.Hour)
		for _, id := range []string{endless.ID, endless.Code} {
			if err := g.admissions.RevokeInvite(ctx, id); (err == nil) != (id == endless.ID) {
				w.t.Errorf("revoke %s: %v", id, err)
			}
		}
		steps("revoked", g.session("cem", endless.Code), wantGoodInvite)
		byCode := g.invite(1, 0)
		if err := g.admissions.RevokeInvite(ctx, byCode.Code); err != nil {
			w.t.Errorf("revoke by the code: %v", err)
		}
		steps("revoked by its code", g.session("cem", byCode.Code), wantGoodInvite)

		if err := g.admissions.Allow(ctx, g.did("cem")); err != nil {
			w.t.Fatal(err)
		}
		steps("on the allowlist", g.session("cem", "nonsense"), "")

		// Who is admitted is so on every node and after a restart, in every mode.
		for _, mode := range []Admission{AdmissionInvite, AdmissionAllowlist, AdmissionOpen} {
			g.a = gateNode(w, mode)
			for _, name := range []string{"ann", "bob", "cem"} {
				steps(name+" elsewhere", g.session(name, ""), "")
				steps(name+" elsewhere, XRPC", g.call(name), "")
			}
		}
	})
}

func TestAdmissionByAllowlist(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		g := newGate(w, AdmissionAllowlist)
		code := g.invite(1, 0).Code
		if got := g.session("ann", code); got != wantAllowed {
			w.t.Errorf("a code: %q", got)
		}
		if got := g.call("ann"); got != string(ds.NotOnAllowlist) {
			w.t.Errorf("XRPC: %q", got)
		}
		for range 2 {
			if err := g.admissions.Allow(ctx, g.did("ann")); err != nil {
				w.t.Fatal(err)
			}
		}
		if got := g.call("ann"); got != "" {
			w.t.Errorf("allowed: %q", got)
		}
		if err := g.admissions.Disallow(ctx, g.did("ann")); err != nil {
			w.t.Fatal(err)
		}
		if err := g.admissions.Disallow(ctx, g.did("ann")); ds.CodeOf(err) != ds.NotFound {
			w.t.Errorf("twice: %v", err)
		}
		if got := g.session("ann", ""); got != "" {
			w.t.Errorf("who was here stays: %q", got)
		}
		for _, account := range []string{"", "ann", "did:", "did:ion:x", "did:key:z", "did:web:Host.net", "did:plc:short", "did:plc:ewvi7nxzyoun6zhxrhs64oiz#x"} {
			if err := g.admissions.Allow(ctx, account); ds.CodeOf(err) != ds.InvalidRequest {
				w.t.Errorf("%q: %v", account, err)
			}
		}
		for _, account := range []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:host.net:ann", g.did("bob")} {
			if err := g.admissions.Allow(ctx, account); err != nil {
				w.t.Errorf("%q: %v", account, err)
			}
		}
		list, err := g.admissions.Allowed(ctx)
		if err != nil || len(list) != 3 || list[1].Account != "did:plc:ewvi7nxzyoun6zhxrhs64oiz" {
			w.t.Errorf("lists %+v, %v", list, err)
		}
	})
}

// TestExpel: an expelled account is refused on every node, whatever code it has, and its sessions
// are over; an operator may let it in again.
func TestExpel(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		g := newGate(w, AdmissionInvite)
		g.admissions.Running = g.a
		elsewhere := gateNode(w, AdmissionInvite)
		code := g.invite(2, 0).Code
		start := func(a *Authenticator, name, code string) (Ready, error) {
			return a.StartSession(ctx, Start{Token: w.token(name), Device: "phone", InviteCode: code})
		}
		here, err := start(g.a, "ann", code)
		if err != nil {
			w.t.Fatal(err)
		}
		there, err := start(elsewhere, "ann", "")
		if err != nil {
			w.t.Fatal(err)
		}
		other, err := start(g.a, "bob", code)
		if err != nil {
			w.t.Fatal(err)
		}
		defer g.a.Attach(here.Session)()
		defer g.a.Attach(other.Session)()
		defer elsewhere.Attach(there.Session)()
		must := func(err error) {
			w.t.Helper()
			if err != nil {
				w.t.Fatal(err)
			}
		}
		must(g.admissions.Allow(ctx, g.did("ann")))
		must(g.admissions.Expel(ctx, g.did("ann")))
		<-g.a.Ended(here.Session)
		must(elsewhere.pollRevoked(ctx))
		<-elsewhere.Ended(there.Session)
		select {
		case <-g.a.Ended(other.Session):
			w.t.Error("bob is out too")
		default:
		}
		for name, token := range map[string]string{"resume here": here.ResumeToken, "resume there": there.ResumeToken} {
			if _, err := g.a.ResumeSession(ctx, token, nil); ds.CodeOf(err) != ds.ResumeFailed {
				w.t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := start(elsewhere, "ann", ""); messageOf(err) != refuseExpelled.Error() {
			w.t.Errorf("a start where she was known: %v", err)
		}
		invite := g.invite(1, 0)
		if got := g.session("ann", invite.Code); got != refuseExpelled.Error() {
			w.t.Errorf("a new code: %q", got)
		}
		if got := g.call("ann"); got != string(ds.Expelled) {
			w.t.Errorf("XRPC: %q", got)
		}
		for name, a := range map[string]*Authenticator{"here": g.a, "there": elsewhere} {
			if !a.IsExpelled(ds.AccountID(g.did("ann"))) || a.IsExpelled(ds.AccountID(g.did("bob"))) {
				w.t.Errorf("%s it is not known who is expelled", name)
			}
		}
		g.admissions.By = "local:7"
		w.clock.add(time.Second)
		elsewhere.believe(ds.AccountID(g.did("ann")), w.clock.Now()) // as after a node of an earlier version admitted it
		must(g.admissions.Expel(ctx, g.did("ann")))                  // again
		must(elsewhere.pollRevoked(ctx))
		if !elsewhere.IsExpelled(ds.AccountID(g.did("ann"))) {
			w.t.Error("there the second expulsion is not known")
		}
		if _, err := g.admissions.Account(ctx, "did:x:\x00"); ds.CodeOf(err) != ds.NotFound {
			w.t.Errorf("an account with a zero byte: %v", err)
		}
		if _, err := g.admissions.Accounts(ctx, "did:\x00", "", 1); ds.CodeOf(err) != ds.InvalidRequest {
			w.t.Errorf("accounts with a zero byte: %v", err)
		}
		must(g.admissions.Allow(ctx, g.did("cem")))
		must(g.admissions.Expel(ctx, g.did("cem")))
		if got := g.session("cem", invite.Code); got != refuseExpelled.Error() {
			w.t.Errorf("on the list and never here: %q", got)
		}
		if err := g.admissions.Expel(ctx, g.did("dov")); ds.CodeOf(err) != ds.NotFound {
			w.t.Errorf("never here: %v", err)
		}
		list, err := g.admissions.Accounts(ctx, "did:", "", 0)
		if err != nil || len(list) != 3 {
			w.t.Fatalf("listed %+v, %v", list, err)
		}
		by := map[ds.AccountID]string{ds.AccountID(g.did("cem")): "local:7"}
		for i, a := range list {
			page, err := g.admissions.Accounts(ctx, string(a.ID), "", 1)
			if err != nil || len(page) != 1 || page[0] != a || a.ExpelledBy != by[a.ID] || (a.ExpelledMS == 0) != (string(a.ID) == g.did("bob")) {
				w.t.Errorf("%+v, alone %+v, %v", a, page, err)
			}
			if page, err = g.admissions.Accounts(ctx, "", string(a.ID), 0); err != nil || len(page) != 2-i {
				w.t.Errorf("after %s: %+v, %v", a.ID, page, err)
			}
		}
		w.clock.add(time.Second)
		must(g.admissions.Allow(ctx, g.did("ann")))
		if got := g.session("ann", ""); got != "" {
			w.t.Errorf("let in again: %q", got)
		}
		if _, err := start(elsewhere, "ann", ""); err != nil || elsewhere.IsExpelled(ds.AccountID(g.did("ann"))) {
			w.t.Errorf("let in again there: %v", err)
		}
		d, err := g.admissions.Account(ctx, g.did("ann"))
		if err != nil || !d.IsAllowed || d.ExpelledMS != 0 || len(d.Devices) != 1 || d.Devices[0].Sessions != 2 {
			w.t.Errorf("shown %+v, %v", d, err)
		}
		if _, err := g.admissions.Account(ctx, g.did("dov")); ds.CodeOf(err) != ds.NotFound {
			w.t.Errorf("never here: %v", err)
		}
	})
}

// TestExpelElsewhere: another process lets calls through until it has looked for expulsions, and no
// longer; a session does not begin even then.
func TestExpelElsewhere(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		g := newGate(w, AdmissionAllowlist)
		put := func(what func(context.Context, string) error) {
			w.t.Helper()
			if err := what(ctx, g.did("ann")); err != nil {
				w.t.Fatal(err)
			}
		}
		put(g.admissions.Allow)
		for range 2 { // the first lets her in, the second finds her
			if got := g.call("ann"); got != "" {
				w.t.Fatal(got)
			}
		}
		put(g.admissions.Expel)
		if got := g.call("ann"); got != "" {
			w.t.Errorf("at once: %q", got)
		}
		if err := g.a.pollRevoked(ctx); err != nil {
			w.t.Fatal(err)
		}
		if got := g.call("ann"); got != string(ds.Expelled) {
			w.t.Errorf("later: %q", got)
		}
		w.clock.add(time.Second)
		put(g.admissions.Allow)
		if got := g.session("ann", ""); got != "" {
			w.t.Fatal(got)
		}
		put(g.admissions.Expel)
		put(g.admissions.Allow)
		if _, err := g.a.StartSession(ctx, Start{Token: g.token("ann"), Device: "phone"}); !ds.IsUnavailable(err) {
			w.t.Errorf("put out and allowed again, where she was known: %v", err)
		}
		if got := g.session("ann", ""); got != "" {
			w.t.Errorf("the next time: %q", got)
		}
	})
}

// TestExpelRace: a session that begins while its account is expelled ends with the others,
// or does not begin.
func TestExpelRace(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		g := newGate(w, AdmissionAllowlist)
		g.admissions.Running = g.a
		elsewhere := gateNode(w, AdmissionAllowlist)
		for round := range 20 {
			if err := g.admissions.Allow(ctx, g.did("ann")); err != nil {
				w.t.Fatal(err)
			}
			if got := g.session("ann", ""); got != "" {
				w.t.Fatal(got)
			}
			_, _ = elsewhere.StartSession(ctx, Start{Token: w.token("ann"), Device: "phone"}) // it knows her now
			token := w.token("ann")
			var begun Ready
			var racing sync.WaitGroup
			racing.Go(func() {
				begun, _ = elsewhere.StartSession(ctx, Start{Token: token, Device: "phone"})
			})
			if err := g.admissions.Expel(ctx, g.did("ann")); err != nil {
				w.t.Error(err)
			}
			racing.Wait()
			if _, err := elsewhere.ResumeSession(ctx, begun.ResumeToken, nil); ds.CodeOf(err) != ds.ResumeFailed {
				w.t.Fatalf("round %d: a session outlives its account: %v", round, err)
			}
		}
	})
}

// TestInviteRace: of many accounts that race for few uses on two nodes, as many get
// in as there are uses, and no more are counted.
func TestInviteRace(t *testing.T) {
	onEach(t, func(w *world) {
		const uses, people, tries = 5, 16, 2
		g := newGate(w, AdmissionInvite)
		nodes := []*Authenticator{g.a, gateNode(w, AdmissionInvite)}
		invite := g.invite(uses, time.Hour)
		var (
			mu sync.Mutex
			in = map[string]bool{}
			wg sync.WaitGroup
		)
		for i := range people {
			name := fmt.Sprint("p", i)
			for try := range tries {
				token := g.token(name)
				wg.Go(func() {
					_, err := nodes[try].StartSession(context.Background(), Start{Token: token, Device: "phone", InviteCode: invite.Code})
					switch got := messageOf(err); got {
					case "":
						mu.Lock()
						in[name] = true
						mu.Unlock()
					case wantGoodInvite:
					default:
						w.t.Errorf("got %s", got)
					}
				})
			}
		}
		wg.Wait()
		if len(in) != uses || g.uses(invite.ID) != uses {
			w.t.Errorf("%d got in, %d uses counted, want %d", len(in), g.uses(invite.ID), uses)
		}
		for i := range people {
			name := fmt.Sprint("p", i)
			if got := g.session(name, ""); (got == "") != in[name] {
				w.t.Errorf("%s afterwards: %q", name, got)
			}
		}
	})
}

// TestAdmissionOpen: every account is admitted, counted by address, and stays when the mode
// changes.
func TestAdmissionOpen(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		g := newGate(w, AdmissionOpen)
		counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.FirstContacts: 2}}
		g.a.o.Limit = counted.take
		for i, want := range []string{"", "", string(ds.TooManyTokens), string(ds.TooManyTokens)} {
			name := fmt.Sprint("p", i)
			if _, err := g.a.Prove(ctx, g.methodToken(name, "1"), sendMethod, "192.0.2.1"); reasonOf(err) != want {
				w.t.Errorf("%s: %v", name, err)
			}
		}
		for range 5 {
			if _, err := g.a.Prove(ctx, g.methodToken("p0", "2"), sendMethod, "192.0.2.1"); err != nil {
				w.t.Errorf("known: %v", err)
			}
		}
		if got := g.session("ann", "any code"); got != "" {
			w.t.Errorf("a session: %q", got)
		}
		closed := gateNode(w, AdmissionAllowlist)
		for name, want := range map[string]string{"p0": "", "p1": "", "ann": "", "p2": wantAllowed} {
			_, err := closed.StartSession(ctx, Start{Token: g.token(name), Device: "phone"})
			if got := messageOf(err); got != want {
				w.t.Errorf("%s after the mode was changed: %q", name, got)
			}
		}
	})
}

func TestInvitesAreChecked(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	g := newGate(w, AdmissionInvite)
	for _, bad := range []struct {
		uses int64
		life time.Duration
		note string
	}{{0, 0, ""}, {-1, 0, ""}, {inviteUsesMax + 1, 0, ""}, {1, -time.Second, ""}, {1, inviteLifeMax + 1, ""}, {1, 0, strings.Repeat("x", 201)},
		{1, 0, "two\nlines"}, {1, 0, "\xff"}, {1, 0, "a\x00b"}} {
		if _, err := g.admissions.CreateInvite(context.Background(), bad.uses, bad.life, bad.note); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	codes := map[string]bool{}
	for range 50 {
		i := g.invite(1, 0)
		codes[i.Code], codes[i.ID] = true, true
		w.clock.add(time.Second)
	}
	list, err := g.admissions.Invites(context.Background())
	if err != nil || len(list) != 50 || len(codes) != 100 {
		t.Fatalf("%d invites, %v", len(list), err)
	}
	for i, invite := range list {
		if invite.Code != "" || i > 0 && invite.CreatedMS < list[i-1].CreatedMS {
			t.Errorf("lists %+v", invite)
		}
	}
	for _, mode := range []Admission{"closed", "auto"} {
		if _, err := New(Options{Store: w.db, Audience: func() []string { return nil }, Admission: mode}); err == nil {
			t.Errorf("mode %q", mode)
		}
	}
}

// TestAdmissionInOneBatch: what several first contacts in one transaction want does
// not get mixed up.
func TestAdmissionInOneBatch(t *testing.T) {
	onEach(t, func(w *world) {
		g := newGate(w, AdmissionInvite)
		one := g.invite(1, time.Hour)
		hash := func() *[32]byte {
			var found store.Invite
			err := w.db.View(context.Background(), func(tx *store.Tx) error {
				list, err := tx.Admission.Invites("", 10)
				if err == nil {
					found = list[0]
				}
				return err
			})
			if err != nil {
				w.t.Fatal(err)
			}
			return &found.CodeHash
		}()
		wrong := &[32]byte{1}
		nonce := func(b byte) *store.Nonce {
			return &store.Nonce{Hash: [32]byte{b}, ExpiresMS: w.clock.Now().Add(time.Minute).UnixMilli()}
		}
		batch := []*job{
			{nonce: nonce(1), admit: &admission{account: "did:ex:open"}},
			{nonce: nonce(2), admit: &admission{"did:ex:ann", wrong}},
			{nonce: nonce(3), admit: &admission{"did:ex:ann", hash}},
			{nonce: nonce(4), admit: &admission{"did:ex:ann", wrong}}, // is in by now
			{nonce: nonce(5), admit: &admission{"did:ex:bob", hash}},
			{nonce: nonce(1), admit: &admission{account: "did:ex:replay"}},
			{nonce: nonce(6), admit: &admission{account: "did:ex:open"}},
		}
		g.a.writer.commit(batch)
		for i, want := range []error{nil, refuseInvalidInvite, nil, nil, refuseInvalidInvite, errReplayed, nil} {
			if !errors.Is(batch[i].err, want) || want == nil && batch[i].err != nil {
				w.t.Errorf("job %d: %v", i, batch[i].err)
			}
		}
		err := w.db.View(context.Background(), func(tx *store.Tx) error {
			for account, want := range map[ds.AccountID]bool{"did:ex:open": true, "did:ex:ann": true, "did:ex:bob": false, "did:ex:replay": false} {
				if got, err := tx.Admission.Has(account); err != nil || got != want {
					w.t.Errorf("%s: %v, %v", account, got, err)
				}
			}
			return nil
		})
		if err != nil || g.uses(one.ID) != 1 {
			w.t.Errorf("%d uses, %v", g.uses(one.ID), err)
		}
	})
}
