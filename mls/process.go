package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/wire"
)

// Kind says what a processed message was.
type Kind int

// The kinds of messages. RFC 9420, section 6.
const (
	Application Kind = iota + 1
	Proposal
	Commit
)

// Processed is what a message said and what it did.
type Processed struct {
	Kind  Kind
	Group *Group // replaces the group that processed the message
	// Plaintext is an application message's content.
	Plaintext         []byte
	AuthenticatedData []byte
	Sender            Leaf   // as it was when it sent the message
	Epoch             uint64 // in which the message was sent
	// Added, Removed and SelfRemoved are a commit's effects. A removed member's
	// Group stays in the old epoch, for late messages only.
	Added, Removed []Leaf
	SelfRemoved    bool
}

// Process opens, verifies and carries out a message of another member. On error
// nothing has happened: g is as good as before, and the next message may be fine.
// The cost is linear in the message and, for a commit, in the group.
func (g *Group) Process(message []byte) (*Processed, error) {
	var m wire.Message
	if err := wire.Unmarshal(message, &m); err != nil {
		return nil, err
	}
	switch m.WireFormat {
	case wire.PublicMessageFormat:
		return g.processPublic(m.Public)
	case wire.PrivateMessageFormat:
		return g.processPrivate(m.Private)
	}
	return nil, broken(ErrUnexpectedMessage, "6", "wire format %d in a group", m.WireFormat)
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
	if g.removed {
		return nil, broken(ErrRemoved, "12.4", "no handshake is possible")
	}
	switch {
	case content.ContentType == wire.ApplicationContent:
		return nil, broken(ErrInvalidMessage, "6", "an application message in public")
	case content.Sender.Type == wire.NewMemberCommitSender:
		return nil, unsupported("12.4.3.2", "external commits")
	case content.Sender.Type != wire.MemberSender:
		return nil, unsupported("12.1.8", "proposals from outside the group")
	}
	if err := framing.CheckTag(g.suite, g.epoch.Membership, m, &g.context); err != nil {
		return nil, err
	}
	return g.processAuthenticated(m.Authenticated())
}

// view is an epoch that a PrivateMessage may come from.
type view struct {
	context    *wire.GroupContext
	senderData []byte
	secrets    *schedule.SecretTree
	leaf       func(uint32) *wire.LeafNode
}

// view finds the epoch of m in next, a copy of the group that is to be changed.
func (g *Group) view(m *wire.PrivateMessage, next *Group) (view, error) {
	if m.Epoch == g.context.Epoch {
		if g.removed && m.ContentType != wire.ApplicationContent {
			return view{}, broken(ErrRemoved, "12.4", "no handshake is possible")
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
		Sender: newLeaf(data.Leaf, sender), Epoch: m.Epoch,
	}, nil
}

// processAuthenticated handles a handshake of this epoch whose sender says it is a
// member.
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
	out := &Processed{AuthenticatedData: a.Content.AuthenticatedData, Sender: newLeaf(index, sender), Epoch: a.Content.Epoch}
	if a.Content.ContentType == wire.ProposalContent {
		out.Kind = Proposal
		return out, g.receiveProposal(a, out)
	}
	out.Kind = Commit
	return out, g.receiveCommit(a, out)
}

// receiveProposal keeps a proposal until a commit refers to it.
// RFC 9420, section 12.1.
func (g *Group) receiveProposal(a *wire.AuthenticatedContent, out *Processed) error {
	p := proposal{ref: g.suite.ProposalRef(wire.Marshal(a)), sender: a.Content.Sender.Index, body: a.Content.Proposal}
	if err := g.checkProposal(p); err != nil {
		return err
	}
	next := g.clone()
	if !slices.ContainsFunc(g.proposals, func(q proposal) bool { return bytes.Equal(q.ref, p.ref) }) {
		if len(g.proposals) >= proposalsMax {
			return broken(ErrInvalidProposal, "12.2", "more than %d proposals in one epoch", proposalsMax)
		}
		next.proposals = append(slices.Clone(g.proposals), p)
	}
	out.Group = next
	return nil
}

// receiveCommit verifies a commit and enters the epoch it opens.
// RFC 9420, section 12.4.2.
func (g *Group) receiveCommit(a *wire.AuthenticatedContent, out *Processed) error {
	commit, committer := a.Content.Commit, a.Content.Sender.Index
	list, err := g.resolve(commit.Proposals, committer)
	if err != nil {
		return err
	}
	plan, err := g.plan(list, committer)
	if err != nil {
		return err
	}
	if plan.needsPath && commit.Path == nil {
		return broken(ErrInvalidCommit, "12.4", "the update path is missing")
	}
	out.Removed = leaves(plan.removed(g.tree))
	if slices.Contains(plan.removes, g.own) {
		// The next epoch is not ours to see: nothing more can be verified.
		out.Group = g.clone()
		out.Group.removed, out.Group.proposals = true, nil
		out.SelfRemoved = true
		return nil
	}
	next, credentials, err := g.follow(a, plan, out)
	if err != nil {
		return err
	}
	if !g.suite.MACEqual(next.confirmationTag, a.ConfirmationTag) {
		return broken(ErrInvalidTag, "12.4.2", "confirmation tag")
	}
	out.Group = next
	return g.askAll(credentials)
}

// follow builds the epoch that a commit opens, and lists the credentials to judge.
func (g *Group) follow(a *wire.AuthenticatedContent, plan *change, out *Processed) (*Group, []CredentialChange, error) {
	path, committer := a.Content.Commit.Path, a.Content.Sender.Index
	t := g.tree.Clone()
	added := plan.apply(t)
	context := g.context
	context.Epoch++
	context.Extensions = plan.extensions
	credentials := plan.credentials(g.tree, added, context.Epoch)
	for k, i := range added {
		out.Added = append(out.Added, newLeaf(i, plan.adds[k]))
	}
	if path != nil {
		if err := g.checkNewLeaf(&path.Leaf, wire.CommitLeaf, committer); err != nil {
			return nil, nil, err
		}
		if err := t.Merge(committer, path); err != nil {
			return nil, nil, err
		}
		was, is := newLeaf(committer, g.tree.Leaf(committer)), newLeaf(committer, &path.Leaf)
		credentials = append(credentials, CredentialChange{Kind: CredentialPath, Old: &was, New: &is, Epoch: context.Epoch})
	}
	if err := firstError(t.Unique, func() error { return t.Compatible(context.Extensions) }); err != nil {
		return nil, nil, err
	}
	context.TreeHash = t.Hash()
	secret, keys := noCommitSecret(), g.keys.Prune(t)
	if path != nil {
		var err error
		if secret, keys, err = t.Open(g.own, committer, path, wire.Marshal(&context), indexSet(added), g.keys); err != nil {
			return nil, nil, err
		}
	}
	psk, err := g.pskSecret(plan.psks)
	if err != nil {
		return nil, nil, err
	}
	next, _ := g.advance(context, t, keys, secret, psk, a)
	return next, credentials, nil
}
