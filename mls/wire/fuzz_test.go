package wire_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/wire"
)

// structures are all that may be decoded from bytes of others.
var structures = []func() wire.Struct{
	func() wire.Struct { return new(wire.Message) },
	func() wire.Struct { return new(wire.RatchetTree) },
	func() wire.Struct { return new(wire.GroupInfo) },
	func() wire.Struct { return new(wire.GroupSecrets) },
	func() wire.Struct { return new(wire.SenderData) },
	func() wire.Struct { return new(wire.RequiredCapabilities) },
	func() wire.Struct { return new(wire.Proposal) },
	func() wire.Struct { return privateContent(wire.ApplicationContent) },
	func() wire.Struct { return privateContent(wire.ProposalContent) },
	func() wire.Struct { return privateContent(wire.CommitContent) },
}

func privateContent(kind wire.ContentType) *wire.PrivateContent {
	return &wire.PrivateContent{Message: &wire.AuthenticatedContent{Content: wire.FramedContent{ContentType: kind}}}
}

// realMessages is a message of every kind, made by real clients.
func realMessages(f *testing.F) [][]byte {
	f.Helper()
	now := time.Now()
	var list [][]byte
	must := func(err error) {
		if err != nil {
			f.Fatal(err)
		}
	}
	for _, s := range []mls.Suite{mls.X25519_AES128GCM_SHA256_Ed25519, mls.P256_AES128GCM_SHA256_P256} {
		client := func(name string) (mls.Identity, *mls.KeyPackage) {
			key, err := mls.NewSignatureKey(s)
			must(err)
			id := mls.Identity{Credential: []byte(name), Key: key, Extensions: []mls.Extension{{Type: 0xf3a1, Data: []byte("certificate")}}}
			kp, err := mls.NewKeyPackage(s, id, mls.KeyPackageOptions{NotBefore: now, NotAfter: now.Add(time.Hour), LastResort: true})
			must(err)
			return id, kp
		}
		ann, _ := client("ann")
		_, bob := client("bob")
		cay, _ := client("cay")
		g, err := mls.NewGroup(s, []byte("group"), ann, mls.GroupOptions{PSK: func([]byte) ([]byte, error) { return make([]byte, 32), nil }})
		must(err)
		info, err := g.GroupInfo()
		must(err)
		joining, err := mls.JoinExternal(info, cay, mls.ExternalJoinOptions{})
		must(err)
		sealed, _, err := g.Seal([]byte("hello"), []byte("aad"), mls.SealOptions{Padding: 9})
		must(err)
		list = append(list, bob.Message(), info, joining.Message(), sealed)
		for _, change := range []mls.Change{
			mls.Add(bob.Message()), mls.ExternalPSK([]byte("psk")), mls.ResumptionPSK(0),
			mls.SetExtensions([]mls.Extension{{Type: 0xf3a1}}), mls.Reinit(mls.ReInit{GroupID: []byte("next"), Suite: s}),
		} {
			proposal, _, err := g.Propose(change, mls.ProposeOptions{Public: true})
			must(err)
			commit, err := g.Commit(mls.CommitOptions{Changes: []mls.Change{change}, Public: true})
			must(err)
			list = append(list, proposal, commit.Message())
			if commit.Welcome() != nil {
				list = append(list, commit.Welcome())
			}
		}
	}
	return list
}

// FuzzWire decodes every structure. A decoded value must encode to the same bytes, other input must
// result in ErrMalformed, and ParseHeader must accept the same messages.
func FuzzWire(f *testing.F) {
	for _, message := range realMessages(f) {
		f.Add(uint8(0), message)
		var m wire.Message
		if err := wire.Unmarshal(message, &m); err != nil {
			f.Fatal(err)
		}
		if m.GroupInfo != nil {
			f.Add(uint8(2), wire.Marshal(m.GroupInfo))
			tree, _ := wire.FindExtension(m.GroupInfo.Extensions, wire.RatchetTreeExtension)
			f.Add(uint8(1), tree)
		}
		if m.Public == nil {
			continue
		}
		if p := m.Public.Content.Proposal; p != nil {
			f.Add(uint8(6), wire.Marshal(p))
		}
		f.Add(uint8(6+m.Public.Content.ContentType), wire.Marshal(&wire.PrivateContent{Message: m.Public.Authenticated(), Padding: 3}))
	}
	f.Add(uint8(0), privateMessage(wire.ApplicationContent))
	f.Add(uint8(0), publicCommit(wire.MemberSender))
	f.Add(uint8(3), wire.Marshal(&wire.GroupSecrets{JoinerSecret: make([]byte, 32), PathSecret: &wire.PathSecret{Secret: make([]byte, 32)}}))
	f.Add(uint8(4), wire.Marshal(&wire.SenderData{Leaf: 1, Generation: 2}))
	f.Add(uint8(5), wire.Marshal(&wire.RequiredCapabilities{Extensions: []uint16{1}, Credentials: []uint16{1}}))
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		kind %= uint8(len(structures))
		v := structures[kind]()
		err := wire.Unmarshal(raw, v)
		if err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Fatalf("not a decoding error: %v", err)
		}
		if err == nil && !bytes.Equal(wire.Marshal(v), raw) {
			t.Fatal("what was decoded encodes to other bytes")
		}
		if kind > 0 {
			return
		}
		h, headerErr := wire.ParseHeader(raw)
		if (err == nil) != (headerErr == nil) {
			t.Fatalf("ParseHeader says %v, Unmarshal says %v", headerErr, err)
		}
		if m := v.(*wire.Message); err == nil && h.WireFormat != m.WireFormat {
			t.Fatalf("the header says format %d, the message %d", h.WireFormat, m.WireFormat)
		}
	})
}
