package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"testing"

	"waxwing.im/waxwing/internal/testvectors"
)

// Signatures of tokens are 64 bytes; either value of s is good.
func TestWycheproofSignatures(t *testing.T) {
	type group struct {
		PublicKey    struct{ Uncompressed testvectors.Hex }
		PublicKeyJWK json.RawMessage
		Tests        []struct {
			ID       int `json:"tcId"`
			Msg, Sig testvectors.Hex
			Result   string
		}
	}
	for file, alg := range map[string]string{"ecdsa_secp256r1_sha256_p1363": ES256, "ecdsa_secp256k1_sha256_p1363": ES256K} {
		read := 0
		for _, g := range testvectors.Wycheproof[group](t, file) {
			key, err := parsePoint(alg, g.PublicKey.Uncompressed)
			if err != nil {
				t.Fatal(err)
			}
			if other, err := parseMultibase(key.multibase); err != nil || other.alg != alg {
				t.Errorf("%s: %v", key.multibase, err)
			}
			if g.PublicKeyJWK != nil {
				if other, err := parseJWK(g.PublicKeyJWK); err != nil || other.multibase != key.multibase {
					t.Errorf("%s: %s, %v", g.PublicKeyJWK, other.multibase, err)
				}
			}
			for _, c := range g.Tests {
				read++
				if err := key.verify(c.Msg, c.Sig); (err == nil) != (c.Result == "valid") {
					t.Errorf("%s %d is not %s: %v", file, c.ID, c.Result, err)
				}
			}
		}
		testvectors.Published(t, "wycheproof/"+file, read, 0)
	}
}

// Of the signatures of Ed25519, which mls reads too, those of keys that are accounts.
func TestWycheproofEd25519(t *testing.T) {
	for _, g := range testvectors.Wycheproof[struct {
		PublicKey struct{ PK testvectors.Hex }
		Tests     []struct {
			ID       int `json:"tcId"`
			Msg, Sig testvectors.Hex
			Result   string
		}
	}](t, "ed25519") {
		key, err := parseDIDKey(encodeDIDKey(multicodecEd25519, g.PublicKey.PK))
		for _, c := range g.Tests {
			isValid := err == nil && key.verify(c.Msg, c.Sig) == nil
			if isValid != (c.Result == "valid") {
				t.Errorf("%d is not %s: %v", c.ID, c.Result, err)
			}
		}
		if len(g.PublicKey.PK) != ed25519.PublicKeySize {
			t.Errorf("a key of %d bytes", len(g.PublicKey.PK))
		}
	}
}

// JWKs of elliptic curves, all of which are wrong; the others are of kinds that no document has.
func TestWycheproofJWKs(t *testing.T) {
	read, left := 0, 0
	for _, g := range testvectors.Wycheproof[struct {
		Comment string
		Public  struct{ Keys []json.RawMessage }
		Tests   []struct{ Result string }
	}](t, "json_web_key") {
		var first struct {
			Curve string `json:"crv"`
		}
		if len(g.Public.Keys) == 0 || json.Unmarshal(g.Public.Keys[0], &first) != nil || first.Curve == "" {
			left += len(g.Tests)
			continue
		}
		read += len(g.Tests)
		if key, err := parseJWK(g.Public.Keys[0]); err == nil {
			t.Errorf("%s: %s", g.Comment, key.multibase)
		}
	}
	testvectors.Published(t, "wycheproof/json_web_key", read, left)
}
