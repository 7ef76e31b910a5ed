package identity

import (
	"context"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

const sendMethod = "blue.catbird.mlsChat.sendMessage"

// people are accounts with documents, and the signers behind them.
type people struct {
	*world
	directory *directory
	ann       *AccountKey // P-256, Multikey, did:plc
	kay       *AccountKey // secp256k1, Multikey, did:plc
	web       *AccountKey // P-256, JWK, did:web with a path
	annDID    string
	kayDID    string
	webDID    string
}

func newPeople(w *world) *people {
	d := newDirectory(w.t)
	p := &people{world: w, directory: d,
		ann: testKey(w.t, "ann", ES256), kay: testKey(w.t, "kay", ES256K), web: testKey(w.t, "web", ES256),
		annDID: plc("ann"), kayDID: plc("kay"), webDID: webPrefix + d.host + ":web"}
	label := testKey(w.t, "label", ES256)
	d.set("/"+p.annDID, didDocument(p.annDID, multikey(p.annDID, "#atproto_label", label), multikey(p.annDID, "#atproto", p.ann)))
	d.set("/"+p.kayDID, didDocument(p.kayDID, multikey(p.kayDID, "#atproto", p.kay)))
	d.set("/web/did.json", didDocument(p.webDID, jwk(w.t, p.webDID, "#atproto", p.web)))
	return p
}

func (p *people) authenticator(change func(*Options)) *Authenticator {
	o := Options{Store: p.db, Now: p.clock.Now, Audience: func() []string { return Audiences(serviceDID) },
		Resolver: p.directory.resolver(p.t, ResolverOptions{Now: p.clock.Now})}
	if change != nil {
		change(&o)
	}
	a, err := New(o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(a.Close)
	return a
}

// body is a good set of claims of a call of sendMethod.
func (p *people) body(issuer, id string) fields {
	now := p.clock.Now()
	return fields{"iss": issuer, "aud": serviceDID + "#atproto_mls", "lxm": sendMethod, "jti": id, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
}

func header(alg string) fields { return fields{"alg": alg, "typ": "JWT"} }

// asDER gives a signature the form that other systems use.
func asDER(sign func([]byte) ([]byte, error)) func([]byte) ([]byte, error) {
	return func(content []byte) ([]byte, error) {
		sig, err := sign(content)
		if err != nil {
			return nil, err
		}
		return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
	}
}

// TestXRPCMutants: one good token, and what it takes to be refused. All have one jti,
// so that a mutant which used it up would show at the end.
func TestXRPCMutants(t *testing.T) {
	p := newPeople(newWorld(t, "sqlite:"+t.TempDir()))
	eve := testKey(t, "eve", ES256)
	ed := testKey(t, "ed", EdDSA)
	set := func(did string, methods ...fields) { p.directory.set("/"+did, didDocument(did, methods...)) }
	liar, bare, edward, foreign := plc("liar"), plc("bare"), plc("edward"), plc("foreign")
	p.directory.set("/"+liar, didDocument(p.annDID, multikey(p.annDID, "#atproto", eve)))
	set(bare)
	set(edward, multikey(edward, "#atproto", ed))
	set(foreign, multikey(foreign, "#atproto", eve).with("controller", p.annDID))
	set(plc("labeler"), multikey(plc("labeler"), "#atproto_label", eve))
	a := p.authenticator(nil)

	body, head := p.body(p.annDID, "one"), header(ES256)
	at := func(d time.Duration) int64 { return p.clock.Now().Add(d).Unix() }
	token := func(header, body any, sign func([]byte) ([]byte, error)) string { return forge(t, header, body, sign) }
	mutant := func(name string, value any) string { return token(head, body.with(name, value), p.ann.Sign) }
	headed := func(name string, value any) string { return token(head.with(name, value), body, p.ann.Sign) }
	good := token(head, body, p.ann.Sign)
	parts := strings.Split(good, ".")
	zero := func([]byte) ([]byte, error) { return make([]byte, 64), nil }
	empty := func([]byte) ([]byte, error) { return nil, nil }
	short := func(content []byte) ([]byte, error) {
		sig, err := p.ann.Sign(content)
		return sig[:63], err
	}
	long := func(content []byte) ([]byte, error) {
		sig, err := p.ann.Sign(content)
		return append(sig, 0), err
	}
	x, y := coordinates(t, p.ann)
	eveX, eveY := coordinates(t, eve)
	mac := func(key []byte) func([]byte) ([]byte, error) {
		return func(content []byte) ([]byte, error) {
			m := hmac.New(sha256.New, key)
			m.Write(content)
			return m.Sum(nil), nil
		}
	}
	encoded := base64.RawURLEncoding.EncodeToString
	last := good[:len(good)-1] + string(good[len(good)-1]^1) // the unused bits

	tests := []struct{ name, token, want string }{
		{"no token", "", ""},
		{"garbage", "garbage", string(ds.BadToken)},
		{"two parts", parts[0] + "." + parts[1], string(ds.BadToken)},
		{"four parts", good + "." + parts[2], string(ds.BadToken)},
		{"five parts, as of JWE", good + "." + parts[1] + "." + parts[2], string(ds.BadToken)},
		{"padded", good + "=", string(ds.BadToken)},
		{"line break inside", parts[0] + ".\n" + parts[1] + "." + parts[2], string(ds.BadToken)},
		{"blank before it", " " + good, string(ds.BadToken)},
		{"Bearer twice", "Bearer " + good, string(ds.BadToken)},
		{"trailing bits", last, string(ds.BadToken)},
		{"standard alphabet", parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(strings.Repeat("-_", 43)), string(ds.BadToken)},
		{"too long", mutant("x", strings.Repeat("x", tokenBytesMax)), string(ds.BadToken)},
		{"header no JSON", token(json.RawMessage(`{`), body, p.ann.Sign), string(ds.BadToken)},
		{"header a list", token(json.RawMessage(`[]`), body, p.ann.Sign), string(ds.BadToken)},
		{"claims no JSON", token(head, json.RawMessage(`{"iss":`), p.ann.Sign), string(ds.BadToken)},
		{"claims null", token(head, json.RawMessage(`null`), p.ann.Sign), string(ds.BadToken)},
		{"claims a list", token(head, json.RawMessage(`[]`), p.ann.Sign), string(ds.BadToken)},
		{"claims text", token(head, json.RawMessage(`"x"`), p.ann.Sign), string(ds.BadToken)},

		{"alg none", token(head.with("alg", "none"), body, empty), string(ds.BadSignature)},
		{"alg None", token(head.with("alg", "None"), body, empty), string(ds.BadSignature)},
		{"alg none, signed", headed("alg", "none"), string(ds.BadSignature)},
		{"no alg", headed("alg", nil), string(ds.BadSignature)},
		{"alg a number", headed("alg", 1), string(ds.BadSignature)},
		{"alg in lower case", headed("alg", "es256"), string(ds.BadSignature)},
		{"HS256 with the public point", token(header("HS256"), body, mac(append(x, y...))), string(ds.BadSignature)},
		{"HS256 with the Multikey", token(header("HS256"), body, mac([]byte(p.ann.DID()))), string(ds.BadSignature)},
		{"HS256 with no key", token(header("HS256"), body, mac(nil)), string(ds.BadSignature)},
		{"RS256", headed("alg", "RS256"), string(ds.BadSignature)},
		{"ES384", headed("alg", "ES384"), string(ds.BadSignature)},
		{"ES256K for a P-256 key", headed("alg", ES256K), string(ds.BadSignature)},
		{"ES256 for a secp256k1 key", token(head, body.with("iss", p.kayDID), p.kay.Sign), string(ds.BadSignature)},
		{"EdDSA for a P-256 key", token(header(EdDSA), body, p.ann.Sign), string(ds.BadSignature)},
		{"EdDSA from a document", token(header(EdDSA), body.with("iss", edward), ed.Sign), string(ds.BadIssuer)},
		{"typ of an access token", headed("typ", "at+jwt"), string(ds.BadToken)},
		{"typ of a refresh token", headed("typ", "refresh+jwt"), string(ds.BadToken)},
		{"typ of a DPoP proof", headed("typ", "dpop+jwt"), string(ds.BadToken)},
		{"critical extension", token(head.with("crit", []string{"b64"}).with("b64", false), body, p.ann.Sign), string(ds.BadToken)},
		{"kid of no key", headed("kid", "#other"), string(ds.BadSignature)},
		{"kid without a fragment", headed("kid", "atproto"), string(ds.BadSignature)},
		{"kid of another DID", headed("kid", p.kayDID+"#atproto"), string(ds.BadSignature)},
		{"kid of the label key", token(head.with("kid", "#atproto_label"), body, testKey(t, "label", ES256).Sign), string(ds.BadSignature)},
		{"kid empty", headed("kid", ""), string(ds.BadSignature)},
		{"kid a number", headed("kid", 1), string(ds.BadSignature)},
		{"own key in the header", token(head.with("jwk", fields{"kty": "EC", "crv": "P-256", "x": encoded(eveX), "y": encoded(eveY)}), body, eve.Sign), string(ds.BadSignature)},
		{"own key behind a URL", token(head.with("jku", "https://eve.net/keys"), body, eve.Sign), string(ds.BadSignature)},

		{"signed by another", token(head, body, eve.Sign), string(ds.BadSignature)},
		{"signed with the label key", token(head, body, testKey(t, "label", ES256).Sign), string(ds.BadSignature)},
		{"DER signature", token(head, body, asDER(p.ann.Sign)), string(ds.BadSignature)},
		{"no signature", token(head, body, empty), string(ds.BadSignature)},
		{"signature of zeros", token(head, body, zero), string(ds.BadSignature)},
		{"signature of 63 bytes", token(head, body, short), string(ds.BadSignature)},
		{"signature of 65 bytes", token(head, body, long), string(ds.BadSignature)},
		{"signature of other claims", strings.Join([]string{parts[0], strings.Split(mutant("x", 1), ".")[1], parts[2]}, "."), string(ds.BadSignature)},
		{"signature of another header", strings.Join([]string{strings.Split(headed("x", 1), ".")[0], parts[1], parts[2]}, "."), string(ds.BadSignature)},

		{"no issuer", mutant("iss", nil), string(ds.BadToken)},
		{"issuer a number", mutant("iss", 1), string(ds.BadToken)},
		{"issuer with NUL", mutant("iss", p.annDID+"\x00"), string(ds.BadToken)},
		{"issuer no DID", mutant("iss", "ann"), string(ds.BadIssuer)},
		{"issuer a handle", mutant("iss", "ann.host.net"), string(ds.BadIssuer)},
		{"issuer of another method", mutant("iss", "did:ion:ann"), string(ds.BadIssuer)},
		{"issuer in upper case", mutant("iss", "did:plc:"+strings.ToUpper(p.annDID[8:])), string(ds.BadIssuer)},
		{"issuer not published", token(head, body.with("iss", plc("nobody")), p.ann.Sign), string(ds.BadIssuer)},
		{"issuer with a document about another", token(head, body.with("iss", liar), eve.Sign), string(ds.BadIssuer)},
		{"issuer without keys", token(head, body.with("iss", bare), p.ann.Sign), string(ds.BadIssuer)},
		{"issuer with a key that another controls", token(head, body.with("iss", foreign), eve.Sign), string(ds.BadIssuer)},
		{"issuer with a label key only", token(head, body.with("iss", plc("labeler")), eve.Sign), string(ds.BadIssuer)},
		{"issuer at a metadata service", mutant("iss", "did:web:169.254.169.254"), string(ds.BadIssuer)},
		{"empty fragment", mutant("iss", p.annDID+"#"), string(ds.BadIssuer)},
		{"only a fragment", mutant("iss", "#atproto"), string(ds.BadIssuer)},
		{"two fragments", mutant("iss", p.annDID+"#a#b"), string(ds.BadIssuer)},
		{"sub of the victim", token(head, body.with("iss", p.annDID).with("sub", p.kayDID), p.ann.Sign), string(ds.BadIssuer)},
		{"sub empty", mutant("sub", ""), string(ds.BadIssuer)},
		{"sub a list", mutant("sub", []string{p.annDID}), string(ds.BadIssuer)},

		{"no aud", mutant("aud", nil), string(ds.BadAudience)},
		{"aud empty", mutant("aud", ""), string(ds.BadAudience)},
		{"aud of another service", mutant("aud", "did:web:other.net"), string(ds.BadAudience)},
		{"aud of another entry", mutant("aud", serviceDID+"#atproto_pds"), string(ds.BadAudience)},
		{"aud with an empty fragment", mutant("aud", serviceDID+"#"), string(ds.BadAudience)},
		{"aud of a subdomain", mutant("aud", serviceDID+".net"), string(ds.BadAudience)},
		{"aud in upper case", mutant("aud", strings.ToUpper(serviceDID)), string(ds.BadAudience)},
		{"aud our URL", mutant("aud", "https://ds.example"), string(ds.BadAudience)},
		{"aud of two", mutant("aud", []string{serviceDID, "did:web:other.net"}), string(ds.BadAudience)},
		{"aud localhost, as in development", mutant("aud", devAudience), string(ds.BadAudience)},

		{"no lxm", mutant("lxm", nil), string(ds.BadMethod)},
		{"lxm of another method", mutant("lxm", "blue.catbird.mlsChat.getMessages"), string(ds.BadMethod)},
		{"lxm of an alias", mutant("lxm", "blue.catbird.mls.sendMessage"), string(ds.BadMethod)},
		{"lxm of the session", mutant("lxm", SessionStartMethod), string(ds.BadMethod)},
		{"lxm of all", mutant("lxm", "*"), string(ds.BadMethod)},
		{"lxm in another case", mutant("lxm", strings.ToLower(sendMethod)), string(ds.BadMethod)},
		{"lxm a list", mutant("lxm", []string{sendMethod}), string(ds.BadMethod)},

		{"no jti", mutant("jti", nil), string(ds.BadToken)},
		{"jti empty", mutant("jti", ""), string(ds.BadToken)},
		{"jti a number", mutant("jti", 7), string(ds.BadToken)},
		{"jti of 129 bytes", mutant("jti", strings.Repeat("j", 129)), string(ds.BadToken)},

		{"no exp", mutant("exp", nil), string(ds.BadToken)},
		{"exp as text", mutant("exp", "1800000060"), string(ds.BadToken)},
		{"exp negative", mutant("exp", -1), string(ds.BadToken)},
		{"exp beyond all times", mutant("exp", 1e30), string(ds.BadToken)},
		{"expired", token(head, body.with("iat", at(-time.Minute)).with("exp", at(-31*time.Second)), p.ann.Sign), string(ds.TokenExpired)},
		{"good for too long", mutant("exp", at(6*time.Minute)), string(ds.BadToken)},
		{"good for an hour, as in development", mutant("exp", at(time.Hour)), string(ds.BadToken)},
		{"good for too long since it was made", mutant("iat", at(-10*time.Minute)), string(ds.BadToken)},
		{"made in the future", mutant("iat", at(40*time.Second)), string(ds.TokenNotYet)},
		{"iat as text", mutant("iat", "now"), string(ds.BadToken)},
		{"not yet", mutant("nbf", at(40*time.Second)), string(ds.TokenNotYet)},
	}
	seen := map[string]bool{good: true}
	for _, test := range tests {
		if seen[test.token] {
			t.Errorf("%s: is no mutant of its own", test.name)
		}
		seen[test.token] = true
		_, err := a.Prove(context.Background(), test.token, sendMethod, "")
		var refusal *ds.Refusal
		if !errors.As(err, &refusal) || ds.CodeOf(err) != ds.Unauthorized {
			t.Errorf("%s: got %v", test.name, err)
			continue
		}
		if string(refusal.Reason) != test.want {
			t.Errorf("%s: refused as %s (%s), want %s", test.name, refusal.Reason, refusal.Message, test.want)
		}
		for _, secret := range []string{p.annDID, "one", "did:"} {
			if strings.Contains(refusal.Message, secret) {
				t.Errorf("%s: the answer repeats the token: %s", test.name, refusal.Message)
			}
		}
	}
	if len(tests) < 40 {
		t.Errorf("only %d mutants", len(tests))
	}
	if proof, err := a.Prove(context.Background(), good, sendMethod, ""); err != nil || string(proof.Account) != p.annDID {
		t.Fatalf("a mutant has used the token up: %v", err)
	}
	_, err := a.Prove(context.Background(), good, sendMethod, "")
	var replay *ds.Refusal
	if !errors.As(err, &replay) || replay.Reason != ds.TokenReplayed || !strings.Contains(replay.Message, "Replay detected") {
		t.Errorf("the second time: %v", err)
	}
}

// signer signs tokens of tests: a key, or signs.
type signer interface {
	Sign(content []byte) ([]byte, error)
}

// signs is a signer of one function.
type signs func(content []byte) ([]byte, error)

// Sign calls the function.
func (s signs) Sign(content []byte) ([]byte, error) { return s(content) }

// TestXRPCGoodTokens: what real callers send.
func TestXRPCGoodTokens(t *testing.T) {
	onEach(t, func(w *world) {
		p := newPeople(w)
		a, b := p.authenticator(nil), p.authenticator(nil)
		key, kayKey, edKey := testKey(w.t, "own", ES256), testKey(w.t, "own", ES256K), testKey(w.t, "own", EdDSA)
		n256 := elliptic.P256().Params().N
		tests := []struct {
			name         string
			header, body fields
			key          signer
			want         Proof
		}{
			{"did:plc, P-256", header(ES256), p.body(p.annDID, "1"), p.ann, Proof{Account: ds.AccountID(p.annDID)}},
			{"did:plc, secp256k1", header(ES256K), p.body(p.kayDID, "1"), p.kay, Proof{Account: ds.AccountID(p.kayDID)}},
			{"did:web with a path, JWK", header(ES256), p.body(p.webDID, "1"), p.web, Proof{Account: ds.AccountID(p.webDID)}},
			{"did:key", header(ES256), p.body(key.DID(), "1"), key, Proof{Account: ds.AccountID(key.DID())}},
			{"did:key, secp256k1", header(ES256K), p.body(kayKey.DID(), "1"), kayKey, Proof{Account: ds.AccountID(kayKey.DID())}},
			{"did:key, Ed25519", header(EdDSA), p.body(edKey.DID(), "1"), edKey, Proof{Account: ds.AccountID(edKey.DID())}},
			{"high s on P-256", header(ES256), p.body(p.annDID, "9"), signs(highS(p.ann.Sign, n256)), Proof{Account: ds.AccountID(p.annDID)}},
			{"high s on secp256k1", header(ES256K), p.body(p.kayDID, "9"), signs(highS(p.kay.Sign, secp256k1Order)), Proof{Account: ds.AccountID(p.kayDID)}},
			{"high s, JWK", header(ES256), p.body(p.webDID, "9"), signs(highS(p.web.Sign, n256)), Proof{Account: ds.AccountID(p.webDID)}},
			{"high s, did:key", header(ES256), p.body(key.DID(), "9"), signs(highS(key.Sign, n256)), Proof{Account: ds.AccountID(key.DID())}},
			{"high s, did:key, secp256k1", header(ES256K), p.body(kayKey.DID(), "9"), signs(highS(kayKey.Sign, secp256k1Order)), Proof{Account: ds.AccountID(kayKey.DID())}},
			{"bare aud", header(ES256), p.body(p.annDID, "2").with("aud", serviceDID), p.ann, Proof{Account: ds.AccountID(p.annDID)}},
			{"kid", header(ES256).with("kid", "#atproto"), p.body(p.annDID, "3"), p.ann, Proof{Account: ds.AccountID(p.annDID)}},
			{"kid in full", header(ES256).with("kid", p.annDID+"#atproto"), p.body(p.annDID, "4"), p.ann, Proof{Account: ds.AccountID(p.annDID)}},
			{"device hint", header(ES256), p.body(p.annDID+"#phone", "5"), p.ann, Proof{Account: ds.AccountID(p.annDID), Hint: "phone"}},
			{"device hint and sub", header(ES256), p.body(p.annDID+"#phone", "6").with("sub", p.annDID), p.ann, Proof{Account: ds.AccountID(p.annDID), Hint: "phone"}},
			{"without iat", header(ES256), p.body(p.annDID, "7").with("iat", nil), p.ann, Proof{Account: ds.AccountID(p.annDID)}},
			{"without typ", header(ES256).with("typ", nil), p.body(p.annDID, "8"), p.ann, Proof{Account: ds.AccountID(p.annDID)}},
		}
		for _, test := range tests {
			token := forge(w.t, test.header, test.body, test.key.Sign)
			got, err := a.Prove(context.Background(), token, sendMethod, "192.0.2.1")
			if err != nil || got != test.want {
				w.t.Errorf("%s: got %+v, %v", test.name, got, err)
			}
			for _, node := range []*Authenticator{a, b} {
				var replay *ds.Refusal
				if _, err := node.Prove(context.Background(), token, sendMethod, "192.0.2.1"); !errors.As(err, &replay) || replay.Reason != ds.TokenReplayed {
					w.t.Errorf("%s again: %v", test.name, err)
				}
			}
		}
		// The other value of s does not make a used token fresh.
		for id, sign := range map[string]func([]byte) ([]byte, error){"2": highS(p.ann.Sign, n256), "9": p.ann.Sign} {
			var replay *ds.Refusal
			if _, err := b.Prove(context.Background(), forge(w.t, header(ES256), p.body(p.annDID, id), sign), sendMethod, ""); !errors.As(err, &replay) || replay.Reason != ds.TokenReplayed {
				w.t.Errorf("with the other s: %v", err)
			}
		}
		// The fragment does not belong to the user of a jti.
		for _, issuer := range []string{p.annDID, p.annDID + "#phone", p.annDID + "#tablet"} {
			token := forge(w.t, header(ES256), p.body(issuer, "1"), p.ann.Sign)
			var replay *ds.Refusal
			if _, err := b.Prove(context.Background(), token, sendMethod, ""); !errors.As(err, &replay) || replay.Reason != ds.TokenReplayed {
				w.t.Errorf("%s: %v", issuer, err)
			}
		}
		// The gateway takes the same accounts, without fragments.
		for issuer, ok := range map[string]bool{p.annDID: true, p.annDID + "#phone": false} {
			token := forge(w.t, header(ES256), p.body(issuer, "s").with("lxm", SessionStartMethod), p.ann.Sign)
			ready, err := a.StartSession(context.Background(), Start{Token: token, Device: "phone"})
			if (err == nil) != ok || ok && string(ready.Account) != p.annDID {
				w.t.Errorf("session of %s: %v", issuer, err)
			}
		}
	})
}
