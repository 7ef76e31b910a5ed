package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/netguard"

	"waxwing.im/waxwing/internal/ds"
)

// documentKeys is a keyring of documents that are at hand.
type documentKeys map[string]*Document

func (documentKeys) count() error { return nil }

func (documentKeys) begin(context.Context, ds.AccountID, error) error { return nil }

func (k documentKeys) verify(_ context.Context, u unverified, issuer string) error {
	d := k[issuer]
	if d == nil {
		return errIssuer
	}
	key, err := d.key(u.kid, accountKeys)
	if err != nil {
		return err
	}
	return u.verify(key)
}

// FuzzXRPCToken puts tokens together from parts and looks for an unsigned one
// but is accepted, with and without a secret of development mode.
func FuzzXRPCToken(f *testing.F) {
	now := newClock().Now()
	annDID, kayDID := plc("ann"), plc("kay")
	keys := documentKeys{}
	signed := map[string]bool{} // header and claims, as text
	for did, k := range map[string]*AccountKey{annDID: testKey(f, "ann", ES256), kayDID: testKey(f, "kay", ES256K)} {
		text, err := json.Marshal(didDocument(did, multikey(did, "#atproto", k), multikey(did, "#other", testKey(f, "other", ES256))))
		if err != nil {
			f.Fatal(err)
		}
		if keys[did], err = parseDocument(did, text); err != nil {
			f.Fatal(err)
		}
		head, err := json.Marshal(header(k.Alg()))
		if err != nil {
			f.Fatal(err)
		}
		body, err := json.Marshal(fields{"iss": did, "aud": serviceDID, "lxm": sendMethod, "jti": "fuzz", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
		if err != nil {
			f.Fatal(err)
		}
		encode := base64.RawURLEncoding.EncodeToString
		sig, err := k.Sign([]byte(encode(head) + "." + encode(body)))
		if err != nil {
			f.Fatal(err)
		}
		signed[string(head)+"."+string(body)] = true
		f.Add(head, body, sig)
		f.Add(bytes.Replace(head, []byte(k.Alg()), []byte("HS256"), 1), body, sig[:32])
		f.Add(bytes.Replace(head, []byte(k.Alg()), []byte("none"), 1), body, []byte{})
		f.Add([]byte(`{"alg":"ES256","kid":"#other","typ":"JWT"}`), body, sig)
	}
	f.Fuzz(func(t *testing.T, head, body, sig []byte) {
		encode := base64.RawURLEncoding.EncodeToString
		token := encode(head) + "." + encode(body) + "." + encode(sig)
		for _, secret := range [][]byte{nil, []byte("a secret that no fuzzer guesses")} {
			want := expectation{method: sendMethod, audiences: Audiences(serviceDID), now: now, fragments: true, devSecret: secret}
			v, err := verifyToken(context.Background(), token, want, keys)
			if err == nil && !signed[string(head)+"."+string(body)] {
				t.Fatalf("accepted a token of %s that nobody signed: %s", v.issuer, token)
			}
			if err != nil && !isAboutToken(err) {
				t.Fatalf("a fault: %v", err)
			}
		}
	})
}

// FuzzDocument reads documents of strangers.
func FuzzDocument(f *testing.F) {
	did := plc("ann")
	ann := testKey(f, "ann", ES256)
	for _, document := range []any{
		didDocument(did, multikey(did, "#atproto", ann)),
		didDocument(did, jwk(f, did, "#atproto", ann)),
		didDocument(did, multikey(did, "#atproto", testKey(f, "ed", EdDSA)), multikey(did, "#atproto", testKey(f, "kay", ES256K))),
		didDocument(did, multikey("", "#atproto", ann).with("type", "EcdsaSecp256r1VerificationKey2019")),
	} {
		text, err := json.Marshal(document)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parseDocument(did, text)
		if err != nil {
			return
		}
		if d.ID != did || len(d.methods) > documentItemsMax || len(d.services) > documentItemsMax || d.bytes() > 2*documentBytesMax+documentItemsMax*1024 {
			t.Fatalf("took %+v", d)
		}
		for _, method := range d.methods {
			if method.key.alg != ES256 && method.key.alg != ES256K || method.fragment[0] != '#' {
				t.Fatalf("took a key of %s as %q", method.key.alg, method.fragment)
			}
			if method.key.verify([]byte("x"), make([]byte, 64)) == nil {
				t.Fatal("a key verifies nothing but zeros")
			}
			if key, err := d.key(method.fragment, []string{method.fragment}); err != nil || key.alg == "" {
				t.Fatalf("%q: %v", method.fragment, err)
			}
			if _, err := d.key(method.fragment, []string{keyAccount}); err == nil && method.fragment != keyAccount {
				t.Fatalf("%q signs for the account", method.fragment)
			}
		}
		if _, err := d.key("", accountKeys); err == nil && len(d.methods) == 0 {
			t.Fatal("found a key in no methods")
		}
	})
}

// FuzzLocate looks for DIDs that lead to another place than they say.
func FuzzLocate(f *testing.F) {
	for _, did := range []string{plc("ann"), "did:web:host.net", "did:web:host.net%3A443:users:ann", "did:web:127.0.0.1", "did:web:[::1]", "did:web:a%2Fb:..", "did:web:xn--a.net:%2e"} {
		f.Add(did)
	}
	guard, err := netguard.New(netguard.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, did string) {
		where, err := locate(did, PLCDirectory, false)
		if err != nil {
			return
		}
		u, err := url.Parse(where.url)
		if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != u.EscapedPath() || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/../") {
			t.Fatalf("%q leads to %q", did, where.url)
		}
		// From the place there is one way back.
		var back string
		switch {
		case u.Host == "plc.directory" && strings.HasPrefix(u.Path, "/did:plc:"):
			back = u.Path[1:]
		default:
			path := strings.TrimSuffix(strings.TrimSuffix(u.Path, documentFile), "/.well-known")
			back = webPrefix + strings.Replace(u.Host, ":", "%3A", 1) + strings.ReplaceAll(path, "/", ":")
		}
		if back != did && did != webPrefix+strings.Replace(u.Host, ":", "%3A", 1)+":.well-known" {
			t.Fatalf("%q leads to %q, which is that of %q", did, where.url, back)
		}
		if _, err := guard.CheckURL(where.url); err == nil && strings.Contains(u.Hostname(), "localhost") && !strings.Contains(u.Hostname(), ".") {
			t.Fatalf("%q leads to %q", did, where.url)
		}
	})
}
