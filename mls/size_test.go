package mls

import (
	"bytes"
	"crypto/rand"
	"testing"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// random returns n random bytes, in place of a key, a hash or a signature.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// filled returns the groups of the members at leaf 0 and leaf 1 in a group like g with n members that
// have all committed, so that no node is blank. The keys of the others are random.
func filled(t testing.TB, g *Group, n int) (own, other *Group) {
	t.Helper()
	private, public, err := g.suite.GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	list := make(wire.RatchetTree, 2*n-1)
	for x := range list {
		if x%2 == 1 {
			list[x] = &wire.Node{Parent: &wire.ParentNode{EncryptionKey: random(32), ParentHash: random(32)}}
			continue
		}
		leaf := *g.tree.Leaf(g.own)
		leaf.EncryptionKey, leaf.ParentHash, leaf.Signature = random(32), random(32), random(64)
		leaf.Source = wire.CommitLeaf
		switch uint32(x / 2) {
		case g.own:
			leaf.EncryptionKey = g.keys[2*g.own].Public
		case 1:
			leaf.EncryptionKey = public
			fallthrough
		default:
			leaf.SignatureKey = random(32)
		}
		list[x] = &wire.Node{Leaf: &leaf}
	}
	decoded, err := tree.Decode(g.suite, list)
	if err != nil {
		t.Fatal(err)
	}
	own = g.clone()
	own.tree, own.keys = decoded, tree.Keys{2 * g.own: g.keys[2*g.own]}
	own.context.TreeHash = decoded.Hash()
	own.secrets = schedule.NewSecretTree(g.suite, decoded.Size(), random(32))
	other = own.clone()
	other.own, other.keys = 1, tree.Keys{2: {Private: private, Public: public}}
	return own, other
}

// Clients save their groups on phones. The size of a state is that of the public tree and little
// else.
func TestStateOfAThousandMembers(t *testing.T) {
	for extension, most := range map[int]int{
		64:  400_000, // such as a signature by the account
		147: 470_000, // the certificate of a device; keys, hashes, signatures, names and certificates alone are 403 000
	} {
		big, state := stateOfAThousand(t, extension)
		if len(state) > most {
			t.Errorf("a group of 1000 members with an extension of %d bytes takes %d bytes", extension, len(state))
		}
		tree := len(big.RatchetTree())
		if len(state) > tree+20_000 {
			t.Errorf("extension of %d bytes: the state takes %d bytes, the public tree %d", extension, len(state), tree)
		}
		loaded, err := LoadGroup(state, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(save(t, loaded), state) {
			t.Error("it saves differently after loading")
		}
		t.Logf("extension of %d bytes: %d bytes of state, %d of them the public tree", extension, len(state), tree)
	}
}

// stateOfAThousand is a group of a thousand members, each with a leaf extension of
// that many bytes, and its saved state, with a history in which every epoch had
// another committer, and late messages.
func stateOfAThousand(t *testing.T, extension int) (*Group, []byte) {
	t.Helper()
	id := identity(t, testSuite, "plc:abcdefghijklmnopqrstuvwx")
	id.Extensions[0].Data = random(extension)
	g, err := NewGroup(testSuite, random(32), id, GroupOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	big, _ := filled(t, g, 1000)
	for range HistoryEpochs {
		next := big.clone()
		next.past = big.remember()
		next.context.Epoch++
		next.tree = big.tree.Clone()
		leaf := *big.tree.Leaf(uint32(next.context.Epoch))
		leaf.EncryptionKey = random(32)
		next.tree.Update(uint32(next.context.Epoch), &leaf)
		next.context.TreeHash = next.tree.Hash()
		next.secrets = schedule.NewSecretTree(g.suite, next.tree.Size(), random(32))
		for from := range uint32(10) {
			if _, next.secrets, err = next.secrets.Take(uint32(next.context.Epoch)*10+from, schedule.Application, 3); err != nil {
				t.Fatal(err)
			}
		}
		big = next
	}
	return big, save(t, big)
}
