package mls

import (
	"bytes"
	"fmt"
	"time"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// ExternalJoinOptions holds the parameters of JoinExternal.
type ExternalJoinOptions struct {
	Hook        CredentialHook
	PSK         PSKSource        // nil: no keys known
	Now         func() time.Time // time.Now if nil
	Padding     PaddingPolicy    // of PrivateMessages; nil: no padding
	Limits      Limits
	RatchetTree []byte // the encoded tree, if the GroupInfo does not carry it
	// Resync removes our old leaf in the same commit, if there is one: the leaf with our
	// signature key or else the only leaf with our credential. RFC 9420, section 12.4.3.2.
	Resync bool
	IsOld  func(Leaf) bool // reports whether a leaf is our old one; nil: as above
	PSKs   [][]byte        // external pre-shared keys to mix in, by id
	// Resume is our state of the group from an earlier epoch. The commit then includes the
	// resumption key of that epoch, which proves that we were a member; members that no longer
	// have the key cannot process the commit. RFC 9420, section 8.6.
	Resume            *Group
	AuthenticatedData []byte // readable by the delivery service
	// InUse reports whether the caller is a member of a group with that id already, other than
	// the one that it rejoins: the join is then refused with ErrGroupInUse. nil: of none.
	InUse func(groupID []byte) bool
}

// JoinExternal makes an external commit, which adds us to the group that groupInfo, an
// MLSMessage, describes. Send Message, a PublicMessage, and when the delivery service delivers
// it back, Apply it (to nil); if another commit arrives first, start again with a newer
// GroupInfo. As in Join, the signature of groupInfo and the tree are verified, and o.Hook must
// verify the credentials of the members. Errors wrap the same ones as those of Join, and
// ErrInvalidCommit if several leaves may be our old one. RFC 9420, section 12.4.3.2.
func JoinExternal(groupInfo []byte, id Identity, o ExternalJoinOptions) (*PendingCommit, error) {
	var m wire.Message
	if err := wire.Unmarshal(groupInfo, &m); err != nil {
		return nil, err
	}
	if m.GroupInfo == nil {
		return nil, broken(ErrUnexpectedMessage, "12.4.3.2", "a GroupInfo is expected")
	}
	if len(o.AuthenticatedData) > argumentBytesMax {
		return nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	cipher, err := id.cipher(Suite(m.GroupInfo.Context.CipherSuite))
	if err != nil {
		return nil, err
	}
	if err := checkUnused(o.InUse, m.GroupInfo.Context.GroupID); err != nil {
		return nil, err
	}
	t, err := verifiedTree(cipher, m.GroupInfo, o.RatchetTree, ErrInvalidGroupInfo)
	if err != nil {
		return nil, err
	}
	// The state of the group as known before the join.
	g := &Group{
		settings: newSettings(o.Hook, o.PSK, o.Now, o.Padding, o.Limits),
		suite:    cipher, key: id.Key, context: m.GroupInfo.Context, tree: t, confirmationTag: m.GroupInfo.ConfirmationTag,
		interim: schedule.InterimTranscript(cipher, m.GroupInfo.Context.ConfirmedTranscriptHash, m.GroupInfo.ConfirmationTag),
		epoch:   &schedule.Epoch{}, source: o.Resume,
	}
	s, err := stageJoin(g, m.GroupInfo, &id, &o)
	if err != nil {
		return nil, err
	}
	if err := g.hook.checkMembers(t, &g.context, s.removes...); err != nil {
		return nil, err
	}
	p, err := s.finish(&CommitOptions{AuthenticatedData: o.AuthenticatedData, Public: true})
	if err != nil {
		return nil, err
	}
	p.base, p.external, p.group.past = nil, true, nil
	return p, nil
}

// stageJoin makes the proposals, the leaf and the path of a joiner, which takes the leftmost
// blank leaf. RFC 9420, section 12.4.3.2.
func stageJoin(g *Group, info *wire.GroupInfo, id *Identity, o *ExternalJoinOptions) (*staged, error) {
	public, err := externalPub(g.suite, info)
	if err != nil {
		return nil, err
	}
	kemOutput, init, err := g.suite.ExternalInit(public)
	if err != nil {
		return nil, err
	}
	sender := wire.Sender{Type: wire.NewMemberCommitSender}
	list := []proposal{{sender: sender, body: &wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: kemOutput}}}
	changes, err := joinerChanges(g, id, o)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		body, err := c.body(g.suite, g.context.GroupID, g.now(), g.limits.Lifetime)
		if err != nil {
			return nil, err
		}
		list = append(list, proposal{sender: sender, body: body})
	}
	plan, err := newPlan(g, list, sender)
	if err != nil {
		return nil, err
	}
	s, err := stage(g, plan)
	if err != nil {
		return nil, err
	}
	s.key, s.init = id.Key, init
	g.own = s.tree.Vacancy()
	if s.path, err = s.tree.Replace(g.own, id.leaf(nil), g.context.GroupID, id.Key.private); err != nil {
		return nil, err
	}
	g.keys = tree.Keys{}
	return s, s.seal()
}

// joinerChanges returns the proposals of a joiner besides its external init.
func joinerChanges(g *Group, id *Identity, o *ExternalJoinOptions) ([]Change, error) {
	var list []Change
	if o.Resync {
		old, err := oldLeaves(g.tree, id, o.IsOld)
		if err != nil {
			return nil, err
		}
		for _, i := range old {
			list = append(list, Remove(i))
		}
	}
	for _, psk := range o.PSKs {
		list = append(list, ExternalPSK(psk))
	}
	if o.Resume != nil {
		if !bytes.Equal(o.Resume.context.GroupID, g.context.GroupID) {
			return nil, broken(ErrWrongGroup, "8.6", "the group to resume has another group id")
		}
		list = append(list, ResumptionPSK(o.Resume.Epoch()))
	}
	return list, nil
}

// oldLeaves returns the former leaf of id, if there is one.
func oldLeaves(t *tree.Tree, id *Identity, isOld func(Leaf) bool) ([]uint32, error) {
	var same, alike []uint32
	fresh := id.leaf(nil)
	for i, n := range t.Leaves() {
		switch {
		case isOld != nil:
			if isOld(newLeaf(i, n)) {
				same = append(same, i)
			}
		case bytes.Equal(n.SignatureKey, fresh.SignatureKey):
			same = append(same, i)
		case sameCredential(n, &fresh):
			alike = append(alike, i)
		}
	}
	if len(same) == 0 && isOld == nil {
		same = alike
	}
	if len(same) > 1 {
		return nil, broken(ErrInvalidCommit, "12.4.3.2", "%d leaves may be our old one", len(same))
	}
	return same, nil
}

// checkResync verifies that a joiner removes no other client than itself. The hook decides
// whether it is the same client; without equal credentials the hook is not asked. RFC 9420,
// section 12.2.
func checkResync(old, joiner *wire.LeafNode, hook CredentialHook) error {
	if old.Credential.Type != joiner.Credential.Type {
		return broken(ErrInvalidCommit, "12.2", "a joiner removes a member with another type of credential")
	}
	isBasic := old.Credential.Type == wire.BasicCredential
	if (isBasic || hook == nil) && !sameCredential(old, joiner) {
		return broken(ErrInvalidCommit, "12.2", "a joiner removes another client")
	}
	return nil
}
