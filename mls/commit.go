package mls

import (
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/wire"
)

// CommitOptions holds the contents of a commit besides the committer's fresh keys. The commit
// also carries out the pending proposals of the epoch that are valid together, before those of
// CommitOptions.
type CommitOptions struct {
	Add               [][]byte  // MLSMessages with KeyPackages
	Remove            []uint32  // leaf indices
	PSK               [][]byte  // external pre-shared keys to mix in, by id
	Changes           []Change  // all other changes, and more of the above
	AuthenticatedData []byte    // readable by the delivery service
	Public            bool      // as a PublicMessage; else as a PrivateMessage
	NewIdentity       *Identity // replaces that of our leaf; nil keeps it
	// Skip reports whether to leave out a received proposal; nil skips none.
	Skip func(ProposalInfo) bool
	// OmitPath leaves out fresh keys where that is allowed: if the commit contains only Adds and
	// pre-shared keys, or a reinitialization. RFC 9420, section 12.4.
	OmitPath bool
	// TreeOutOfBand leaves the ratchet tree out of Welcome and GroupInfo: joiners get
	// Group.RatchetTree in another way.
	TreeOutOfBand bool
}

// Commit makes a commit that opens the next epoch. The group does not change yet: send Message,
// continue with Base, and when the delivery service delivers the commit back, Apply it; if
// another commit arrives first, Process that one and drop this one. RFC 9420, section 12.4.1.
//
// If parts of o prevent the commit, the error is ChangeErrors, which names all of them; if a key
// in the tree does, it wraps a KeyError. Other errors wrap ErrRemoved, ErrReinitialized,
// ErrTooLarge, ErrInvalidKey or ErrInvalidTree. Pending proposals that cannot be committed are
// left out.
func (g *Group) Commit(o CommitOptions) (*PendingCommit, error) {
	if err := g.checkOpen("12.4"); err != nil {
		return nil, err
	}
	if len(o.AuthenticatedData) > argumentBytesMax {
		return nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	own := newOwnChanges(g, &o)
	received, spare := received(g, &o, own.list)
	removes := removesIn(received)
	if len(own.bad) > 0 {
		return nil, own.sift(g, removes)
	}
	p, err := makeCommit(g, &o, slices.Concat(received, own.list))
	if err == nil {
		return p, nil
	}
	if err := own.sift(g, removes); err != nil {
		return nil, err
	}
	if len(received) == 0 {
		return nil, err
	}
	// A bad proposal of another member must not keep us from committing our own changes or the
	// good proposals of others.
	others := slices.Concat(received[len(removes):], spare)
	list := newSifter(g, siftTriesMax).sift(removes, others, own.list, 0)
	if p, err := makeCommit(g, &o, slices.Concat(list, own.list)); err == nil {
		return p, nil
	}
	return makeCommit(g, &o, own.list)
}

// makeCommit makes a commit of ours that carries out list.
func makeCommit(g *Group, o *CommitOptions, list []proposal) (*PendingCommit, error) {
	s, err := stageOwn(g, list)
	if err != nil {
		return nil, err
	}
	if err := g.hook.check(g.context.GroupID, s.credentials()...); err != nil {
		return nil, err
	}
	if s.needsPath || !o.OmitPath || o.NewIdentity != nil {
		leaf, key, err := g.nextLeaf(o.NewIdentity, s.extensions)
		if err != nil {
			return nil, err
		}
		s.key = key
		if s.path, err = s.tree.Replace(g.own, leaf, g.context.GroupID, key.private); err != nil {
			return nil, err
		}
	}
	if err := s.seal(); err != nil {
		return nil, err
	}
	return s.finish(o)
}

// nextLeaf returns the leaf for our next path, without its keys, and the key that signs it.
// extensions are those of the group after the commit.
func (g *Group) nextLeaf(id *Identity, extensions []wire.Extension) (wire.LeafNode, SignatureKey, error) {
	if id == nil {
		return *g.tree.Leaf(g.own), g.key, nil
	}
	if _, err := id.cipher(g.Suite()); err != nil {
		return wire.LeafNode{}, SignatureKey{}, err
	}
	return id.leaf(extensions), id.Key, nil
}
