package tree

import (
	"bytes"
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var testGroup = []byte("group")

// testTree is a valid tree of four members; the third and then the first
// committed, and their private signature keys.
func testTree(t *testing.T) (*Tree, [][]byte) {
	t.Helper()
	s, err := suite.Lookup(suite.X25519AES128GCM)
	if err != nil {
		t.Fatal(err)
	}
	var tree *Tree
	var keys [][]byte
	for i := range uint32(4) {
		private, err := s.GenerateSignatureKey()
		if err != nil {
			t.Fatal(err)
		}
		n := &wire.LeafNode{
			Credential:   wire.Credential{Type: wire.BasicCredential, Identity: []byte{byte(i)}},
			Capabilities: wire.Capabilities{Versions: []uint16{wire.MLS10}, CipherSuites: []uint16{s.ID()}, Credentials: []uint16{wire.BasicCredential}},
			Source:       wire.KeyPackageLeaf, NotAfter: 1,
		}
		if n.SignatureKey, err = s.SignaturePublicKey(private); err != nil {
			t.Fatal(err)
		}
		if _, n.EncryptionKey, err = s.GenerateKeyPair(); err != nil {
			t.Fatal(err)
		}
		if err := leaf.Sign(s, private, n, testGroup, i); err != nil {
			t.Fatal(err)
		}
		if keys = append(keys, private); i == 0 {
			tree = New(s, n)
		} else {
			tree.Add(n)
		}
	}
	for _, i := range []uint32{2, 0} {
		if _, err := tree.Replace(i, *tree.Leaf(i), testGroup, keys[i]); err != nil {
			t.Fatal(err)
		}
	}
	return tree, keys
}

// Trees of a hostile inviter, each of which breaks one rule.
func TestHostileTrees(t *testing.T) {
	good, keys := testTree(t)
	if err := good.Validate(testGroup, nil); err != nil {
		t.Fatal(err)
	}
	// parent replaces a parent node by a changed copy.
	parent := func(t *Tree, x uint32, spoil func(*wire.ParentNode)) {
		p := *t.nodes[x].Parent
		spoil(&p)
		t.set(x, &wire.Node{Parent: &p})
	}
	// unmade blanks the parent nodes, so that no parent hash depends on a changed leaf.
	unmade := func(t *Tree) {
		for _, x := range []uint32{1, 3, 5} {
			t.nodes[x], t.hashes[x] = nil, nil
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(*Tree)
		want  error
	}{
		{"as it was", func(*Tree) {}, nil},
		{"without inner nodes", unmade, nil},
		{"a leaf's signature", func(t *Tree) {
			unmade(t)
			n := *t.Leaf(3)
			n.Signature = make([]byte, 64)
			t.set(6, &wire.Node{Leaf: &n})
		}, leaf.ErrSignature},
		{"a leaf of another place", func(t *Tree) {
			unmade(t)
			t.nodes[0], t.nodes[4] = t.nodes[4], t.nodes[0]
		}, leaf.ErrSignature},
		{"a node's key", func(t *Tree) {
			parent(t, 5, func(p *wire.ParentNode) { p.EncryptionKey = make([]byte, 32) })
		}, ErrInvalid},
		{"a node's parent hash", func(t *Tree) { parent(t, 1, func(p *wire.ParentNode) { p.ParentHash = nil }) }, ErrInvalid},
		{"a member twice", func(t *Tree) {
			unmade(t)
			t.set(6, t.nodes[4])
		}, ErrInvalid},
		{"a node's key of no key's length", func(t *Tree) {
			unmade(t)
			t.set(5, &wire.Node{Parent: &wire.ParentNode{}})
		}, suite.ErrKey},
		{"an encryption key twice", func(tr *Tree) {
			n := *tr.Leaf(3)
			n.EncryptionKey = tr.Leaf(1).EncryptionKey
			if err := leaf.Sign(tr.suite, keys[3], &n, testGroup, 3); err != nil {
				t.Fatal(err)
			}
			tr.Update(3, &n)
			for _, i := range []uint32{2, 0} { // who commit again, so that all else is right
				if _, err := tr.Replace(i, *tr.Leaf(i), testGroup, keys[i]); err != nil {
					t.Fatal(err)
				}
			}
		}, ErrInvalid},
		{"a node that nobody made", func(t *Tree) {
			t.Update(3, t.Leaf(3))
			t.set(5, &wire.Node{Parent: &wire.ParentNode{EncryptionKey: make([]byte, 32)}})
		}, ErrInvalid},
		{"a leaf unmerged above and merged below", func(tr *Tree) {
			// The first member signs the right hash: only the rule is broken that the leaf is
			// unmerged at the nodes between.
			parent(tr, 3, func(p *wire.ParentNode) { p.UnmergedLeaves = []uint32{3} })
			parent(tr, 1, func(p *wire.ParentNode) { p.ParentHash = tr.parentHash(tr.nodes[3].Parent, 5) })
			n := *tr.Leaf(0)
			n.ParentHash = tr.parentHash(tr.nodes[1].Parent, 2)
			if err := leaf.Sign(tr.suite, keys[0], &n, testGroup, 0); err != nil {
				t.Fatal(err)
			}
			tr.set(0, &wire.Node{Leaf: &n})
		}, ErrInvalid},
	} {
		tree := good.Clone()
		test.spoil(tree)
		if err := tree.Validate(testGroup, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
}

// The form of a tree is checked before anything is computed from it.
func TestTreesOfBadForm(t *testing.T) {
	good, _ := testTree(t)
	for name, unmerged := range map[string][]uint32{
		"below another node": {2}, "outside the tree": {9}, "not sorted": {1, 0}, "twice": {0, 0},
	} {
		list := append(wire.RatchetTree{}, good.Wire()...)
		p := *list[1].Parent
		p.UnmergedLeaves = unmerged
		list[1] = &wire.Node{Parent: &p}
		if _, err := Decode(good.suite, list); !errors.Is(err, ErrInvalid) {
			t.Errorf("unmerged leaves %s: %v", name, err)
		}
	}
	if _, err := Decode(good.suite, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no nodes: %v", err)
	}
}

// Hashing a large tree at once, in parts, gives what hashing it bit by bit gives.
func TestLargeTreesHashAlike(t *testing.T) {
	good, _ := testTree(t)
	list := make(wire.RatchetTree, 2*hashParallelMin+1)
	list[0], list[len(list)-1] = good.nodes[0], good.nodes[4]
	list[hashParallelMin-1] = good.nodes[3]
	whole, err := Decode(good.suite, list)
	if err != nil {
		t.Fatal(err)
	}
	again := whole.Clone()
	if got, want := whole.Hash(), again.NodeHash(again.root()); string(got) != string(want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// The cached hashes of blank subtrees are equal to computed ones, at all places and in every order.
func TestBlankSubtreesHashAlike(t *testing.T) {
	good, _ := testTree(t)
	var naive func(t *Tree, x uint32) []byte
	naive = func(t *Tree, x uint32) []byte {
		if isLeaf(x) {
			return t.hashLeaf(x/2, t.Leaf(x/2))
		}
		return t.hashParent(nil, naive(t, Left(x)), naive(t, Right(x)))
	}
	for _, taken := range []int{0, 31, 32, 500, 777, 1023} {
		list := make(wire.RatchetTree, 2*taken+1)
		list[2*taken] = good.nodes[0]
		list[0] = good.nodes[4]
		for range 2 {
			tree, err := Decode(good.suite, list)
			if err != nil {
				t.Fatal(err)
			}
			if want := naive(tree, tree.root()); !bytes.Equal(tree.Hash(), want) {
				t.Errorf("leaf %d: got %x, want %x", taken, tree.Hash(), want)
			}
		}
	}
}

// No commit grows a tree beyond what others read.
func TestTreesOfTooManyNodes(t *testing.T) {
	good, _ := testTree(t)
	tree := &Tree{suite: good.suite, nodes: make([]*wire.Node, wire.TreeNodesMax), hashes: make([][]byte, wire.TreeNodesMax)}
	if err := tree.Unique(); err != nil {
		t.Error(err)
	}
	tree.nodes = make([]*wire.Node, 2*wire.TreeNodesMax+1)
	if err := tree.Unique(); !errors.Is(err, ErrInvalid) {
		t.Errorf("twice as many: %v", err)
	}
}
