package identity

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/mr-tron/base58"

	"waxwing.im/waxwing/internal/testvectors"
)

// The AT Protocol's signatures and did:keys. Both spellings of an ECDSA signature are accepted,
// because these are tokens (publicKey.verify); client, which verifies certificates with the
// same data, refuses the second one.
func TestSignaturesOfATProtocol(t *testing.T) {
	read := 0
	for _, c := range testvectors.JSON[struct {
		Comment        string
		Message        string `json:"messageBase64"`
		Suite          string `json:"didDocSuite"`
		Algorithm      string
		DID            string `json:"publicKeyDid"`
		Multibase      string `json:"publicKeyMultibase"`
		Signature      string `json:"signatureBase64"`
		ValidSignature bool
		Tags           []string
	}](t, "atproto/crypto/signature-fixtures.json") {
		read++
		message, errMessage := base64.RawStdEncoding.DecodeString(c.Message)
		signature, errSignature := base64.RawStdEncoding.DecodeString(c.Signature)
		key, errKey := parseDIDKey(c.DID)
		method, isMethod := parseMethod("did:web:a.example", []byte(`{"id":"#atproto","type":"`+c.Suite+`","publicKeyMultibase":"`+c.Multibase+`"}`))
		if errMessage != nil || errSignature != nil || errKey != nil || !isMethod {
			t.Fatal(c.Comment, errMessage, errSignature, errKey, isMethod)
		}
		if key.alg != c.Algorithm || method.key.alg != c.Algorithm || method.key.multibase != key.multibase {
			t.Errorf("%s: %s and %s", c.Comment, key.alg, method.key.alg)
		}
		isValid := c.ValidSignature || slices.Contains(c.Tags, "high-s")
		if err := key.verify(message, signature); (err == nil) != isValid {
			t.Errorf("%s: %v", c.Comment, err)
		}
	}
	for _, file := range []string{"w3c_didkey_K256.json", "w3c_didkey_P256.json"} {
		for _, c := range testvectors.JSON[struct {
			Hex    string `json:"privateKeyBytesHex"`
			Base58 string `json:"privateKeyBytesBase58"`
			DID    string `json:"publicDidKey"`
		}](t, "atproto/crypto/"+file) {
			read++
			raw, _ := hex.DecodeString(c.Hex)
			var private atcrypto.PrivateKey
			var err error
			if c.Base58 == "" {
				private, err = atcrypto.ParsePrivateBytesK256(raw)
			} else {
				raw, _ = base58.Decode(c.Base58)
				private, err = atcrypto.ParsePrivateBytesP256(raw)
			}
			if err != nil {
				t.Fatal(err)
			}
			account, err := ecdsaAccountKey("", private)
			if err != nil || account.DID() != c.DID {
				t.Fatalf("%s: %v, %v", c.DID, account, err)
			}
			signature, err := account.Sign([]byte("text"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := parseDIDKey(c.DID)
			if err != nil || key.verify([]byte("text"), signature) != nil {
				t.Errorf("%s: %v", c.DID, err)
			}
		}
	}
	testvectors.Published(t, "atproto/crypto", read, 0)
}

// No document is looked up for a text that is no DID.
func TestNoDIDsAreLocated(t *testing.T) {
	for _, did := range testvectors.Lines(t, "atproto/syntax/did_syntax_invalid.txt") {
		for _, text := range []string{did, strings.Replace(did, "did:method:", webPrefix, 1), strings.Replace(did, "did:method:", plcPrefix, 1)} {
			if at, err := locate(text, "https://plc.example", true); err == nil {
				t.Errorf("%q is looked up at %s", text, at.url)
			}
		}
	}
	for _, did := range testvectors.Lines(t, "atproto/syntax/did_syntax_valid.txt") {
		_, err := locate(did, "https://plc.example", true)
		isOurs := strings.HasPrefix(did, webPrefix) || strings.HasPrefix(did, plcPrefix)
		if isOurs != (err == nil) || !isOurs && err != errDIDUnsupported {
			t.Errorf("%q: %v", did, err)
		}
	}
}
