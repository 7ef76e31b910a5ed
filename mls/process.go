package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/wire"
)

// Kind is the kind of a processed message.
type Kind int

// The kinds of messages. RFC 9420, section 6.
const (
	Application Kind = iota + 1
	Proposal
	Commit
)

// Processed is the content of a message and its effects.
type Processed struct {
	Kind  Kind
	Group *Group // replaces the group that processed the message
	// Plaintext is the content of an application message.
	Plaintext         []byte
	AuthenticatedData []byte
	// SenderKind is the kind of the sender. Sender is a member as it was when it sent the
	// message; for an external sender the Index is its number in the group's external senders;
	// a new member's Index is set only if it commits.
	SenderKind SenderKind
	Sender     Leaf
	Epoch      uint64 // in which the message was sent
	// Proposals are those that a commit carries out; for a proposal message, the proposal
	// itself.
	Proposals []ProposalInfo
	// Added, Removed and SelfRemoved are a commit's effects. A removed member's
	// Group stays in the old epoch, for late messages only.
	Added, Removed []Leaf
	SelfRemoved    bool
	// ReInit is set if the commit ended the group, and describes its successor.
	ReInit *ReInit
}

// Process opens, verifies and applies a message of another member. On error g is unchanged, and
// the next message may still succeed. The cost is linear in the message and, for a commit, in
// the group.
func (g *Group) Process(message []byte) (*Processed, error) {
	var m wire.Message
	if err := wire.Unmarshal(message, &m); err != nil {
		return nil, err
	}
	var out *Processed
	var err error
	switch m.WireFormat {
	case wire.PublicMessageFormat:
		out, err = g.processPublic(m.Public)
	case wire.PrivateMessageFormat:
		out, err = g.processPrivate(m.Private)
	default:
		err = broken(ErrUnexpectedMessage, "6", "wire format %d in a group", m.WireFormat)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// processPublic handles a PublicMessage. RFC 9420, section 6.2.
func (g *Group) processPublic(m *wire.PublicMessage) (*Processed, error) {
	content := &m.Content
	if !bytes.Equal(content.GroupID, g.context.GroupID) {
		return nil, broken(ErrWrongGroup, "6", "group id")
	}
	if content.Epoch != g.context.Epoch {
		return nil, broken(ErrWrongEpoch, "6", "epoch %d in epoch %d", content.Epoch, g.context.Epoch)
	}
	if err := g.checkOpen("12.4"); err != nil {
		return nil, err
	}
	if content.ContentType == wire.ApplicationContent {
		return nil, broken(ErrInvalidMessage, "6", "an application message as a PublicMessage")
	}
	switch content.Sender.Type {
	case wire.ExternalSender, wire.NewMemberProposalSender:
		return g.processOutsider(m.Authenticated())
	case wire.NewMemberCommitSender:
		return g.processExternalCommit(m.Authenticated())
	}
	if err := framing.CheckTag(g.suite, g.epoch.Membership, m, &g.context); err != nil {
		return nil, err
	}
	return g.processAuthenticated(m.Authenticated())
}

// view is an epoch that a PrivateMessage may belong to.
type view struct {
	context    *wire.GroupContext
	senderData []byte
	secrets    *schedule.SecretTree
	leaf       func(uint32) *wire.LeafNode
}

// view returns the epoch of m; next is a copy of the group that may be changed.
func (g *Group) view(m *wire.PrivateMessage, next *Group) (view, error) {
	if m.Epoch == g.context.Epoch {
		// A removed member opens late messages of its last epoch; after a reinitialization
		// nothing may be sent. RFC 9420, section 11.2.
		if err := g.checkOpen("12.4"); err != nil && (!g.removed || m.ContentType != wire.ApplicationContent) {
			return view{}, err
		}
		return view{&g.context, g.epoch.SenderData, &next.secrets, g.tree.Leaf}, nil
	}
	i := slices.IndexFunc(g.past, func(p pastEpoch) bool { return p.context.Epoch == m.Epoch })
	if i < 0 || m.ContentType != wire.ApplicationContent {
		return view{}, broken(ErrWrongEpoch, "6", "epoch %d in epoch %d", m.Epoch, g.context.Epoch)
	}
	next.past = slices.Clone(g.past)
	past := &next.past[i]
	return view{&past.context, past.senderData, &past.secrets, func(i uint32) *wire.LeafNode {
		if i >= uint32(len(past.leaves)) {
			return nil
		}
		return past.leaves[i]
	}}, nil
}

// processPrivate handles a PrivateMessage of this epoch or, if it is an
// application message, of a past one. RFC 9420, section 6.3.
func (g *Group) processPrivate(m *wire.PrivateMessage) (*Processed, error) {
	if !bytes.Equal(m.GroupID, g.context.GroupID) {
		return nil, broken(ErrWrongGroup, "6", "group id")
	}
	next := g.clone()
	v, err := g.view(m, next)
	if err != nil {
		return nil, err
	}
	data, err := framing.OpenSender(g.suite, v.senderData, m)
	if err != nil {
		return nil, err
	}
	if data.Leaf == g.own {
		return nil, broken(ErrOwnMessage, "6.3", "generation %d", data.Generation)
	}
	sender := v.leaf(data.Leaf)
	if sender == nil {
		return nil, broken(ErrInvalidMessage, "6.3.2", "there is no member at leaf %d", data.Leaf)
	}
	key, secrets, err := v.secrets.Take(data.Leaf, ratchetFor(m.ContentType), data.Generation)
	if err != nil {
		return nil, err
	}
	*v.secrets = secrets
	a, err := framing.Open(g.suite, key, data, m)
	clear(key.Key)
	if err != nil {
		return nil, err
	}
	if m.ContentType != wire.ApplicationContent {
		return next.processAuthenticated(a)
	}
	if err := framing.Verify(g.suite, sender.SignatureKey, a, v.context); err != nil {
		return nil, err
	}
	return &Processed{
		Kind: Application, Group: next, Plaintext: a.Content.Application, AuthenticatedData: m.AuthenticatedData,
		SenderKind: SentByMember, Sender: newLeaf(data.Leaf, sender), Epoch: m.Epoch,
	}, nil
}

// processAuthenticated handles a handshake of this epoch with the sender type member.
func (g *Group) processAuthenticated(a *wire.AuthenticatedContent) (*Processed, error) {
	index := a.Content.Sender.Index
	sender := g.tree.Leaf(index)
	if sender == nil {
		return nil, broken(ErrInvalidMessage, "6.1", "there is no member at leaf %d", index)
	}
	if index == g.own {
		return nil, broken(ErrOwnMessage, "6", "in epoch %d", a.Content.Epoch)
	}
	if err := framing.Verify(g.suite, sender.SignatureKey, a, &g.context); err != nil {
		return nil, err
	}
	out := newProcessed(a, newLeaf(index, sender))
	if a.Content.ContentType == wire.ProposalContent {
		return out, g.receiveProposal(a, out)
	}
	return out, g.receiveCommit(a, out)
}

// newProcessed describes a handshake.
func newProcessed(a *wire.AuthenticatedContent, sender Leaf) *Processed {
	out := &Processed{
		Kind: Commit, AuthenticatedData: a.Content.AuthenticatedData, SenderKind: SenderKind(a.Content.Sender.Type),
		Sender: sender, Epoch: a.Content.Epoch,
	}
	if a.Content.ContentType == wire.ProposalContent {
		out.Kind = Proposal
	}
	return out
}

// receiveProposal keeps a proposal until a commit refers to it.
// RFC 9420, section 12.1.
func (g *Group) receiveProposal(a *wire.AuthenticatedContent, out *Processed) error {
	p := proposal{ref: g.suite.ProposalRef(wire.Marshal(a)), sender: a.Content.Sender, body: a.Content.Proposal}
	if err := g.checkProposal(p); err != nil {
		return err
	}
	next, err := g.keep(p)
	out.Group, out.Proposals = next, []ProposalInfo{g.info(p)}
	return err
}

// receiveCommit verifies a commit and enters the epoch it opens.
// RFC 9420, section 12.4.2.
func (g *Group) receiveCommit(a *wire.AuthenticatedContent, out *Processed) error {
	commit := a.Content.Commit
	list, err := g.resolve(commit.Proposals, a.Content.Sender)
	if err != nil {
		return err
	}
	plan, err := g.plan(list, a.Content.Sender)
	if err != nil {
		return err
	}
	if plan.needsPath && commit.Path == nil {
		return broken(ErrInvalidCommit, "12.4", "the update path is missing")
	}
	s, err := g.stage(a, plan)
	if err != nil {
		return err
	}
	out.Sender.Index = s.committer
	out.Proposals, out.Removed, out.Added, out.ReInit = g.infos(list), leaves(plan.removed(g.tree)), s.newcomers(), newReInit(plan.reInit)
	if slices.Contains(plan.removes, g.own) {
		// We do not get the next epoch's secrets: nothing more can be verified.
		out.Group = g.clone()
		out.Group.removed, out.Group.proposals = true, nil
		out.SelfRemoved = true
		if err := g.checkCommitted(list); err != nil {
			return err
		}
		return g.askAll(s.credentials)
	}
	next, err := g.follow(a, s)
	if err != nil {
		return err
	}
	if !g.suite.MACEqual(next.confirmationTag, a.ConfirmationTag) {
		return broken(ErrInvalidTag, "12.4.2", "confirmation tag")
	}
	if err := g.checkCommitted(list); err != nil {
		return err
	}
	out.Group = next
	return g.askAll(s.credentials)
}

// incoming is a commit of another client with a verified public part.
type incoming struct {
	staged
	committer   uint32 // its leaf after the commit
	credentials []CredentialChange
}

// newcomers returns the members that the commit adds, a joiner included.
func (s *incoming) newcomers() []Leaf {
	var list []Leaf
	for _, i := range s.added {
		list = append(list, newLeaf(i, s.tree.Leaf(i)))
	}
	if s.sender.Type == wire.NewMemberCommitSender {
		list = append(list, newLeaf(s.committer, s.tree.Leaf(s.committer)))
	}
	return list
}

// stage applies the public part of a commit: everything that can be verified without the next
// epoch's secrets. RFC 9420, section 12.4.2.
func (g *Group) stage(a *wire.AuthenticatedContent, plan *plan) (*incoming, error) {
	s := &incoming{
		staged: staged{
			plan: plan, sender: a.Content.Sender, tree: g.tree.Clone(), key: g.key,
			commit: a.Content.Commit, init: g.epoch.Init, before: g.tree,
		},
		committer: a.Content.Sender.Index,
	}
	s.added = plan.apply(s.tree)
	var err error
	if s.context, err = g.nextContext(plan); err != nil {
		return nil, err
	}
	s.credentials = plan.credentials(g.tree, s.added, s.context.Epoch)
	if path := s.commit.Path; path != nil {
		change, err := g.successor(s, path)
		if err != nil {
			return nil, err
		}
		if err := s.tree.Merge(s.committer, path); err != nil {
			return nil, err
		}
		s.credentials = append(s.credentials, *change)
	}
	if err := firstError(s.tree.Unique, func() error { return s.tree.Compatible(s.context.Extensions) }); err != nil {
		return nil, err
	}
	s.context.TreeHash = s.tree.Hash()
	return s, nil
}

// successor verifies the leaf of a path, and returns the credential change that it makes.
func (g *Group) successor(s *incoming, path *wire.UpdatePath) (*CredentialChange, error) {
	old, kind := g.tree.Leaf(s.committer), CredentialPath
	was := s.committer
	if s.sender.Type == wire.NewMemberCommitSender {
		old, kind = nil, CredentialExternalCommit
		s.committer = s.tree.Vacancy()
		if len(s.removes) == 1 {
			was = s.removes[0]
			old = g.tree.Leaf(was)
		}
	}
	if err := g.checkNewLeaf(&path.Leaf, wire.CommitLeaf, s.committer, old); err != nil {
		return nil, err
	}
	is := newLeaf(s.committer, &path.Leaf)
	change := &CredentialChange{Kind: kind, New: &is, Epoch: s.context.Epoch}
	if old != nil {
		l := newLeaf(was, old)
		change.Old = &l
	}
	if kind == CredentialExternalCommit && old != nil {
		return change, g.checkResync(old, &path.Leaf)
	}
	return change, nil
}

// follow derives the epoch that a commit opens.
func (g *Group) follow(a *wire.AuthenticatedContent, s *incoming) (*Group, error) {
	keys := g.keys
	if s.own != nil {
		// Another member committed our Update: the leaf's old key is no longer valid.
		keys = keys.With(2*g.own, s.own.pair)
		s.key = s.own.key
	}
	s.commitSecret, s.keys = noCommitSecret(), keys.Prune(s.tree)
	var err error
	if path := s.commit.Path; path != nil {
		if s.commitSecret, s.keys, err = s.tree.Open(g.own, s.committer, path, wire.Marshal(&s.context), indexSet(s.added), keys); err != nil {
			return nil, err
		}
	}
	if s.externalInit != nil {
		if s.init, err = g.epoch.OpenExternalInit(g.suite, s.externalInit); err != nil {
			return nil, err
		}
	}
	if s.psk, err = g.pskSecret(s.psks); err != nil {
		return nil, err
	}
	next, joiner := g.advance(&s.staged, a)
	clear(joiner)
	clear(s.psk)
	clear(s.commitSecret)
	return next, nil
}
