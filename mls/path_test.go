package mls

import (
	"bytes"
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/wire"
)

// A member can sign what it likes: every rule about a path must hold by itself.
func TestHostilePaths(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan")
	for _, name := range []string{"bob", "cay", "dan"} {
		w.commit(name, CommitOptions{}) // so that the tree is full
	}
	ann := w.groups["ann"]
	p, err := ann.Commit(CommitOptions{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	signed := func(path *wire.UpdatePath) {
		if err := leaf.Sign(ann.suite, ann.key.private, &path.Leaf, ann.context.GroupID, ann.own); err != nil {
			t.Fatal(err)
		}
	}
	bob := w.groups["bob"].tree.Leaf(w.groups["bob"].own)
	tests := []struct {
		name  string
		spoil func(path *wire.UpdatePath)
		want  error
	}{
		{"as it was", func(*wire.UpdatePath) {}, nil},
		{"one node less", func(p *wire.UpdatePath) { p.Nodes = p.Nodes[1:] }, ErrInvalidTree},
		{"one node more", func(p *wire.UpdatePath) { p.Nodes = append(p.Nodes, p.Nodes[0]) }, ErrInvalidTree},
		{"another node key", func(p *wire.UpdatePath) { p.Nodes[1].EncryptionKey = bob.EncryptionKey }, ErrInvalidTree},
		{"no node key", func(p *wire.UpdatePath) { p.Nodes[1].EncryptionKey = nil }, ErrInvalidKey},
		{"one secret less", func(p *wire.UpdatePath) { p.Nodes[1].Secrets = p.Nodes[1].Secrets[1:] }, ErrInvalidTree},
		{"one secret more", func(p *wire.UpdatePath) { p.Nodes[0].Secrets = append(p.Nodes[0].Secrets, p.Nodes[0].Secrets[0]) }, ErrInvalidTree},
		{"another secret", func(p *wire.UpdatePath) { p.Nodes[0].Secrets[0] = p.Nodes[1].Secrets[0] }, ErrDecrypt},
		{"parent hash", func(p *wire.UpdatePath) { p.Leaf.ParentHash = make([]byte, 32); signed(p) }, ErrInvalidTree},
		{"leaf signature", func(p *wire.UpdatePath) { p.Leaf.Signature = make([]byte, 64) }, ErrInvalidSignature},
		{"leaf source", func(p *wire.UpdatePath) { p.Leaf.Source = wire.UpdateLeaf; signed(p) }, ErrInvalidLeaf},
		{"old leaf key", func(p *wire.UpdatePath) { p.Leaf.EncryptionKey = ann.tree.Leaf(ann.own).EncryptionKey; signed(p) }, ErrInvalidLeaf},
		{"the key of another leaf", func(p *wire.UpdatePath) { p.Leaf.EncryptionKey = bob.EncryptionKey; signed(p) }, ErrInvalidTree},
		{"the signature key of another leaf", func(p *wire.UpdatePath) { p.Leaf.SignatureKey = bob.SignatureKey; signed(p) }, ErrInvalidSignature},
		{"credential not listed", func(p *wire.UpdatePath) { p.Leaf.Capabilities.Credentials = nil; signed(p) }, ErrInvalidLeaf},
	}
	for _, test := range tests {
		var m wire.Message
		if err := wire.Unmarshal(p.Message(), &m); err != nil {
			t.Fatal(err)
		}
		a := m.Public.Authenticated()
		test.spoil(a.Content.Commit.Path)
		if err := framing.Sign(ann.suite, ann.key.private, a, &ann.context); err != nil {
			t.Fatal(err)
		}
		raw := wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: framing.Public(ann.suite, ann.epoch.Membership, a, &ann.context)})
		if _, err := w.groups["bob"].Process(raw); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	w.groups["ann"] = p.Base()
	w.echo("ann", p)
	w.agree()
}

func TestGroupInfo(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	raw, err := w.groups["bob"].GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil || m.GroupInfo == nil {
		t.Fatalf("not a group info: %v", err)
	}
	g, info := w.groups["ann"], m.GroupInfo
	signer := g.tree.Leaf(info.Signer)
	if info.Signer != w.groups["bob"].own || !g.suite.VerifyWithLabel(signer.SignatureKey, "GroupInfoTBS", info.SignedContent(), info.Signature) {
		t.Error("the signature is wrong")
	}
	if !bytes.Equal(wire.Marshal(&info.Context), wire.Marshal(&g.context)) || !bytes.Equal(info.ConfirmationTag, g.confirmationTag) {
		t.Error("it describes another epoch")
	}
	list := g.tree.Wire()
	if data, _ := wire.FindExtension(info.Extensions, wire.RatchetTreeExtension); !bytes.Equal(data, wire.Marshal(&list)) {
		t.Error("it carries another tree")
	}
	public, err := g.epoch.ExternalPub(g.suite)
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := wire.FindExtension(info.Extensions, wire.ExternalPubExtension); !bytes.Equal(data, append([]byte{32}, public...)) {
		t.Error("it carries another external key")
	}
	if _, err := g.Export("label", nil, 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a megabyte of secrets: %v", err)
	}
}
