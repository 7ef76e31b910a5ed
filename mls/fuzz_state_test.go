package mls

import (
	"bytes"
	"testing"
)

// FuzzState loads states that were changed and have a valid checksum. A state that loads must save
// to the same bytes, and no operation on it may panic.
func FuzzState(f *testing.F) {
	w := newWorld(f, testSuite, "ann", "bob")
	messages := [][]byte{w.seal("ann", "x"), w.propose("ann", removal(1), 2)}
	states := savedStates(f)
	for kind, name := range []string{"signature key", "key package", "group", "pending commit"} {
		f.Add(uint8(kind), states[name])
	}
	f.Add(uint8(2), save(f, newWorld(f, P256_AES128GCM_SHA256_P256, "ann").groups["ann"]))
	f.Add(uint8(2), save(f, w.groups["bob"]))
	p, err := JoinExternal(w.groupInfo("bob"), identity(f, testSuite, "cay"), ExternalJoinOptions{Now: testNow})
	if err != nil {
		f.Fatal(err)
	}
	pending, err := p.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(3), pending)
	f.Fuzz(func(t *testing.T, kind uint8, state []byte) {
		key := [StateKeyBytes]byte{1}
		if _, err := DecryptState(key, "name", state); err == nil {
			t.Fatal("anything decrypts")
		}
		if sealed, err := EncryptState(key, "name", state); err != nil {
			t.Fatal(err)
		} else if opened, err := DecryptState(key, "name", sealed); err != nil || !bytes.Equal(opened, state) {
			t.Fatalf("decrypts to other bytes, %v", err)
		}
		state = checksummed(state)
		o := LoadOptions{Now: testNow, Limits: Limits{PastEpochs: 1 << 30, SkippedKeys: 1 << 30}} // drops nothing
		switch kind % 4 {
		case 0:
			var k SignatureKey
			if k.UnmarshalBinary(state) == nil {
				resaves(t, k, state)
			}
		case 1:
			if k, err := LoadKeyPackage(state); err == nil {
				resaves(t, k, state)
				k.Lifetime()
				_ = k.Ref()
			}
		case 2:
			if g, err := LoadGroup(state, o); err == nil {
				resaves(t, g, state)
				exercise(g, messages)
			}
		case 3:
			if p, err := LoadPendingCommit(state, o); err == nil {
				resaves(t, p, state)
				_, _, _ = p.Added(), p.Removed(), p.Epoch()
				exercise(p.Group(), messages)
				_, _ = p.Apply(w.groups["bob"])
			}
		}
	})
}

// resaves checks that a loaded state saves to the same bytes.
func resaves(t *testing.T, v interface{ MarshalBinary() ([]byte, error) }, state []byte) {
	t.Helper()
	if again, err := v.MarshalBinary(); err != nil || !bytes.Equal(again, state) {
		t.Fatalf("it saves to other bytes, %v", err)
	}
}

// exercise calls the operations of g.
func exercise(g *Group, messages [][]byte) {
	g.Members()
	g.OwnLeaf()
	g.Extensions()
	g.PendingProposals()
	g.Reinitialized()
	for _, m := range messages {
		_, _ = g.Process(m)
	}
	_, _, _ = g.Seal([]byte("x"), nil, SealOptions{})
	_, _, _ = g.Propose(Update(nil), ProposeOptions{})
	_, _ = g.GroupInfo()
	_, _ = g.Commit(CommitOptions{})
}
