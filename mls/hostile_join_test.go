package mls

import (
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/wire"
)

// Welcomes of an inviter that has every secret of the Welcome and signs anything.
func TestHostileWelcomes(t *testing.T) {
	i := newInvitation(t)
	// treed changes the tree, as part of the group info.
	treed := func(info *wire.GroupInfo, spoil func(wire.RatchetTree)) {
		data, _ := wire.FindExtension(info.Extensions, wire.RatchetTreeExtension)
		var list wire.RatchetTree
		if err := wire.Unmarshal(data, &list); err != nil {
			t.Fatal(err)
		}
		spoil(list)
		info.Extensions = []wire.Extension{{Type: wire.RatchetTreeExtension, Data: wire.Marshal(&list)}}
	}
	another := func(list wire.RatchetTree) {
		n := *list[4].Leaf
		n.Credential.Identity = []byte("did:ex:mallory")
		list[4] = &wire.Node{Leaf: &n}
	}
	// Inner nodes would show that a leaf changed.
	unmade := func(list wire.RatchetTree) {
		another(list)
		for x := 1; x < len(list); x += 2 {
			list[x] = nil
		}
	}
	for _, test := range []struct {
		name          string
		before, after func(*wire.GroupInfo) // everything else is made good in between
		want          error
	}{
		{"as it was", nil, nil, nil},
		{"the confirmation tag", nil, func(o *wire.GroupInfo) { o.ConfirmationTag = make([]byte, 32) }, ErrInvalidTag},
		{"the tree hash", nil, func(o *wire.GroupInfo) { o.Context.TreeHash = make([]byte, 32) }, ErrInvalidTree},
		{"the tree of another hash", nil, func(o *wire.GroupInfo) { treed(o, another) }, ErrInvalidTree},
		{"somebody else's credential", func(o *wire.GroupInfo) { treed(o, unmade) }, nil, ErrInvalidSignature},
		{"no tree", nil, func(o *wire.GroupInfo) { o.Extensions = nil }, ErrInvalidWelcome},
		{"two trees", nil, func(o *wire.GroupInfo) { o.Extensions = append(o.Extensions, o.Extensions...) }, ErrInvalidWelcome},
		{"a signer who is not there", nil, func(o *wire.GroupInfo) { o.Signer = 1 << 31 }, ErrInvalidWelcome},
		{"another signer", nil, func(o *wire.GroupInfo) { o.Signer = 2 }, ErrInvalidSignature},
		{"ourselves as signer", nil, func(o *wire.GroupInfo) { o.Signer = 1 }, ErrInvalidSignature},
		{"the version", nil, func(o *wire.GroupInfo) { o.Context.Version = 2 }, ErrInvalidWelcome},
		{"the cipher suite", nil, func(o *wire.GroupInfo) { o.Context.CipherSuite = 3 }, ErrInvalidWelcome},
		{"an extension twice", nil, func(o *wire.GroupInfo) { o.Context.Extensions = make([]wire.Extension, 2) }, ErrInvalidWelcome},
	} {
		info := *i.info
		if test.before != nil {
			test.before(&info)
		}
		i.welcome(t, &info, wire.Marshal(i.secrets), i.secrets.JoinerSecret)
		if test.after != nil {
			test.after(&info)
			var err error
			if info.Signature, err = i.kp.suite.SignWithLabel(i.key.private, "GroupInfoTBS", info.SignedContent()); err != nil {
				t.Fatal(err)
			}
		}
		message := i.seal(t, &info, wire.Marshal(i.secrets), i.secrets.JoinerSecret)
		if g, err := Join(message, i.kp, JoinOptions{Now: testNow}); !errors.Is(err, test.want) || (g == nil) != (test.want != nil) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	secrets := *i.secrets
	secrets.PathSecret = &wire.PathSecret{Secret: random(32)}
	info := *i.info
	if _, err := Join(i.welcome(t, &info, wire.Marshal(&secrets), secrets.JoinerSecret), i.kp, JoinOptions{Now: testNow}); !errors.Is(err, ErrInvalidTree) {
		t.Errorf("another path secret: %v", err)
	}
}

// Messages of a member need both its signature key and the secrets of the group. RFC 9420, sections
// 6.1 and 6.2.
func TestHostileAuthentication(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	g := w.groups["ann"]
	for _, format := range []wire.WireFormat{wire.PublicMessageFormat, wire.PrivateMessageFormat} {
		for name, signer := range map[string]*Group{"ann": g, "cay": w.groups["cay"]} {
			a := &wire.AuthenticatedContent{WireFormat: format, Content: g.content(nil)}
			a.Content.ContentType, a.Content.Proposal = wire.ProposalContent, pskOf(&wire.PreSharedKeyID{Kind: wire.ExternalPSK, Nonce: random(32)})
			if err := framing.Sign(g.suite, signer.key.private, a, &g.context); err != nil {
				t.Fatal(err)
			}
			message, _, err := g.frame(a, SealOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := error(nil)
			if name != "ann" {
				want = ErrInvalidSignature
			}
			if _, err := w.groups["bob"].Process(message); !errors.Is(err, want) {
				t.Errorf("format %d, signed by %s as ann: %v", format, name, err)
			}
			if format != wire.PublicMessageFormat || name != "ann" {
				continue
			}
			m := &wire.Message{WireFormat: format, Public: framing.Public(g.suite, random(32), a, &g.context)}
			if _, err := w.groups["bob"].Process(wire.Marshal(m)); !errors.Is(err, ErrInvalidTag) {
				t.Errorf("a tag with another key: %v", err)
			}
		}
	}
}

// Padding must be zero, or it is a hidden channel.
func TestHostilePadding(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	g := w.groups["ann"]
	for _, last := range []byte{0, 1} {
		a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(nil)}
		a.Content.ContentType, a.Content.Application = wire.ApplicationContent, []byte("hello")
		if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
			t.Fatal(err)
		}
		key, _, err := g.secrets.Next(g.own, schedule.Application)
		if err != nil {
			t.Fatal(err)
		}
		plaintext := wire.Marshal(&wire.PrivateContent{Message: a, Padding: 9})
		plaintext[len(plaintext)-1] = last
		m := &wire.PrivateMessage{GroupID: g.context.GroupID, Epoch: g.Epoch(), ContentType: wire.ApplicationContent}
		m.Ciphertext = g.suite.Seal(key.Key, key.Nonce, m.ContentAAD(), plaintext)
		dataKey, nonce := framing.SenderDataKey(g.suite, g.epoch.SenderData, m.Ciphertext)
		m.EncryptedSenderData = g.suite.Seal(dataKey, nonce, m.SenderDataAAD(), wire.Marshal(&wire.SenderData{Leaf: g.own}))
		want := error(nil)
		if last != 0 {
			want = ErrMalformed
		}
		if _, err := w.groups["bob"].Process(wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: m})); !errors.Is(err, want) {
			t.Errorf("padding that ends in %d: %v", last, err)
		}
	}
}
