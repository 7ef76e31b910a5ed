package tree

import "math/bits"

// The tree is a perfect binary tree in one array: leaf i is node 2i, and the index of a parent node
// is between those of its subtrees. RFC 9420, appendix C.

// level returns the height of node x above the leaves.
func level(x uint32) int { return bits.TrailingZeros32(^x) }

// Width returns the number of nodes of a tree of n leaves.
func Width(n uint32) uint32 { return 2*n - 1 }

// Root returns the root of a tree of n leaves, a power of two.
func Root(n uint32) uint32 { return n - 1 }

// Left returns the left child of the inner node x.
func Left(x uint32) uint32 { return x ^ 1<<(level(x)-1) }

// Right returns the right child of the inner node x.
func Right(x uint32) uint32 { return x ^ 3<<(level(x)-1) }

// Parent returns the node above x, which must not be the root.
func Parent(x uint32) uint32 {
	k := level(x)
	return (x | 1<<k) &^ (1 << (k + 1))
}

// Sibling returns the other child of x's parent; x must not be the root.
func Sibling(x uint32) uint32 {
	p := Parent(x)
	if x < p {
		return Right(p)
	}
	return Left(p)
}

// leavesUnder returns the range of leaves, both included, in the subtree of x.
func leavesUnder(x uint32) (first, last uint32) {
	half := uint32(1)<<level(x) - 1
	return (x - half) / 2, (x + half) / 2
}

// isUnder reports whether leaf i is in the subtree of x.
func isUnder(i, x uint32) bool {
	first, last := leavesUnder(x)
	return first <= i && i <= last
}

// leafNode returns the node of leaf i.
func leafNode(i uint32) uint32 { return 2 * i }

// isLeaf reports whether node x is a leaf.
func isLeaf(x uint32) bool { return x%2 == 0 }
