package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/netguard"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testwait"
)

// away makes a directory answer as one does that is out of order.
func (d *directory) away(path string) {
	d.answer(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
}

// TestDirectoryIsAway: accounts whose documents are known go on for a day, others are
// told that they cannot be asked for now, and not that their tokens are bad.
func TestDirectoryIsAway(t *testing.T) {
	ctx := t.Context()
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	counted := &counter{taken: map[string]int{}, limits: map[string]int{limits.AddressBadTokens: 3}}
	a := p.authenticator(func(o *Options) { o.Limit = counted.take })
	eve := testKey(t, "eve", ES256)
	n := 0
	call := func(k *AccountKey, did string) error {
		n++
		_, err := a.Prove(ctx, forge(t, header(k.Alg()), p.body(did, fmt.Sprint(n)), k.Sign), sendMethod, shared)
		return err
	}
	start := func(k *AccountKey, did string) error {
		n++
		token := forge(t, header(k.Alg()), p.body(did, fmt.Sprint(n)).with("lxm", SessionStartMethod), k.Sign)
		_, err := a.StartSession(ctx, Start{Token: token, Device: "phone", Address: shared})
		return err
	}
	if err := call(p.ann, p.annDID); err != nil {
		t.Fatal(err)
	}
	for _, did := range []string{p.annDID, p.kayDID} {
		p.directory.away("/" + did)
	}
	fetches := func() int { return p.directory.fetched("/" + p.annDID) }
	p.clock.add(documentLife)
	for range 10 {
		if err := errors.Join(call(p.ann, p.annDID), start(p.ann, p.annDID)); err != nil {
			t.Errorf("a known account: %v", err)
		}
	}
	if fetches() != 2 {
		t.Errorf("%d refreshes at once", fetches()-1)
	}
	// The directory is asked again after a while that grows.
	for i, pause := range []time.Duration{5, 10, 20, 40, 60, 60} {
		before := fetches()
		p.clock.add(pause*time.Second - time.Millisecond)
		if err := call(p.ann, p.annDID); err != nil || fetches() != before {
			t.Errorf("pause %d: %v, %d fetches too early", i, err, fetches()-before)
		}
		p.clock.add(time.Millisecond)
		if err := call(p.ann, p.annDID); err != nil || fetches() != before+1 {
			t.Errorf("pause %d: %v, %d fetches", i, err, fetches()-before)
		}
	}
	for range 5 {
		for door, err := range map[string]error{"XRPC": call(p.kay, p.kayDID), "gateway": start(p.kay, p.kayDID)} {
			if !ds.IsUnavailable(err) || ds.RetryAfterSeconds(err) < 1 || ds.RetryAfterSeconds(err) > 60 {
				t.Errorf("%s: an account that is not known: %v", door, err)
			}
		}
	}
	// What was signed by another may have been signed with a new key. It is not a verdict, but
	// counts as unsigned.
	for range 5 {
		if err := call(eve, p.annDID); !ds.IsUnavailable(err) && reasonOf(err) != string(ds.TooManyTokens) {
			t.Errorf("forged: %v", err)
		}
	}
	if counted.taken[limits.AddressBadTokens+" "+shared] == 0 {
		t.Error("forged tokens count for nobody")
	}
	p.clock.add(documentStaleMax)
	if err := call(p.ann, p.annDID); !ds.IsUnavailable(err) {
		t.Errorf("after a day: %v", err)
	}
	p.directory.set("/"+p.annDID, didDocument(p.annDID, multikey(p.annDID, "#atproto", p.ann)))
	p.clock.add(documentFailedLifeMax)
	if err := call(p.ann, p.annDID); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// TestStaleDocumentEnds: a document that is too old is not used when the directory
// answers, whatever it says.
func TestStaleDocumentEnds(t *testing.T) {
	ctx := t.Context()
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	a := p.authenticator(nil)
	next := testKey(t, "next", ES256K)
	n := 0
	call := func(k *AccountKey) string {
		n++
		_, err := a.Prove(ctx, forge(t, header(k.Alg()), p.body(p.annDID, fmt.Sprint(n)), k.Sign), sendMethod, "")
		if ds.IsUnavailable(err) {
			return "unavailable"
		}
		return reasonOf(err)
	}
	for round, change := range []struct {
		name string
		do   func()
		want string
	}{
		{"rotated", func() { p.directory.set("/"+p.annDID, didDocument(p.annDID, multikey(p.annDID, "#atproto", next))) }, string(ds.BadSignature)},
		{"gone", func() { p.directory.answer("/"+p.annDID, http.NotFound) }, string(ds.BadIssuer)},
		{"of another", func() { p.directory.set("/"+p.annDID, didDocument(p.kayDID)) }, string(ds.BadIssuer)},
		{"without keys", func() { p.directory.set("/"+p.annDID, didDocument(p.annDID)) }, string(ds.BadIssuer)},
	} {
		p.directory.set("/"+p.annDID, didDocument(p.annDID, multikey(p.annDID, "#atproto", p.ann)))
		p.clock.add(2 * documentLife)
		if got := call(p.ann); got != "" {
			t.Fatalf("%s: %q", change.name, got)
		}
		p.directory.away("/" + p.annDID)
		p.clock.add(documentLife)
		if got := call(p.ann); got != "" {
			t.Errorf("%s: while it is away: %q", change.name, got)
		}
		change.do()
		p.clock.add(documentFailedLife)
		if got := call(p.ann); got != change.want {
			t.Errorf("%d, %s: %q, want %q", round, change.name, got, change.want)
		}
		p.directory.away("/" + p.annDID)
		p.clock.add(2 * documentLife)
		if got := call(p.ann); got == "" {
			t.Errorf("%s: the old key is good again", change.name)
		}
	}
}

// TestSlowDirectory: a call waits for the refresh of a document for refreshWait and no
// longer, and uses the result of the refresh if that arrives in time.
func TestSlowDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard, err := netguard.New(netguard.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer guard.Close()
		r, err := NewResolver(ResolverOptions{Guard: guard})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ann := plc("ann")
		old, newer := &Document{ID: ann}, &Document{ID: ann}
		r.documents.remember(ann, old, nil, time.Now())
		time.Sleep(documentLife)
		f := &flight{done: make(chan struct{})} // of a fetch that takes its time
		r.flights[ann] = f
		began := time.Now()
		if got, err := r.Document(t.Context(), ann); err != nil || got != old || time.Since(began) != refreshWait {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		impatient, giveUp := context.WithTimeout(t.Context(), refreshWait/2)
		defer giveUp()
		if _, err := r.Document(impatient, ann); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who gave up got %v", err)
		}
		go func() {
			time.Sleep(refreshWait / 2)
			f.document = newer
			close(f.done)
		}()
		began = time.Now()
		if got, err := r.Document(t.Context(), ann); err != nil || got != newer || time.Since(began) != refreshWait/2 {
			t.Errorf("in time: got %v after %s", err, time.Since(began))
		}
	})
}

// TestDeadHosts: tokens that name hosts which never answer hold up neither accounts of
// the directory nor accounts that were here before, nor strangers from elsewhere.
func TestDeadHosts(t *testing.T) {
	d := newDirectory(t)
	dead := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	guard, err := netguard.New(netguard.Options{Dev: true, LoopbackHTTP: true, Resolver: dead})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Close)
	r, err := NewResolver(ResolverOptions{Guard: guard, Directory: d.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	// A flood from one address, of hosts of one domain and of many.
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	for i := range 200 {
		for _, did := range []string{fmt.Sprintf("did:web:h%d.dead.net", i), fmt.Sprintf("did:web:dead%d.net", i)} {
			flood.Go(func() { _, _ = r.document(ctx, did, asker{address: shared}) })
		}
	}
	waits := func(class string) int {
		r.places.mu.Lock()
		defer r.places.mu.Unlock()
		return len(r.places.waiting[class])
	}
	for waits("host") < waitingOfClass {
		runtime.Gosched() // until the queue of strangers is full
	}
	host := strings.Replace(d.server.URL, "http://127.0.0.1:", "127.0.0.1%3A", 1)
	began := time.Now()
	for i := range 20 {
		ann, bob := plc(fmt.Sprintf("ann%c", 'a'+i)), fmt.Sprintf("did:web:%s:bob%d", host, i)
		d.set("/"+ann, didDocument(ann))
		d.set(fmt.Sprintf("/bob%d/did.json", i), didDocument(bob))
		if _, err := r.document(t.Context(), ann, asker{address: shared}); err != nil {
			t.Errorf("did:plc: %v", err)
		}
		if _, err := r.document(t.Context(), bob, asker{address: shared, isKnown: true}); err != nil {
			t.Errorf("a known account at a host: %v", err)
		}
	}
	if took := time.Since(began); took > resolveTimeout { // one that is held up takes longer than that with its next
		t.Errorf("40 lookups took %s", took)
	}
	_, err = r.document(t.Context(), "did:web:dead.net", asker{address: shared})
	var failure *ResolveError
	if !errors.As(err, &failure) || failure.Kind != ResolveFailed || failure.RetryAfter <= 0 {
		t.Errorf("beyond the queue: %v", err)
	}
	stop()
	flood.Wait()
	r.Close()
	r.places.mu.Lock()
	defer r.places.mu.Unlock()
	if len(r.places.taken) != 0 || len(r.places.waiting) != 0 {
		t.Errorf("left behind: %v, %v", r.places.taken, r.places.waiting)
	}
}

// TestPlaces holds the bounds of each kind against each other.
func TestPlaces(t *testing.T) {
	web := func(i int) visit { return visit{host: fmt.Sprintf("h%d.net", i), address: fmt.Sprint(i)} }
	for _, test := range []struct {
		name string
		make func(i int) visit
		want int
	}{
		{"class", web, placesOfClass},
		{"directory", func(int) visit { return visit{} }, placesOfClass},
		{"directory, known", func(int) visit { return visit{isKnown: true, address: shared} }, placesOfClass},
		{"host", func(i int) visit { return visit{host: "h.net", address: fmt.Sprint(i)} }, placesOfHost},
		{"host, known", func(i int) visit { return visit{host: "h.net", isKnown: true} }, placesOfHost},
		{"domain", func(i int) visit { return visit{host: fmt.Sprintf("h%d.dead.co.uk", i), address: fmt.Sprint(i)} }, placesOfDomain},
		{"address", func(i int) visit { return visit{host: fmt.Sprintf("h%d.net", i), address: shared} }, placesOfAddress},
	} {
		p := &places{}
		ended, end := context.WithCancel(t.Context())
		end()
		var leaves []func()
		for i := range 20 {
			if leave, err := p.enter(ended, test.make(i)); err == nil {
				leaves = append(leaves, leave)
			}
		}
		if len(leaves) != test.want {
			t.Errorf("%s: %d places, want %d", test.name, len(leaves), test.want)
		}
		// Of two that wait, the one whose places are free is not held up by the other.
		entered := make(chan func(), 1)
		if test.name == "host" {
			go func() {
				leave, err := p.enter(t.Context(), test.make(0))
				if err != nil {
					t.Error(err)
				}
				entered <- leave
			}()
			for i := 1; i < placesOfClass-placesOfHost; i++ {
				leave, err := p.enter(ended, web(i))
				if err != nil {
					t.Errorf("another host: %v", err)
					continue
				}
				leaves = append(leaves, leave)
			}
		} else {
			entered <- func() {}
		}
		for _, leave := range leaves {
			leave()
			leave()
		}
		(<-entered)()
		if len(p.taken) != 0 || len(p.waiting) != 0 {
			t.Errorf("%s: left behind: %v, %v", test.name, p.taken, p.waiting)
		}
	}
	for host, want := range map[string]string{"net": "net", "a.net": "a.net", "b.a.net": "a.net", "c.b.a.net": "a.net", "a.co.uk": "a.co.uk", "b.a.co.uk": "a.co.uk",
		"x.b.a.com.au": "a.com.au", "b.co.net": "co.net", "b.a.uk": "a.uk", "co.uk": "co.uk"} {
		if got := domainOf(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

// TestDocumentsAreKept: a process that starts while the directory is away lets in the
// accounts that were here before, for a day, and none whose document has ended.
func TestDocumentsAreKept(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := w.t.Context()
		p := newPeople(w)
		// node starts one with a memory of its own.
		node := func() (a *Authenticator, stop func()) {
			r := p.directory.resolver(w.t, ResolverOptions{Store: w.db})
			a = p.authenticator(func(o *Options) { o.Resolver = r })
			return a, func() {
				for r.o.Store != nil { // what is being written, or was passed over while others were
					var due []string
					r.mu.Lock()
					for did, element := range r.documents.entries {
						if r.isSaveDue(element.Value.(*cached)) {
							due = append(due, did)
						}
					}
					r.mu.Unlock()
					if len(due) == 0 {
						break
					}
					for _, did := range due {
						r.save(did)
					}
					runtime.Gosched()
				}
				a.Close()
				r.Close()
			}
		}
		n := 0
		call := func(a *Authenticator, k *AccountKey, did string) string {
			n++
			_, err := a.Prove(ctx, forge(w.t, header(k.Alg()), p.body(did, fmt.Sprint("kept", n)), k.Sign), sendMethod, "")
			if ds.IsUnavailable(err) {
				return "unavailable"
			}
			return reasonOf(err)
		}
		kept := func(did string) (text string) {
			err := w.db.View(ctx, func(tx *store.Tx) error {
				d, err := tx.Documents.Get(did)
				text = string(d.Text)
				if errors.Is(err, store.ErrNotFound) {
					text, err = "none", nil
				}
				return err
			})
			if err != nil {
				w.t.Fatal(err)
			}
			return text
		}
		a, stop := node()
		bob := testKey(w.t, "bob", ES256)
		p.directory.set("/"+plc("bob"), didDocument(plc("bob"), multikey(plc("bob"), "#atproto", bob)))
		for did, k := range map[string]*AccountKey{p.annDID: p.ann, p.webDID: p.web, p.kayDID: p.kay} {
			if got := call(a, k, did); got != "" {
				w.t.Fatal(got)
			}
		}
		if got := call(a, testKey(w.t, "eve", ES256), plc("bob")); got != string(ds.BadSignature) {
			w.t.Fatal(got)
		}
		stop()
		if got := kept(plc("bob")); got != "none" {
			w.t.Errorf("keeps what nobody has signed with: %s", got)
		}
		for _, path := range []string{"/" + p.annDID, "/web/did.json", "/" + plc("bob")} {
			p.directory.away(path)
		}
		next := testKey(w.t, "next", ES256K)
		p.directory.set("/"+p.kayDID, didDocument(p.kayDID, multikey(p.kayDID, "#atproto", next)))
		w.clock.add(documentLife)
		a, stop = node()
		for name, test := range map[string]struct {
			key  *AccountKey
			did  string
			want string
		}{
			"an account":              {p.ann, p.annDID, ""},
			"an account at a host":    {p.web, p.webDID, ""},
			"forged":                  {testKey(w.t, "eve", ES256), p.annDID, "unavailable"},
			"a stranger":              {bob, plc("bob"), "unavailable"},
			"a key that was replaced": {p.kay, p.kayDID, string(ds.BadSignature)},
		} {
			if got := call(a, test.key, test.did); got != test.want {
				w.t.Errorf("%s: %q, want %q", name, got, test.want)
			}
		}
		stop()
		if text := kept(p.kayDID); strings.Contains(text, strings.TrimPrefix(p.kay.DID(), didKeyPrefix)) || !strings.Contains(text, strings.TrimPrefix(next.DID(), didKeyPrefix)) || len(text) > keptBytesMax {
			w.t.Errorf("keeps %s", text)
		}
		p.directory.answer("/"+p.annDID, http.NotFound)
		a, stop = node()
		if got := call(a, p.ann, p.annDID); got != string(ds.BadIssuer) {
			w.t.Errorf("an account that is gone: %q", got)
		}
		stop()
		if got := kept(p.annDID); got != "none" {
			w.t.Errorf("keeps a document that is gone: %s", got)
		}
		w.clock.add(documentStaleMax + time.Minute)
		a, stop = node()
		if got := call(a, p.web, p.webDID); got != "unavailable" {
			w.t.Errorf("after a day: %q", got)
		}
		if err := a.sweep(ctx); err != nil {
			w.t.Error(err)
		}
		stop()
		for _, did := range []string{p.webDID, p.kayDID} {
			if got := kept(did); got != "none" {
				w.t.Errorf("keeps what is too old: %s", got)
			}
		}
	})
}

// TestDocumentsAreKeptOnce: what has not changed is written once an hour, however many
// tokens come.
func TestDocumentsAreKeptOnce(t *testing.T) {
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	r := p.directory.resolver(t, ResolverOptions{Store: p.db})
	a := p.authenticator(func(o *Options) { o.Resolver = r })
	fetchedMS := func() (ms int64) {
		err := p.db.View(t.Context(), func(tx *store.Tx) error {
			d, err := tx.Documents.Get(p.annDID)
			ms = d.FetchedMS
			return err
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		return ms
	}
	began := p.clock.Now()
	for i := range 30 {
		if _, err := a.Prove(t.Context(), forge(t, header(ES256), p.body(p.annDID, fmt.Sprint(i)), p.ann.Sign), sendMethod, ""); err != nil {
			t.Fatal(err)
		}
		for r.save(p.annDID); ; runtime.Gosched() { // those that wait are done as well
			r.mu.Lock()
			due := r.isSaveDue(r.documents.get(p.annDID))
			r.mu.Unlock()
			if !due {
				break
			}
		}
		want := began.Add(time.Duration(i) * documentLife).Truncate(time.Millisecond)
		if want = began.Add(want.Sub(began) / saveEvery * saveEvery); fetchedMS() != want.UnixMilli() {
			t.Errorf("call %d: kept as of %d, want %d", i, fetchedMS(), want.UnixMilli())
		}
		p.clock.add(documentLife)
	}
}

// TestFetchesDoNotWaitForTheStore: while one document cannot be written, few others wait for
// that, and those of strangers, which are not written, do not wait at all.
func TestFetchesDoNotWaitForTheStore(t *testing.T) {
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	r := p.directory.resolver(t, ResolverOptions{Now: p.clock.Now, Store: p.db})
	const each = 2 * savesMax
	fetch := func(kind string, isProven bool) {
		for i := range each {
			did := plc(kind + string(rune('a'+i%16)) + string(rune('a'+i/16)))
			p.directory.set("/"+did, didDocument(did, multikey(did, "#atproto", p.ann)))
			if isProven {
				r.mu.Lock()
				r.documents.put(&cached{did: did, isProven: true, err: &ResolveError{Kind: ResolveFailed}})
				r.mu.Unlock()
			}
			if _, err := r.Document(t.Context(), did); err != nil {
				t.Fatal(err)
			}
		}
	}
	ended := func() chan struct{} {
		done := make(chan struct{})
		go func() { r.running.Wait(); close(done) }()
		return done
	}
	r.saving <- struct{}{} // the store hangs
	fetch("stranger", false)
	select {
	case <-ended():
	case <-time.After(10 * time.Second):
		t.Error("fetches for strangers wait for the store")
	}
	fetch("known", true)
	waiting := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.saves)
	}
	testwait.Until(t, "saves wait", func() bool { return waiting() >= savesMax })
	if n := waiting(); n != savesMax {
		t.Errorf("%d wait", n)
	}
	<-r.saving
	<-ended()
}
