package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testmetric"
)

// highS gives a signature its other value of s.
func highS(sign func([]byte) ([]byte, error), n *big.Int) func([]byte) ([]byte, error) {
	return func(content []byte) ([]byte, error) {
		sig, err := sign(content)
		if err != nil {
			return nil, err
		}
		s := new(big.Int).SetBytes(sig[32:])
		s.Sub(n, s).FillBytes(sig[32:])
		return sig, nil
	}
}

func TestVerifyToken(t *testing.T) {
	now := newClock().Now()
	at := func(d time.Duration) float64 { return float64(now.Add(d).Unix()) }
	p256, k256, ed := testKey(t, "ann", ES256), testKey(t, "ann", ES256K), testKey(t, "ann", EdDSA)
	eve := testKey(t, "eve", ES256)
	head := fields{"alg": ES256, "typ": "JWT"}
	body := fields{"iss": p256.DID(), "aud": serviceDID, "lxm": SessionStartMethod, "jti": "j1", "iat": at(0), "exp": at(time.Minute)}
	n256 := elliptic.P256().Params().N
	empty := func([]byte) ([]byte, error) { return nil, nil }
	multibase := strings.TrimPrefix(p256.DID(), didKeyPrefix)

	tests := []struct {
		name         string
		header, body any
		sign         func([]byte) ([]byte, error)
		want         error
	}{
		{"good ES256", head, body, p256.Sign, nil},
		{"good ES256K", head.with("alg", ES256K), body.with("iss", k256.DID()), k256.Sign, nil},
		{"good EdDSA", head.with("alg", EdDSA), body.with("iss", ed.DID()), ed.Sign, nil},
		{"no typ", head.with("typ", nil), body, p256.Sign, nil},
		{"sub is the issuer", head, body.with("sub", p256.DID()), p256.Sign, nil},
		{"aud with the service entry", head, body.with("aud", serviceDID+"#atproto_mls"), p256.Sign, nil},
		{"aud as a list of one", head, body.with("aud", []string{serviceDID}), p256.Sign, nil},
		{"without iat", head, body.with("iat", nil), p256.Sign, nil},
		{"nbf in the past", head, body.with("nbf", at(-time.Minute)), p256.Sign, nil},
		{"fraction of a second", head, body.with("exp", at(time.Minute)+0.5), p256.Sign, nil},
		{"expired within the skew", head, body.with("iat", at(-time.Minute)).with("exp", at(-20*time.Second)), p256.Sign, nil},
		{"issued within the skew", head, body.with("iat", at(20*time.Second)), p256.Sign, nil},
		{"five minutes", head, body.with("exp", at(5*time.Minute)), p256.Sign, nil},
		{"jti of 128 bytes", head, body.with("jti", strings.Repeat("j", 128)), p256.Sign, nil},
		{"kid of the key", head.with("kid", "#"+multibase), body, p256.Sign, nil},
		{"kid in full", head.with("kid", p256.DID()+"#"+multibase), body, p256.Sign, nil},

		{"expired", head, body.with("iat", at(-time.Minute)).with("exp", at(-31*time.Second)), p256.Sign, errExpired},
		{"expired long ago", head, body.with("iat", 1).with("exp", 2), p256.Sign, errExpired},
		{"no exp", head, body.with("exp", nil), p256.Sign, errClaim},
		{"exp as text", head, body.with("exp", "1800000060"), p256.Sign, errClaim},
		{"exp negative", head, body.with("exp", -1), p256.Sign, errClaim},
		{"exp beyond all times", head, body.with("exp", 1e30), p256.Sign, errClaim},
		{"exp too far", head, body.with("exp", at(301*time.Second)), p256.Sign, errTooFar},
		{"exp too far, issued later", head, body.with("iat", at(20*time.Second)).with("exp", at(331*time.Second)), p256.Sign, errTooFar},
		{"exp too far without iat", head, body.with("iat", nil).with("exp", at(302*time.Second)), p256.Sign, errTooFar},
		{"issued long ago", head, body.with("iat", at(-10*time.Minute)), p256.Sign, errTooFar},
		{"iat in the future", head, body.with("iat", at(32*time.Second)).with("exp", at(80*time.Second)), p256.Sign, errNotYet},
		{"issued by a clock an hour ahead", head, body.with("iat", at(time.Hour)).with("exp", at(61*time.Minute)), p256.Sign, errNotYet},
		{"begins in an hour", head, body.with("iat", nil).with("nbf", at(time.Hour)).with("exp", at(61*time.Minute)), p256.Sign, errNotYet},
		{"iat as text", head, body.with("iat", "now"), p256.Sign, errClaim},
		{"nbf in the future", head, body.with("nbf", at(32*time.Second)), p256.Sign, errNotYet},
		{"nbf as text", head, body.with("nbf", "now"), p256.Sign, errClaim},

		{"aud of another service", head, body.with("aud", "did:web:other.example"), p256.Sign, errAudience},
		{"aud of another entry", head, body.with("aud", serviceDID+"#other"), p256.Sign, errAudience},
		{"aud in another case", head, body.with("aud", strings.ToUpper(serviceDID)), p256.Sign, errAudience},
		{"aud of two services", head, body.with("aud", []string{serviceDID, "did:web:other.example"}), p256.Sign, errAudience},
		{"no aud", head, body.with("aud", nil), p256.Sign, errAudience},
		{"empty aud", head, body.with("aud", ""), p256.Sign, errAudience},
		{"another method", head, body.with("lxm", "im.waxwing.session.stop"), p256.Sign, errMethod},
		{"no method", head, body.with("lxm", nil), p256.Sign, errMethod},
		{"method as a list", head, body.with("lxm", []string{SessionStartMethod}), p256.Sign, errMethod},
		{"sub of somebody else", head, body.with("sub", eve.DID()), p256.Sign, errSubject},
		{"sub is a number", head, body.with("sub", 1), p256.Sign, errSubject},
		{"no jti", head, body.with("jti", nil), p256.Sign, errTokenID},
		{"empty jti", head, body.with("jti", ""), p256.Sign, errTokenID},
		{"jti is a number", head, body.with("jti", 7), p256.Sign, errTokenID},
		{"jti of 129 bytes", head, body.with("jti", strings.Repeat("j", 129)), p256.Sign, errTokenID},

		{"no issuer", head, body.with("iss", nil), p256.Sign, errClaim},
		{"did:web issuer", head, body.with("iss", "did:web:ann.example"), p256.Sign, errIssuer},
		{"did:plc issuer", head, body.with("iss", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"), p256.Sign, errIssuer},
		{"issuer that is no key", head, body.with("iss", "did:key:zabc"), p256.Sign, errIssuer},
		{"issuer with a fragment", head, body.with("iss", p256.DID()+"#"+multibase), p256.Sign, errIssuer},
		{"issuer with NUL", head, body.with("iss", p256.DID()+"\x00"), p256.Sign, errClaim},
		{"signed by another", head, body, eve.Sign, errSignature},
		{"high s on P-256", head, body, highS(p256.Sign, n256), nil},
		{"high s on secp256k1", head.with("alg", ES256K), body.with("iss", k256.DID()), highS(k256.Sign, secp256k1Order), nil},
		{"high s by another", head, body, highS(eve.Sign, n256), errSignature},
		{"no signature", head, body, empty, errSignature},
		{"alg none", head.with("alg", "none"), body, empty, errAlgorithm},
		{"alg None, signed", head.with("alg", "none"), body, p256.Sign, errAlgorithm},
		{"HMAC with the public key", head.with("alg", "HS256"), body, empty, errAlgorithm},
		{"ES256K named for a P-256 key", head.with("alg", ES256K), body, p256.Sign, errAlgorithm},
		{"ES256 named for an Ed25519 key", head, body.with("iss", ed.DID()), ed.Sign, errAlgorithm},
		{"EdDSA named for a P-256 key", head.with("alg", EdDSA), body, p256.Sign, errAlgorithm},
		{"typ of an access token", head.with("typ", "at+jwt"), body, p256.Sign, errHeader},
		{"typ of a refresh token", head.with("typ", "refresh+jwt"), body, p256.Sign, errHeader},
		{"typ of a proof", head.with("typ", "dpop+jwt"), body, p256.Sign, errHeader},
		{"typ is a number", head.with("typ", 1), body, p256.Sign, errHeader},
		{"critical extension", head.with("crit", []string{"b64"}).with("b64", false), body, p256.Sign, errHeader},
		{"kid of another key", head.with("kid", "#other"), body, p256.Sign, errKeyID},
		{"kid is a number", head.with("kid", 1), body, p256.Sign, errKeyID},
		{"oversized", head, body.with("x", strings.Repeat("x", tokenBytesMax)), p256.Sign, errTooLong},
		{"claims are null", head, json.RawMessage(`null`), p256.Sign, errClaim},
		{"claims are a list", head, json.RawMessage(`[]`), p256.Sign, errMalformed},
		{"header is no JSON", json.RawMessage(`{`), body, p256.Sign, errMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			token := forge(t, test.header, test.body, test.sign)
			v, err := verifyAlone(token, SessionStartMethod, Audiences(serviceDID), now)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if (err == nil) != (v.issuer != "") {
				t.Errorf("got issuer %q with %v", v.issuer, err)
			}
			if err == nil && v.nonce.ExpiresMS < now.UnixMilli() {
				t.Errorf("the nonce expires before the token does")
			}
			if err != nil && strings.Contains(err.Error(), multibase[10:]) {
				t.Errorf("the reason quotes the token: %v", err)
			}
		})
	}
}

func TestVerifyTokenGarbage(t *testing.T) {
	now := newClock().Now()
	good := goodToken(t, testKey(t, "ann", ES256), now)
	parts := strings.Split(good, ".")
	garbage := []string{"", ".", "..", "...", "a.b.c", "null", good + ".", good + "." + parts[2], parts[0] + "." + parts[1],
		parts[0] + "." + parts[1] + ".", "." + parts[1] + "." + parts[2], good + "=", good + "\n", " " + good,
		strings.Replace(good, ".", ".\r\n", 1), parts[0] + "." + parts[1] + "." + parts[2][:80], strings.Repeat(".", 4000),
		"did:key:" + parts[0], strings.Repeat("A", 5000), "eyJhbGciOiJub25lIn0.e30.", "\xff\xfe", good[:len(good)-1]}
	for _, token := range garbage {
		if _, err := verifyAlone(token, SessionStartMethod, Audiences(serviceDID), now); err == nil {
			t.Errorf("accepted %q", token)
		}
	}
	for _, audiences := range [][]string{nil, {""}, {"did:web:other.example"}} {
		if _, err := verifyAlone(good, SessionStartMethod, audiences, now); !errors.Is(err, errAudience) {
			t.Errorf("as %q: got %v", audiences, err)
		}
	}
	if _, err := verifyAlone(good, "", Audiences(serviceDID), now); err == nil {
		t.Error("accepted for no method")
	}
}

func TestTokenIsGoodOnce(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a, b := w.node(), w.node()
		token := w.token("ann")
		issuer, err := a.verifyServiceToken(ctx, token, SessionStartMethod)
		if err != nil || string(issuer) != testKey(w.t, "ann", ES256).DID() {
			w.t.Fatalf("got %q, %v", issuer, err)
		}
		for _, node := range []*Authenticator{a, b} {
			_, err := node.verifyServiceToken(ctx, token, SessionStartMethod)
			wantRefusal(w.t, err, ds.Unauthorized, errReplayed.message)
			_, err = node.StartSession(ctx, Start{Token: token, Device: "d"})
			wantRefusal(w.t, err, ds.Unauthorized, errReplayed.message)
			if n := testmetric.Value(w.t, node.replays); n != 2 {
				w.t.Errorf("%g replays are counted", n)
			}
		}
		// A jti belongs to its issuer.
		now := w.clock.Now()
		for _, name := range []string{"bob", "cem"} {
			k := testKey(w.t, name, EdDSA)
			token, err := SignToken(k, Claims{Issuer: k.DID(), Audience: serviceDID, Method: "x", ID: "same", IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
			if err != nil {
				w.t.Fatal(err)
			}
			if _, err := b.verifyServiceToken(ctx, token, "x"); err != nil {
				w.t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Many tokens are presented many times at once to two nodes; each is good once.
func TestTokenReplayRace(t *testing.T) {
	onEach(t, func(w *world) {
		nodes := []*Authenticator{w.node(), w.node()}
		const tokens, tries = 40, 6
		var (
			mu       sync.Mutex
			accepted [tokens]int
			wg       sync.WaitGroup
		)
		for i := range tokens {
			token := w.token("ann")
			for try := range tries {
				wg.Go(func() {
					_, err := nodes[try%2].verifyServiceToken(context.Background(), token, SessionStartMethod)
					if err == nil {
						mu.Lock()
						accepted[i]++
						mu.Unlock()
					} else if ds.CodeOf(err) != ds.Unauthorized {
						w.t.Errorf("got %v", err)
					}
				})
			}
		}
		wg.Wait()
		for i, n := range accepted {
			if n != 1 {
				w.t.Errorf("token %d was accepted %d times", i, n)
			}
		}
	})
}

func TestSweepKeepsWhatCounts(t *testing.T) {
	onEach(t, func(w *world) {
		ctx := context.Background()
		a := w.node()
		token := w.token("ann")
		ready := w.start(a, "ann")
		if _, err := a.verifyServiceToken(ctx, token, SessionStartMethod); err != nil {
			w.t.Fatal(err)
		}
		count := func() (n int64) {
			w.t.Helper()
			if err := a.sweep(ctx); err != nil {
				w.t.Fatal(err)
			}
			nonce, err := verifyAlone(token, SessionStartMethod, Audiences(serviceDID), newClock().Now())
			if err != nil {
				w.t.Fatal(err)
			}
			if err := a.writer.do(ctx, &job{nonce: &nonce.nonce}); errors.Is(err, errReplayed) {
				n++
			}
			if _, err := a.Session(ctx, ready.SessionToken); err == nil {
				n++
			}
			return n
		}
		if n := count(); n != 2 {
			w.t.Errorf("fresh: %d of 2 kept", n)
		}
		w.clock.add(forgetAfter - time.Second)
		if n := count(); n != 2 {
			w.t.Errorf("expired on a slow clock: %d of 2 kept", n)
		}
		w.clock.add(3 * time.Hour)
		if n := count(); n != 0 {
			w.t.Errorf("expired: %d kept", n)
		}
	})
}

func TestRefusalsSayNothing(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	var log bytes.Buffer
	a, err := New(Options{
		Store: w.db, Audience: func() []string { return Audiences(serviceDID) }, Now: w.clock.Now,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	token := w.token("ann")
	for _, bad := range []string{token[:len(token)-4], "x" + token, token + ".secret", strings.ToUpper(token)} {
		_, err := a.verifyServiceToken(context.Background(), bad, SessionStartMethod)
		if ds.CodeOf(err) != ds.Unauthorized {
			t.Errorf("got %v", err)
		}
	}
	for part := range strings.SplitSeq(token, ".") {
		if strings.Contains(strings.ToLower(log.String()), strings.ToLower(part[:12])) {
			t.Errorf("the log quotes a token: %s", log.String())
		}
	}
	if !strings.Contains(log.String(), "service token refused") {
		t.Error("the reason is not in the debug log")
	}
}

// FuzzVerifyToken looks for tokens that were never signed but are accepted.
func FuzzVerifyToken(f *testing.F) {
	now := newClock().Now()
	var signed []string // what was signed is the same in every worker, the signatures are not
	for _, alg := range Algorithms {
		k := testKey(f, "ann", alg)
		token, err := SignToken(k, Claims{
			Issuer: k.DID(), Audience: serviceDID, Method: SessionStartMethod, ID: "fuzz", IssuedAt: now, ExpiresAt: now.Add(time.Minute),
		})
		if err != nil {
			f.Fatal(err)
		}
		signed = append(signed, token[:strings.LastIndexByte(token, '.')])
		f.Add(token)
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		v, err := verifyAlone(token, SessionStartMethod, Audiences(serviceDID), now)
		if err == nil && !slices.Contains(signed, token[:strings.LastIndexByte(token, '.')]) {
			t.Fatalf("accepted a token of %s that nobody signed: %q", v.issuer, token)
		}
	})
}

// The vectors were computed apart from this code.
func TestDeriveAccountKey(t *testing.T) {
	const long = "a longer seed of more than thirty-two bytes"
	tests := []struct{ alg, seed, name, want string }{
		{ES256, "seed", "ann", "did:key:zDnaeqfbGQQT5pac8nP75jjGMKfuhn8fEHFhgcXBKCrd9owsV"},
		{ES256, long, "Bob the Builder", "did:key:zDnaeXj8gMNiMMWvYJ3YgM53eL73bGT9tcCTE82z69gynX8qQ"},
		{ES256K, "seed", "ann", "did:key:zQ3shSuFVQj6Kv4gj3o7wx5ECwWmxEC7ASwkSGnkmfSqTtHym"},
		{ES256K, long, "Bob the Builder", "did:key:zQ3shh4jcuNFw5RCcWrDg93wSU9eRrFvAF6tifBrGZXaFU6fP"},
		{EdDSA, "seed", "ann", "did:key:z6MkweDymbQp3JJjySxAaCQA4E6XRJXZQx5FNb9U87PL6NAg"},
		{EdDSA, long, "Bob the Builder", "did:key:z6MksPeuuYs4A6Z6Gg4DkwjdXMmjQfDYozDcNaSnQEejvKDD"},
	}
	for _, test := range tests {
		k, err := DeriveAccountKey([]byte(test.seed), test.name, test.alg)
		if err != nil {
			t.Fatal(err)
		}
		if k.DID() != test.want || k.Alg() != test.alg {
			t.Errorf("%s %q %q: got %s %s, want %s", test.alg, test.seed, test.name, k.Alg(), k.DID(), test.want)
		}
		sig, err := k.Sign([]byte("content"))
		if err != nil {
			t.Fatal(err)
		}
		public, err := parseDIDKey(k.DID())
		if err != nil || public.alg != test.alg {
			t.Fatalf("%s: got %s, %v", k.DID(), public.alg, err)
		}
		if err := public.verify([]byte("content"), sig); err != nil {
			t.Errorf("%s: %v", test.alg, err)
		}
		if public.verify([]byte("Content"), sig) == nil {
			t.Errorf("%s: verifies other content", test.alg)
		}
	}
	for _, test := range []struct{ seed, name, alg string }{{"", "a", ES256}, {"s", "", ES256}, {"s", "a", "RS256"}, {"s", "a", ""}} {
		if _, err := DeriveAccountKey([]byte(test.seed), test.name, test.alg); err == nil {
			t.Errorf("derived a key of %q", test)
		}
	}
}

func TestScalarStaysInRange(t *testing.T) {
	n := elliptic.P256().Params().N
	for _, test := range []struct {
		x    *big.Int
		want int64
	}{
		{big.NewInt(0), 1},
		{new(big.Int).Sub(n, big.NewInt(1)), 1},
		{n, 2},
	} {
		if got := new(big.Int).SetBytes(scalar(test.x.Bytes(), n)); got.Int64() != test.want {
			t.Errorf("scalar(%v) = %v, want %d", test.x, got, test.want)
		}
	}
}

func TestParseDIDKey(t *testing.T) {
	ann := testKey(t, "ann", ES256).DID()
	private, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := private.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	weak := func(last byte, first ...byte) string {
		key := make([]byte, ed25519.PublicKeySize)
		copy(key, first)
		key[31] = last
		return encodeDIDKey(multicodecEd25519, key)
	}
	// -1 mod p, the point of order two, and p+1, a second spelling of the neutral element.
	minusOne := slices.Concat([]byte{0xec}, bytes.Repeat([]byte{0xff}, 30))
	secondOne := slices.Concat([]byte{0xee}, bytes.Repeat([]byte{0xff}, 30))
	orderEight := []byte{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc}
	bad := map[string]string{
		"empty":                        "",
		"only the method":              "did:key:",
		"another method":               strings.Replace(ann, "key", "web", 1),
		"another multibase":            strings.Replace(ann, ":z", ":f", 1),
		"no base58":                    "did:key:z0OIl",
		"short":                        "did:key:z6",
		"a byte more":                  ann + "1",
		"leading zero":                 strings.Replace(ann, ":z", ":z1", 1),
		"space":                        ann + " ",
		"very long":                    "did:key:z" + strings.Repeat("2", 1<<20),
		"uncompressed P-256":           encodeDIDKey(multicodecP256, public.UncompressedBytes()),
		"not on P-256":                 encodeDIDKey(multicodecP256, slices.Concat([]byte{2}, bytes.Repeat([]byte{0xff}, 32))),
		"not on secp256k1":             encodeDIDKey(multicodecK256, slices.Concat([]byte{2}, bytes.Repeat([]byte{0xff}, 32))),
		"X25519":                       encodeDIDKey([]byte{0xec, 0x01}, bytes.Repeat([]byte{7}, 32)),
		"Ed25519 of 33 bytes":          encodeDIDKey(multicodecEd25519, bytes.Repeat([]byte{7}, 33)),
		"Ed25519 neutral element":      weak(0, 1),
		"Ed25519 neutral, other sign":  weak(0x80, 1),
		"Ed25519 order two":            weak(0x7f, minusOne...),
		"Ed25519 order four":           weak(0),
		"Ed25519 order eight":          weak(0x05, orderEight...),
		"Ed25519 order eight, negated": weak(0x85, orderEight...),
		"Ed25519 second spelling":      weak(0x7f, secondOne...),
	}
	for name, did := range bad {
		if _, err := parseDIDKey(did); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, did := range []string{ann, public.DIDKey()} {
		if _, err := parseDIDKey(did); err != nil {
			t.Errorf("%s: %v", did, err)
		}
	}
}

// What one job of a batch wants does not spoil the others'.
func TestWriterIsolatesPoison(t *testing.T) {
	onEach(t, func(w *world) {
		a := w.node()
		nonceOf := func(b byte) *store.Nonce {
			return &store.Nonce{Hash: [32]byte{b}, ExpiresMS: w.clock.Now().UnixMilli()}
		}
		row := store.Session{Hash: make([]byte, 32), ID: "sid_x", Device: ds.Device{Account: "did:ex:ann", ID: "d"}, ResumeHash: make([]byte, 32), ResumeSealed: []byte("x")}
		ann := &admission{account: row.Device.Account}
		batch := []*job{
			{nonce: nonceOf(1)},
			{nonce: nonceOf(2), start: &row, admit: ann},
			{nonce: nonceOf(3), start: &row, admit: ann}, // the same row: an error of the database
			{resume: &resumption{hash: [32]byte{9}}},
			{nonce: nonceOf(1)},
			{nonce: nonceOf(4)},
		}
		a.writer.commit(batch)
		if batch[0].err != nil || batch[1].err != nil || batch[5].err != nil {
			w.t.Errorf("good jobs: %v, %v, %v", batch[0].err, batch[1].err, batch[5].err)
		}
		if err := batch[2].err; err == nil || ds.IsUnavailable(err) {
			w.t.Errorf("poison: got %v", err)
		}
		wantRefusal(w.t, batch[3].err, ds.ResumeFailed, resumeRefused)
		if !errors.Is(batch[4].err, errReplayed) {
			w.t.Errorf("replay: got %v", batch[4].err)
		}
		if err := a.writer.do(context.Background(), &job{nonce: nonceOf(3)}); err != nil {
			w.t.Errorf("a job that failed has used its nonce up: %v", err)
		}
	})
}
