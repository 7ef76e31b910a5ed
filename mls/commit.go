package mls

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// CommitOptions holds the contents of a commit besides the committer's fresh keys. Proposals
// that were received in this epoch and are valid together are applied first.
type CommitOptions struct {
	Add               [][]byte // MLSMessages with KeyPackages
	Remove            []uint32 // leaf indices
	PSK               [][]byte // external pre-shared keys to mix in, by id
	Changes           []Change // all other changes, and more of the above
	AuthenticatedData []byte   // readable by the delivery service
	Public            bool     // as a PublicMessage; else as a PrivateMessage
	NewIdentity       *Identity
	// Skip reports whether to leave out a received proposal; nil skips none.
	Skip func(ProposalInfo) bool
	// OmitPath leaves out fresh keys where that is allowed: if the commit contains only Adds,
	// pre-shared keys and a reinitialization. RFC 9420, section 12.4.
	OmitPath bool
	// TreeOutOfBand leaves the ratchet tree out of Welcome and GroupInfo: joiners get
	// Group.RatchetTree in another way.
	TreeOutOfBand bool
}

// changes lists the changes that o itself proposes.
func (o *CommitOptions) changes() []Change {
	var list []Change
	for _, i := range o.Remove {
		list = append(list, Remove(i))
	}
	for _, k := range o.Add {
		list = append(list, Add(k))
	}
	for _, id := range o.PSK {
		list = append(list, ExternalPSK(id))
	}
	return append(list, o.Changes...)
}

// Commit makes a commit that opens the next epoch. It does not change the group yet: send
// Message, continue with Base, and when the delivery service delivers the commit back, Apply
// it; if another commit arrives first, Process that one and drop this one. If parts of o keep
// the commit from being built, the error is ChangeErrors, which names all of them; if a key in
// the tree does, it is a KeyError. RFC 9420, section 12.4.1.
func (g *Group) Commit(o CommitOptions) (*PendingCommit, error) {
	if err := g.checkOpen("12.4"); err != nil {
		return nil, err
	}
	if len(o.AuthenticatedData) > argumentBytesMax {
		return nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	own := g.proposed(&o)
	proposed := own.list
	received, spare := g.received(&o, proposed)
	removes := removesIn(received)
	if len(own.bad) > 0 {
		return nil, own.sift(g, removes)
	}
	p, err := g.commit(o, slices.Concat(received, proposed))
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
	list := g.newSifter(siftTriesMax).sift(removes, others, proposed, func(int, error) {})
	if p, err := g.commit(o, slices.Concat(list, proposed)); err == nil {
		return p, nil
	}
	return g.commit(o, proposed)
}

// checkOpen reports an error if the group can no longer change. RFC 9420, sections 11.2 and
// 12.4.
func (g *Group) checkOpen(section string) error {
	switch {
	case g.removed:
		return broken(ErrRemoved, section, "the group can no longer be changed")
	case g.reInit != nil:
		return broken(ErrReinitialized, "11.2", "the group continues in another one")
	}
	return nil
}

// proposed turns the changes of o into our own proposals.
func (g *Group) proposed(o *CommitOptions) *ownChanges {
	own := &ownChanges{o: o}
	for i, c := range o.changes() {
		body, err := c.body(g.suite, g.context.GroupID, g.now(), g.limits.Lifetime)
		if err != nil {
			own.bad = append(own.bad, o.fault(i, err))
			continue
		}
		if g.usage != 0 && body.PSK != nil && body.PSK.Kind == wire.ResumptionPSK {
			body.PSK.Usage, body.PSK.GroupID = g.usage, g.source.ID()
		}
		own.list, own.places = append(own.list, proposal{sender: g.sender(), body: body}), append(own.places, i)
	}
	return own
}

// sender identifies us as a member.
func (g *Group) sender() wire.Sender { return wire.Sender{Type: wire.MemberSender, Index: g.own} }

// staged is a commit between its plan and its PendingCommit.
type staged struct {
	*plan
	sender       wire.Sender
	context      wire.GroupContext // of the next epoch, with the old transcript hash
	tree         *tree.Tree
	keys         tree.Keys
	path         *tree.Path // nil without a path
	key          SignatureKey
	commit       *wire.Commit
	init         []byte // secret
	commitSecret []byte
	psk          []byte
	added        []uint32
	before       *tree.Tree
}

// commit makes a commit that carries out list.
func (g *Group) commit(o CommitOptions, list []proposal) (*PendingCommit, error) {
	plan, err := g.plan(list, g.sender())
	if err != nil {
		return nil, err
	}
	if err := plan.checkInitKeys(g.suite.PublicKeys()); err != nil {
		return nil, err
	}
	s := &staged{plan: plan, sender: g.sender(), before: g.tree, tree: g.tree.Clone(), key: g.key, init: g.epoch.Init}
	s.added = plan.apply(s.tree)
	if s.context, err = g.nextContext(plan); err != nil {
		return nil, err
	}
	if err := g.askAll(plan.credentials(g.tree, s.added, s.context.Epoch)); err != nil {
		return nil, err
	}
	s.commit, s.commitSecret = &wire.Commit{Proposals: references(list)}, noCommitSecret()
	if plan.needsPath || !o.OmitPath || o.NewIdentity != nil {
		leaf, key, err := g.nextLeaf(o.NewIdentity, plan.extensions)
		if err != nil {
			return nil, err
		}
		s.key = key
		if s.path, err = s.tree.Replace(g.own, leaf, g.context.GroupID, key.private); err != nil {
			return nil, err
		}
	}
	if err := g.seal(s); err != nil {
		return nil, err
	}
	return g.finish(&o, s)
}

// nextContext returns the context of the epoch that plan leads to, without its hashes.
func (g *Group) nextContext(plan *plan) (wire.GroupContext, error) {
	next := g.context
	if next.Epoch == math.MaxUint64 {
		return next, broken(ErrInvalidCommit, "8.1", "there is no epoch after this one")
	}
	next.Epoch++
	next.Extensions = plan.extensions
	return next, nil
}

// seal verifies the tree of s and computes everything that depends on it: the path's secrets,
// our keys, the pre-shared keys.
func (g *Group) seal(s *staged) error {
	if err := firstError(s.tree.Unique, func() error { return s.tree.Compatible(s.context.Extensions) }); err != nil {
		return err
	}
	s.context.TreeHash = s.tree.Hash()
	s.keys = g.keys.Prune(s.tree)
	if s.path != nil {
		update, err := s.path.Seal(wire.Marshal(&s.context), indexSet(s.added))
		if err != nil {
			return err
		}
		s.commit.Path, s.commitSecret = update, s.path.CommitSecret
		for x, pair := range s.path.Keys {
			s.keys[x] = pair
		}
	}
	var err error
	s.psk, err = g.pskSecret(s.psks)
	return err
}

// finish signs and seals the commit and derives the next epoch.
func (g *Group) finish(o *CommitOptions, s *staged) (*PendingCommit, error) {
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(o.AuthenticatedData)}
	a.Content.Sender, a.Content.ContentType, a.Content.Commit = s.sender, wire.CommitContent, s.commit
	if o.Public {
		a.WireFormat = wire.PublicMessageFormat
	}
	if err := framing.Sign(g.suite, s.signer(g).private, a, &g.context); err != nil {
		return nil, err
	}
	next, joiner := g.advance(s, a)
	a.ConfirmationTag = next.confirmationTag
	p := &PendingCommit{base: g, group: next, removed: s.removed(s.before)}
	for _, i := range s.added {
		p.added = append(p.added, seat{index: i, node: s.tree.Leaf(i)})
	}
	var err error
	if p.message, p.base, err = g.frame(a, g.paddingOf(a, 0, nil)); err != nil {
		return nil, err
	}
	next.past = p.base.remember() // without the key that the commit took
	if s.reInit == nil {
		if p.groupInfo, err = next.GroupInfoWith(GroupInfoOptions{WithoutTree: o.TreeOutOfBand}); err != nil {
			return nil, err
		}
	}
	if len(s.adds) > 0 {
		if p.welcome, err = next.welcome(joiner, s, o.TreeOutOfBand); err != nil {
			return nil, err
		}
	}
	clear(joiner)
	clear(s.psk)
	if s.path != nil {
		s.path.Forget()
	}
	return p, nil
}

// signer returns the key that signs the commit: that of our leaf in the group's tree or, for a
// joiner, that of its new leaf. RFC 9420, section 6.1.
func (s *staged) signer(g *Group) SignatureKey {
	if s.sender.Type == wire.NewMemberCommitSender {
		return s.key
	}
	return g.key
}

// advance returns the group in the epoch after the commit a, which s describes, and that
// epoch's joiner secret. RFC 9420, section 8.
func (g *Group) advance(s *staged, a *wire.AuthenticatedContent) (*Group, []byte) {
	context := s.context
	context.ConfirmedTranscriptHash = schedule.ConfirmedTranscript(g.suite, g.interim, a)
	next := g.clone()
	next.past, next.proposals, next.source, next.usage = g.remember(), nil, nil, 0
	next.context, next.tree, next.keys, next.key, next.reInit = context, s.tree, s.keys, s.key, s.reInit
	joiner := schedule.Joiner(g.suite, s.init, s.commitSecret, &context)
	next.begin(schedule.FromJoiner(g.suite, joiner, s.psk, &context))
	next.confirmationTag = next.epoch.ConfirmationTag(g.suite, context.ConfirmedTranscriptHash)
	next.interim = schedule.InterimTranscript(g.suite, context.ConfirmedTranscriptHash, next.confirmationTag)
	return next, joiner
}

// welcome seals the secrets of g, the group after the commit, to the packages of s. RFC 9420,
// section 12.4.3.1.
func (g *Group) welcome(joiner []byte, s *staged, treeOutOfBand bool) ([]byte, error) {
	info, err := g.groupInfo(GroupInfoOptions{WithoutExternalPub: true, WithoutTree: treeOutOfBand})
	if err != nil {
		return nil, err
	}
	key, nonce := schedule.WelcomeKey(g.suite, schedule.Welcome(g.suite, joiner, s.psk))
	w := &wire.Welcome{CipherSuite: g.suite.ID(), EncryptedGroupInfo: g.suite.Seal(key, nonce, nil, wire.Marshal(info))}
	w.Secrets = make([]wire.EncryptedGroupSecrets, len(s.adds))
	sealer := g.suite.NewSealer("Welcome", w.EncryptedGroupInfo)
	err = suite.Parallel(len(s.adds), func(k int) error {
		pack, secrets := s.adds[k], &wire.GroupSecrets{JoinerSecret: joiner, PSKs: s.psks}
		if s.path != nil {
			if secret := s.path.SecretFor(s.added[k]); secret != nil {
				secrets.PathSecret = &wire.PathSecret{Secret: secret}
			}
		}
		plaintext := wire.Marshal(secrets)
		defer clear(plaintext)
		sealed, err := sealer.Seal(pack.InitKey, plaintext)
		w.Secrets[k] = wire.EncryptedGroupSecrets{NewMember: g.suite.KeyPackageRef(wire.Marshal(pack)), Secrets: sealed}
		return err
	})
	if err != nil {
		return nil, err
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w}), nil
}

// references encodes proposals for a commit: by reference if they were sent before, else by
// value.
func references(list []proposal) []wire.ProposalOrRef {
	out := make([]wire.ProposalOrRef, len(list))
	for i, p := range list {
		if p.ref != nil {
			out[i].Reference = p.ref
		} else {
			out[i].Proposal = p.body
		}
	}
	return out
}

// nextLeaf returns the leaf for our next path, without its keys, and the key that signs it.
// extensions are those of the group after the commit.
func (g *Group) nextLeaf(id *Identity, extensions []wire.Extension) (wire.LeafNode, SignatureKey, error) {
	if id == nil {
		return *g.tree.Leaf(g.own), g.key, nil
	}
	if err := id.fits(g.suite); err != nil {
		return wire.LeafNode{}, SignatureKey{}, err
	}
	return id.leaf(extensions), id.Key, nil
}

// content returns the frame of a message of ours in the current epoch.
func (g *Group) content(authenticatedData []byte) wire.FramedContent {
	return wire.FramedContent{
		GroupID: g.context.GroupID, Epoch: g.context.Epoch, AuthenticatedData: bytes.Clone(authenticatedData), Sender: g.sender(),
	}
}

// frame turns signed content into an MLSMessage, and returns the group without the message key
// that was used.
func (g *Group) frame(a *wire.AuthenticatedContent, padding int) ([]byte, *Group, error) {
	if a.WireFormat == wire.PublicMessageFormat {
		m := framing.Public(g.suite, g.epoch.Membership, a, &g.context)
		return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: m}), g, nil
	}
	key, secrets, err := g.secrets.Next(g.own, ratchetFor(a.Content.ContentType))
	if err != nil {
		return nil, nil, err
	}
	m, err := framing.Private(g.suite, g.epoch.SenderData, key, g.own, a, padding)
	clear(key.Key)
	if err != nil {
		return nil, nil, err
	}
	next := g.clone()
	next.secrets = secrets
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: m}), next, nil
}

// ratchetFor returns the ratchet that seals a content type. RFC 9420, section 6.3.1.
func ratchetFor(t wire.ContentType) schedule.Kind {
	if t == wire.ApplicationContent {
		return schedule.Application
	}
	return schedule.Handshake
}

func (g *Group) askAll(list []CredentialChange) error {
	for _, c := range list {
		if err := g.ask(c); err != nil {
			return err
		}
	}
	return nil
}

// firstError runs checks in order and returns the first error.
func firstError(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// noCommitSecret returns the commit secret of a commit without a path. RFC 9420, section
// 12.4.2.
func noCommitSecret() []byte { return make([]byte, suite.HashBytes) }
