package identity

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mr-tron/base58"
)

// TestDocumentKeys: which key a token is verified with, by what a document publishes.
func TestDocumentKeys(t *testing.T) {
	const did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	ann, bob, kay, ed := testKey(t, "ann", ES256), testKey(t, "bob", ES256), testKey(t, "kay", ES256K), testKey(t, "ed", EdDSA)
	x, y := coordinates(t, ann)
	encoded := base64.RawURLEncoding.EncodeToString
	point := func(change func(key fields) fields) fields {
		key := fields{"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)}
		return fields{"id": "#atproto", "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": change(key)}
	}
	same := func(key fields) fields { return key }
	uncompressed := "z" + base58.Encode(slices.Concat([]byte{4}, x, y))
	tests := []struct {
		name      string
		methods   []fields
		kid       string
		preferred []string
		want      *AccountKey // nil for none
	}{
		{"Multikey", []fields{multikey(did, "#atproto", ann)}, "", accountKeys, ann},
		{"Multikey of secp256k1", []fields{multikey(did, "#atproto", kay)}, "", accountKeys, kay},
		{"relative id", []fields{multikey("", "#atproto", ann).with("controller", did)}, "", accountKeys, ann},
		{"no controller", []fields{multikey(did, "#atproto", ann).with("controller", nil)}, "", accountKeys, ann},
		{"by name, not by place", []fields{multikey(did, "#other", bob), multikey(did, "#atproto", ann)}, "", accountKeys, ann},
		{"the first of a name", []fields{multikey(did, "#atproto", ann), multikey(did, "#atproto", bob)}, "", accountKeys, ann},
		{"the first good of a name", []fields{multikey(did, "#atproto", ann).with("publicKeyMultibase", "zzz"), multikey(did, "#atproto", bob)}, "", accountKeys, bob},
		{"kid", []fields{multikey(did, "#other", bob), multikey(did, "#atproto", ann)}, "#atproto", accountKeys, ann},
		{"kid in full", []fields{multikey(did, "#other", bob), multikey(did, "#atproto", ann)}, did + "#atproto", accountKeys, ann},
		{"a peer's own key by kid", []fields{multikey(did, "#atproto", bob), multikey(did, "#atproto_mls", ann)}, "#atproto_mls", peerKeys, ann},
		{"a peer's own key", []fields{multikey(did, "#atproto", bob), multikey(did, "#atproto_mls", ann)}, "", peerKeys, ann},
		{"a peer without one", []fields{multikey(did, "#other", bob), multikey(did, "#atproto", ann)}, "", peerKeys, ann},
		{"JWK", []fields{point(same)}, "", accountKeys, ann},
		{"JWK with its use", []fields{point(func(k fields) fields { return k.with("use", "sig").with("alg", ES256) })}, "", accountKeys, ann},
		{"older P-256", []fields{multikey(did, "#atproto", ann).with("type", "EcdsaSecp256r1VerificationKey2019").with("publicKeyMultibase", uncompressed)}, "", accountKeys, ann},

		{"another first", []fields{multikey(did, "#signing", ann), multikey(did, "#other", bob)}, "", accountKeys, nil},
		{"another by kid", []fields{multikey(did, "#atproto", bob), multikey(did, "#other", ann)}, "#other", accountKeys, nil},
		{"another in full by kid", []fields{multikey(did, "#atproto", bob), multikey(did, "#other", ann)}, did + "#other", accountKeys, nil},
		{"a service's for an account", []fields{multikey(did, "#atproto_mls", ann)}, "", accountKeys, nil},
		{"a service's for an account by kid", []fields{multikey(did, "#atproto", bob), multikey(did, "#atproto_mls", ann)}, "#atproto_mls", accountKeys, nil},
		{"an account's for a peer that has its own", []fields{multikey(did, "#atproto", ann), multikey(did, "#atproto_mls", bob)}, "#atproto", peerKeys, nil},
		{"another of a peer", []fields{multikey(did, "#other", ann)}, "", peerKeys, nil},
		{"another of a peer by kid", []fields{multikey(did, "#atproto_mls", bob), multikey(did, "#atproto_mls_jwk", ann)}, "#atproto_mls_jwk", peerKeys, nil},

		{"none", nil, "", accountKeys, nil},
		{"labels only", []fields{multikey(did, "#atproto_label", ann)}, "", accountKeys, nil},
		{"labels by kid", []fields{multikey(did, "#atproto_label", ann)}, "#atproto_label", accountKeys, nil},
		{"unknown kid", []fields{multikey(did, "#atproto", ann)}, "#other", accountKeys, nil},
		{"kid without #", []fields{multikey(did, "#atproto", ann)}, "atproto", accountKeys, nil},
		{"kid of another DID", []fields{multikey(did, "#atproto", ann)}, "did:plc:x#atproto", accountKeys, nil},
		{"Ed25519", []fields{multikey(did, "#atproto", ed)}, "", accountKeys, nil},
		{"another's", []fields{multikey(did, "#atproto", ann).with("controller", "did:plc:x")}, "", accountKeys, nil},
		{"id of another DID", []fields{multikey("did:plc:x", "#atproto", ann).with("controller", did)}, "", accountKeys, nil},
		{"empty id", []fields{multikey(did, "", ann)}, "", accountKeys, nil},
		{"unknown type", []fields{multikey(did, "#atproto", ann).with("type", "Magic")}, "", accountKeys, nil},
		{"Multikey too long", []fields{multikey(did, "#atproto", ann).with("publicKeyMultibase", "z"+strings.Repeat("2", 10000))}, "", accountKeys, nil},
		{"JWK private", []fields{point(func(k fields) fields { return k.with("use", "enc") })}, "", accountKeys, nil},
		{"JWK of another alg", []fields{point(func(k fields) fields { return k.with("alg", ES256K) })}, "", accountKeys, nil},
		{"JWK of P-384", []fields{point(func(k fields) fields { return k.with("crv", "P-384") })}, "", accountKeys, nil},
		{"JWK on the other curve", []fields{point(func(k fields) fields { return k.with("crv", "secp256k1") })}, "", accountKeys, nil},
		{"JWK octets", []fields{point(func(k fields) fields { return k.with("kty", "oct").with("k", "AAAA") })}, "", accountKeys, nil},
		{"JWK off the curve", []fields{point(func(k fields) fields { return k.with("y", encoded(x)) })}, "", accountKeys, nil},
		{"JWK at zero", []fields{point(func(k fields) fields {
			return k.with("x", encoded(make([]byte, 32))).with("y", encoded(make([]byte, 32)))
		})}, "", accountKeys, nil},
		{"JWK with a short coordinate", []fields{point(func(k fields) fields { return k.with("x", encoded(x[1:])) })}, "", accountKeys, nil},
		{"JWK with a long coordinate", []fields{point(func(k fields) fields { return k.with("x", encoded(append([]byte{0}, x...))) })}, "", accountKeys, nil},
		{"JWK padded", []fields{point(func(k fields) fields { return k.with("x", base64.URLEncoding.EncodeToString(x)) })}, "", accountKeys, nil},
		{"JWK without y", []fields{point(func(k fields) fields { return k.with("y", nil) })}, "", accountKeys, nil},
		{"33rd method", append(slices.Repeat([]fields{multikey(did, "#x", bob).with("type", "Magic")}, documentItemsMax), multikey(did, "#atproto", ann)), "", accountKeys, nil},
	}
	for _, test := range tests {
		text, err := json.Marshal(didDocument(did, test.methods...))
		if err != nil {
			t.Fatal(err)
		}
		document, err := parseDocument(did, text)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		key, err := document.key(test.kid, test.preferred)
		if test.want == nil {
			if err == nil {
				t.Errorf("%s: found a key", test.name)
			}
			continue
		}
		sig, signErr := test.want.Sign([]byte("content"))
		if err != nil || signErr != nil || key.alg != test.want.Alg() || key.verify([]byte("content"), sig) != nil {
			t.Errorf("%s: %v, or another key", test.name, errors.Join(err, signErr))
		}
	}
}

func TestDocumentsOfAllShapes(t *testing.T) {
	const did = "did:web:host.net"
	for text, want := range map[string]error{
		`{"id":"did:web:host.net"}`: nil,
		`{"id":"did:web:host.net","verificationMethod":[1,"x",null,[],{}],"service":[1,null,{}]}`:     nil,
		`{"id":"did:web:host.net","verificationMethod":null,"service":null}`:                          nil,
		`{"id":"did:web:host.net","service":[{"id":"#a","serviceEndpoint":["https://x.net"]}]}`:       nil,
		`{"id":"did:web:host.net","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`: nil,
		`{"id":"did:web:host.net","verificationMethod":{}}`:                                           errDocument,
		`{"id":"did:web:other.net"}`:  errDocumentID,
		`{"id":"did:web:host.net#x"}`: errDocumentID,
		`{"id":"did:web:HOST.net"}`:   errDocumentID,
		`{}`:                          errDocumentID,
		`null`:                        errDocumentID,
		`{"id":1}`:                    errDocument,
		`[]`:                          errDocument,
		``:                            errDocument,
		`{"id":"did:web:host.net"} x`: errDocument,
		`{"id":"did:web:host.net","x":"` + strings.Repeat("x", documentBytesMax) + `"}`: errDocument,
		`{"id":"did:web:host.net","x":` + strings.Repeat("[", 20000) + `}`:              errDocument,
	} {
		if _, err := parseDocument(did, []byte(text)); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%.80q: got %v, want %v", text, err, want)
		}
	}
	d, err := parseDocument(did, fmt.Appendf(nil, `{"id":%q,"service":[{"id":"did:web:other.net#a","serviceEndpoint":"https://1.net"},
		{"id":"did:web:host.net#a","serviceEndpoint":"https://2.net"},{"id":"#a","serviceEndpoint":"https://3.net"},{"id":"#b","serviceEndpoint":"https://4.net"}]}`, did))
	if err != nil {
		t.Fatal(err)
	}
	for fragment, want := range map[string]string{"#a": "https://2.net", "#b": "https://4.net", "#c": "", "": ""} {
		if got, ok := d.service(fragment); got != want || ok != (want != "") {
			t.Errorf("%q: got %q", fragment, got)
		}
	}
}
