package suite_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/suite"
)

func TestPrivateSignatureKeys(t *testing.T) {
	s, err := suite.Lookup(suite.X25519AES128GCM)
	if err != nil {
		t.Fatal(err)
	}
	long, err := s.GenerateSignatureKey()
	if err != nil {
		t.Fatal(err)
	}
	seed := long[:ed25519.SeedSize]
	public, err := s.SignaturePublicKey(long)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := s.SignaturePublicKey(seed); err != nil || !bytes.Equal(other, public) {
		t.Errorf("a seed has another public key, %v", err)
	}
	for _, private := range [][]byte{long, seed} {
		signature, err := s.SignWithLabel(private, "label", []byte("text"))
		if err != nil || !s.VerifyWithLabel(public, "label", []byte("text"), signature) {
			t.Errorf("a key of %d bytes does not sign, %v", len(private), err)
		}
	}
	mixed := bytes.Clone(long)
	mixed[len(mixed)-1] ^= 1
	for name, private := range map[string][]byte{"mixed halves": mixed, "short": seed[1:], "empty": nil} {
		if _, err := s.SignaturePublicKey(private); !errors.Is(err, suite.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
