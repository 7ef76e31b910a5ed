package tree

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// The first byte of the input of a tree hash. RFC 9420, section 7.8.
const (
	leafNodeHash   uint8 = 1
	parentNodeHash uint8 = 2
)

// Hash returns the tree hash of the whole tree. RFC 9420, section 7.8.
func (t *Tree) Hash() []byte {
	if t.Size() >= hashParallelMin && t.hashes[t.root()] == nil {
		// The subtrees below the third level are independent of each other.
		size := t.Size() / hashParallel
		_ = suite.Parallel(hashParallel, func(i int) error {
			t.NodeHash(2*size*uint32(i) + Root(size))
			return nil
		})
	}
	return t.NodeHash(t.root())
}

const (
	hashParallel    = 8    // subtrees that are hashed concurrently
	hashParallelMin = 4096 // leaves from which concurrency pays
)

// NodeHash returns the tree hash of the subtree of x. RFC 9420, section 7.8.
func (t *Tree) NodeHash(x uint32) []byte {
	if t.hashes[x] != nil {
		return t.hashes[x]
	}
	if isLeaf(x) {
		t.hashes[x] = t.hashLeaf(x/2, t.Leaf(x/2))
	} else if hash := t.blankHash(x); hash != nil {
		t.hashes[x] = hash
	} else {
		var p *wire.ParentNode
		if t.nodes[x] != nil {
			p = t.nodes[x].Parent
		}
		t.hashes[x] = t.hashParent(p, t.NodeHash(Left(x)), t.NodeHash(Right(x)))
	}
	return t.hashes[x]
}

// The hash of a subtree of blank nodes depends only on the number of its root. Those of
// blankLevel and above are remembered for all trees together, up to some 160 KB, because a
// message of 32 KiB can hold a tree of 32 768 blank leaves.
const (
	blankLevel   = 5 // 32 leaves
	blankIndexes = 1 << 12
)

// blankHashes holds the known ones, by x>>blankLevel.
var blankHashes [blankIndexes]atomic.Pointer[[suite.HashBytes]byte]

// blankHash returns the tree hash of x if that is the root of a subtree of blank nodes and high
// enough to be remembered, else nil.
func (t *Tree) blankHash(x uint32) []byte {
	index := x >> blankLevel
	if level(x) < blankLevel || index >= blankIndexes || t.nodes[x] != nil {
		return nil
	}
	if level(x) == blankLevel {
		half := uint32(1)<<blankLevel - 1
		for _, n := range t.nodes[x-half : x+half+1] {
			if n != nil {
				return nil
			}
		}
	} else if !isBlankHash(Left(x), t.NodeHash(Left(x))) || !isBlankHash(Right(x), t.NodeHash(Right(x))) {
		return nil
	}
	if known := blankHashes[index].Load(); known != nil {
		return known[:]
	}
	var hash [suite.HashBytes]byte
	t.hashBlank(hash[:0], x)
	if blankHashes[index].CompareAndSwap(nil, &hash) {
		return hash[:]
	}
	return blankHashes[index].Load()[:] // another goroutine stored it first
}

// isBlankHash reports whether hash is the remembered one of x, by its address.
func isBlankHash(x uint32, hash []byte) bool {
	known := blankHashes[x>>blankLevel].Load()
	return known != nil && &known[0] == &hash[0]
}

// hashBlank appends the tree hash of x to b; all nodes below x must be blank.
func (t *Tree) hashBlank(b []byte, x uint32) []byte {
	if isLeaf(x) {
		return t.appendBlankLeaf(b, x/2)
	}
	if level(x) > blankLevel {
		return t.appendBlankParent(b, t.NodeHash(Left(x)), t.NodeHash(Right(x)))
	}
	var left, right [suite.HashBytes]byte
	return t.appendBlankParent(b, t.hashBlank(left[:0], Left(x)), t.hashBlank(right[:0], Right(x)))
}

// hashLeaf returns the tree hash of leaf i with the node n. RFC 9420, section 7.8.
func (t *Tree) hashLeaf(i uint32, n *wire.LeafNode) []byte {
	if n == nil {
		return t.appendBlankLeaf(nil, i)
	}
	kind, index, node := leafNodeHash, i, n
	return t.suite.Hash(wire.Marshal(wire.Func(func(c *wire.Coder) {
		c.U8(&kind)
		c.U32(&index)
		wire.Optional(c, &node)
	})))
}

// hashParent returns the tree hash of an inner node with the hashes of its children.
// RFC 9420, section 7.8.
func (t *Tree) hashParent(p *wire.ParentNode, left, right []byte) []byte {
	if p == nil {
		return t.appendBlankParent(nil, left, right)
	}
	kind, node := parentNodeHash, p
	below := [2][]byte{left, right}
	return t.suite.Hash(wire.Marshal(wire.Func(func(c *wire.Coder) {
		c.U8(&kind)
		wire.Optional(c, &node)
		c.Bytes(&below[0])
		c.Bytes(&below[1])
	})))
}

// appendBlankLeaf and appendBlankParent append tree hashes of blank nodes to b. They write out
// the hashed bytes and do not allocate, because a small message can hold a tree of very many
// blank nodes.
func (t *Tree) appendBlankLeaf(b []byte, i uint32) []byte {
	input := [6]byte{leafNodeHash}
	binary.BigEndian.PutUint32(input[1:], i)
	return t.suite.AppendHash(b, input[:])
}

func (t *Tree) appendBlankParent(b, left, right []byte) []byte {
	input := append(make([]byte, 0, 4+2*suite.HashBytes), parentNodeHash, 0)
	return t.suite.AppendHash(b, wire.AppendBytes(wire.AppendBytes(input, left), right))
}

// hashWithout returns the tree hash that x had before the leaves in without, which are
// sorted, were added. RFC 9420, section 7.9 (original_sibling_tree_hash).
func (t *Tree) hashWithout(x uint32, without []uint32) []byte {
	first, last := leavesUnder(x)
	from, _ := slices.BinarySearch(without, first)
	to, _ := slices.BinarySearch(without, last+1)
	if without = without[from:to]; len(without) == 0 {
		return t.NodeHash(x)
	}
	if isLeaf(x) {
		return t.hashLeaf(x/2, nil)
	}
	var p *wire.ParentNode
	if t.nodes[x] != nil {
		old := *t.nodes[x].Parent
		old.UnmergedLeaves = slices.DeleteFunc(slices.Clone(old.UnmergedLeaves), func(l uint32) bool {
			_, found := slices.BinarySearch(without, l)
			return found
		})
		p = &old
	}
	return t.hashParent(p, t.hashWithout(Left(x), without), t.hashWithout(Right(x), without))
}

// parentHash returns the parent hash that binds p to a descendant on the side other than
// sibling. RFC 9420, section 7.9.
func (t *Tree) parentHash(p *wire.ParentNode, sibling uint32) []byte {
	siblingHash := t.hashWithout(sibling, p.UnmergedLeaves)
	return t.suite.Hash(wire.Marshal(wire.Func(func(c *wire.Coder) {
		key, above := p.EncryptionKey, p.ParentHash
		c.Bytes(&key)
		c.Bytes(&above)
		c.Bytes(&siblingHash)
	})))
}

// checkParentHashes verifies that every parent node was set by a member below it. RFC 9420, section
// 7.9.2.
func (t *Tree) checkParentHashes() error {
	for x := uint32(1); x < uint32(len(t.nodes)); x += 2 {
		if t.nodes[x] == nil {
			continue
		}
		if !t.isLinked(x, Left(x), Right(x)) && !t.isLinked(x, Right(x), Left(x)) {
			return invalid("7.9.2", "node %d has no valid parent hash below it", x)
		}
	}
	return nil
}

// isLinked reports whether x was set together with a node below its child.
func (t *Tree) isLinked(x, child, sibling uint32) bool {
	p := t.nodes[x].Parent
	hash := t.parentHash(p, sibling)
	resolution := t.Resolution(child)
	linked := slices.IndexFunc(resolution, func(d uint32) bool {
		n := t.nodes[d]
		if n.Leaf != nil {
			return n.Leaf.Source == wire.CommitLeaf && bytes.Equal(n.Leaf.ParentHash, hash)
		}
		return bytes.Equal(n.Parent.ParentHash, hash)
	})
	if linked < 0 {
		return false
	}
	// All other leaves below the child must have been added after x was set.
	var later []uint32
	for _, l := range p.UnmergedLeaves {
		if isUnder(l, child) {
			later = append(later, leafNode(l))
		}
	}
	rest := slices.Delete(resolution, linked, linked+1)
	slices.Sort(rest)
	return slices.Equal(rest, later)
}
