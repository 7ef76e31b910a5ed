package wire

// HPKECiphertext is a plaintext sealed to one public key. RFC 9420, section 7.6.
type HPKECiphertext struct {
	KEMOutput  []byte
	Ciphertext []byte
}

func (h *HPKECiphertext) Code(c *Coder) {
	c.Bytes(&h.KEMOutput)
	c.Bytes(&h.Ciphertext)
}

// ParentNode is an inner node of the tree. RFC 9420, section 7.1.
type ParentNode struct {
	EncryptionKey  []byte
	ParentHash     []byte
	UnmergedLeaves []uint32
}

func (n *ParentNode) Code(c *Coder) {
	c.Bytes(&n.EncryptionKey)
	c.Bytes(&n.ParentHash)
	c.U32s(&n.UnmergedLeaves)
}

// Node is a node of the tree: exactly one of its fields is set.
// RFC 9420, section 7.8.
type Node struct {
	Leaf   *LeafNode
	Parent *ParentNode
}

func (n *Node) Code(c *Coder) {
	t := leafNodeType
	if n.Parent != nil {
		t = parentNodeType
	}
	c.U8(&t)
	switch t {
	case leafNodeType:
		Variant(c, &n.Leaf)
	case parentNodeType:
		Variant(c, &n.Parent)
	default:
		c.Fail("node type %d", t)
	}
}

// TreeNodesMax bounds the nodes of a tree that is decoded: 131072 leaves. A blank node takes one
// byte in a message and a hundred in memory, so the size of a message alone does not bound its
// cost.
const TreeNodesMax = 1<<18 - 1

// RatchetTree is the encoded form of the public tree: nodes in array order, nil where blank,
// ending with a node that is not blank. RFC 9420, section 12.4.3.3.
type RatchetTree []*Node

func (t *RatchetTree) Code(c *Coder) {
	nodes := []*Node(*t)
	count := 0
	Vector(c, &nodes, func(c *Coder, n **Node) {
		if count++; c.decoding && count > TreeNodesMax {
			c.Fail("a tree of more than %d nodes", TreeNodesMax)
			return
		}
		Optional(c, n)
	})
	if c.decoding {
		*t = nodes
	}
	for i, n := range nodes {
		if n != nil && (n.Leaf != nil) != (i%2 == 0) {
			c.Fail("node %d has the other kind", i)
		}
	}
	if len(nodes) > 0 && nodes[len(nodes)-1] == nil {
		c.Fail("the tree ends with a blank node")
	}
}

// UpdatePathNode is the new key of a parent node and its path secret, encrypted to each node of
// the copath child's resolution. RFC 9420, section 7.6.
type UpdatePathNode struct {
	EncryptionKey []byte
	Secrets       []HPKECiphertext
}

func (n *UpdatePathNode) Code(c *Coder) {
	c.Bytes(&n.EncryptionKey)
	Structs(c, &n.Secrets)
}

// pathNodesMax is the height of the highest tree: leaf indices have 32 bits.
const pathNodesMax = 32

// UpdatePath replaces the keys of a leaf and of the nodes above it. RFC 9420, section 7.6.
type UpdatePath struct {
	Leaf  LeafNode
	Nodes []UpdatePathNode
}

func (p *UpdatePath) Code(c *Coder) {
	p.Leaf.Code(c)
	count := 0
	Vector(c, &p.Nodes, func(c *Coder, n *UpdatePathNode) {
		if count++; c.decoding && count > pathNodesMax {
			c.Fail("a path of more than %d nodes", pathNodesMax)
			return
		}
		n.Code(c)
	})
}
