package client

import (
	"encoding/base64"
	"testing"

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
