package tree

import (
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// Validate verifies a tree of another client: the rules of CheckForm, Unique and Compatible, the
// unmerged leaves, the parent hashes, and last, because they cost most, the signatures of the
// leaves. RFC 9420, section 12.4.3.1.
func (t *Tree) Validate(groupID []byte, extensions []wire.Extension) error {
	if err := t.CheckForm(); err != nil {
		return err
	}
	if err := t.checkUnmergedChains(); err != nil {
		return err
	}
	if err := t.checkParentHashes(); err != nil {
		return err
	}
	if err := t.Unique(); err != nil {
		return err
	}
	if err := t.Compatible(extensions); err != nil {
		return err
	}
	return t.checkLeaves(groupID)
}

// CheckForm verifies each node except its signature, which is cheap. Call it before Hash: nodes
// that pass are large, so that a small message holds few. RFC 9420, sections 7.1 and 7.3.
func (t *Tree) CheckForm() error {
	for x, n := range t.nodes {
		switch {
		case n == nil:
		case n.Leaf != nil:
			if err := leaf.CheckForm(t.suite, n.Leaf); err != nil {
				return err
			}
		default:
			if err := t.suite.CheckPublicKey(n.Parent.EncryptionKey); err != nil {
				return fmt.Errorf("%w: %w", ErrInvalid, &KeyError{Node: uint32(x), Err: err})
			}
		}
	}
	return nil
}

// checkLeaves verifies the signature of every leaf. RFC 9420, section 7.3.
func (t *Tree) checkLeaves(groupID []byte) error {
	var taken []uint32
	for i := range t.Leaves() {
		taken = append(taken, i)
	}
	return suite.Parallel(len(taken), func(k int) error { return leaf.CheckSignature(t.suite, t.Leaf(taken[k]), groupID, taken[k]) })
}

// checkUnmergedChains verifies that a leaf unmerged at a node is unmerged at all
// nodes between them. RFC 9420, section 12.4.3.1.
func (t *Tree) checkUnmergedChains() error {
	for x, n := range t.nodes {
		if n == nil || n.Parent == nil {
			continue
		}
		for _, l := range n.Parent.UnmergedLeaves {
			for y := Parent(leafNode(l)); y != uint32(x); y = Parent(y) {
				if t.nodes[y] == nil {
					continue
				}
				if _, found := slices.BinarySearch(t.nodes[y].Parent.UnmergedLeaves, l); !found {
					return invalid("12.4.3.1", "leaf %d is unmerged at node %d but not at node %d", l, x, y)
				}
			}
		}
	}
	return nil
}

// Unique verifies that no encryption key and no signature key occurs twice, and that the tree
// is not too large to be read by others. RFC 9420, sections 7.3 and 12.4.3.1.
func (t *Tree) Unique() error {
	if len(t.nodes) > wire.TreeNodesMax {
		return invalid("7.3", "%d nodes are more than %d", len(t.nodes), wire.TreeNodesMax)
	}
	taken := 0 // nodes that are not blank; blank ones add nothing to a message
	for _, n := range t.nodes {
		if n != nil {
			taken++
		}
	}
	encryption, signature := make(map[string]bool, taken), make(map[string]bool, taken)
	keys := t.suite.PublicKeys()
	for x, n := range t.nodes {
		if n == nil {
			continue
		}
		key := string(keys.Canonical(t.Key(uint32(x))))
		if encryption[key] {
			return invalid("7.3", "node %d has the encryption key of another node", x)
		}
		encryption[key] = true
		if n.Leaf == nil {
			continue
		}
		key = string(n.Leaf.SignatureKey)
		if signature[key] {
			return invalid("7.3", "leaf %d has the signature key of another leaf", x/2)
		}
		signature[key] = true
	}
	return nil
}

// Compatible verifies that every member supports the GroupContext extensions (extensions), the
// capabilities that they require, and the credential types of all members. RFC 9420, sections 7.3,
// 11.1 and 13.4.
func (t *Tree) Compatible(extensions []wire.Extension) error {
	var required wire.RequiredCapabilities
	if data, found := wire.FindExtension(extensions, wire.RequiredCapabilitiesExtension); found {
		if err := wire.Unmarshal(data, &required); err != nil {
			return err
		}
	}
	for _, e := range extensions {
		required.Extensions = append(required.Extensions, e.Type)
	}
	inUse := map[uint16]bool{}
	for _, n := range t.Leaves() {
		if !inUse[n.Credential.Type] {
			inUse[n.Credential.Type] = true
			required.Credentials = append(required.Credentials, n.Credential.Type)
		}
	}
	requirement := leaf.NewRequirement(&required)
	for _, n := range t.Leaves() {
		if err := requirement.Check(n); err != nil {
			return err
		}
	}
	return nil
}
