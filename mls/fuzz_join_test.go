package mls

import (
	"bytes"
	"testing"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// invitation holds the parts of a Welcome, from which a hostile inviter makes one with any content.
type invitation struct {
	kp      *KeyPackage
	key     SignatureKey // of the one who invites
	info    *wire.GroupInfo
	secrets *wire.GroupSecrets
}

// newInvitation makes a group, adds a client to it, and opens the Welcome.
func newInvitation(t testing.TB) *invitation {
	t.Helper()
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan")
	w.commit("cay", CommitOptions{})
	w.commit("dan", CommitOptions{Remove: []uint32{w.leafOf("bob")}})
	i := &invitation{kp: keyPackage(t, identity(t, testSuite, "eve")), key: w.groups["ann"].key, info: new(wire.GroupInfo)}
	p := w.commit("ann", CommitOptions{Add: [][]byte{i.kp.Message()}})
	var m wire.Message
	if err := wire.Unmarshal(p.Welcome(), &m); err != nil {
		t.Fatal(err)
	}
	var err error
	if i.secrets, err = i.kp.openSecrets(m.Welcome); err != nil {
		t.Fatal(err)
	}
	key, nonce := schedule.WelcomeKey(i.kp.suite, schedule.Welcome(i.kp.suite, i.secrets.JoinerSecret, schedule.NoPSK()))
	opened, err := i.kp.suite.Open(key, nonce, nil, m.Welcome.EncryptedGroupInfo)
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.Unmarshal(opened, i.info); err != nil {
		t.Fatal(err)
	}
	return i
}

// mend makes a group info agree with its tree, and signs it.
func (i *invitation) mend(t testing.TB, info *wire.GroupInfo) {
	t.Helper()
	s := i.kp.suite
	if data, found := wire.FindExtension(info.Extensions, wire.RatchetTreeExtension); found {
		var list wire.RatchetTree
		if wire.Unmarshal(data, &list) == nil {
			if t, err := tree.Decode(s, list); err == nil {
				info.Context.TreeHash = t.Hash()
			}
		}
	}
	var err error
	if info.Signature, err = s.SignWithLabel(i.key.private, "GroupInfoTBS", info.SignedContent()); err != nil {
		t.Fatal(err)
	}
}

// welcome makes a group info good in all respects, and seals the parts.
func (i *invitation) welcome(t testing.TB, info *wire.GroupInfo, secrets []byte, joiner []byte) []byte {
	t.Helper()
	s := i.kp.suite
	info.ConfirmationTag = schedule.FromJoiner(s, joiner, schedule.NoPSK(), &info.Context).ConfirmationTag(s, info.Context.ConfirmedTranscriptHash)
	i.mend(t, info)
	return i.seal(t, info, secrets, joiner)
}

// seal seals the parts for the invited client as they are.
func (i *invitation) seal(t testing.TB, info *wire.GroupInfo, secrets []byte, joiner []byte) []byte {
	t.Helper()
	s := i.kp.suite
	key, nonce := schedule.WelcomeKey(s, schedule.Welcome(s, joiner, schedule.NoPSK()))
	w := &wire.Welcome{CipherSuite: s.ID(), EncryptedGroupInfo: s.Seal(key, nonce, nil, wire.Marshal(info))}
	sealed, err := s.EncryptWithLabel(i.kp.public.InitKey, "Welcome", w.EncryptedGroupInfo, secrets)
	if err != nil {
		t.Fatal(err)
	}
	w.Secrets = []wire.EncryptedGroupSecrets{{NewMember: i.kp.Ref(), Secrets: sealed}}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w})
}

// A Welcome made from the unchanged parts of another one works: FuzzJoin's are refused because of
// the changes of the fuzzer.
func TestInvitationsCanBePutTogether(t *testing.T) {
	i := newInvitation(t)
	if _, err := Join(i.welcome(t, i.info, wire.Marshal(i.secrets), i.secrets.JoinerSecret), i.kp, JoinOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
}

// FuzzJoin joins with any input: as a Welcome, as a GroupInfo, and as the GroupInfo, the secrets and
// the tree of a Welcome with valid encryption, signatures, tree hash and confirmation tag. A refusal
// must have a typed error; a joined group must have a valid tree and be equal after saving and
// loading.
func FuzzJoin(f *testing.F) {
	i := newInvitation(f)
	public, err := (&schedule.Epoch{External: make([]byte, 32)}).ExternalPub(i.kp.suite)
	if err != nil {
		f.Fatal(err)
	}
	list, _ := wire.FindExtension(i.info.Extensions, wire.RatchetTreeExtension)
	external := *i.info
	external.Extensions = append(external.Extensions[:1:1], wire.Extension{Type: wire.ExternalPubExtension, Data: append([]byte{32}, public...)})
	f.Add(uint8(0), i.welcome(f, i.info, wire.Marshal(i.secrets), i.secrets.JoinerSecret))
	f.Add(uint8(0), wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: &external}))
	f.Add(uint8(1), wire.Marshal(i.info))
	f.Add(uint8(1), wire.Marshal(&external))
	f.Add(uint8(2), wire.Marshal(i.secrets))
	f.Add(uint8(3), list)
	id := identity(f, testSuite, "fay")
	check := func(t *testing.T, g *Group, err error) {
		if err != nil {
			if !isTyped(err) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		state := save(t, g)
		loaded, err := LoadGroup(state, LoadOptions{Now: testNow})
		if err != nil || !bytes.Equal(save(t, loaded), state) {
			t.Fatalf("the group does not load as it was: %v", err)
		}
		if err := g.tree.Validate(g.context.GroupID, g.context.Extensions); err != nil {
			t.Fatalf("the group has an invalid tree: %v", err)
		}
		exercise(loaded, nil)
	}
	f.Fuzz(func(t *testing.T, way uint8, raw []byte) {
		info, secrets := *i.info, wire.Marshal(i.secrets)
		switch way % 4 {
		case 0:
			g, err := Join(raw, i.kp, JoinOptions{Now: testNow})
			check(t, g, err)
			if p, err := JoinExternal(raw, id, ExternalJoinOptions{Now: testNow, Resync: true}); err == nil {
				check(t, p.Group(), nil)
			} else {
				check(t, nil, err)
			}
			return
		case 1:
			if wire.Unmarshal(raw, &info) != nil {
				return
			}
			i.mend(t, &info)
			if p, err := JoinExternal(wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: &info}), id, ExternalJoinOptions{Now: testNow}); err == nil {
				check(t, p.Group(), nil)
			} else {
				check(t, nil, err)
			}
		case 2:
			secrets = raw
		case 3:
			info.Extensions = []wire.Extension{{Type: wire.RatchetTreeExtension, Data: raw}}
		}
		g, err := Join(i.welcome(t, &info, secrets, i.secrets.JoinerSecret), i.kp, JoinOptions{Now: testNow})
		check(t, g, err)
	})
}
