package client

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"
)

func testAccount(t testing.TB, name string) *Account {
	t.Helper()
	a, err := AccountFromSeed([]byte("seed of the tests"), name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAccountFromSeed(t *testing.T) {
	ann, again, bob := testAccount(t, "ann"), testAccount(t, "ann"), testAccount(t, "bob")
	if ann.DID() != again.DID() || ann.DID() == bob.DID() {
		t.Fatalf("ann %s, again %s, bob %s", ann.DID(), again.DID(), bob.DID())
	}
	// P-256 keys in a did:key begin with zDn.
	if !strings.HasPrefix(ann.DID(), "did:key:zDn") {
		t.Errorf("not a did:key on P-256: %s", ann.DID())
	}
	key, err := keyOfDID(ann.DID())
	if err != nil || key.p256 == nil || !key.p256.Equal(ann.public) {
		t.Errorf("the DID does not give the key back: %v", err)
	}
	if _, err := AccountFromSeed(nil, "ann"); err == nil {
		t.Error("an empty seed makes an account")
	}
}

func TestSignaturesAreLowS(t *testing.T) {
	a := testAccount(t, "ann")
	for i := range 64 {
		message := []byte{byte(i)}
		signature, err := a.sign(message)
		if err != nil {
			t.Fatal(err)
		}
		if !verifyP256(a.public, message, signature) {
			t.Fatal("the signature does not verify")
		}
		high := bytes.Clone(signature)
		n := a.public.Params().N
		new(big.Int).Sub(n, new(big.Int).SetBytes(signature[32:])).FillBytes(high[32:])
		if verifyP256(a.public, message, high) {
			t.Fatal("the same signature with a high s verifies")
		}
	}
}

func TestServiceToken(t *testing.T) {
	a, now := testAccount(t, "ann"), time.Unix(1_800_000_000, 0)
	token, err := a.serviceToken("did:web:chat.example", "im.waxwing.session.start", now)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !verifyP256(a.public, []byte(parts[0]+"."+parts[1]), signature) {
		t.Errorf("bad signature: %v", err)
	}
	var claims map[string]any
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"iss": a.DID(), "aud": "did:web:chat.example",
		"lxm": "im.waxwing.session.start", "iat": 1.8e9, "exp": 1.8e9 + 120} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	if id, _ := claims["jti"].(string); len(id) != 22 {
		t.Errorf("jti %q is not 128 bits", id)
	}
}

func TestBase58(t *testing.T) {
	for _, test := range []struct {
		text string
		data []byte
	}{
		{"1", []byte{0}}, {"2NEpo7TZRRrLZSi2U", []byte("Hello World!")},
		{"11233QC4", []byte{0, 0, 0x28, 0x7f, 0xb4, 0xcd}},
	} {
		if got, err := decodeBase58(test.text); err != nil || !bytes.Equal(got, test.data) {
			t.Errorf("%q decodes to %x, %v", test.text, got, err)
		}
	}
	for _, bad := range []string{"", "0", "O", "I", "l", "é", strings.Repeat("2", base58CharsMax+1)} {
		if _, err := decodeBase58(bad); err == nil {
			t.Errorf("%q decodes", bad)
		}
	}
}

func TestKeyOfDID(t *testing.T) {
	ann := testAccount(t, "ann").DID()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	edDID := didKeyPrefix + base58.Encode(append([]byte(codecEd25519), public...))
	for _, test := range []struct {
		name, did string
		known, ok bool
	}{
		{"p256", ann, true, true},
		{"ed25519", edDID, true, true},
		{"not a key", "did:web:example.org", false, true},
		{"opaque", "bob", false, true},
		{"another codec", didKeyPrefix + base58.Encode([]byte("\xe7\x01abc")), false, true},
		{"not base58", didKeyPrefix + "0OIl", false, false},
		{"short point", didKeyPrefix + base58.Encode([]byte(codecP256+"\x02abc")), false, false},
		{"short ed25519", didKeyPrefix + base58.Encode([]byte(codecEd25519+"abc")), false, false},
		{"not canonical", didKeyPrefix + "1" + strings.TrimPrefix(ann, didKeyPrefix), false, true},
	} {
		key, err := keyOfDID(test.did)
		if key.isKnown() != test.known || (err == nil) != test.ok {
			t.Errorf("%s: known %v, %v", test.name, key.isKnown(), err)
		}
	}
}

func TestJudgeLeaf(t *testing.T) {
	ann, eve := testAccount(t, "ann"), testAccount(t, "eve")
	now := time.Unix(1_800_000_000, 0)
	leafKey, otherKey := []byte("leaf key of ann"), []byte("another leaf key")
	issue := func(a *Account, key []byte, notAfter time.Time) []byte {
		data, err := issueCertificate(a, "phone", key, notAfter)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := issue(ann, leafKey, now.Add(time.Hour))
	// A certificate in ann's name by eve's key.
	forged := certificate{DID: ann.DID(), DeviceID: "phone", NotAfter: now.Add(time.Hour)}
	var err error
	if forged.Signature, err = eve.sign(forged.signedBytes(leafKey)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, did string
		data      []byte
		want      verdict
		refused   bool
	}{
		{name: "good", did: ann.DID(), data: good,
			want: verdict{DeviceID: "phone", Verified: true, Expected: true}},
		{name: "none", did: ann.DID(), want: verdict{Expected: true}},
		{name: "none, account without a known key", did: "did:web:example.org"},
		{name: "expired", did: ann.DID(), data: issue(ann, leafKey, now.Add(-time.Second)),
			want: verdict{DeviceID: "phone", Expected: true, Expired: true}},
		{name: "another account's", did: eve.DID(), data: good, refused: true},
		{name: "for another leaf key", did: ann.DID(), data: issue(ann, otherKey, now.Add(time.Hour)), refused: true},
		{name: "by another key", did: ann.DID(), data: forged.marshal(), refused: true},
		{name: "malformed", did: ann.DID(), data: good[:len(good)-1], refused: true},
		{name: "with something behind it", did: ann.DID(), data: append(bytes.Clone(good), 0), refused: true},
		{name: "empty", did: ann.DID(), data: []byte{}, refused: true},
		{name: "in a DID that is broken", did: didKeyPrefix + "0", refused: true},
	} {
		got, err := judgeLeaf(test.did, leafKey, test.data, now)
		if (err != nil) != test.refused || err != nil && !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", test.name, err)
		}
		test.want.Account = test.did
		if err == nil && got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func FuzzParseCertificate(f *testing.F) {
	a := testAccount(f, "ann")
	good, err := issueCertificate(a, "phone", []byte("key"), time.Unix(1_800_000_000, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCertificate(data)
		if err == nil && !bytes.Equal(c.marshal(), data) {
			t.Errorf("%x is not the only form of %+v", data, c)
		}
	})
}
