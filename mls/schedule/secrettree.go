package schedule

import (
	"bytes"
	"fmt"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// SecretTree holds the two ratchets of each member of an epoch. It is a value: Next and Take return
// a new tree, which shares all but one path of nodes, and which has no secret from which the key
// could be derived again. RFC 9420, section 9.
type SecretTree struct {
	suite *suite.Suite
	size  uint32 // leaves, a power of two
	root  *secretNode
	limits
}

// secretNode is in one of three states: it has a secret from which nothing was derived yet, or
// children, or (a leaf) ratchets. It is never changed.
type secretNode struct {
	secret      []byte
	left, right *secretNode
	ratchets    *[2]ratchet
}

// NewSecretTree returns the tree of an epoch with size leaves, a power of two.
func NewSecretTree(s *suite.Suite, size uint32, encryptionSecret []byte) SecretTree {
	return SecretTree{
		suite: s, size: size, root: &secretNode{secret: bytes.Clone(encryptionSecret)},
		limits: limits{jump: JumpMax, skipped: SkippedMax},
	}
}

// Limited returns the tree with other limits than JumpMax and SkippedMax; both are
// at most Ceiling.
func (t SecretTree) Limited(jump, skipped int) SecretTree {
	t.limits = limits{jump: uint32(jump), skipped: skipped}
	return t
}

// Next returns the next key of a member's ratchet, for sending. Errors wrap ErrUsed (there is no
// such leaf) or ErrTooFarAhead (the ratchet is exhausted).
func (t SecretTree) Next(leaf uint32, kind Kind) (Key, SecretTree, error) {
	return t.use(leaf, kind, func(r ratchet) (Key, ratchet, error) { return r.step(t.suite) })
}

// Take returns the key of one generation of a member's ratchet, for receiving. Its cost is linear in
// the generations that it skips. Errors wrap ErrUsed or ErrTooFarAhead.
func (t SecretTree) Take(leaf uint32, kind Kind, generation uint32) (Key, SecretTree, error) {
	return t.use(leaf, kind, func(r ratchet) (Key, ratchet, error) { return r.take(t.suite, t.limits, generation) })
}

func (t SecretTree) use(leaf uint32, kind Kind, f func(ratchet) (Key, ratchet, error)) (Key, SecretTree, error) {
	if leaf >= t.size {
		return Key{}, t, fmt.Errorf("%w: no leaf %d (RFC 9420, section 9)", ErrUsed, leaf)
	}
	key, root, err := t.walk(t.root, t.size, leaf, kind, f)
	if err != nil {
		return Key{}, t, err
	}
	t.root = root
	return key, t, nil
}

// walk applies f to a ratchet of the leaf with the given index among the size leaves under n,
// and returns the replacement of n.
func (t SecretTree) walk(n *secretNode, size, leaf uint32, kind Kind, f func(ratchet) (Key, ratchet, error)) (Key, *secretNode, error) {
	if size == 1 {
		ratchets := t.ratchets(n)
		key, r, err := f(ratchets[kind])
		ratchets[kind] = r
		return key, &secretNode{ratchets: &ratchets}, err
	}
	split := secretNode{left: n.left, right: n.right}
	if n.secret != nil {
		split.left = &secretNode{secret: t.suite.ExpandWithLabel(n.secret, "tree", []byte("left"), suite.HashBytes)}
		split.right = &secretNode{secret: t.suite.ExpandWithLabel(n.secret, "tree", []byte("right"), suite.HashBytes)}
	}
	half := size / 2
	child, at := &split.left, leaf
	if leaf >= half {
		child, at = &split.right, leaf-half
	}
	key, next, err := t.walk(*child, half, at, kind, f)
	*child = next
	return key, &split, err
}

// ratchets returns the ratchets of the leaf n, derived when first needed.
func (t SecretTree) ratchets(n *secretNode) [2]ratchet {
	if n.ratchets != nil {
		return *n.ratchets
	}
	return [2]ratchet{
		Handshake:   {secret: t.suite.ExpandWithLabel(n.secret, "handshake", nil, suite.HashBytes)},
		Application: {secret: t.suite.ExpandWithLabel(n.secret, "application", nil, suite.HashBytes)},
	}
}

// Code visits the tree in saved state. To decode, start from a tree made with the epoch's suite
// and size.
func (t *SecretTree) Code(c *wire.Coder) { t.code(c, &t.root, t.size) }

// The states of a node in saved state.
const (
	nodeWhole uint8 = iota
	nodeSplit
	nodeRatchets
)

func (t *SecretTree) code(c *wire.Coder, n **secretNode, size uint32) {
	state := nodeWhole
	if c.Decoding() {
		*n = &secretNode{}
	} else if (*n).ratchets != nil {
		state = nodeRatchets
	} else if (*n).secret == nil {
		state = nodeSplit
	}
	c.U8(&state)
	switch {
	case state == nodeWhole:
		c.Bytes(&(*n).secret)
		if c.Decoding() && len((*n).secret) != suite.HashBytes {
			c.Fail("a tree secret of %d bytes", len((*n).secret))
		}
	case state == nodeSplit && size > 1:
		t.code(c, &(*n).left, size/2)
		t.code(c, &(*n).right, size/2)
	case state == nodeRatchets && size == 1:
		if c.Decoding() {
			(*n).ratchets = new([2]ratchet)
		}
		for k := range (*n).ratchets {
			(*n).ratchets[k].code(c, t.suite)
		}
	default:
		c.Fail("a tree secret in state %d over %d leaves", state, size)
	}
}
