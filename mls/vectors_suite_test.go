package mls_test

import (
	"errors"
	"fmt"
	"testing"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// lookup returns the suite of a vector entry, or counts the entry as unsupported.
func (c *tally) lookup(id uint16) *suite.Suite {
	s, err := suite.Lookup(id)
	if err != nil {
		c.skip(fmt.Sprintf("cipher suite %d", id))
	}
	return s
}

type cryptoBasics struct {
	CipherSuite uint16 `json:"cipher_suite"`
	RefHash     struct {
		Label      string
		Out, Value hexBytes
	} `json:"ref_hash"`
	ExpandWithLabel struct {
		Secret, Context, Out hexBytes
		Label                string
		Length               int
	} `json:"expand_with_label"`
	DeriveSecret struct {
		Label       string
		Secret, Out hexBytes
	} `json:"derive_secret"`
	DeriveTreeSecret struct {
		Label       string
		Secret, Out hexBytes
		Generation  uint32
		Length      int
	} `json:"derive_tree_secret"`
	SignWithLabel struct {
		Priv, Pub, Content, Signature hexBytes
		Label                         string
	} `json:"sign_with_label"`
	EncryptWithLabel struct {
		Priv, Pub, Context, Plaintext, Ciphertext hexBytes
		KEMOutput                                 hexBytes `json:"kem_output"`
		Label                                     string
	} `json:"encrypt_with_label"`
}

func TestVectorsCryptoBasics(t *testing.T) {
	count := tally{file: "crypto-basics.json"}
	for i, e := range readVectors[cryptoBasics](t, count.file) {
		if s := count.lookup(e.CipherSuite); s != nil {
			count.done(t, checkCryptoBasics(s, &e), i)
		}
	}
	count.log(t)
}

func checkCryptoBasics(s *suite.Suite, e *cryptoBasics) error {
	x, d, ts, sign, enc := e.ExpandWithLabel, e.DeriveSecret, e.DeriveTreeSecret, e.SignWithLabel, e.EncryptWithLabel
	opened, err := s.DecryptWithLabel(enc.Priv, enc.Label, enc.Context, wire.HPKECiphertext{KEMOutput: enc.KEMOutput, Ciphertext: enc.Ciphertext})
	if err != nil {
		return err
	}
	sealed, err := s.EncryptWithLabel(enc.Pub, enc.Label, enc.Context, enc.Plaintext)
	if err != nil {
		return err
	}
	reopened, err := s.DecryptWithLabel(enc.Priv, enc.Label, enc.Context, sealed)
	if err != nil {
		return err
	}
	public, err := s.SignaturePublicKey(sign.Priv)
	if err != nil {
		return err
	}
	signature, err := s.SignWithLabel(sign.Priv, sign.Label, sign.Content)
	if err != nil {
		return err
	}
	for _, sig := range [][]byte{sign.Signature, signature} {
		if !s.VerifyWithLabel(sign.Pub, sign.Label, sign.Content, sig) || s.VerifyWithLabel(sign.Pub, sign.Label+"x", sign.Content, sig) {
			return errors.New("the signature verifies wrongly")
		}
	}
	return errors.Join(
		equal("ref_hash", s.RefHash(e.RefHash.Label, e.RefHash.Value), e.RefHash.Out),
		equal("expand_with_label", s.ExpandWithLabel(x.Secret, x.Label, x.Context, x.Length), x.Out),
		equal("derive_secret", s.DeriveSecret(d.Secret, d.Label), d.Out),
		equal("derive_tree_secret", s.DeriveTreeSecret(ts.Secret, ts.Label, ts.Generation, ts.Length), ts.Out),
		equal("signature key", public, sign.Pub),
		equal("decrypt", opened, enc.Plaintext),
		equal("encrypt and decrypt", reopened, enc.Plaintext),
	)
}
