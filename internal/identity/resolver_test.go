package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/netguard"
)

func TestLocate(t *testing.T) {
	const directory = "https://plc.directory"
	tests := []struct{ did, want string }{
		{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "https://plc.directory/did:plc:ewvi7nxzyoun6zhxrhs64oiz"},
		{"did:web:ann.host.net", "https://ann.host.net/.well-known/did.json"},
		{"did:web:host.net%3A8443", "https://host.net:8443/.well-known/did.json"},
		{"did:web:host.net:users:ann", "https://host.net/users/ann/did.json"},
		{"did:web:host.net%3A8443:Ann_1.x-y", "https://host.net:8443/Ann_1.x-y/did.json"},
		{"did:web:xn--dm-yka.host.net", "https://xn--dm-yka.host.net/.well-known/did.json"},
		{"did:web:localhost%3A80", "http://localhost:80/.well-known/did.json"},

		{"", ""}, {"did", ""}, {"did:", ""}, {"did:plc", ""}, {"did:plc:", ""}, {"did:web:", ""}, {"DID:plc:ewvi7nxzyoun6zhxrhs64oiz", ""},
		{"did:plc:ewvi7nxzyoun6zhxrhs64oi", ""},
		{"did:plc:ewvi7nxzyoun6zhxrhs64oizz", ""},
		{"did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", ""},
		{"did:plc:ewvi7nxzyoun6zhxrhs64oi1", ""},
		{"did:plc:../../../../../../../x", ""},
		{"did:plc:ewvi7nxzyoun6zhxrhs64oi?", ""},
		{"did:web:Host.net", ""},
		{"did:web:host.net.", ""},
		{"did:web:host..net", ""},
		{"did:web:host_x.net", ""},
		{"did:web:hös.net", ""},
		{"did:web:host.net/path", ""},
		{"did:web:host.net#key", ""},
		{"did:web:host.net?x", ""},
		{"did:web:user@host.net", ""},
		{"did:web:user%40host.net", ""},
		{"did:web:host.net%2Fpath", ""},
		{"did:web:host.net%3a8443", ""},
		{"did:web:host.net%3A", ""},
		{"did:web:host.net%3A0", ""},
		{"did:web:host.net%3A08443", ""},
		{"did:web:host.net%3A65536", ""},
		{"did:web:host.net%3A-1", ""},
		{"did:web:host.net%3A1%3A2", ""},
		{"did:web:host.net:", ""},
		{"did:web:host.net::ann", ""},
		{"did:web:host.net:..:ann", ""},
		{"did:web:host.net:.:ann", ""},
		{"did:web:host.net:a%2Fb", ""},
		{"did:web:host.net:a b", ""},
		{"did:web:host.net" + strings.Repeat(":a", 9), ""},
		{"did:web:[::1]", ""},
		{"did:web:%5B%3A%3A1%5D", ""},
		{"did:web:" + strings.Repeat("a.", 300) + "net", ""},
	}
	for _, test := range tests {
		where, err := locate(test.did, directory, true)
		if where.url != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: got %q, %v, want %q", test.did, where.url, err, test.want)
		}
	}
	for _, did := range []string{"did:ion:abc", "did:key:zQ3sh", "did:webvh:x:host.net", "did:plcx:ewvi7nxzyoun6zhxrhs64oiz"} {
		if _, err := locate(did, directory, true); !errors.Is(err, errDIDUnsupported) {
			t.Errorf("%q: got %v", did, err)
		}
	}
	if where, _ := locate("did:web:localhost", directory, false); where.url != "https://localhost/.well-known/did.json" {
		t.Errorf("without the test setting: %q", where.url) // which the guard refuses
	}
}

func kindOf(err error) ResolveKind {
	var unresolved *ResolveError
	errors.As(err, &unresolved)
	if unresolved == nil {
		return ""
	}
	return unresolved.Kind
}

func TestResolve(t *testing.T) {
	ctx := context.Background()
	d := newDirectory(t)
	clock := newClock()
	r := d.resolver(t, ResolverOptions{Now: clock.Now})
	ann, web, path := plc("ann"), webPrefix+d.host, webPrefix+d.host+":users:ann"
	key := testKey(t, "ann", ES256)
	d.set("/"+ann, didDocument(ann, multikey(ann, "#atproto", key)))
	d.set("/.well-known/did.json", didDocument(web, multikey("", "#atproto", key).with("controller", nil)))
	d.set("/users/ann/did.json", didDocument(path, jwk(t, path, "#atproto", key)))
	d.set("/"+plc("liar"), didDocument(ann, multikey(ann, "#atproto", key)))
	d.set("/"+plc("long"), didDocument(plc("long")).with("x", strings.Repeat("x", documentBytesMax)))
	d.set("/"+plc("text"), "did")
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/"+ann)
			w.WriteHeader(code)
			fmt.Fprint(w, `{"id":"`+ann+`"}`)
		}
	}
	d.answer("/"+plc("gone"), status(http.StatusGone))
	d.answer("/"+plc("moved"), status(http.StatusFound))
	d.answer("/"+plc("broken"), status(http.StatusInternalServerError))
	d.answer("/"+plc("busy"), status(http.StatusTooManyRequests))
	d.answer("/"+plc("created"), status(http.StatusCreated))
	d.answer("/"+plc("cut"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"id":"`)
	})
	for _, did := range []string{ann, web, path} {
		document, err := r.Document(ctx, did)
		if err != nil || document.ID != did {
			t.Fatalf("%s: got %v", did, err)
		}
		if _, err := document.key("", accountKeys); err != nil {
			t.Errorf("%s: %v", did, err)
		}
	}
	for did, want := range map[string]ResolveKind{
		plc("liar"): ResolveInvalid, plc("long"): ResolveInvalid, plc("text"): ResolveInvalid, plc("moved"): ResolveInvalid, "did:web:Host.net": ResolveInvalid,
		"did:web:127.0.0.2": ResolveInvalid, "did:web:metadata.google.internal": ResolveInvalid, "did:web:10.0.0.1": ResolveInvalid, "did:web:host.net%3A22": ResolveInvalid,
		"did:ion:abc": ResolveUnsupported, plc("nobody"): ResolveNotFound, plc("gone"): ResolveNotFound,
		plc("broken"): ResolveFailed, plc("busy"): ResolveFailed, plc("created"): ResolveFailed, plc("cut"): ResolveFailed,
	} {
		_, err := r.Document(ctx, did)
		if got := kindOf(err); got != want {
			t.Errorf("%s: got %q (%v), want %q", did, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), did) {
			t.Errorf("the error repeats the DID: %v", err)
		}
	}
	// What is known is not asked for again until its time is over.
	ages := []struct {
		did  string
		life time.Duration
	}{{ann, documentLife}, {plc("nobody"), documentAbsentLife}, {plc("liar"), documentAbsentLife}, {plc("broken"), documentFailedLife}}
	for _, age := range ages {
		before := d.fetched("/" + age.did)
		r.Document(ctx, age.did)
		if got := d.fetched("/" + age.did); got != before {
			t.Errorf("%s: fetched again at once", age.did)
		}
	}
	for _, age := range ages {
		before := d.fetched("/" + age.did)
		clock.add(age.life)
		r.Document(ctx, age.did)
		r.Document(ctx, age.did)
		if got := d.fetched("/" + age.did); got != before+1 {
			t.Errorf("%s: fetched %d times after its life", age.did, got-before)
		}
	}
	if endpoint, ok, err := r.ServiceEndpoint(ctx, ann, "#atproto_pds"); endpoint != "https://pds.host.net" || !ok || err != nil {
		t.Errorf("endpoint: %q, %v, %v", endpoint, ok, err)
	}
}

// TestGuardedResolver: without the test setting nothing on this machine is asked.
func TestGuardedResolver(t *testing.T) {
	guard, err := netguard.New(netguard.Options{OnDial: func(d netguard.Dial) { t.Errorf("dialled %v", d) }})
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Close()
	if _, err := NewResolver(ResolverOptions{Guard: guard, Directory: "http://127.0.0.1:1"}); err == nil {
		t.Error("took a directory on this machine")
	}
	r, err := NewResolver(ResolverOptions{Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, did := range []string{"did:web:localhost", "did:web:localhost%3A8420", "did:web:127.0.0.1", "did:web:2130706433", "did:web:0x7f.1", "did:web:a.localhost", "did:web:db"} {
		if _, err := r.Document(context.Background(), did); kindOf(err) != ResolveInvalid {
			t.Errorf("%s: got %v", did, err)
		}
	}
}

// TestSingleFlight: many who want one document at once cause one fetch, and one who
// gives up does not end it for the others.
func TestSingleFlight(t *testing.T) {
	d := newDirectory(t)
	r := d.resolver(t, ResolverOptions{})
	ann := plc("ann")
	arrived, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.answer("/"+ann, func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(arrived) })
		<-released
		fmt.Fprintf(w, `{"id":%q}`, ann)
	})
	impatient, giveUp := context.WithCancel(context.Background())
	first := make(chan error, 1)
	go func() {
		_, err := r.Document(impatient, ann)
		first <- err
	}()
	<-arrived
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	const callers = 50
	var started, ended sync.WaitGroup
	started.Add(callers)
	for range callers {
		ended.Go(func() {
			started.Done()
			if _, err := r.Document(context.Background(), ann); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	close(released)
	ended.Wait()
	if got := d.fetched("/" + ann); got != 1 {
		t.Errorf("fetched %d times", got)
	}
	r.Close()
	if _, err := r.Document(context.Background(), plc("bob")); kindOf(err) != ResolveFailed {
		t.Errorf("after Close: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	ctx := context.Background()
	d := newDirectory(t)
	clock := newClock()
	r := d.resolver(t, ResolverOptions{Now: clock.Now})
	ann := plc("ann")
	d.set("/"+ann, didDocument(ann))
	seen, err := r.Document(ctx, ann)
	if err != nil {
		t.Fatal(err)
	}
	refresh := func(want bool) *Document {
		t.Helper()
		newer, err := r.refresh(ctx, ann, seen, asker{})
		if err != nil || (newer != nil) != want {
			t.Fatalf("got %v, %v", newer, err)
		}
		return newer
	}
	newer := refresh(true)
	if refresh(true) != newer { // it has not seen that one yet
		t.Error("another document")
	}
	seen = newer
	refresh(false)
	clock.add(refreshEvery - time.Millisecond)
	refresh(false)
	if got := d.fetched("/" + ann); got != 2 {
		t.Errorf("fetched %d times", got)
	}
	clock.add(time.Millisecond)
	d.answer("/"+ann, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	if newer, err := r.refresh(ctx, ann, seen, asker{}); newer != nil || kindOf(err) != ResolveFailed {
		t.Errorf("a failing directory: %v, %v", newer, err)
	}
	if kept, err := r.Document(ctx, ann); kept != seen || err != nil {
		t.Errorf("a failing directory made it forget: %v", err)
	}
	clock.add(refreshEvery)
	d.answer("/"+ann, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	if newer, err := r.refresh(ctx, ann, seen, asker{}); newer != nil || kindOf(err) != ResolveNotFound {
		t.Errorf("a document that is gone: %v, %v", newer, err)
	}
	if _, err := r.Document(ctx, ann); kindOf(err) != ResolveNotFound {
		t.Errorf("is remembered: %v", err)
	}
	if newer, err := r.refresh(ctx, plc("bob"), seen, asker{}); newer != nil || err != nil {
		t.Errorf("never seen: %v, %v", newer, err)
	}
}

// TestResolverForgets: strangers fill the memory up to a bound, the latest stay, and what
// accounts that were here before need is not pushed out by them.
func TestResolverForgets(t *testing.T) {
	d := newDocuments()
	now := newClock().Now()
	name := func(i int) string {
		return fmt.Sprintf("%s%s%d", webPrefix, strings.Repeat("a", ds.AccountBytesMax-20), i)
	}
	remember := func(did string, document *Document, err error) { d.remember(did, document, err, now) }
	isKnown := func(did string) bool { return d.known(did, now).isFresh }
	large := &Document{}
	for range documentItemsMax {
		large.methods = append(large.methods, documentMethod{fragment: strings.Repeat("x", documentIDMax)})
		large.services = append(large.services, documentService{"#x", strings.Repeat("x", endpointBytesMax)})
	}
	remember("did:web:ann.net", large, nil)
	d.prove("did:web:ann.net")
	for i := range documentsMax + 10 {
		remember(name(i), nil, &ResolveError{Kind: ResolveNotFound, reason: errDocument})
	}
	if n := d.strangers.recent.Len(); n != documentsMax || isKnown(name(9)) || !isKnown(name(10)) {
		t.Errorf("keeps %d", n)
	}
	for i := range documentsMax {
		remember(name(i), large, nil)
	}
	if n := d.strangers.recent.Len(); d.strangers.bytes > documentsBytesMax || n == documentsMax || !isKnown(name(documentsMax-1)) {
		t.Errorf("keeps %d of %d bytes", n, d.strangers.bytes)
	}
	if !isKnown("did:web:ann.net") {
		t.Error("strangers pushed an account out")
	}
	for i := range 2 * provenMax / 10 {
		remember(name(i), large, nil)
		d.prove(name(i))
	}
	if d.proven.bytes > provenBytesMax {
		t.Errorf("keeps %d bytes of accounts", d.proven.bytes)
	}
	entries := 0
	for _, s := range []shelf{d.strangers, d.proven} {
		sum := 0
		for element := s.recent.Front(); element != nil; element = element.Next() {
			sum += element.Value.(*cached).bytes()
			entries++
		}
		if sum != s.bytes {
			t.Errorf("counts %d bytes, has %d", s.bytes, sum)
		}
	}
	if entries != len(d.entries) {
		t.Errorf("%d entries, and %d by name", entries, len(d.entries))
	}
}

func TestHostLookupsAreLimited(t *testing.T) {
	d := newDirectory(t)
	counted := map[string]int{}
	r := d.resolver(t, ResolverOptions{Limit: func(name, key string) error {
		counted[name+" "+key]++
		if counted[name+" "+key] > 3 {
			return ds.Refuse(ds.RateLimited, "rate limited")
		}
		return nil
	}})
	for i := range 5 {
		did := fmt.Sprintf("%s%s:u%d", webPrefix, d.host, i)
		path := fmt.Sprintf("/u%d/did.json", i)
		d.set(path, didDocument(did))
		_, err := r.Document(context.Background(), did)
		if isLimited := i >= 3; (err != nil) != isLimited || (d.fetched(path) == 0) != isLimited {
			t.Errorf("lookup %d: %v, fetched %d times", i, err, d.fetched(path))
		}
	}
	d.set("/"+plc("ann"), didDocument(plc("ann")))
	if _, err := r.Document(context.Background(), plc("ann")); err != nil {
		t.Errorf("the directory is not one of those hosts: %v", err)
	}
}
