package identity

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/mr-tron/base58"

	"waxwing.im/waxwing/internal/netguard"
)

// directory serves DID documents on this machine: those of did:plc, and those of
// did:web for its own host.
type directory struct {
	server *httptest.Server
	host   string // of its did:web, as it stands in the DID

	mu      sync.Mutex // guards what follows
	answers map[string]http.HandlerFunc
	hits    map[string]int
}

func newDirectory(t testing.TB) *directory {
	d := &directory{answers: map[string]http.HandlerFunc{}, hits: map[string]int{}}
	d.server = httptest.NewServer(d)
	t.Cleanup(d.server.Close)
	d.host = strings.Replace(strings.TrimPrefix(d.server.URL, "http://"), "127.0.0.1:", "localhost%3A", 1)
	return d
}

func (d *directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.hits[r.URL.Path]++
	answer := d.answers[r.URL.Path]
	d.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

// set makes path answer with a document.
func (d *directory) set(path string, document any) {
	text, err := json.Marshal(document)
	if err != nil {
		panic(err) // tests' documents are JSON
	}
	d.answer(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/did+ld+json")
		w.Write(text)
	})
}

func (d *directory) answer(path string, answer http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[path] = answer
}

// fetched counts the requests for path.
func (d *directory) fetched(path string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hits[path]
}

// resolver asks the directory, with plain http as tests may.
func (d *directory) resolver(t testing.TB, o ResolverOptions) *Resolver {
	guard, err := netguard.New(netguard.Options{Dev: true, LoopbackHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Close)
	o.Guard, o.Directory = guard, d.server.URL
	r, err := NewResolver(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// plc is a did:plc made of a name.
func plc(name string) string {
	return plcPrefix + (name + strings.Repeat("2", plcLength))[:plcLength]
}

// multikey is a verification method of that key.
func multikey(did, fragment string, k *AccountKey) fields {
	return fields{"id": did + fragment, "type": "Multikey", "controller": did, "publicKeyMultibase": strings.TrimPrefix(k.DID(), didKeyPrefix)}
}

// jwk is a verification method of that P-256 key as a JWK.
func jwk(t testing.TB, did, fragment string, k *AccountKey) fields {
	x, y := coordinates(t, k)
	return fields{"id": did + fragment, "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": fields{
		"kty": "EC", "crv": "P-256", "x": base64.RawURLEncoding.EncodeToString(x), "y": base64.RawURLEncoding.EncodeToString(y)}}
}

// coordinates are those of a P-256 key's point.
func coordinates(t testing.TB, k *AccountKey) (x, y []byte) {
	raw, err := base58.Decode(strings.TrimPrefix(k.DID(), didKeyPrefix+"z"))
	if err != nil {
		t.Fatal(err)
	}
	var px, py *big.Int
	px, py = elliptic.UnmarshalCompressed(elliptic.P256(), raw[2:])
	return px.FillBytes(make([]byte, 32)), py.FillBytes(make([]byte, 32))
}

// didDocument is a document with those methods.
func didDocument(did string, methods ...fields) fields {
	return fields{"@context": []string{"https://www.w3.org/ns/did/v1"}, "id": did, "verificationMethod": methods,
		"service": []fields{{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.host.net"}}}
}
