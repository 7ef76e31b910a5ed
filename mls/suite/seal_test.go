package suite

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"testing"
)

// The output of a Sealer opens with crypto/hpke, for every KEM and AEAD that the Sealer implements,
// and for others.
func TestSealersMakeHPKE(t *testing.T) {
	for _, kem := range []hpke.KEM{hpke.DHKEM(ecdh.X25519()), hpke.DHKEM(ecdh.P256()), hpke.DHKEM(ecdh.P384()), hpke.MLKEM768X25519()} {
		for _, aead := range []hpke.AEAD{hpke.AES128GCM(), hpke.AES256GCM(), hpke.ChaCha20Poly1305()} {
			s := &Suite{kem: kem, hpkeAEAD: aead}
			private, public, err := s.GenerateKeyPair()
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{0, 1, 63, 64, 20_000} {
				context := bytes.Repeat([]byte{7}, size)
				sealer := s.NewSealer("label", context)
				for range 2 {
					sealed, err := sealer.Seal(public, []byte("secret"))
					if err != nil {
						t.Fatal(err)
					}
					opened, err := s.DecryptWithLabel(private, "label", context, sealed)
					if err != nil || string(opened) != "secret" {
						t.Errorf("KEM %#x, AEAD %d, %d bytes: %q, %v", kem.ID(), aead.ID(), size, opened, err)
					}
					if _, err := s.DecryptWithLabel(private, "other", context, sealed); err == nil {
						t.Errorf("KEM %#x, AEAD %d: it opens under another label", kem.ID(), aead.ID())
					}
				}
			}
		}
	}
}

func TestCanonicalKeys(t *testing.T) {
	ff := func(first, last byte) []byte {
		x := bytes.Repeat([]byte{0xff}, 32)
		x[0], x[31] = first, last
		return x
	}
	small := func(first, last byte) []byte { return append(append([]byte{first}, make([]byte, 30)...), last) }
	for _, test := range []struct {
		name    string
		x, want []byte
	}{
		{"zero", small(0, 0), small(0, 0)},
		{"zero, bit 255", small(0, 0x80), small(0, 0)},
		{"p-1", ff(0xec, 0x7f), ff(0xec, 0x7f)},
		{"p", ff(0xed, 0x7f), small(0, 0)},
		{"p+9, bit 255", ff(0xf6, 0xff), small(9, 0)},
		{"2^255-1", ff(0xff, 0x7f), small(18, 0)},
		{"below p", ff(0xff, 0x7e), ff(0xff, 0x7e)},
	} {
		x25519 := PublicKeysOf(hpke.DHKEM(ecdh.X25519()))
		if got := x25519.Canonical(test.x); !bytes.Equal(got, test.want) {
			t.Errorf("%s: %x", test.name, got)
		}
		front := bytes.Repeat([]byte{0xee}, 1184)
		if got := PublicKeysOf(hpke.MLKEM768X25519()).Canonical(append(front[:1184:1184], test.x...)); !bytes.Equal(got, append(front[:1184:1184], test.want...)) {
			t.Errorf("X-Wing, %s: %x", test.name, got[1184:])
		}
		if got := PublicKeysOf(hpke.DHKEM(ecdh.P256())).Canonical(test.x); !bytes.Equal(got, test.x) {
			t.Errorf("P-256, %s: changed", test.name)
		}
	}
}
