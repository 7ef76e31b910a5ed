package mls

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/wire"
)

// lowOrderKeys are the X25519 public keys with which every shared secret is zero: the
// seven encodings of the five points, each with bit 255 clear and set.
func lowOrderKeys(t testing.TB) map[string][]byte {
	t.Helper()
	keys := map[string][]byte{}
	for name, text := range map[string]string{
		"0":             "0000000000000000000000000000000000000000000000000000000000000000",
		"1":             "0100000000000000000000000000000000000000000000000000000000000000",
		"order 8":       "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"order 8 again": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"p-1":           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"p":             "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"p+1":           "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		key, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		twin := bytes.Clone(key)
		twin[31] |= 0x80
		keys[name], keys[name+" with bit 255"] = key, twin
	}
	return keys
}

// offCurve are keys that are not points of P-256, or not in the form of RFC 9420.
func offCurve(t testing.TB) map[string][]byte {
	t.Helper()
	s, err := lookup(P256_AES128GCM_SHA256_P256)
	if err != nil {
		t.Fatal(err)
	}
	_, good, err := s.GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	off := bytes.Clone(good)
	off[64] ^= 1
	return map[string][]byte{
		"off the curve": off, "infinity": {0}, "zero": append([]byte{4}, make([]byte, 64)...),
		"compressed": append([]byte{2 + good[64]&1}, good[1:33]...),
	}
}

// A key to which nothing can be encrypted is refused in every message: in a tree it would prevent
// every later commit.
func TestUnusableKeysAreRefused(t *testing.T) {
	for s, keys := range map[Suite]map[string][]byte{
		X25519_AES128GCM_SHA256_Ed25519: lowOrderKeys(t), X25519_CHACHA20POLY1305_SHA256_Ed25519: lowOrderKeys(t),
		P256_AES128GCM_SHA256_P256: offCurve(t),
	} {
		t.Run(fmt.Sprintf("suite %d", s), func(t *testing.T) {
			entries := keyEntries(t, s)
			for name, key := range keys {
				for entry, enter := range entries {
					if err := enter(key); !errors.Is(err, ErrInvalidKey) {
						t.Errorf("%s, %s: %v", entry, name, err)
					}
				}
			}
		})
	}
}

// keyEntries are the ways in which a public key of another client is received.
func keyEntries(t *testing.T, s Suite) map[string]func(key []byte) error {
	w := newWorld(t, s, "ann", "bob", "cay")
	w.commit("cay", CommitOptions{})
	w.commit("ann", CommitOptions{})
	ann, bob, dan := w.groups["ann"], w.groups["bob"], keyPackage(t, identity(t, s, "dan"))
	process := func(message []byte) error { _, err := bob.Process(message); return err }
	entries := map[string]func(key []byte) error{
		"leaf of a path": func(key []byte) error {
			return process(ann.forge(t, forgery{path: func(p *wire.UpdatePath) { resign(t, ann, &p.Leaf, key) }}))
		},
		"node of a path": func(key []byte) error {
			return process(ann.forge(t, forgery{path: func(p *wire.UpdatePath) { p.Nodes[0].EncryptionKey = key }}))
		},
		"leaf of an external commit": func(key []byte) error {
			eve := identity(t, s, "eve")
			return process(forgeJoin(t, w.groupInfo("ann"), eve, forgery{path: func(p *wire.UpdatePath) {
				p.Leaf.EncryptionKey = key
				if err := leaf.Sign(ann.suite, eve.Key.private, &p.Leaf, ann.context.GroupID, 3); err != nil {
					t.Fatal(err)
				}
			}}))
		},
		"update": func(key []byte) error {
			body, _, err := ann.update(nil)
			if err != nil {
				t.Fatal(err)
			}
			resign(t, ann, body.Update, key)
			return process(w.propose("ann", body, wire.PublicMessageFormat))
		},
		"external_pub": func(key []byte) error {
			return joinSpoilt(t, ann, func(info *wire.GroupInfo, _ wire.RatchetTree) {
				info.Extensions[0].Data = wire.Marshal(&wire.ExternalPub{Key: key})
			})
		},
		"bare external_pub": func(key []byte) error {
			return joinSpoilt(t, ann, func(info *wire.GroupInfo, _ wire.RatchetTree) { info.Extensions[0].Data = key })
		},
		"leaf of a tree": func(key []byte) error {
			return joinSpoilt(t, ann, func(_ *wire.GroupInfo, list wire.RatchetTree) { list[2].Leaf.EncryptionKey = key })
		},
		"parent of a tree": func(key []byte) error {
			return joinSpoilt(t, ann, func(_ *wire.GroupInfo, list wire.RatchetTree) { list[1].Parent.EncryptionKey = key })
		},
	}
	for which, spoil := range map[string]func(*wire.KeyPackage, []byte){
		"init key": func(k *wire.KeyPackage, key []byte) { k.InitKey = key },
		"leaf key": func(k *wire.KeyPackage, key []byte) { k.Leaf.EncryptionKey = key },
	} {
		spoilt := func(key []byte) *wire.KeyPackage {
			return resignedPackage(t, dan, func(k *wire.KeyPackage) { spoil(k, key) })
		}
		entries[which+" of an Add"] = func(key []byte) error {
			return process(w.propose("ann", addition(spoilt(key)), wire.PublicMessageFormat))
		}
		entries[which+" in a commit"] = func(key []byte) error {
			return process(w.hostile("ann", nil, addition(spoilt(key))))
		}
		entries[which+" to add"] = func(key []byte) error {
			_, err := ann.Commit(CommitOptions{Add: [][]byte{wire.Marshal(&wire.Message{WireFormat: wire.KeyPackageFormat, KeyPackage: spoilt(key)})}})
			return err
		}
	}
	if s == testSuite {
		i := newInvitation(t)
		for which, spoil := range map[string]func(list wire.RatchetTree, key []byte){
			"leaf of a Welcome's tree":   func(list wire.RatchetTree, key []byte) { list[0].Leaf.EncryptionKey = key },
			"parent of a Welcome's tree": func(list wire.RatchetTree, key []byte) { list[3].Parent.EncryptionKey = key },
		} {
			entries[which] = func(key []byte) error {
				info := *i.info
				respoil(t, &info, func(list wire.RatchetTree) { spoil(list, key) })
				_, err := Join(i.seal(t, &info, wire.Marshal(i.secrets), i.secrets.JoinerSecret), i.kp, JoinOptions{Now: testNow})
				return err
			}
		}
	}
	return entries
}

// resign gives a leaf of g's member another encryption key.
func resign(t testing.TB, g *Group, n *wire.LeafNode, key []byte) {
	t.Helper()
	n.EncryptionKey = key
	if err := leaf.Sign(g.suite, g.key.private, n, g.context.GroupID, g.own); err != nil {
		t.Fatal(err)
	}
}

// respoil changes the tree of a group info, the hashes and signatures not.
func respoil(t testing.TB, info *wire.GroupInfo, spoil func(wire.RatchetTree)) {
	t.Helper()
	info.Extensions = append([]wire.Extension{}, info.Extensions...)
	for i, e := range info.Extensions {
		if e.Type != wire.RatchetTreeExtension {
			continue
		}
		var list wire.RatchetTree
		if err := wire.Unmarshal(e.Data, &list); err != nil {
			t.Fatal(err)
		}
		spoil(list)
		info.Extensions[i].Data = wire.Marshal(&list)
	}
}

// joinSpoilt joins by a group info of g, signed after it was spoilt.
func joinSpoilt(t testing.TB, g *Group, spoil func(*wire.GroupInfo, wire.RatchetTree)) error {
	t.Helper()
	raw, err := g.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	respoil(t, m.GroupInfo, func(list wire.RatchetTree) { spoil(m.GroupInfo, list) })
	if m.GroupInfo.Signature, err = g.suite.SignWithLabel(g.key.private, "GroupInfoTBS", m.GroupInfo.SignedContent()); err != nil {
		t.Fatal(err)
	}
	_, err = JoinExternal(wire.Marshal(&m), identity(t, g.Suite(), "eve"), ExternalJoinOptions{Now: testNow})
	return err
}

// A group of an older version may have a leaf with such a key. The error of a commit names the leaf,
// and a commit that removes it succeeds.
func TestUnusableLeafIsNamed(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	ann := w.groups["ann"]
	bad := *ann.tree.Leaf(2)
	bad.EncryptionKey = make([]byte, 32)
	ann.tree = ann.tree.Clone()
	ann.tree.Update(2, &bad)
	_, err := ann.Commit(CommitOptions{})
	var key *KeyError
	if !errors.As(err, &key) || !errors.Is(err, ErrInvalidKey) {
		t.Fatalf("got %v", err)
	}
	if i, ok := key.Leaf(); !ok || i != 2 {
		t.Errorf("the error names leaf %d, %v", i, ok)
	}
	if _, err := ann.Commit(CommitOptions{Remove: []uint32{2}}); err != nil {
		t.Errorf("removing it: %v", err)
	}
}

// Encodings of one X25519 key are one key where keys are compared. RFC 7748, section 5.
func TestKeysAreComparedAsPoints(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	bob := w.groups["bob"]
	twinOf := func(key []byte) []byte { twin := bytes.Clone(key); twin[31] ^= 0x80; return twin }
	member := twinOf(bob.tree.Leaf(w.leafOf("cay")).EncryptionKey)
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	add := resignedPackage(t, dan, func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = member })
	w.refusesForgery("bob", "a member's key in an Add", w.groups["ann"].forge(t, forgery{list: w.byValue("ann", addition(add))}), ErrInvalidTree)
	both := resignedPackage(t, dan, func(k *wire.KeyPackage) { k.InitKey = twinOf(k.Leaf.EncryptionKey) })
	w.refuses("bob", w.propose("ann", addition(both), wire.PublicMessageFormat), ErrInvalidKeyPackage)
	own := twinOf(bob.tree.Leaf(w.leafOf("ann")).EncryptionKey)
	body, _, err := w.groups["ann"].update(nil)
	if err != nil {
		t.Fatal(err)
	}
	resign(t, w.groups["ann"], body.Update, own)
	w.refuses("bob", w.propose("ann", body, wire.PublicMessageFormat), ErrInvalidLeaf)
	// Such a key alone is valid by RFC 7748.
	alone := resignedPackage(t, dan, func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = twinOf(k.Leaf.EncryptionKey) })
	w.process("bob", w.propose("ann", addition(alone), wire.PublicMessageFormat))
}
