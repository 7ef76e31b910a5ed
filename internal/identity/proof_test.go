package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// reasonOf is the reason of the refusal in err, "" for none.
func reasonOf(err error) string {
	if refusal, ok := errors.AsType[*ds.Refusal](err); ok {
		return string(refusal.Reason)
	}
	return ""
}

// TestKeyRotation: a new key is believed as soon as its first token comes, the old one
// from then on no more, and forged tokens cause few lookups.
func TestKeyRotation(t *testing.T) {
	ctx := context.Background()
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	a := p.authenticator(nil)
	next, eve := testKey(t, "next", ES256K), testKey(t, "eve", ES256)
	call := func(k *AccountKey, id string) string {
		_, err := a.Prove(ctx, forge(t, header(k.Alg()), p.body(p.annDID, id), k.Sign), sendMethod, "")
		return reasonOf(err)
	}
	fetches := func() int { return p.directory.fetched("/" + p.annDID) }
	if got := call(p.ann, "1"); got != "" {
		t.Fatal(got)
	}
	p.directory.set("/"+p.annDID, didDocument(p.annDID, multikey(p.annDID, "#atproto", next)))
	if got := call(p.ann, "2"); got != "" || fetches() != 1 {
		t.Errorf("the old key, whose document is kept: %q after %d fetches", got, fetches())
	}
	if got := call(next, "3"); got != "" || fetches() != 2 {
		t.Errorf("the new key: %q after %d fetches", got, fetches())
	}
	if got := call(p.ann, "4"); got != string(ds.BadSignature) {
		t.Errorf("the old key afterwards: %q", got)
	}
	for range 20 {
		if got := call(eve, "5"); got != string(ds.BadSignature) {
			t.Errorf("forged: %q", got)
		}
	}
	if fetches() != 2 {
		t.Errorf("%d fetches for forged tokens", fetches()-2)
	}
	p.clock.add(refreshEvery)
	for range 20 {
		call(eve, "6")
	}
	if fetches() != 3 {
		t.Errorf("%d fetches after a while", fetches())
	}
	p.directory.answer("/"+p.annDID, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	p.clock.add(documentLife)
	if got := call(next, "7"); got != string(ds.BadIssuer) {
		t.Errorf("an account that is gone: %q", got)
	}
}

func TestPeerKeys(t *testing.T) {
	ctx := context.Background()
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	a := p.authenticator(func(o *Options) { o.Admission = AdmissionAllowlist }) // not for peers
	service, account := testKey(t, "service", ES256), testKey(t, "account", ES256)
	peer := webPrefix + p.directory.host
	document := didDocument(peer, multikey(peer, keyAccount, account), multikey(peer, keyService, service))
	p.directory.set("/.well-known/did.json", document)
	prove := func(k *AccountKey, id, kid string) string {
		head := header(ES256)
		if kid != "" {
			head = head.with("kid", kid)
		}
		proof, err := a.ProvePeer(ctx, forge(t, head, p.body(peer+"#atproto_mls", id), k.Sign), sendMethod, "")
		if err == nil && (string(proof.Account) != peer || proof.Hint != "atproto_mls") {
			t.Errorf("proves %+v", proof)
		}
		return reasonOf(err)
	}
	if got := prove(service, "1", ""); got != "" {
		t.Errorf("its own key: %q", got)
	}
	if got := prove(account, "2", ""); got != string(ds.BadSignature) {
		t.Errorf("its account's key without kid: %q", got)
	}
	if got := prove(account, "3", "#atproto"); got != string(ds.BadSignature) {
		t.Errorf("its account's key with kid: %q", got)
	}
	if got := prove(service, "3", "#atproto_mls"); got != "" {
		t.Errorf("its own key with kid: %q", got)
	}
	if _, err := a.Prove(ctx, forge(t, header(ES256), p.body(peer, "4"), account.Sign), sendMethod, ""); reasonOf(err) != string(ds.NotOnAllowlist) {
		t.Errorf("as an account: %v", err)
	}
	p.directory.set("/.well-known/did.json", didDocument(peer, multikey(peer, keyAccount, account)))
	p.clock.add(documentLife)
	if got := prove(account, "5", ""); got != "" {
		t.Errorf("without a key of its own: %q", got)
	}

	// Two of us understand each other, by each name of our key.
	key := newTestServiceKey(t)
	public := p.directory.server.URL
	public = strings.Replace(public, "127.0.0.1", "localhost", 1)
	text, err := key.Document(public)
	if err != nil {
		t.Fatal(err)
	}
	p.directory.answer("/.well-known/did.json", func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })
	p.clock.add(documentLife)
	for _, kid := range []string{"", keyService} {
		token, err := SignToken(key, Claims{Issuer: peer, Audience: serviceDID, Method: sendMethod, KeyID: kid, IssuedAt: p.clock.Now(), ExpiresAt: p.clock.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.ProvePeer(ctx, token, sendMethod, ""); err != nil {
			t.Errorf("our own token with kid %q: %v", kid, err)
		}
	}
}

func newTestServiceKey(t testing.TB) *ServiceKey {
	key, err := LoadOrCreateServiceKey(t.TempDir() + "/service.key")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// counter limits by counting, as core does.
type counter struct {
	mu     sync.Mutex // guards taken
	limits map[string]int
	taken  map[string]int
}

func (c *counter) take(name, key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken[name+" "+key]++
	if limit, ok := c.limits[name]; ok && c.taken[name+" "+key] > limit {
		return &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: 10 * time.Second}
	}
	return nil
}

func TestAddressLimits(t *testing.T) {
	ctx := context.Background()
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressBadTokens: 3, limits.AddressCalls: 10, limits.AddressLookups: 2}}
	a := p.authenticator(func(o *Options) { o.Limit = counted.take })
	eve := testKey(t, "eve", ES256)
	call := func(k *AccountKey, issuer, id, address string) (string, error) {
		_, err := a.Prove(ctx, forge(t, header(k.Alg()), p.body(issuer, id), k.Sign), sendMethod, address)
		return reasonOf(err), err
	}
	const bad, good = "192.0.2.1", "192.0.2.2"
	for i := range 4 {
		if name, _ := call(eve, p.annDID, "x", bad); name != string(ds.BadSignature) {
			t.Errorf("bad token %d: %q", i, name)
		}
	}
	fetches := p.directory.fetched("/" + p.annDID)
	name, err := call(p.ann, p.annDID, "1", bad)
	var refusal *ds.Refusal
	if name != string(ds.TooManyTokens) || !errors.As(err, &refusal) || refusal.Code != ds.RateLimited || refusal.RetryAfter != 10*time.Second {
		t.Errorf("a good token from there: %v", err)
	}
	if p.directory.fetched("/"+p.annDID) != fetches || counted.taken[limits.AddressCalls+" "+bad] != 4 {
		t.Error("something was done for an address that is shut out")
	}
	if name, _ := call(p.ann, p.annDID, "1", good); name != "" {
		t.Errorf("the same token from elsewhere: %q", name)
	}
	p.clock.add(10 * time.Second)
	if name, _ := call(p.ann, p.annDID, "2", bad); name != "" {
		t.Errorf("afterwards: %q", name)
	}
	for range 10 {
		name, _ = call(p.ann, p.annDID, "2", good)
	}
	if name != string(ds.TooManyTokens) {
		t.Errorf("too many calls: %q", name)
	}
	for i, want := range []string{string(ds.BadIssuer), string(ds.BadIssuer), string(ds.TooManyTokens)} {
		if name, _ := call(eve, plc("nobody"+string(rune('a'+i))), "x", "192.0.2.3"); name != want {
			t.Errorf("lookup %d: %q", i, name)
		}
	}
	for i := range 20 { // this machine is not counted
		if name, _ := call(eve, plc("local"+string(rune('a'+i))), "x", ""); name != string(ds.BadIssuer) {
			t.Errorf("from this machine: %q", name)
		}
	}
	if slices.ContainsFunc([]string{limits.AddressBadTokens, limits.AddressCalls, limits.AddressLookups}, func(name string) bool { return counted.taken[name+" "] != 0 }) {
		t.Error("this machine was counted")
	}
}

func TestDevTokens(t *testing.T) {
	ctx := context.Background()
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	secret := []byte("harness")
	mac := func(key []byte) func([]byte) ([]byte, error) {
		return func(content []byte) ([]byte, error) {
			m := hmac.New(sha256.New, key)
			m.Write(content)
			return m.Sum(nil), nil
		}
	}
	const who = "did:plc:e2e-ann-00ff"
	at := func(d time.Duration) int64 { return p.clock.Now().Add(d).Unix() }
	body := fields{"iss": who, "sub": who, "aud": devAudience, "jti": "1", "iat": at(0), "exp": at(time.Hour)}
	good := forge(t, header("HS256"), body, mac(secret))
	strict := p.authenticator(nil)
	if _, err := strict.Prove(ctx, good, sendMethod, ""); reasonOf(err) != string(ds.BadSignature) {
		t.Fatalf("outside development mode: %v", err)
	}
	a := p.authenticator(func(o *Options) { o.DevSecret = secret })
	if proof, err := a.Prove(ctx, good, sendMethod, ""); err != nil || proof.Account != who {
		t.Fatalf("got %+v, %v", proof, err)
	}
	for name, test := range map[string]struct {
		token string
		want  string
	}{
		"again":            {good, string(ds.TokenReplayed)},
		"no jti":           {forge(t, header("HS256"), body.with("jti", nil), mac(secret)), string(ds.BadToken)},
		"another secret":   {forge(t, header("HS256"), body.with("jti", "2"), mac([]byte("x"))), string(ds.BadSignature)},
		"no secret":        {forge(t, header("HS256"), body.with("jti", "2"), mac(nil)), string(ds.BadSignature)},
		"too far":          {forge(t, header("HS256"), body.with("exp", at(3*time.Hour)), mac(secret)), string(ds.BadToken)},
		"expired":          {forge(t, header("HS256"), body.with("iat", at(-time.Hour)).with("exp", at(-time.Minute)), mac(secret)), string(ds.TokenExpired)},
		"another service":  {forge(t, header("HS256"), body.with("aud", "did:web:other.net"), mac(secret)), string(ds.BadAudience)},
		"another method":   {forge(t, header("HS256"), body.with("lxm", "x.y"), mac(secret)), string(ds.BadMethod)},
		"another sub":      {forge(t, header("HS256"), body.with("sub", "did:plc:e2e-bob"), mac(secret)), string(ds.BadIssuer)},
		"critical":         {forge(t, header("HS256").with("crit", []string{"x"}), body, mac(secret)), string(ds.BadToken)},
		"empty aud":        {forge(t, header("HS256"), body.with("aud", nil), mac(secret)), string(ds.BadAudience)},
		"HS512":            {forge(t, header("HS512"), body, mac(secret)), string(ds.BadSignature)},
		"asymmetric, long": {forge(t, header(ES256), p.body(p.annDID, "9").with("exp", at(time.Hour)), p.ann.Sign), string(ds.BadToken)},
	} {
		if _, err := a.Prove(ctx, test.token, sendMethod, ""); reasonOf(err) != test.want {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}

// TestXRPCStatements: calls that come while a transaction is under way share the next
// one, which has a single statement; none has any of its own.
func TestXRPCStatements(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "sqlite:"+t.TempDir())
	var (
		mu         sync.Mutex // guards statements
		statements []string
		held       = make(chan struct{})
		isHeld     atomic.Bool
	)
	db, err := store.Open(ctx, store.Options{URL: "sqlite:" + t.TempDir(), Now: w.clock.Now, Hook: store.Watch(func(sql string, done bool) {
		if done {
			return
		}
		mu.Lock()
		statements = append(statements, sql)
		mu.Unlock()
		if sql == "BEGIN" && isHeld.CompareAndSwap(true, false) {
			<-held
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w.db = db
	p := newPeople(w)
	a := p.authenticator(nil)
	defer a.Close()
	call := func(id string) {
		if _, err := a.Prove(ctx, forge(t, header(ES256), p.body(p.annDID, id), p.ann.Sign), sendMethod, "192.0.2.1"); err != nil {
			t.Error(err)
		}
	}
	call("first") // is admitted
	mu.Lock()
	statements = nil
	mu.Unlock()
	isHeld.Store(true)
	const calls = 64
	var wg sync.WaitGroup
	wg.Go(func() { call("held") })
	for isHeld.Load() {
		runtime.Gosched()
	}
	for i := range calls - 1 {
		wg.Go(func() { call(strconv.Itoa(i)) })
	}
	for len(a.writer.jobs) < calls-1 {
		runtime.Gosched()
	}
	close(held)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(statements) != 6 {
		t.Errorf("%d calls cost %q", calls, statements)
	}
	for i, sql := range statements {
		if want := []string{"BEGIN", "INSERT INTO nonces", "COMMIT"}[i%3]; !strings.HasPrefix(sql, want) {
			t.Errorf("statement %d is %q", i, sql)
		}
	}
}
