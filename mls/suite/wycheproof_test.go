package suite

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"waxwing.im/waxwing/internal/testvectors"
)

type hexBytes = testvectors.Hex

// verdict is the part of a vector that says what becomes of it. "acceptable" leaves that open.
type verdict struct {
	ID     int `json:"tcId"`
	Result string
	Flags  []string
}

func (v verdict) has(flag string) bool { return slices.Contains(v.Flags, flag) }

func TestWycheproofSignatures(t *testing.T) {
	type group struct {
		PublicKey struct {
			Uncompressed hexBytes
			PK           hexBytes
		}
		Tests []struct {
			verdict
			Msg, Sig hexBytes
		}
	}
	for file, scheme := range map[string]SignatureScheme{"ecdsa_secp256r1_sha256": p256Scheme{}, "ed25519": ed25519Scheme{}} {
		read := 0
		for _, g := range testvectors.Wycheproof[group](t, file) {
			for _, c := range g.Tests {
				read++
				public := append(g.PublicKey.Uncompressed, g.PublicKey.PK...) // one of them
				if scheme.Verify(public, c.Msg, c.Sig) != (c.Result == "valid") {
					t.Errorf("%s %d is not %s", file, c.ID, c.Result)
				}
			}
		}
		testvectors.Published(t, "wycheproof/"+file, read, 0)
	}
}

// A key exchange is seen here as HPKE has it: the public key of a vector is a KEM output, and
// its private key the receiver's, who derives an external init secret.
func TestWycheproofKeyExchange(t *testing.T) {
	type group struct {
		Tests []struct {
			verdict
			Public, Private, Shared hexBytes
		}
	}
	for file, kem := range map[string]hpke.KEM{"x25519": hpke.DHKEM(ecdh.X25519()), "ecdh_secp256r1_ecpoint": hpke.DHKEM(ecdh.P256())} {
		s := &Suite{kem: kem, hpkeAEAD: hpke.AES128GCM()}
		read := 0
		for _, g := range testvectors.Wycheproof[group](t, file) {
			read += len(g.Tests)
			_ = Parallel(len(g.Tests), func(i int) error {
				c := g.Tests[i]
				private := c.Private
				if extra := len(private) - 32; extra > 0 { // leading zeros
					private = private[extra:]
				}
				private = append(make([]byte, 32-len(private)), private...)
				// RFC 9180, section 7.1.4: a shared secret of zeros is refused.
				isGood := c.Result != "invalid" && !c.has("ZeroSharedSecret") && !c.has("CompressedPoint")
				if err := s.CheckPublicKey(c.Public); (err == nil) != isGood {
					t.Errorf("%s %d: key: %v", file, c.ID, err)
				}
				secret, err := s.OpenExternalInit(private, c.Public)
				if (err == nil) != isGood {
					t.Errorf("%s %d: %v", file, c.ID, err)
				}
				if err == nil && !bytes.Equal(secret, externalInit(t, s, private, c.Public, c.Shared)) {
					t.Errorf("%s %d: another secret", file, c.ID)
				}
				if !isGood {
					if _, err := s.NewSealer("label", nil).Seal(c.Public, []byte("secret")); err == nil {
						t.Errorf("%s %d: it was sealed to", file, c.ID)
					}
				}
				return nil
			})
		}
		testvectors.Published(t, "wycheproof/"+file, read, 0)
	}
}

// externalInit derives the secret of OpenExternalInit from the result of the key exchange.
// RFC 9180, sections 4.1, 5.1 and 5.3.
func externalInit(t *testing.T, s *Suite, private, kemOutput, dh []byte) []byte {
	t.Helper()
	public, err := s.PublicKey(private)
	if err != nil {
		t.Error(err)
	}
	kemID := binary.BigEndian.AppendUint16([]byte("KEM"), s.kem.ID())
	hpkeID := binary.BigEndian.AppendUint16([]byte("HPKE"), s.kem.ID())
	hpkeID = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(hpkeID, kdfSHA256), s.hpkeAEAD.ID())
	prk := labeledExtract(nil, kemID, "eae_prk", dh)
	shared := labeledExpand(prk[:], kemID, "shared_secret", slices.Concat(kemOutput, public), HashBytes)
	psk, info := labeledExtract(nil, hpkeID, "psk_id_hash", nil), labeledExtract(nil, hpkeID, "info_hash", nil)
	secret := labeledExtract(shared, hpkeID, "secret", nil)
	exporter := labeledExpand(secret[:], hpkeID, "exp", slices.Concat([]byte{modeBase}, psk[:], info[:]), HashBytes)
	return labeledExpand(exporter, hpkeID, "sec", []byte(externalInitLabel), HashBytes)
}

// Keys of X-Wing are checked and not used: an ML-KEM-768 key with an X25519 one behind it.
func TestWycheproofXWingKeys(t *testing.T) {
	type group struct {
		Tests []struct {
			verdict
			EK hexBytes
		}
	}
	x25519 := append([]byte{9}, make([]byte, 31)...)
	read := 0
	for _, g := range testvectors.Wycheproof[group](t, "mlkem_768_encaps") {
		for _, c := range g.Tests {
			read++
			if err := PublicKeysOf(hpke.MLKEM768X25519()).Check(append(c.EK, x25519...)); (err == nil) != (c.Result == "valid") {
				t.Errorf("%d is not %s: %v", c.ID, c.Result, err)
			}
		}
	}
	testvectors.Published(t, "wycheproof/mlkem_768_encaps", read, 0)
}

func TestWycheproofAEADs(t *testing.T) {
	type group struct {
		IVSize int
		Tests  []struct {
			verdict
			Key, IV, AAD, Msg, CT, Tag hexBytes
		}
	}
	for file, s := range map[string]*Suite{"aes_gcm": {newAEAD: newAESGCM}, "chacha20_poly1305": {newAEAD: chacha20poly1305.New}} {
		read, left := 0, 0
		for _, g := range testvectors.Wycheproof[group](t, file) {
			if g.IVSize != 8*NonceBytes {
				left += len(g.Tests)
				continue
			}
			for _, c := range g.Tests {
				read++
				sealed := slices.Concat(c.CT, c.Tag)
				if opened, err := s.Open(c.Key, c.IV, c.AAD, sealed); (err == nil) != (c.Result == "valid") || err == nil && !bytes.Equal(opened, c.Msg) {
					t.Errorf("%s %d is not %s: %x, %v", file, c.ID, c.Result, opened, err)
				}
				if c.Result == "valid" && !bytes.Equal(s.Seal(c.Key, c.IV, c.AAD, c.Msg), sealed) {
					t.Errorf("%s %d: another ciphertext", file, c.ID)
				}
			}
		}
		testvectors.Published(t, "wycheproof/"+file, read, left)
	}
}

func TestWycheproofHKDF(t *testing.T) {
	type group struct {
		Tests []struct {
			verdict
			IKM, Salt, Info, OKM hexBytes
			Size                 int
		}
	}
	s := known[X25519AES128GCM]
	read := 0
	for _, g := range testvectors.Wycheproof[group](t, "hkdf_sha256") {
		for _, c := range g.Tests {
			read++
			prk := s.Extract(c.Salt, c.IKM)
			out, err := hkdf.Expand(sha256.New, prk, string(c.Info), c.Size) // of ExpandWithLabel
			if (err == nil) != (c.Result == "valid") || err == nil && !bytes.Equal(out, c.OKM) {
				t.Errorf("%d is not %s: %x, %v", c.ID, c.Result, out, err)
			}
			if first := mac(prk, append(c.Info, 1)); c.Size <= HashBytes && !bytes.Equal(first[:c.Size], c.OKM) { // of a short ExpandWithLabel
				t.Errorf("%d: one block is %x", c.ID, first)
			}
		}
	}
	testvectors.Published(t, "wycheproof/hkdf_sha256", read, 0)
}

func TestWycheproofHMAC(t *testing.T) {
	type group struct {
		TagSize int
		Tests   []struct {
			verdict
			Key, Msg, Tag hexBytes
		}
	}
	s := known[X25519AES128GCM]
	read := 0
	for _, g := range testvectors.Wycheproof[group](t, "hmac_sha256") {
		for _, c := range g.Tests {
			read++
			if s.MACEqual(s.MAC(c.Key, c.Msg)[:g.TagSize/8], c.Tag) != (c.Result == "valid") {
				t.Errorf("%d is not %s", c.ID, c.Result)
			}
		}
	}
	testvectors.Published(t, "wycheproof/hmac_sha256", read, 0)
}
