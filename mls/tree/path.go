package tree

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// KeyPair is the HPKE key pair of a node.
type KeyPair struct {
	Private, Public []byte
}

// Keys holds the private keys of one member, by node: its leaf and some nodes above it. The methods
// return new values.
type Keys map[uint32]KeyPair

// Prune returns the keys without those that t has replaced or blanked.
func (k Keys) Prune(t *Tree) Keys {
	kept := maps.Clone(k)
	maps.DeleteFunc(kept, func(x uint32, pair KeyPair) bool { return !bytes.Equal(pair.Public, t.Key(x)) })
	return kept
}

// With returns the keys with another pair for node x.
func (k Keys) With(x uint32, pair KeyPair) Keys {
	next := maps.Clone(k)
	next[x] = pair
	return next
}

// step is a node of a filtered direct path with its child off the path.
type step struct {
	node, copath uint32
}

// filteredPath lists the nodes above leaf i with other members below the copath child. RFC 9420,
// section 4.1.2.
func (t *Tree) filteredPath(i uint32) []step {
	var path []step
	for x := leafNode(i); x != t.root(); x = Parent(x) {
		if s := Sibling(x); !t.isEmpty(s) {
			path = append(path, step{node: Parent(x), copath: s})
		}
	}
	return path
}

// Path holds the path secrets of a commit of ours and the nodes that they set. RFC 9420, section
// 7.4.
type Path struct {
	Leaf         *wire.LeafNode
	CommitSecret []byte
	Keys         Keys // of the new nodes, the leaf included
	tree         *Tree
	steps        []step
	secrets      [][]byte // by step
}

// Replace sets new keys on the path of leaf i in t. The new leaf is made from next, with a
// fresh encryption key, and signed with the private key sign. RFC 9420, section 7.5.
func (t *Tree) Replace(i uint32, next wire.LeafNode, groupID, sign []byte) (*Path, error) {
	secret := make([]byte, suite.HashBytes)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("make a path secret: %w", err)
	}
	private, public, err := t.suite.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	p := &Path{tree: t, steps: t.filteredPath(i), Keys: Keys{leafNode(i): {private, public}}}
	var keys [][]byte
	for _, s := range p.steps {
		pair, err := nodeKey(t.suite, secret)
		if err != nil {
			return nil, err
		}
		p.secrets, p.Keys[s.node], keys = append(p.secrets, secret), pair, append(keys, pair.Public)
		secret = t.suite.DeriveSecret(secret, "path")
	}
	if len(p.steps) == 0 {
		secret = t.suite.DeriveSecret(secret, "path")
	}
	p.CommitSecret = secret
	next.EncryptionKey, next.Source = public, wire.CommitLeaf
	next.ParentHash = t.setPath(i, p.steps, keys)
	if err := leaf.Sign(t.suite, sign, &next, groupID, i); err != nil {
		return nil, err
	}
	p.Leaf = &next
	t.set(leafNode(i), &wire.Node{Leaf: p.Leaf})
	return p, nil
}

// setPath blanks the nodes above leaf i, sets keys on those of steps, and returns the parent
// hash for the leaf. RFC 9420, sections 7.5 and 7.9.
func (t *Tree) setPath(i uint32, steps []step, keys [][]byte) []byte {
	for _, x := range t.DirectPath(i) {
		t.nodes[x] = nil
		t.hashes[x] = nil
	}
	above := []byte{}
	for k, s := range slices.Backward(steps) {
		p := &wire.ParentNode{EncryptionKey: keys[k], ParentHash: above}
		t.nodes[s.node] = &wire.Node{Parent: p}
		above = t.parentHash(p, s.copath)
	}
	return above
}

// Seal encrypts the path secrets to all other members except the leaves in added, which get theirs
// in a Welcome. context is the encoded GroupContext of the next epoch. The error is a KeyError if
// nothing can be encrypted to a key. RFC 9420, section 7.6.
func (p *Path) Seal(context []byte, added map[uint32]bool) (*wire.UpdatePath, error) {
	update := &wire.UpdatePath{Leaf: *p.Leaf, Nodes: make([]wire.UpdatePathNode, len(p.steps))}
	var seals []seal
	for k, s := range p.steps {
		receivers := p.tree.receivers(s.copath, added)
		update.Nodes[k].EncryptionKey = p.Keys[s.node].Public
		update.Nodes[k].Secrets = make([]wire.HPKECiphertext, len(receivers))
		for j, x := range receivers {
			seals = append(seals, seal{secret: p.secrets[k], node: x, to: &update.Nodes[k].Secrets[j]})
		}
	}
	sealer := p.tree.suite.NewSealer("UpdatePathNode", context)
	return update, suite.Parallel(len(seals), func(i int) (err error) {
		if *seals[i].to, err = sealer.Seal(p.tree.Key(seals[i].node), seals[i].secret); err != nil {
			err = &KeyError{Node: seals[i].node, Err: err}
		}
		return err
	})
}

// seal is one path secret to be sealed to the key of one node.
type seal struct {
	secret []byte
	node   uint32
	to     *wire.HPKECiphertext
}

// KeyError reports the node of a tree with an unusable public key.
type KeyError struct {
	Node uint32
	Err  error // wraps suite.ErrKey
}

// Leaf returns the index of the leaf that has the key; ok is false for a parent node.
func (e *KeyError) Leaf() (index uint32, ok bool) { return e.Node / 2, isLeaf(e.Node) }

// Error returns the leaf or the node and the fault of its key.
func (e *KeyError) Error() string {
	if i, ok := e.Leaf(); ok {
		return fmt.Sprintf("leaf %d: %v", i, e.Err)
	}
	return fmt.Sprintf("node %d: %v", e.Node, e.Err)
}

// Unwrap returns Err.
func (e *KeyError) Unwrap() error { return e.Err }

// Forget overwrites the secrets of the path, but not its keys.
func (p *Path) Forget() {
	for _, secret := range p.secrets {
		clear(secret)
	}
	clear(p.CommitSecret)
}

// SecretFor returns the secret of the lowest path node over leaf i, nil if there is none. RFC
// 9420, section 12.4.3.1.
func (p *Path) SecretFor(i uint32) []byte {
	for k, s := range p.steps {
		if isUnder(i, s.node) {
			return p.secrets[k]
		}
	}
	return nil
}

// receivers returns the resolution of x without new leaves.
func (t *Tree) receivers(x uint32, added map[uint32]bool) []uint32 {
	return slices.DeleteFunc(t.Resolution(x), func(y uint32) bool { return isLeaf(y) && added[y/2] })
}

// Merge sets the public keys of another member's path in t, and verifies that they are new, and the
// parent hash of the leaf. The caller verifies the leaf before. RFC 9420, sections 7.5 and 12.4.2.
func (t *Tree) Merge(sender uint32, update *wire.UpdatePath) error {
	steps := t.filteredPath(sender)
	if len(update.Nodes) != len(steps) {
		return invalid("7.5", "the path has %d nodes instead of %d", len(update.Nodes), len(steps))
	}
	keys := make([][]byte, len(steps))
	for k := range steps {
		keys[k] = update.Nodes[k].EncryptionKey
		if err := t.suite.CheckPublicKey(keys[k]); err != nil {
			return err
		}
	}
	if err := t.checkFresh(update); err != nil {
		return err
	}
	if !bytes.Equal(t.setPath(sender, steps, keys), update.Leaf.ParentHash) {
		return invalid("7.9", "the parent hash of the path's leaf is wrong")
	}
	t.set(leafNode(sender), &wire.Node{Leaf: &update.Leaf})
	return nil
}

// checkFresh verifies that no key of the path is already in the tree. RFC 9420, section 12.4.2.
func (t *Tree) checkFresh(update *wire.UpdatePath) error {
	keys := t.suite.PublicKeys()
	fresh := map[string]bool{string(keys.Canonical(update.Leaf.EncryptionKey)): true}
	for k := range update.Nodes {
		fresh[string(keys.Canonical(update.Nodes[k].EncryptionKey))] = true
	}
	for x := range t.nodes {
		if key := t.Key(uint32(x)); key != nil && fresh[string(keys.Canonical(key))] {
			return invalid("12.4.2", "the path contains the old key of node %d", x)
		}
	}
	return nil
}

// Open decrypts the secret that sender's path, already merged into t, carries for the member
// own with the given keys. It returns the commit secret and own's keys afterwards. RFC 9420,
// section 7.6.
func (t *Tree) Open(own, sender uint32, update *wire.UpdatePath, context []byte, added map[uint32]bool, keys Keys) ([]byte, Keys, error) {
	steps := t.filteredPath(sender)
	at := slices.IndexFunc(steps, func(s step) bool { return isUnder(own, s.copath) })
	if at < 0 {
		return nil, nil, invalid("7.6", "our leaf %d is below no node of the path", own)
	}
	if len(update.Nodes) != len(steps) {
		return nil, nil, invalid("7.5", "the path has %d nodes instead of %d", len(update.Nodes), len(steps))
	}
	for k, s := range steps {
		if len(update.Nodes[k].Secrets) != len(t.receivers(s.copath, added)) {
			return nil, nil, invalid("7.6", "node %d of the path has the wrong number of secrets", k)
		}
	}
	var secret []byte
	for j, x := range t.receivers(steps[at].copath, added) {
		pair, known := keys[x]
		if !known {
			continue
		}
		var err error
		if secret, err = t.suite.DecryptWithLabel(pair.Private, "UpdatePathNode", context, update.Nodes[at].Secrets[j]); err != nil {
			return nil, nil, err
		}
		break
	}
	if secret == nil {
		return nil, nil, invalid("7.6", "the path has no secret for us")
	}
	return t.climb(steps[at:], secret, keys)
}

// climb derives the keys of the nodes of steps from the secret of the first, which
// it overwrites, and checks them against the tree. It returns the commit secret and
// the keys.
func (t *Tree) climb(steps []step, secret []byte, keys Keys) ([]byte, Keys, error) {
	keys = keys.Prune(t)
	for _, s := range steps {
		pair, err := nodeKey(t.suite, secret)
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(pair.Public, t.Key(s.node)) {
			return nil, nil, invalid("7.4", "the secret of node %d does not belong to its key", s.node)
		}
		keys[s.node] = pair
		next := t.suite.DeriveSecret(secret, "path")
		clear(secret)
		secret = next
	}
	return secret, keys, nil
}

// Learn returns keys together with those that the new member own derives from the path secret in
// its Welcome; sender is the committer. It overwrites secret. RFC 9420, section 12.4.3.1.
func (t *Tree) Learn(own, sender uint32, secret []byte, keys Keys) (Keys, error) {
	var steps []step
	for _, x := range t.DirectPath(own) {
		if isUnder(sender, x) && t.nodes[x] != nil {
			steps = append(steps, step{node: x})
		}
	}
	_, keys, err := t.climb(steps, secret, keys)
	return keys, err
}

// nodeKey returns the key pair of a node with a path secret. RFC 9420, section 7.4.
func nodeKey(s *suite.Suite, secret []byte) (KeyPair, error) {
	private, public, err := s.DeriveKeyPair(s.DeriveSecret(secret, "node"))
	return KeyPair{private, public}, err
}
