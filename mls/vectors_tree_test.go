package mls_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

func TestVectorsTreeMath(t *testing.T) {
	count := tally{file: "tree-math.json"}
	for i, e := range readVectors[struct {
		Leaves                       uint32 `json:"n_leaves"`
		Nodes                        uint32 `json:"n_nodes"`
		Root                         uint32
		Left, Right, Parent, Sibling []*uint32
	}](t, count.file) {
		var err error
		if tree.Width(e.Leaves) != e.Nodes || tree.Root(e.Leaves) != e.Root {
			err = errors.New("width or root differ")
		}
		for x := range e.Nodes {
			for _, f := range []struct {
				name string
				want *uint32
				got  func(uint32) uint32
			}{{"left", e.Left[x], tree.Left}, {"right", e.Right[x], tree.Right}, {"parent", e.Parent[x], tree.Parent}, {"sibling", e.Sibling[x], tree.Sibling}} {
				if f.want != nil && f.got(x) != *f.want {
					err = fmt.Errorf("%s of %d: got %d, want %d", f.name, x, f.got(x), *f.want)
				}
			}
		}
		count.done(t, err, i)
	}
	count.log(t)
}

func decodeTree(s *suite.Suite, raw []byte) (*tree.Tree, error) {
	var list wire.RatchetTree
	if err := wire.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	return tree.Decode(s, list)
}

func TestVectorsTreeValidation(t *testing.T) {
	count := tally{file: "tree-validation.json"}
	for i, e := range readVectors[struct {
		CipherSuite uint16     `json:"cipher_suite"`
		Tree        hexBytes   `json:"tree"`
		GroupID     hexBytes   `json:"group_id"`
		TreeHashes  []hexBytes `json:"tree_hashes"`
		Resolutions [][]uint32
	}](t, count.file) {
		s := count.lookup(e.CipherSuite)
		if s == nil {
			continue
		}
		ratchet, err := decodeTree(s, e.Tree)
		if err == nil {
			err = ratchet.Validate(e.GroupID, nil)
		}
		for x := 0; err == nil && x < len(e.TreeHashes); x++ {
			err = equal(fmt.Sprintf("hash of node %d", x), ratchet.NodeHash(uint32(x)), e.TreeHashes[x])
			if got := ratchet.Resolution(uint32(x)); !slices.Equal(got, e.Resolutions[x]) {
				err = fmt.Errorf("resolution of node %d: got %v, want %v", x, got, e.Resolutions[x])
			}
		}
		if err == nil {
			err = refusesOtherTrees(s, e.Tree, e.GroupID)
		}
		count.done(t, err, i)
	}
	count.log(t)
}

// refusesOtherTrees returns an error if the tree stays valid after the change of a byte.
// It looks at a sample, because every look verifies all signatures.
func refusesOtherTrees(s *suite.Suite, raw, groupID []byte) error {
	for at := 3; at < len(raw); at += max(1, len(raw)/16) {
		spoilt := bytes.Clone(raw)
		spoilt[at] ^= 1
		if bad, err := decodeTree(s, spoilt); err == nil && bad.Validate(groupID, nil) == nil {
			return fmt.Errorf("valid although byte %d was changed", at)
		}
	}
	return nil
}

func TestVectorsTreeOperations(t *testing.T) {
	count := tally{file: "tree-operations.json"}
	for i, e := range readVectors[struct {
		CipherSuite    uint16   `json:"cipher_suite"`
		Proposal       hexBytes `json:"proposal"`
		Sender         uint32   `json:"proposal_sender"`
		TreeBefore     hexBytes `json:"tree_before"`
		TreeAfter      hexBytes `json:"tree_after"`
		TreeHashBefore hexBytes `json:"tree_hash_before"`
		TreeHashAfter  hexBytes `json:"tree_hash_after"`
	}](t, count.file) {
		s := count.lookup(e.CipherSuite)
		if s == nil {
			continue
		}
		var p wire.Proposal
		err := wire.Unmarshal(e.Proposal, &p)
		before, treeErr := decodeTree(s, e.TreeBefore)
		if err = errors.Join(err, treeErr); err == nil {
			after := before.Clone()
			switch p.Type {
			case wire.AddProposal:
				after.Add(&p.Add.Leaf)
			case wire.UpdateProposal:
				after.Update(e.Sender, p.Update)
			case wire.RemoveProposal:
				after.Remove(p.Remove)
			}
			list, untouched := after.Wire(), before.Wire()
			err = errors.Join(
				equal("tree after", wire.Marshal(&list), e.TreeAfter),
				equal("tree before", wire.Marshal(&untouched), e.TreeBefore),
				equal("hash before", before.Hash(), e.TreeHashBefore),
				equal("hash after", after.Hash(), e.TreeHashAfter),
			)
		}
		count.done(t, err, i)
	}
	count.log(t)
}

type treeKEM struct {
	CipherSuite             uint16   `json:"cipher_suite"`
	ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
	Epoch                   uint64
	GroupID                 hexBytes `json:"group_id"`
	RatchetTree             hexBytes `json:"ratchet_tree"`
	LeavesPrivate           []struct {
		Index          uint32
		EncryptionPriv hexBytes `json:"encryption_priv"`
		SignaturePriv  hexBytes `json:"signature_priv"`
		PathSecrets    []struct {
			Node       uint32
			PathSecret hexBytes `json:"path_secret"`
		} `json:"path_secrets"`
	} `json:"leaves_private"`
	UpdatePaths []struct {
		CommitSecret  hexBytes `json:"commit_secret"`
		Sender        uint32
		TreeHashAfter hexBytes `json:"tree_hash_after"`
		UpdatePath    hexBytes `json:"update_path"`
	} `json:"update_paths"`
}

func TestVectorsTreeKEM(t *testing.T) {
	count := tally{file: "treekem.json"}
	for i, e := range readVectors[treeKEM](t, count.file) {
		if s := count.lookup(e.CipherSuite); s != nil {
			count.done(t, checkTreeKEM(s, &e), i)
		}
	}
	count.log(t)
}

// privateKeys returns the private keys of each member of the vector.
func (e *treeKEM) privateKeys(s *suite.Suite) (map[uint32]tree.Keys, error) {
	all := map[uint32]tree.Keys{}
	for _, l := range e.LeavesPrivate {
		public, err := s.PublicKey(l.EncryptionPriv)
		if err != nil {
			return nil, err
		}
		keys := tree.Keys{2 * l.Index: {Private: l.EncryptionPriv, Public: public}}
		for _, p := range l.PathSecrets {
			private, public, err := s.DeriveKeyPair(s.DeriveSecret(p.PathSecret, "node"))
			if err != nil {
				return nil, err
			}
			keys[p.Node] = tree.KeyPair{Private: private, Public: public}
		}
		all[l.Index] = keys
	}
	return all, nil
}

func checkTreeKEM(s *suite.Suite, e *treeKEM) error {
	before, err := decodeTree(s, e.RatchetTree)
	if err != nil {
		return err
	}
	members, err := e.privateKeys(s)
	if err != nil {
		return err
	}
	context := func(t *tree.Tree) []byte {
		return wire.Marshal(&wire.GroupContext{
			Version: wire.MLS10, CipherSuite: e.CipherSuite, GroupID: e.GroupID, Epoch: e.Epoch,
			TreeHash: t.Hash(), ConfirmedTranscriptHash: e.ConfirmedTranscriptHash,
		})
	}
	open := func(t *tree.Tree, sender uint32, update *wire.UpdatePath, want []byte) error {
		for index, keys := range members {
			if index == sender {
				continue
			}
			got, _, err := t.Open(index, sender, update, context(t), nil, keys)
			if err == nil {
				err = equal("commit secret", got, want)
			}
			if err != nil {
				return fmt.Errorf("sender %d, receiver %d: %w", sender, index, err)
			}
		}
		return nil
	}
	for _, u := range e.UpdatePaths {
		var update wire.UpdatePath
		if err := wire.Unmarshal(u.UpdatePath, &update); err != nil {
			return err
		}
		after := before.Clone()
		if err := after.Merge(u.Sender, &update); err != nil {
			return err
		}
		if err := errors.Join(equal("tree hash after", after.Hash(), u.TreeHashAfter), open(after, u.Sender, &update, u.CommitSecret)); err != nil {
			return err
		}
	}
	for _, l := range e.LeavesPrivate { // the same way round: our own path
		ours := before.Clone()
		path, err := ours.Replace(l.Index, *before.Leaf(l.Index), e.GroupID, l.SignaturePriv)
		if err != nil {
			return err
		}
		sealed, err := path.Seal(context(ours), nil)
		if err != nil {
			return err
		}
		theirs := before.Clone()
		if err := errors.Join(theirs.Merge(l.Index, sealed), theirs.Validate(e.GroupID, nil), open(theirs, l.Index, sealed, path.CommitSecret)); err != nil {
			return fmt.Errorf("own path: %w", err)
		}
	}
	return nil
}
