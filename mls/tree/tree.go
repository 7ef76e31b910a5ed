// Package tree implements the ratchet tree of MLS: the members of a group, their keys, and the
// distribution of a new secret from one member to the others (RFC 9420, section 7).
//
// Members are identified by the index of their leaf, nodes by their index in the array of RFC
// 9420, appendix C: leaf i is node 2i.
//
// To change a tree that others use, change a Clone of it, which shares all nodes and costs a
// slice of pointers: nodes are replaced, never modified. Tree hashes are cached per node, so a
// change costs the path to the root. Errors about the input wrap ErrInvalid, leaf.ErrInvalid,
// leaf.ErrSignature, suite.ErrKey or suite.ErrOpen.
package tree

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// ErrInvalid reports a tree, or a change to one, that breaks a rule of RFC 9420.
var ErrInvalid = errors.New("invalid ratchet tree")

func invalid(section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC 9420, section %s)", ErrInvalid, fmt.Sprintf(format, args...), section)
}

// Tree is a ratchet tree with 2^d leaves, some of them blank. After one call of Hash the reading
// methods are safe for concurrent use.
type Tree struct {
	suite  *suite.Suite
	nodes  []*wire.Node // nil where blank
	hashes [][]byte     // nil where not known
}

// New returns a tree of one member.
func New(s *suite.Suite, leaf *wire.LeafNode) *Tree {
	return &Tree{suite: s, nodes: []*wire.Node{{Leaf: leaf}}, hashes: make([][]byte, 1)}
}

// Decode builds a tree from its wire form, the nodes of which it shares, and verifies the
// unmerged leaves; Validate verifies the rest. RFC 9420, section 12.4.3.3.
func Decode(s *suite.Suite, list wire.RatchetTree) (*Tree, error) {
	if len(list) == 0 {
		return nil, invalid("12.4.3.3", "the tree is empty")
	}
	n := uint32(1)
	for Width(n) < uint32(len(list)) {
		n *= 2
	}
	t := &Tree{suite: s, nodes: make([]*wire.Node, Width(n)), hashes: make([][]byte, Width(n))}
	copy(t.nodes, list)
	for x, node := range t.nodes {
		if node == nil || node.Parent == nil {
			continue
		}
		if err := t.checkUnmerged(uint32(x), node.Parent.UnmergedLeaves); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// checkUnmerged checks the unmerged leaves of node x.
func (t *Tree) checkUnmerged(x uint32, unmerged []uint32) error {
	for i, l := range unmerged {
		if i > 0 && unmerged[i-1] >= l {
			return invalid("7.1", "the unmerged leaves of node %d are not sorted", x)
		}
		if !isUnder(l, x) || t.Leaf(l) == nil {
			return invalid("12.4.3.1", "node %d has an unmerged leaf %d that is not below it", x, l)
		}
	}
	return nil
}

// Wire returns the tree's wire form, which shares its nodes.
func (t *Tree) Wire() wire.RatchetTree {
	end := len(t.nodes)
	for end > 0 && t.nodes[end-1] == nil {
		end--
	}
	return wire.RatchetTree(t.nodes[:end:end])
}

// Clone returns a tree that may be changed without changing t.
func (t *Tree) Clone() *Tree {
	return &Tree{suite: t.suite, nodes: slices.Clone(t.nodes), hashes: slices.Clone(t.hashes)}
}

// Size returns the number of leaves, blank ones included.
func (t *Tree) Size() uint32 { return uint32(len(t.nodes)+1) / 2 }

// root returns the root node.
func (t *Tree) root() uint32 { return Root(t.Size()) }

// Leaf returns the node of leaf i, nil if it is blank or outside the tree.
func (t *Tree) Leaf(i uint32) *wire.LeafNode {
	if i >= t.Size() || t.nodes[leafNode(i)] == nil {
		return nil
	}
	return t.nodes[leafNode(i)].Leaf
}

// Leaves iterates over the leaves that are not blank, by rising index.
func (t *Tree) Leaves() iter.Seq2[uint32, *wire.LeafNode] {
	return func(yield func(uint32, *wire.LeafNode) bool) {
		for i := range t.Size() {
			if n := t.Leaf(i); n != nil && !yield(i, n) {
				return
			}
		}
	}
}

// Key returns the public encryption key of node x, nil if x is blank or outside the tree.
func (t *Tree) Key(x uint32) []byte {
	if x >= uint32(len(t.nodes)) || t.nodes[x] == nil {
		return nil
	}
	if n := t.nodes[x]; n.Leaf != nil {
		return n.Leaf.EncryptionKey
	}
	return t.nodes[x].Parent.EncryptionKey
}

// DirectPath lists the nodes above leaf i, the root last.
func (t *Tree) DirectPath(i uint32) []uint32 {
	var path []uint32
	for x := leafNode(i); x != t.root(); {
		x = Parent(x)
		path = append(path, x)
	}
	return path
}

// Resolution lists the nodes with keys that together reach all members below x. RFC 9420, section
// 4.1.1.
func (t *Tree) Resolution(x uint32) []uint32 { return t.appendResolution(nil, x) }

func (t *Tree) appendResolution(list []uint32, x uint32) []uint32 {
	if n := t.nodes[x]; n != nil {
		list = append(list, x)
		if n.Parent != nil {
			for _, l := range n.Parent.UnmergedLeaves {
				list = append(list, leafNode(l))
			}
		}
		return list
	}
	if isLeaf(x) {
		return list
	}
	return t.appendResolution(t.appendResolution(list, Left(x)), Right(x))
}

// isEmpty reports whether the resolution of x is empty.
func (t *Tree) isEmpty(x uint32) bool {
	return t.nodes[x] == nil && (isLeaf(x) || t.isEmpty(Left(x)) && t.isEmpty(Right(x)))
}

// set replaces node x and drops the hashes that depend on it.
func (t *Tree) set(x uint32, n *wire.Node) {
	t.nodes[x] = n
	for t.hashes[x] = nil; x != t.root(); {
		x = Parent(x)
		t.hashes[x] = nil
	}
}

// Vacancy returns the index of the leftmost blank leaf; the tree grows if there is none. A joiner
// by external commit gets that leaf, with Replace or Merge. RFC 9420, section 12.4.3.2.
func (t *Tree) Vacancy() uint32 {
	i := uint32(0)
	for i < t.Size() && t.Leaf(i) != nil {
		i++
	}
	if i == t.Size() {
		grown := int(Width(2 * t.Size()))
		t.nodes = append(t.nodes, make([]*wire.Node, grown-len(t.nodes))...)
		t.hashes = append(t.hashes, make([][]byte, grown-len(t.hashes))...)
	}
	return i
}

// Add sets leaf at the leftmost blank leaf, growing the tree if there is none, and returns its
// index. RFC 9420, section 7.7.
func (t *Tree) Add(leaf *wire.LeafNode) uint32 {
	i := t.Vacancy()
	for _, x := range t.DirectPath(i) {
		if t.nodes[x] == nil {
			continue
		}
		p := *t.nodes[x].Parent
		at, _ := slices.BinarySearch(p.UnmergedLeaves, i)
		p.UnmergedLeaves = slices.Insert(slices.Clone(p.UnmergedLeaves), at, i)
		t.nodes[x] = &wire.Node{Parent: &p}
	}
	t.set(leafNode(i), &wire.Node{Leaf: leaf})
	return i
}

// Update replaces leaf i and blanks the nodes above it. RFC 9420, section 12.1.2.
func (t *Tree) Update(i uint32, leaf *wire.LeafNode) {
	for _, x := range t.DirectPath(i) {
		t.nodes[x] = nil
	}
	t.set(leafNode(i), &wire.Node{Leaf: leaf})
}

// Remove blanks leaf i and the nodes above it, and halves the tree while its right half is empty.
// RFC 9420, section 12.1.3.
func (t *Tree) Remove(i uint32) {
	for _, x := range t.DirectPath(i) {
		t.nodes[x] = nil
	}
	t.set(leafNode(i), nil)
	for t.Size() > 1 && t.noLeafFrom(t.Size()/2) {
		w := Width(t.Size() / 2)
		t.nodes, t.hashes = t.nodes[:w:w], t.hashes[:w:w]
	}
}

// noLeafFrom reports whether all leaves from i on are blank.
func (t *Tree) noLeafFrom(i uint32) bool {
	for ; i < t.Size(); i++ {
		if t.Leaf(i) != nil {
			return false
		}
	}
	return true
}
