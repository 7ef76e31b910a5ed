package identity

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// shared is the address of a PDS, shared by all accounts of a test.
const shared = "192.0.2.1"

// TestIssuersOfOneAddress: tokens that an issuer has signed, and that are refused for what
// they say, block that issuer at that address and no other account there.
func TestIssuersOfOneAddress(t *testing.T) {
	onEach(t, func(w *world) {
		for name, change := range map[string]func(fields) fields{
			"aud":     func(f fields) fields { return f.with("aud", "did:web:other.net") },
			"lxm":     func(f fields) fields { return f.with("lxm", "com.atproto.repo.getRecord") },
			"expired": func(f fields) fields { return f.with("iat", 1).with("exp", 2) },
			"exp":     func(f fields) fields { return f.with("exp", w.clock.Now().Add(time.Hour).Unix()) },
			"sub":     func(f fields) fields { return f.with("sub", "did:plc:x") },
			"replay":  func(f fields) fields { return f.with("jti", "same").with("aud", serviceDID) },
		} {
			p := newPeople(w)
			counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressBadTokens: 120}}
			a := p.authenticator(func(o *Options) { o.Limit = counted.take })
			eve := testKey(w.t, "eve", ES256)
			eveDID := plc("eve")
			p.directory.set("/"+eveDID, didDocument(eveDID, multikey(eveDID, "#atproto", eve)))
			call := func(k *AccountKey, body fields, address string) string {
				_, err := a.Prove(context.Background(), forge(w.t, header(k.Alg()), body, k.Sign), sendMethod, address)
				return reasonOf(err)
			}
			for i := range 122 {
				call(eve, change(p.body(eveDID, name+strconv.Itoa(i))), shared)
			}
			if got := call(eve, change(p.body(eveDID, name)), shared); got != string(ds.TooManyTokens) {
				w.t.Errorf("%s: once more: %q", name, got)
			}
			if got := call(eve, p.body(eveDID, name), shared); got != string(ds.TooManyTokens) {
				w.t.Errorf("%s: its own good token there: %q", name, got)
			}
			if got := call(eve, p.body(eveDID, name), "192.0.2.2"); got != "" {
				w.t.Errorf("%s: its own good token elsewhere: %q", name, got)
			}
			stranger := testKey(w.t, "stranger", EdDSA)
			for did, k := range map[string]*AccountKey{p.annDID: p.ann, stranger.DID(): stranger} {
				if got := call(k, p.body(did, name), shared); got != "" {
					w.t.Errorf("%s: another behind the same address: %q", name, got)
				}
			}
		}
	})
}

// TestPenalisedAddress: an address that sends unsigned tokens is penalised, and
// accounts that were here before pass with a token that they have signed, also on a node
// that remembers nothing of them.
func TestPenalisedAddress(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		p := newPeople(w)
		counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressBadTokens: 3, limits.AddressLookups: 5, limits.AddressCalls: 1000}}
		node := func() *Authenticator { return p.authenticator(func(o *Options) { o.Limit = counted.take }) }
		a := node()
		eve, key := testKey(w.t, "eve", ES256), testKey(w.t, "key", ES256)
		n := 0
		call := func(a *Authenticator, k *AccountKey, did string) string {
			n++
			_, err := a.Prove(ctx, forge(w.t, header(k.Alg()), p.body(did, fmt.Sprint("p", n)), k.Sign), sendMethod, shared)
			return reasonOf(err)
		}
		here := map[string]*AccountKey{p.annDID: p.ann, p.webDID: p.web, key.DID(): key}
		for did, k := range here {
			if got := call(a, k, did); got != "" {
				w.t.Fatal(got)
			}
		}
		for name, a := range map[string]*Authenticator{"the node": a, "another node": node()} {
			for _, limit := range []string{limits.AddressBadTokens, limits.AddressCalls, limits.AddressLookups} {
				counted.mu.Lock()
				counted.taken = map[string]int{}
				counted.mu.Unlock()
				switch limit {
				case limits.AddressBadTokens:
					for range 5 {
						if _, err := a.Prove(ctx, "garbage", sendMethod, shared); err == nil {
							w.t.Fatal("garbage is good")
						}
					}
				default:
					counted.mu.Lock()
					counted.taken[limit+" "+shared] = 1000
					counted.mu.Unlock()
				}
				fetches := p.directory.fetched("/" + p.kayDID)
				if got := call(a, p.kay, p.kayDID); got != string(ds.TooManyTokens) || p.directory.fetched("/"+p.kayDID) != fetches {
					w.t.Errorf("%s, %s: a stranger: %q", name, limit, got)
				}
				for did, k := range here {
					if got := call(a, k, did); got != "" {
						w.t.Errorf("%s, %s: %s: %q", name, limit, did, got)
					}
				}
				if got := call(a, eve, p.annDID); got == "" {
					w.t.Errorf("%s, %s: forged in the name of an account", name, limit)
				}
				w.clock.add(10 * time.Second)
			}
		}
	})
}

// TestPenalisedStarts is the same at the gateway's door.
func TestPenalisedStarts(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressStarts: 6, limits.AddressBadTokens: 2}}
	a.o.Limit = counted.take
	start := func(token string, admit error) ds.Code {
		_, err := a.StartSession(t.Context(), Start{Token: token, Device: "phone", Address: shared, Admit: func(context.Context, ds.AccountID) error { return admit }})
		return ds.CodeOf(err)
	}
	if code := start(w.token("ann"), nil); code != "" {
		t.Fatal(code)
	}
	eve := testKey(t, "eve", ES256)
	expired := goodToken(t, eve, w.clock.Now().Add(-time.Hour))
	for i, want := range []ds.Code{ds.Unauthorized, ds.Unauthorized, ds.Unauthorized, ds.RateLimited, ds.RateLimited, ds.RateLimited, ds.RateLimited} {
		if code := start(expired, nil); code != want {
			t.Errorf("expired token %d: %q", i, code)
		}
	}
	if code := start(w.token("bob"), nil); code != "" { // four of six so far
		t.Errorf("a stranger behind the same address: %q", code)
	}
	slow := &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: time.Minute}
	for range 5 {
		if code := start(w.token("cem"), slow); code != ds.RateLimited {
			t.Errorf("beyond a limit of its own: %q", code)
		}
	}
	if n := counted.taken[limits.AddressStarts+" "+shared]; n != 6 {
		t.Errorf("%d starts count for the address", n)
	}
	for range 5 {
		start("garbage", nil)
	}
	if code := start(w.token("dan"), nil); code != ds.RateLimited {
		t.Errorf("a stranger beyond the limit: %q", code)
	}
	for _, name := range []string{"ann", "bob"} {
		if code := start(w.token(name), nil); code != "" {
			t.Errorf("%s, who was here before: %q", name, code)
		}
	}
}

// TestLaneIsBounded: strangers of a penalised address get a look at the database when there
// is a turn, and no lookup.
func TestLaneIsBounded(t *testing.T) {
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressCalls: 0}}
	a := p.authenticator(func(o *Options) { o.Limit = counted.take })
	for range cap(a.looks) {
		leave, err := a.looks.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	_, err := a.Prove(t.Context(), forge(t, header(ES256), p.body(p.annDID, "1"), p.ann.Sign), sendMethod, shared)
	if reasonOf(err) != string(ds.TooManyTokens) {
		t.Errorf("without a turn: %v", err)
	}
	if n := p.directory.fetched("/" + p.annDID); n != 0 {
		t.Errorf("%d lookups for a stranger of a penalised address", n)
	}
}

// TestFirstContacts: strangers count for their address, and those that others here know
// or have invited do not.
func TestFirstContacts(t *testing.T) {
	onEach(t, func(w *world) {
		counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.FirstContacts: 2}}
		a := w.node()
		a.o.Limit, a.o.Admission = counted.take, AdmissionInvite
		operators := Admissions{Store: w.db, Now: w.clock.Now}
		invite, err := operators.CreateInvite(w.t.Context(), 5, 0, "")
		if err != nil {
			w.t.Fatal(err)
		}
		start := func(name, code string) ds.Code {
			_, err := a.StartSession(w.t.Context(), Start{Token: w.token(name), Device: "phone", Address: shared, InviteCode: code})
			return ds.CodeOf(err)
		}
		for i, want := range []ds.Code{ds.Forbidden, ds.Forbidden, ds.RateLimited, ds.RateLimited} {
			if code := start(fmt.Sprint("eve", i), "wxi_0"); code != want {
				w.t.Errorf("stranger %d: %q", i, code)
			}
		}
		if code := start("ann", invite.Code); code != "" {
			w.t.Errorf("invited: %q", code)
		}
		if err := operators.Allow(w.t.Context(), testKey(w.t, "bob", ES256).DID()); err != nil {
			w.t.Fatal(err)
		}
		if code := start("bob", ""); code != "" {
			w.t.Errorf("on the allowlist: %q", code)
		}
	})
}

// TestIssuerTokens: nonces are kept for a while, so an issuer that signs more tokens than
// it may is refused for itself before more are written. Replays by others do not count.
func TestIssuerTokens(t *testing.T) {
	onEach(t, func(w *world) {
		p := newPeople(w)
		counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.IssuerTokens: 3}}
		a := p.authenticator(func(o *Options) { o.Limit = counted.take })
		call := func(k *AccountKey, did, id, address string) string {
			_, err := a.Prove(w.t.Context(), forge(w.t, header(k.Alg()), p.body(did, id), k.Sign), sendMethod, address)
			return reasonOf(err)
		}
		for range 20 {
			call(p.ann, p.annDID, "1", "192.0.2.9") // replayed by another client
		}
		for i, want := range []string{"", "", "", string(ds.TooManyTokens), string(ds.TooManyTokens)} {
			if got := call(p.ann, p.annDID, fmt.Sprint("n", i), ""); got != want {
				w.t.Errorf("token %d: %q", i, got)
			}
		}
		token := forge(w.t, header(ES256), p.body(p.annDID, "s").with("lxm", SessionStartMethod), p.ann.Sign)
		if _, err := a.StartSession(w.t.Context(), Start{Token: token, Device: "phone"}); ds.CodeOf(err) != ds.RateLimited {
			w.t.Errorf("at the gateway: %v", err)
		}
		if got := call(p.kay, p.kayDID, "1", ""); got != "" {
			w.t.Errorf("another issuer: %q", got)
		}
		w.clock.add(10 * time.Second)
		if got := call(p.ann, p.annDID, "n3", ""); got != "" { // it was not used up
			w.t.Errorf("afterwards: %q", got)
		}
	})
}

// TestMemoriesAreBounded fills what this package remembers by what strangers send, with
// the longest names there are.
func TestMemoriesAreBounded(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	a := w.node()
	name := func(i int) string { return fmt.Sprintf("%0*d", ds.AccountBytesMax, i) }
	for i := range 100_000 {
		a.admitted.add(ds.AccountID(name(i)), w.clock.Now())
		a.penalties.put(ofIssuer(shared, ds.AccountID(name(i))), w.clock.Now())
		a.sessionPenalties.put(name(i), w.clock.Now())
		a.keys.put(name(i), publicKey{})
	}
	services := NewDeliveryServices(&Resolver{o: ResolverOptions{Now: w.clock.Now}})
	for i := range 10_000 {
		services.remember(name(i), DeliveryService{Endpoint: name(i), Suites: []string{name(i), name(i)}}, nil)
	}
	hashes := make([][32]byte, revokedMax+1000)
	for i := range hashes {
		hashes[i] = newSecret().hash(sessionPrefix)
	}
	a.end(hashes)
	if len(a.revoked) != revokedMax {
		t.Errorf("remembers %d revocations", len(a.revoked))
	}
	check := func(what string, bytes, bytesMax, entries int) {
		if bytes > bytesMax || bytes < bytesMax*9/10 || entries*ds.AccountBytesMax > bytesMax {
			t.Errorf("%s: %d entries of %d bytes, at most %d", what, entries, bytes, bytesMax)
		}
	}
	check("admitted", a.admitted.bytes, admittedBytesMax, len(a.admitted.entries))
	check("penalties", a.penalties.bytes, penaltiesBytesMax, len(a.penalties.entries))
	check("session penalties", a.sessionPenalties.bytes, penaltiesBytesMax, len(a.sessionPenalties.entries))
	check("keys", a.keys.bytes, keysBytesMax, len(a.keys.entries))
	check("services", services.entries.bytes, servicesBytes, len(services.entries.entries))
	for _, m := range []*memory[time.Time]{&a.penalties.memory, &a.admitted.memory} {
		for key := range m.entries {
			m.remove(key)
		}
		if m.bytes != 0 {
			t.Errorf("%d bytes of nothing", m.bytes)
		}
	}
	if err := a.penalties.check("", w.clock.Now()); err != nil || errors.Is(err, errLane) {
		t.Error(err)
	}
}
