package mls

import (
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/wire"
)

// handshake is a Proposal or a Commit of the current epoch of group while it is processed.
type handshake struct {
	group   *Group // without the key that opened the message
	message *wire.AuthenticatedContent
	out     *Processed
}

// processHandshake verifies and applies a Proposal or a Commit, the membership tag excepted.
func processHandshake(g *Group, a *wire.AuthenticatedContent) (*Processed, error) {
	sender, err := handshakeSender(g, &a.Content)
	if err != nil {
		return nil, err
	}
	if err := framing.Verify(g.suite, sender.SignatureKey, a, &g.context); err != nil {
		return nil, err
	}
	h := &handshake{group: g, message: a, out: &Processed{
		Kind: Commit, AuthenticatedData: a.Content.AuthenticatedData, SenderKind: SenderKind(a.Content.Sender.Type),
		Sender: sender, Epoch: a.Content.Epoch,
	}}
	if a.Content.ContentType == wire.ProposalContent {
		h.out.Kind = Proposal
		err = h.receiveProposal()
	} else {
		err = h.receiveCommit()
	}
	if err != nil {
		return nil, err
	}
	return h.out, nil
}

// handshakeSender returns the sender of a Proposal or a Commit, with the key that must have
// signed it: a member, an external sender of the group, or the owner of the new leaf in it. RFC
// 9420, sections 6.1, 12.1.8 and 12.4.3.2.
func handshakeSender(g *Group, content *wire.FramedContent) (Leaf, error) {
	sender := content.Sender
	switch {
	case sender.Type == wire.MemberSender:
		n := g.tree.Leaf(sender.Index)
		if n == nil {
			return Leaf{}, broken(ErrInvalidMessage, "6.1", "there is no member at leaf %d", sender.Index)
		}
		if sender.Index == g.own {
			return Leaf{}, broken(ErrOwnMessage, "6", "of epoch %d", content.Epoch)
		}
		return newLeaf(sender.Index, n), nil
	case sender.Type == wire.NewMemberCommitSender:
		if content.ContentType != wire.CommitContent {
			return Leaf{}, broken(ErrInvalidMessage, "6", "a message of a joiner that is not a commit")
		}
		if content.Commit.Path == nil {
			return Leaf{}, broken(ErrInvalidCommit, "12.4.3.2", "an external commit without an update path")
		}
		return newLeaf(0, &content.Commit.Path.Leaf), nil
	case content.ContentType != wire.ProposalContent:
		return Leaf{}, broken(ErrInvalidMessage, "6", "a message of a non-member that is not a proposal")
	case sender.Type == wire.NewMemberProposalSender:
		if content.Proposal.Type != wire.AddProposal {
			return Leaf{}, broken(ErrInvalidProposal, "12.1.8", "a new member proposes type %d instead of an Add", content.Proposal.Type)
		}
		return newLeaf(0, &content.Proposal.Add.Leaf), nil
	}
	list := externalSenders(&g.context)
	if uint64(sender.Index) >= uint64(len(list)) {
		return Leaf{}, broken(ErrInvalidMessage, "12.1.8.1", "there is no external sender %d", sender.Index)
	}
	s := list[sender.Index]
	return newLeaf(sender.Index, &wire.LeafNode{SignatureKey: s.SignatureKey, Credential: s.Credential}), nil
}

// receiveProposal keeps a proposal until a commit refers to it. RFC 9420, section 12.1.
func (h *handshake) receiveProposal() error {
	g, content := h.group, &h.message.Content
	p := proposal{ref: g.suite.ProposalRef(wire.Marshal(h.message)), sender: content.Sender, body: content.Proposal}
	if err := p.check(g); err != nil {
		return err
	}
	kept, err := keep(g.proposals, p, &g.limits)
	if err != nil {
		return err
	}
	h.out.Group, h.out.Proposals = g.clone(), []ProposalInfo{p.info(g.tree)}
	h.out.Group.proposals = kept
	if content.Sender.Type != wire.NewMemberProposalSender {
		return nil
	}
	// Any client can ask to be added, and pending proposals block application messages: so the
	// hook is asked at once.
	return g.hook.check(g.context.GroupID, CredentialChange{Kind: CredentialAdd, New: &h.out.Sender, Epoch: g.context.Epoch + 1})
}

// receiveCommit verifies a commit and enters the epoch that it opens. RFC 9420, section 12.4.2.
func (h *handshake) receiveCommit() error {
	g, out, commit := h.group, h.out, h.message.Content.Commit
	list, err := resolve(g.proposals, commit.Proposals, h.message.Content.Sender)
	if err != nil {
		return err
	}
	plan, err := newPlan(g, list, h.message.Content.Sender)
	if err != nil {
		return err
	}
	if plan.needsPath && commit.Path == nil {
		return broken(ErrInvalidCommit, "12.4", "the update path is missing")
	}
	s, err := stageReceived(g, plan, commit)
	if err != nil {
		return err
	}
	out.Sender.Index = s.committer
	out.Proposals, out.Removed, out.Added, out.ReInit = infos(list, g.tree), leaves(plan.removed(g.tree)), leaves(s.newcomers()), newReInit(plan.reInit)
	if slices.Contains(plan.removes, g.own) {
		// We do not get the next epoch's secrets: nothing more can be verified.
		out.Group = g.clone()
		out.Group.removed, out.Group.proposals = true, nil
		out.SelfRemoved = true
	} else if out.Group, err = s.follow(h.message); err != nil {
		return err
	}
	if err := checkCommitted(list, g.suite, g.context.GroupID); err != nil {
		return err
	}
	return g.hook.check(g.context.GroupID, s.changes...)
}

// receivedCommit is a commit of another client with a verified public part.
type receivedCommit struct {
	*staged
	committer uint32 // its leaf after the commit
	changes   []CredentialChange
}

// stageReceived applies the public part of a commit: everything that can be verified without
// the next epoch's secrets. RFC 9420, section 12.4.2.
func stageReceived(g *Group, plan *plan, commit *wire.Commit) (*receivedCommit, error) {
	staged, err := stage(g, plan)
	if err != nil {
		return nil, err
	}
	s := &receivedCommit{staged: staged, committer: plan.sender.Index, changes: staged.credentials()}
	s.commit = commit
	if commit.Path != nil {
		change, err := s.checkLeaf(&commit.Path.Leaf)
		if err != nil {
			return nil, err
		}
		if err := s.tree.Merge(s.committer, commit.Path); err != nil {
			return nil, err
		}
		s.changes = append(s.changes, *change)
	}
	if err := s.checkTree(); err != nil {
		return nil, err
	}
	s.context.TreeHash = s.tree.Hash()
	return s, nil
}

// newcomers lists the members that the commit adds, a joiner included.
func (s *receivedCommit) newcomers() []seat {
	list := s.staged.newcomers()
	if s.sender.Type == wire.NewMemberCommitSender {
		list = append(list, seat{index: s.committer, node: s.tree.Leaf(s.committer)})
	}
	return list
}

// checkLeaf verifies the leaf n of the commit's path, and returns the credential change that it
// makes. For a joiner it sets s.committer. RFC 9420, sections 7.3 and 12.4.2.
func (s *receivedCommit) checkLeaf(n *wire.LeafNode) (*CredentialChange, error) {
	g := s.group
	change := &CredentialChange{Kind: CredentialPath, Epoch: s.context.Epoch}
	was, old := s.committer, g.tree.Leaf(s.committer)
	if s.sender.Type == wire.NewMemberCommitSender {
		change.Kind, old = CredentialExternalCommit, nil
		s.committer = s.tree.Vacancy()
		if len(s.removes) == 1 {
			was, old = s.removes[0], g.tree.Leaf(s.removes[0])
		}
	}
	if err := checkNewLeaf(g.suite, n, wire.CommitLeaf, s.committer, old); err != nil {
		return nil, err
	}
	if err := leaf.CheckSignature(g.suite, n, g.context.GroupID, s.committer); err != nil {
		return nil, err
	}
	is := newLeaf(s.committer, n)
	change.New = &is
	if old != nil {
		l := newLeaf(was, old)
		change.Old = &l
		if change.Kind == CredentialExternalCommit {
			return change, checkResync(old, n, g.hook)
		}
	}
	return change, nil
}

// follow derives the epoch that the commit a opens, and verifies its confirmation tag. RFC 9420,
// section 12.4.2.
func (s *receivedCommit) follow(a *wire.AuthenticatedContent) (*Group, error) {
	g := s.group
	keys := g.keys
	if s.own != nil {
		// Another member committed our Update: the leaf's old key is no longer valid.
		keys = keys.With(2*g.own, s.own.pair)
		s.key = s.own.key
	}
	s.keys = keys.Prune(s.tree)
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
	next, joiner := s.advance(a)
	clear(joiner)
	clear(s.psk)
	clear(s.commitSecret)
	if !g.suite.MACEqual(next.confirmationTag, a.ConfirmationTag) {
		return nil, broken(ErrInvalidTag, "12.4.2", "confirmation tag")
	}
	return next, nil
}
