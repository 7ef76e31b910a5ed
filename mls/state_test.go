package mls

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// checksummed repairs the checksum of a spoilt state.
func checksummed(state []byte) []byte {
	state = bytes.Clone(state)
	if len(state) >= sha256.Size {
		sum := sha256.Sum256(state[:len(state)-sha256.Size])
		copy(state[len(state)-sha256.Size:], sum[:])
	}
	return state
}

// loaders load each kind of state.
var loaders = map[string]func([]byte) error{
	"signature key":  func(b []byte) error { return new(SignatureKey).UnmarshalBinary(b) },
	"key package":    func(b []byte) error { _, err := LoadKeyPackage(b); return err },
	"group":          func(b []byte) error { _, err := LoadGroup(b, LoadOptions{}); return err },
	"pending commit": func(b []byte) error { _, err := LoadPendingCommit(b, LoadOptions{}); return err },
}

// savedStates makes a state of each kind, with a past epoch, skipped keys and a
// proposal in the group.
func savedStates(t testing.TB) map[string][]byte {
	t.Helper()
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	w.seal("bob", "lost")
	w.reads("ann", w.seal("bob", "x"), "x")
	w.commit("cay", CommitOptions{})
	w.reads("ann", w.seal("cay", "y"), "y")
	w.process("ann", w.propose("bob", &wire.Proposal{Type: wire.AddProposal, Add: keyPackage(t, identity(t, testSuite, "dan")).public}, wire.PrivateMessageFormat))
	p, err := w.groups["ann"].Commit(CommitOptions{Remove: []uint32{w.groups["cay"].OwnLeaf().Index}})
	if err != nil {
		t.Fatal(err)
	}
	states := map[string][]byte{"group": save(t, p.Base())}
	for name, value := range map[string]interface{ MarshalBinary() ([]byte, error) }{
		"signature key": w.groups["ann"].key, "key package": keyPackage(t, identity(t, testSuite, "eve")), "pending commit": p,
	} {
		if states[name], err = value.MarshalBinary(); err != nil {
			t.Fatal(err)
		}
	}
	return states
}

func TestSavedStatesAreChecked(t *testing.T) {
	states := savedStates(t)
	for name, state := range states {
		load := loaders[name]
		if err := load(state); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		newer := bytes.Clone(state)
		newer[stateHeadBytes-1]++
		if err := load(checksummed(newer)); !errors.Is(err, ErrNewerState) {
			t.Errorf("%s: a newer version: %v", name, err)
		}
		for at := range state {
			for bit := range 8 {
				spoilt := bytes.Clone(state)
				spoilt[at] ^= 1 << bit
				if err := load(spoilt); !errors.Is(err, ErrCorruptState) && !errors.Is(err, ErrNewerState) {
					t.Fatalf("%s: bit %d of byte %d changed: %v", name, bit, at, err)
				}
			}
		}
		for at := stateHeadBytes; at < len(state)-sha256.Size; at += 37 {
			spoilt := bytes.Clone(state)
			spoilt[at] ^= 0xff
			_ = load(checksummed(spoilt)) // may succeed, may not panic
		}
		for end := range state {
			if err := load(state[:end]); !errors.Is(err, ErrCorruptState) {
				t.Fatalf("%s: cut to %d bytes: %v", name, end, err)
			}
		}
		for _, tail := range [][]byte{{0}, {1}, state[:40], state} {
			longer := append(bytes.Clone(state), tail...)
			for kind, longer := range map[string][]byte{"as it is": longer, "with a new checksum": checksummed(longer)} {
				if err := load(longer); !errors.Is(err, ErrCorruptState) {
					t.Errorf("%s, %d bytes longer, %s: %v", name, len(tail), kind, err)
				}
			}
		}
		for other := range states {
			if other != name && loaders[other](state) == nil {
				t.Errorf("a %s loads as a %s", name, other)
			}
		}
	}
}

// A checksum finds accidents inside one state; parts of two states that are both
// good (a restored backup, a bug of ours) must not make a group either.
func TestStatesOfMixedParts(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	old := w.groups["ann"]
	w.commit("bob", CommitOptions{})
	w.commit("ann", CommitOptions{})
	now, bob := w.groups["ann"], w.groups["bob"]
	for name, mix := range map[string]func(g *Group){
		"another place":             func(g *Group) { g.own = bob.own },
		"no place":                  func(g *Group) { g.own = 1 << 30 },
		"another's signature key":   func(g *Group) { g.key = bob.key },
		"another's private keys":    func(g *Group) { g.keys = bob.keys },
		"older private keys":        func(g *Group) { g.keys = old.keys },
		"no private keys":           func(g *Group) { g.keys = nil },
		"an older tree":             func(g *Group) { g.tree = old.tree },
		"an older context":          func(g *Group) { g.context = old.context },
		"older secrets":             func(g *Group) { g.epoch = old.epoch },
		"an older confirmation tag": func(g *Group) { g.confirmationTag = old.confirmationTag },
		"an older transcript":       func(g *Group) { g.interim = old.interim },
		"another history":           func(g *Group) { g.past = old.past },
		"an epoch's history twice":  func(g *Group) { g.past = append(g.past[:1:1], g.past...) },
		"a tree with another name": func(g *Group) {
			list := slices.Clone(g.tree.Wire())
			n := *list[2*bob.own].Leaf
			n.Credential.Identity = []byte("did:ex:mallory")
			list[2*bob.own] = &wire.Node{Leaf: &n}
			renamed, err := tree.Decode(g.suite, list)
			if err != nil {
				t.Fatal(err)
			}
			g.tree = renamed
		},
		"another epoch": func(g *Group) { g.context.Epoch++ },
		"another group": func(g *Group) { g.context.GroupID = []byte("elsewhere") },
		"another suite": func(g *Group) { g.context.CipherSuite = 3 },
	} {
		mixed := now.clone()
		mix(mixed)
		if _, err := LoadGroup(save(t, mixed), LoadOptions{}); !errors.Is(err, ErrCorruptState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, err := now.Commit(CommitOptions{Add: [][]byte{keyPackage(t, identity(t, testSuite, "dan")).Message()}})
	if err != nil {
		t.Fatal(err)
	}
	late, err := old.Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, mix := range map[string]func(p *PendingCommit){
		"another message":     func(p *PendingCommit) { p.message = late.message },
		"no message":          func(p *PendingCommit) { p.message = nil },
		"a welcome instead":   func(p *PendingCommit) { p.message = p.welcome },
		"another group info":  func(p *PendingCommit) { p.groupInfo = late.groupInfo },
		"a message to greet":  func(p *PendingCommit) { p.welcome = p.message },
		"the group before":    func(p *PendingCommit) { p.group = now },
		"another added":       func(p *PendingCommit) { p.added = []seat{{index: 0, node: p.added[0].node}} },
		"added where none is": func(p *PendingCommit) { p.added = []seat{{index: 99, node: p.added[0].node}} },
	} {
		mixed := *p
		mix(&mixed)
		state, err := mixed.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPendingCommit(state, LoadOptions{}); !errors.Is(err, ErrCorruptState) {
			t.Errorf("pending, %s: %v", name, err)
		}
	}
}

func TestEncryptedState(t *testing.T) {
	state := savedStates(t)["group"]
	key := [StateKeyBytes]byte{1}
	encrypted, err := EncryptState(key, "group 1", state)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecryptState(key, "group 1", encrypted); err != nil || !bytes.Equal(got, state) {
		t.Errorf("decrypts to other bytes, %v", err)
	}
	spoilt := bytes.Clone(encrypted)
	spoilt[len(spoilt)/2] ^= 1
	for name, try := range map[string]func() ([]byte, error){
		"another key":  func() ([]byte, error) { return DecryptState([StateKeyBytes]byte{2}, "group 1", encrypted) },
		"another name": func() ([]byte, error) { return DecryptState(key, "group 2", encrypted) },
		"spoilt":       func() ([]byte, error) { return DecryptState(key, "group 1", spoilt) },
		"cut":          func() ([]byte, error) { return DecryptState(key, "group 1", encrypted[:5]) },
	} {
		if _, err := try(); !errors.Is(err, ErrCorruptState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSavingIsStable(t *testing.T) {
	state := savedStates(t)["group"]
	g, err := LoadGroup(state, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(save(t, g), state) {
		t.Error("a loaded group saves differently")
	}
}

func TestLoadedSignatureKeySigns(t *testing.T) {
	for _, s := range []Suite{X25519_AES128GCM_SHA256_Ed25519, P256_AES128GCM_SHA256_P256} {
		id := identity(t, s, "ann")
		saved, err := id.Key.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var loaded SignatureKey
		if err := loaded.UnmarshalBinary(saved); err != nil || !bytes.Equal(loaded.Public(), id.Key.Public()) {
			t.Errorf("loaded another key, %v", err)
		}
		id.Key = loaded
		keyPackage(t, id)
	}
	if _, err := (SignatureKey{}).MarshalBinary(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("the zero key: %v", err)
	}
}
