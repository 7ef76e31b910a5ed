package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"math/big"
	"testing"

	"github.com/mr-tron/base58"

	"waxwing.im/waxwing/internal/testvectors"
)

// The AT Protocol's signatures, with the keys that certificates are verified with: a signature
// has one spelling. Keys of secp256k1 are read and verify nothing.
func TestSignaturesOfATProtocol(t *testing.T) {
	for _, c := range testvectors.JSON[struct {
		Comment        string
		Message        string `json:"messageBase64"`
		DID            string `json:"publicKeyDid"`
		Signature      string `json:"signatureBase64"`
		ValidSignature bool
	}](t, "atproto/crypto/signature-fixtures.json") {
		message, errMessage := base64.RawStdEncoding.DecodeString(c.Message)
		signature, errSignature := base64.RawStdEncoding.DecodeString(c.Signature)
		key, errKey := keyOfDID(c.DID)
		if errMessage != nil || errSignature != nil || errKey != nil || key.isK256 == key.isKnown() {
			t.Fatal(c.Comment, errMessage, errSignature, errKey)
		}
		if key.verify(message, signature) != (c.ValidSignature && !key.isK256) {
			t.Error(c.Comment)
		}
	}
}

// This package reads DIDs of other networks too: a method may have digits (DID Core 1.0,
// section 3.1).
func TestDIDsOfATProtocol(t *testing.T) {
	for _, did := range testvectors.Lines(t, "atproto/syntax/did_syntax_valid.txt") {
		if err := checkAccount(did); err != nil {
			t.Errorf("%q: %v", did, err)
		}
	}
	for _, did := range testvectors.Lines(t, "atproto/syntax/did_syntax_invalid.txt") {
		if checkAccount(did) == nil && did != "did:m123:val" {
			t.Errorf("%.80q names an account", did)
		}
	}
}

// Certificates are verified like tokens, except that the value of s is the low one, and that
// the curve is P-256 or Ed25519.
func TestWycheproofSignatures(t *testing.T) {
	type test struct {
		ID       int `json:"tcId"`
		Msg, Sig testvectors.Hex
		Result   string
	}
	isHigh := func(sig []byte) bool {
		half := new(big.Int).Rsh(elliptic.P256().Params().N, 1)
		return len(sig) == 64 && new(big.Int).SetBytes(sig[32:]).Cmp(half) > 0
	}
	high := 0
	for _, g := range testvectors.Wycheproof[struct {
		PublicKey struct{ Uncompressed testvectors.Hex }
		Tests     []test
	}](t, "ecdsa_secp256r1_sha256_p1363") {
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), g.PublicKey.Uncompressed)
		if err != nil {
			t.Fatal(err)
		}
		did, err := didOfP256(public)
		if err != nil {
			t.Fatal(err)
		}
		key, err := keyOfDID(did)
		for _, c := range g.Tests {
			if isHigh(c.Sig) {
				high++
			}
			if err != nil || key.verify(c.Msg, c.Sig) != (c.Result == "valid" && !isHigh(c.Sig)) {
				t.Errorf("P-256 %d is not %s: %v", c.ID, c.Result, err)
			}
		}
	}
	if high == 0 {
		t.Error("no signature has a high s")
	}
	for _, g := range testvectors.Wycheproof[struct {
		PublicKey struct{ PK testvectors.Hex }
		Tests     []test
	}](t, "ed25519") {
		key, err := keyOfDID(didKeyPrefix + base58.Encode(append([]byte(codecEd25519), g.PublicKey.PK...)))
		for _, c := range g.Tests {
			if err != nil || key.verify(c.Msg, c.Sig) != (c.Result == "valid") {
				t.Errorf("Ed25519 %d is not %s: %v", c.ID, c.Result, err)
			}
		}
	}
}
