package mls

import (
	"bytes"
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// CommitOptions say what a commit does, besides giving the committer fresh keys.
// Proposals that were received in this epoch and are valid together go in first.
type CommitOptions struct {
	Add               [][]byte // MLSMessages with KeyPackages
	Remove            []uint32 // leaf indices
	AuthenticatedData []byte   // readable by the delivery service
	PSK               [][]byte // external pre-shared keys to mix in, by id
	Public            bool     // as a PublicMessage; else as a PrivateMessage
	NewIdentity       *Identity
}

// Commit makes a commit that opens the next epoch. Nothing has happened yet: send
// Message, go on with Base, and when the delivery service delivers the commit
// back, Apply it; if another commit arrives first, Process that and forget this
// one. RFC 9420, section 12.4.1.
func (g *Group) Commit(o CommitOptions) (*PendingCommit, error) {
	if g.removed {
		return nil, broken(ErrRemoved, "12.4", "no commit is possible")
	}
	if len(o.AuthenticatedData) > argumentBytesMax {
		return nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	packages, err := g.packages(o.Add)
	if err != nil {
		return nil, err
	}
	proposed, err := g.proposed(o, packages)
	if err != nil {
		return nil, err
	}
	received := g.received(o, packages)
	p, err := g.commit(o, slices.Concat(received, proposed))
	if err != nil && len(received) > 0 {
		// One that fits nobody must not keep us from committing at all.
		return g.commit(o, proposed)
	}
	return p, err
}

// commit makes a commit that carries out list.
func (g *Group) commit(o CommitOptions, list []proposal) (*PendingCommit, error) {
	plan, err := g.plan(list, g.own)
	if err != nil {
		return nil, err
	}
	t := g.tree.Clone()
	added := plan.apply(t)
	next := g.context
	next.Epoch++
	next.Extensions = plan.extensions
	if err := g.askAll(plan.credentials(g.tree, added, next.Epoch)); err != nil {
		return nil, err
	}
	own, key, err := g.nextLeaf(o.NewIdentity)
	if err != nil {
		return nil, err
	}
	path, err := t.Replace(g.own, own, g.context.GroupID, key.private)
	if err != nil {
		return nil, err
	}
	if err := firstError(t.Unique, func() error { return t.Compatible(next.Extensions) }); err != nil {
		return nil, err
	}
	next.TreeHash = t.Hash()
	update, err := path.Seal(wire.Marshal(&next), indexSet(added))
	if err != nil {
		return nil, err
	}
	keys := g.keys.Prune(t)
	for x, pair := range path.Keys {
		keys[x] = pair
	}
	psk, err := g.pskSecret(plan.psks)
	if err != nil {
		return nil, err
	}
	return g.finish(o, &staged{
		psk: psk, psks: plan.psks,
		context: next, tree: t, keys: keys, path: path, key: key,
		commit: &wire.Commit{Proposals: references(list), Path: update},
		// The new members' packages, in the order of their leaves.
		packages: addedPackages(list), added: added, removed: plan.removed(g.tree),
	})
}

// staged is a commit on its way from a plan to a PendingCommit.
type staged struct {
	context  wire.GroupContext // of the next epoch, with the old transcript hash
	tree     *tree.Tree
	keys     tree.Keys
	path     *tree.Path
	key      SignatureKey
	commit   *wire.Commit
	psk      []byte
	psks     []wire.PreSharedKeyID
	packages []*wire.KeyPackage
	added    []uint32
	removed  []seat
}

// finish signs and seals the commit and derives the next epoch.
func (g *Group) finish(o CommitOptions, s *staged) (*PendingCommit, error) {
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(o.AuthenticatedData)}
	a.Content.ContentType, a.Content.Commit = wire.CommitContent, s.commit
	if o.Public {
		a.WireFormat = wire.PublicMessageFormat
	}
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		return nil, err
	}
	next, joiner := g.advance(s.context, s.tree, s.keys, s.path.CommitSecret, s.psk, a)
	next.key = s.key
	a.ConfirmationTag = next.confirmationTag
	p := &PendingCommit{base: g, group: next, removed: s.removed}
	for _, i := range s.added {
		p.added = append(p.added, seat{index: i, node: s.tree.Leaf(i)})
	}
	var err error
	if p.message, p.base, err = g.frame(a, 0); err != nil {
		return nil, err
	}
	next.past = p.base.remember() // without the key that the commit took
	if p.groupInfo, err = next.GroupInfo(); err != nil {
		return nil, err
	}
	if len(s.packages) > 0 {
		p.welcome, err = next.welcome(joiner, s)
	}
	return p, err
}

// advance is the group in the epoch after the commit a, whose context lacks only
// the new transcript hash, and that epoch's joiner secret. RFC 9420, section 8.
func (g *Group) advance(context wire.GroupContext, t *tree.Tree, keys tree.Keys, commitSecret, psk []byte, a *wire.AuthenticatedContent) (*Group, []byte) {
	context.ConfirmedTranscriptHash = schedule.ConfirmedTranscript(g.suite, g.interim, a)
	next := g.clone()
	next.past, next.proposals = g.remember(), nil
	next.context, next.tree, next.keys = context, t, keys
	joiner := schedule.Joiner(g.suite, g.epoch.Init, commitSecret, &context)
	next.begin(schedule.FromJoiner(g.suite, joiner, psk, &context))
	next.confirmationTag = next.epoch.ConfirmationTag(g.suite, context.ConfirmedTranscriptHash)
	next.interim = schedule.InterimTranscript(g.suite, context.ConfirmedTranscriptHash, next.confirmationTag)
	return next, joiner
}

// welcome lets the packages of s into g, the group that its commit led to.
// RFC 9420, section 12.4.3.1.
func (g *Group) welcome(joiner []byte, s *staged) ([]byte, error) {
	info, err := g.groupInfo()
	if err != nil {
		return nil, err
	}
	key, nonce := schedule.WelcomeKey(g.suite, schedule.Welcome(g.suite, joiner, s.psk))
	w := &wire.Welcome{CipherSuite: g.suite.ID(), EncryptedGroupInfo: g.suite.Seal(key, nonce, nil, wire.Marshal(info))}
	w.Secrets = make([]wire.EncryptedGroupSecrets, len(s.packages))
	err = suite.Parallel(len(s.packages), func(k int) error {
		pack, secrets := s.packages[k], &wire.GroupSecrets{JoinerSecret: joiner, PSKs: s.psks}
		if secret := s.path.SecretFor(s.added[k]); secret != nil {
			secrets.PathSecret = &wire.PathSecret{Secret: secret}
		}
		sealed, err := g.suite.EncryptWithLabel(pack.InitKey, "Welcome", w.EncryptedGroupInfo, wire.Marshal(secrets))
		w.Secrets[k] = wire.EncryptedGroupSecrets{NewMember: g.suite.KeyPackageRef(wire.Marshal(pack)), Secrets: sealed}
		return err
	})
	if err != nil {
		return nil, err
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w}), nil
}

// packages decodes and verifies KeyPackages to add. RFC 9420, section 10.1.
func (g *Group) packages(list [][]byte) ([]*wire.KeyPackage, error) {
	var out []*wire.KeyPackage
	for _, raw := range list {
		var m wire.Message
		if err := wire.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		if m.KeyPackage == nil {
			return nil, broken(ErrUnexpectedMessage, "12.1.1", "not a key package")
		}
		if err := keypackage.Check(g.suite, m.KeyPackage); err != nil {
			return nil, err
		}
		if err := keypackage.CheckLifetime(&m.KeyPackage.Leaf, g.now()); err != nil {
			return nil, err
		}
		out = append(out, m.KeyPackage)
	}
	return out, nil
}

// proposed lists what o itself proposes.
func (g *Group) proposed(o CommitOptions, packages []*wire.KeyPackage) ([]proposal, error) {
	var list []proposal
	for _, i := range o.Remove {
		list = append(list, proposal{sender: g.own, body: &wire.Proposal{Type: wire.RemoveProposal, Remove: i}})
	}
	for _, k := range packages {
		list = append(list, proposal{sender: g.own, body: &wire.Proposal{Type: wire.AddProposal, Add: k}})
	}
	for _, id := range o.PSK {
		psk, err := newPSK(id)
		if err != nil {
			return nil, err
		}
		list = append(list, proposal{sender: g.own, body: &wire.Proposal{Type: wire.PSKProposal, PSK: psk}})
	}
	return list, nil
}

// received lists the proposals of others that a commit of ours carries out: those
// that are ours to commit, and compatible with each other and with o. The
// committer chooses. RFC 9420, section 12.2.
func (g *Group) received(o CommitOptions, packages []*wire.KeyPackage) []proposal {
	touched, clients, extended := map[uint32]bool{g.own: true}, map[string]bool{}, false
	for _, i := range o.Remove {
		touched[i] = true
	}
	for _, k := range packages {
		clients[string(k.Leaf.SignatureKey)] = true
	}
	var list []proposal
	take := func(p proposal, isTaken bool) bool {
		if !isTaken {
			list = append(list, p)
		}
		return true
	}
	// Removes go before Updates of the same leaf, as section 12.2 prefers.
	for _, p := range g.proposals {
		if p.body.Type == wire.RemoveProposal {
			touched[p.body.Remove] = take(p, touched[p.body.Remove])
		}
	}
	for _, p := range g.proposals {
		switch p.body.Type {
		case wire.UpdateProposal:
			touched[p.sender] = take(p, touched[p.sender])
		case wire.AddProposal:
			client := string(p.body.Add.Leaf.SignatureKey)
			clients[client] = take(p, clients[client] || keypackage.CheckLifetime(&p.body.Add.Leaf, g.now()) != nil)
		case wire.PSKProposal:
			list = append(list, p)
		case wire.GroupContextExtensionsProposal:
			extended = take(p, extended)
		}
	}
	return list
}

// references puts proposals into a commit: by reference if they were sent before.
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

func addedPackages(list []proposal) []*wire.KeyPackage {
	var out []*wire.KeyPackage
	for _, p := range list {
		if p.body.Type == wire.AddProposal {
			out = append(out, p.body.Add)
		}
	}
	return out
}

// nextLeaf is the leaf for our next path, without its keys, and the key that
// signs for it.
func (g *Group) nextLeaf(id *Identity) (wire.LeafNode, SignatureKey, error) {
	if id == nil {
		return *g.tree.Leaf(g.own), g.key, nil
	}
	if id.Key.suite != g.Suite() {
		return wire.LeafNode{}, SignatureKey{}, fmt.Errorf("%w: the signature key is for suite %d, not %d", ErrInvalidKey, id.Key.suite, g.Suite())
	}
	return id.leaf(g.context.Extensions), id.Key, nil
}

// content is the frame of a message of ours in the current epoch.
func (g *Group) content(authenticatedData []byte) wire.FramedContent {
	return wire.FramedContent{
		GroupID: g.context.GroupID, Epoch: g.context.Epoch, AuthenticatedData: bytes.Clone(authenticatedData),
		Sender: wire.Sender{Type: wire.MemberSender, Index: g.own},
	}
}

// frame turns signed content into an MLSMessage, and returns the group without
// the key that it took.
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
	if err != nil {
		return nil, nil, err
	}
	next := g.clone()
	next.secrets = secrets
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: m}), next, nil
}

// ratchetFor says which ratchet seals a kind of content. RFC 9420, section 6.3.1.
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

func indexSet(list []uint32) map[uint32]bool {
	set := make(map[uint32]bool, len(list))
	for _, i := range list {
		set[i] = true
	}
	return set
}

// firstError runs checks until one fails.
func firstError(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// noCommitSecret stands for the path of a commit without one.
// RFC 9420, section 12.4.2.
func noCommitSecret() []byte { return make([]byte, suite.HashBytes) }
