package keypackage_test

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// maker builds a KeyPackage; the steps may spoil it before and after the leaf is
// signed and after the package is signed.
type maker struct {
	suite              suite.ID
	leaf, pack, signed func(k *wire.KeyPackage)
}

func (m maker) make(t *testing.T) []byte {
	t.Helper()
	number := m.suite
	if number == keypackage.XWing {
		number = suite.X25519ChaCha20Poly1305 // signs alike
	}
	s, err := suite.Lookup(number)
	if err != nil {
		t.Fatal(err)
	}
	private, err := s.GenerateSignatureKey()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := s.SignaturePublicKey(private)
	_, initKey, _ := s.GenerateKeyPair()
	_, encryptionKey, _ := s.GenerateKeyPair()
	if m.suite == keypackage.XWing {
		initKey, encryptionKey = xwingKey(t), xwingKey(t)
	}
	k := &wire.KeyPackage{
		Version: wire.MLS10, CipherSuite: m.suite, InitKey: initKey,
		Leaf: wire.LeafNode{
			EncryptionKey: encryptionKey, SignatureKey: public,
			Credential: wire.Credential{Type: wire.BasicCredential, Identity: []byte("did:ex:ann")},
			Capabilities: wire.Capabilities{
				Versions: []uint16{1, 0x1a1a}, CipherSuites: []uint16{m.suite, 0x2a2a},
				Extensions: []uint16{0xf3a1, 0x3a3a}, Proposals: []uint16{0x4a4a}, Credentials: []uint16{1, 0x5a5a},
			},
			Source:    wire.KeyPackageLeaf,
			NotBefore: uint64(now.Add(-time.Hour).Unix()), NotAfter: uint64(now.Add(time.Hour).Unix()),
			Extensions: []wire.Extension{{Type: 0xf3a1, Data: []byte("certificate")}, {Type: 0x3a3a}},
		},
		Extensions: []wire.Extension{{Type: wire.LastResortExtension}, {Type: 0x6a6a, Data: []byte{1}}},
	}
	step := func(f func(*wire.KeyPackage)) {
		if f != nil {
			f(k)
		}
	}
	step(m.leaf)
	if err := leaf.Sign(s, private, &k.Leaf, []byte("group"), 0); err != nil {
		t.Fatal(err)
	}
	step(m.pack)
	if k.Signature, err = s.SignWithLabel(private, "KeyPackageTBS", k.SignedContent()); err != nil {
		t.Fatal(err)
	}
	step(m.signed)
	return wire.Marshal(&wire.Message{WireFormat: wire.KeyPackageFormat, KeyPackage: k})
}

func xwingKey(t *testing.T) []byte {
	t.Helper()
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.PublicKey().Bytes()
}

func TestValidate(t *testing.T) {
	hours := func(from, to int) func(*wire.KeyPackage) {
		return func(k *wire.KeyPackage) {
			k.Leaf.NotBefore = uint64(now.Add(time.Duration(from) * time.Hour).Unix())
			k.Leaf.NotAfter = uint64(now.Add(time.Duration(to) * time.Hour).Unix())
		}
	}
	type kp = *wire.KeyPackage
	tests := []struct {
		name string
		m    maker
		want error
	}{
		{"good", maker{}, nil},
		{"P-256", maker{suite: 2}, nil},
		{"ChaCha20", maker{suite: 3}, nil},
		{"X-Wing", maker{suite: keypackage.XWing}, nil},
		{"X-Wing, leaf signature", maker{suite: keypackage.XWing, pack: func(k kp) { k.Leaf.Signature[3] ^= 1 }}, leaf.ErrSignature},
		{"X-Wing, package signature", maker{suite: keypackage.XWing, signed: func(k kp) { k.Signature[3] ^= 1 }}, leaf.ErrSignature},
		{"X-Wing, init key too short", maker{suite: keypackage.XWing, pack: func(k kp) { k.InitKey = k.InitKey[1:] }}, suite.ErrKey},
		{"X-Wing, encryption key of another suite", maker{suite: keypackage.XWing, leaf: func(k kp) { k.Leaf.EncryptionKey = k.Leaf.EncryptionKey[:32] }}, suite.ErrKey},
		{"X-Wing, suite not listed", maker{suite: keypackage.XWing, leaf: func(k kp) { k.Leaf.Capabilities.CipherSuites = []uint16{3} }}, leaf.ErrInvalid},
		{"X-Wing, ends before it begins", maker{suite: keypackage.XWing, leaf: hours(2, 1)}, leaf.ErrInvalid},
		{"X-Wing, expired", maker{suite: keypackage.XWing, leaf: hours(-2, -1)}, keypackage.ErrLifetime},
		{"X-Wing, init key is the encryption key", maker{suite: keypackage.XWing, pack: func(k kp) { k.InitKey = k.Leaf.EncryptionKey }}, keypackage.ErrInvalid},
		{"other version", maker{pack: func(k kp) { k.Version = 2 }}, keypackage.ErrInvalid},
		{"unknown suite", maker{pack: func(k kp) { k.CipherSuite = 0x7a7a }}, suite.ErrUnsupported},
		{"suite not the signed one", maker{signed: func(k kp) { k.CipherSuite = 3 }}, leaf.ErrInvalid},
		{"leaf of a commit", maker{leaf: func(k kp) { k.Leaf.Source = wire.CommitLeaf }}, keypackage.ErrInvalid},
		{"leaf of an update", maker{leaf: func(k kp) { k.Leaf.Source = wire.UpdateLeaf }}, keypackage.ErrInvalid},
		{"init key is the encryption key", maker{pack: func(k kp) { k.InitKey = k.Leaf.EncryptionKey }}, keypackage.ErrInvalid},
		{"init key too short", maker{pack: func(k kp) { k.InitKey = k.InitKey[1:] }}, suite.ErrKey},
		{"encryption key too short", maker{leaf: func(k kp) { k.Leaf.EncryptionKey = k.Leaf.EncryptionKey[1:] }}, suite.ErrKey},
		{"leaf signature", maker{pack: func(k kp) { k.Leaf.Signature[3] ^= 1 }}, leaf.ErrSignature},
		{"package signature", maker{signed: func(k kp) { k.Signature[3] ^= 1 }}, leaf.ErrSignature},
		{"changed identity", maker{pack: func(k kp) { k.Leaf.Credential.Identity = []byte("did:ex:eve") }}, leaf.ErrSignature},
		{"changed init key", maker{signed: func(k kp) { k.InitKey = bytes.Repeat([]byte{9}, 32) }}, leaf.ErrSignature},
		{"expired", maker{leaf: hours(-2, -1)}, keypackage.ErrLifetime},
		{"not yet", maker{leaf: hours(1, 2)}, keypackage.ErrLifetime},
		{"for two years", maker{leaf: hours(-1, 2*366*24)}, keypackage.ErrLifetime},
		{"for ever", maker{leaf: func(k kp) { k.Leaf.NotBefore, k.Leaf.NotAfter = 0, 1<<64-1 }}, keypackage.ErrLifetime},
		{"ends before it begins", maker{leaf: hours(2, 1)}, leaf.ErrInvalid},
		{"extension not listed", maker{leaf: func(k kp) { k.Leaf.Capabilities.Extensions = nil }}, leaf.ErrInvalid},
		{"default extension not listed", maker{leaf: func(k kp) { k.Leaf.Extensions = []wire.Extension{{Type: 1}} }}, nil},
		{"credential not listed", maker{leaf: func(k kp) { k.Leaf.Capabilities.Credentials = nil }}, leaf.ErrInvalid},
		{"suite not listed", maker{leaf: func(k kp) { k.Leaf.Capabilities.CipherSuites = nil }}, leaf.ErrInvalid},
		{"version not listed", maker{leaf: func(k kp) { k.Leaf.Capabilities.Versions = nil }}, leaf.ErrInvalid},
		{"leaf extension twice", maker{leaf: func(k kp) { k.Leaf.Extensions = append(k.Leaf.Extensions, k.Leaf.Extensions[0]) }}, leaf.ErrInvalid},
		{"package extension twice", maker{pack: func(k kp) { k.Extensions = append(k.Extensions, k.Extensions[0]) }}, keypackage.ErrInvalid},
	}
	for _, test := range tests {
		if test.m.suite == 0 {
			test.m.suite = suite.X25519AES128GCM
		}
		info, err := keypackage.Validate(test.m.make(t), now)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
		if test.want == nil && (string(info.Identity) != "did:ex:ann" || !info.LastResort || len(info.Ref) != 32 || !info.NotAfter.Equal(now.Add(time.Hour))) {
			t.Errorf("%s: got %+v", test.name, info)
		}
	}
}

// Keys with which every shared secret is zero are refused as the init key and as the encryption key,
// for both values of bit 255, which X25519 ignores.
func TestLowOrderKeys(t *testing.T) {
	points := [][]byte{make([]byte, 32), {0: 1, 31: 0}, bytes.Repeat([]byte{0xff}, 32), bytes.Repeat([]byte{0xff}, 32), bytes.Repeat([]byte{0xff}, 32)}
	for i, first := range []byte{0xec, 0xed, 0xee} {
		points[2+i][0], points[2+i][31] = first, 0x7f
	}
	for _, text := range []string{
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	} {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, point)
	}
	for _, id := range []suite.ID{suite.X25519AES128GCM, suite.X25519ChaCha20Poly1305, keypackage.XWing} {
		for _, point := range points {
			for _, top := range []byte{0, 0x80} {
				// spoil replaces the X25519 part of a key, its last bytes.
				spoil := func(key *[]byte) {
					*key = append(bytes.Clone((*key)[:len(*key)-32]), point...)
					(*key)[len(*key)-1] |= top
				}
				for name, m := range map[string]maker{
					"init key": {suite: id, pack: func(k *wire.KeyPackage) { spoil(&k.InitKey) }},
					"leaf key": {suite: id, leaf: func(k *wire.KeyPackage) { spoil(&k.Leaf.EncryptionKey) }},
				} {
					if _, err := keypackage.Validate(m.make(t), now); !errors.Is(err, suite.ErrKey) {
						t.Errorf("suite %#x, %s, %x: %v", id, name, point, err)
					}
				}
			}
		}
	}
}

// The ref of an X-Wing package is by SHA-256, over the KeyPackage without the message
// around it.
func TestXWingRef(t *testing.T) {
	raw := maker{suite: keypackage.XWing}.make(t)
	info, err := keypackage.Validate(raw, now)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	label := "MLS 1.0 KeyPackage Reference"
	h.Write(wire.AppendLength(nil, len(label)))
	h.Write([]byte(label))
	h.Write(wire.AppendLength(nil, len(raw)-4))
	h.Write(raw[4:])
	if !bytes.Equal(info.Ref, h.Sum(nil)) || info.Suite != keypackage.XWing {
		t.Errorf("ref %x, suite %#x", info.Ref, info.Suite)
	}
}

func TestValidateRefusesOtherBytes(t *testing.T) {
	raw := maker{suite: suite.X25519AES128GCM}.make(t)
	for name, bad := range map[string][]byte{
		"empty": {}, "text": []byte("not a key package"), "trailing byte": append(bytes.Clone(raw), 0), "cut": raw[:len(raw)-1],
	} {
		if _, err := keypackage.Validate(bad, now); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	welcome := wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: &wire.Welcome{CipherSuite: 1}})
	if _, err := keypackage.Validate(welcome, now); !errors.Is(err, keypackage.ErrInvalid) {
		t.Errorf("a Welcome: got %v", err)
	}
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte{0, 1, 0, 5, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := keypackage.Validate(raw, now); err == nil {
			t.Log("a valid package was found")
		}
	})
}
