package mls

import (
	"maps"
	"math"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// staged is a commit between its proposals and the epoch that it opens: ours while it is made,
// or one of another client while it is processed.
type staged struct {
	*plan
	group        *Group            // in the epoch of the commit
	context      wire.GroupContext // of the next epoch; its confirmed transcript hash is still the old one
	tree         *tree.Tree        // of the next epoch
	added        []uint32          // leaf indices of adds
	keys         tree.Keys
	key          SignatureKey // of our leaf in the next epoch
	commit       *wire.Commit
	path         *tree.Path // of a commit of ours; nil without a path
	init         []byte     // secret
	commitSecret []byte     // zero without a path
	psk          []byte     // secret
}

// stage applies plan to copies of the tree and the context of g. RFC 9420, sections 12.3 and
// 12.4.
func stage(g *Group, plan *plan) (*staged, error) {
	s := &staged{
		plan: plan, group: g, context: g.context, tree: g.tree.Clone(), key: g.key,
		init: g.epoch.Init, commitSecret: make([]byte, suite.HashBytes),
	}
	if s.context.Epoch == math.MaxUint64 {
		return nil, broken(ErrInvalidCommit, "8.1", "there is no epoch after this one")
	}
	s.context.Epoch++
	s.context.Extensions = plan.extensions
	s.added = plan.apply(s.tree)
	return s, nil
}

// stageOwn verifies list as the proposals of a commit of ours, and applies it.
func stageOwn(g *Group, list []proposal) (*staged, error) {
	plan, err := newPlan(g, list, g.sender())
	if err != nil {
		return nil, err
	}
	if err := plan.checkInitKeys(g.suite.PublicKeys()); err != nil {
		return nil, err
	}
	return stage(g, plan)
}

// credentials lists the changes of the proposals that the hook must accept; the change of the
// path's leaf is not among them.
func (s *staged) credentials() []CredentialChange {
	var list []CredentialChange
	for _, p := range s.updates {
		if p.own != nil {
			continue
		}
		was, is := newLeaf(p.sender.Index, s.group.tree.Leaf(p.sender.Index)), newLeaf(p.sender.Index, p.body.Update)
		list = append(list, CredentialChange{Kind: CredentialUpdate, Old: &was, New: &is, Epoch: s.context.Epoch})
	}
	for k, n := range s.adds {
		is := newLeaf(s.added[k], &n.Leaf)
		list = append(list, CredentialChange{Kind: CredentialAdd, New: &is, Epoch: s.context.Epoch})
	}
	return list
}

// checkTree verifies the rules that depend on all leaves after the commit. RFC 9420, section
// 7.3.
func (s *staged) checkTree() error {
	if err := s.tree.Unique(); err != nil {
		return err
	}
	return s.tree.Compatible(s.context.Extensions)
}

// seal verifies the tree after a commit of ours and computes everything that depends on it: the
// tree hash, the path's secrets, our keys, the pre-shared keys.
func (s *staged) seal() error {
	if err := s.checkTree(); err != nil {
		return err
	}
	s.context.TreeHash = s.tree.Hash()
	s.keys, s.commit = s.group.keys.Prune(s.tree), &wire.Commit{Proposals: references(s.list)}
	var err error
	if s.path != nil {
		if s.commit.Path, err = s.path.Seal(wire.Marshal(&s.context), indexSet(s.added)); err != nil {
			return err
		}
		s.commitSecret = s.path.CommitSecret
		maps.Copy(s.keys, s.path.Keys)
	}
	s.psk, err = s.group.pskSecret(s.psks)
	return err
}

// finish signs and frames a commit of ours, and derives the next epoch.
func (s *staged) finish(o *CommitOptions) (*PendingCommit, error) {
	g := s.group
	a := &wire.AuthenticatedContent{WireFormat: handshakeFormat(o.Public), Content: g.content(o.AuthenticatedData)}
	a.Content.Sender, a.Content.ContentType, a.Content.Commit = s.sender, wire.CommitContent, s.commit
	if err := framing.Sign(g.suite, s.signer().private, a, &g.context); err != nil {
		return nil, err
	}
	next, joiner := s.advance(a)
	a.ConfirmationTag = next.confirmationTag
	p := &PendingCommit{group: next, added: s.newcomers(), removed: s.removed(g.tree)}
	var err error
	if p.message, p.base, err = g.frame(a, SealOptions{}); err != nil {
		return nil, err
	}
	next.past = p.base.origin()
	if s.reInit == nil {
		if p.groupInfo, err = next.GroupInfoWith(GroupInfoOptions{WithoutTree: o.TreeOutOfBand}); err != nil {
			return nil, err
		}
	}
	if len(s.adds) > 0 {
		if p.welcome, err = s.welcome(next, joiner, o.TreeOutOfBand); err != nil {
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

// newcomers lists the members that the proposals add.
func (s *staged) newcomers() []seat {
	var list []seat
	for _, i := range s.added {
		list = append(list, seat{index: i, node: s.tree.Leaf(i)})
	}
	return list
}

// signer returns the key that signs a commit of ours: that of our leaf in the group's tree or,
// for a joiner, that of its new leaf. RFC 9420, section 6.1.
func (s *staged) signer() SignatureKey {
	if s.sender.Type == wire.NewMemberCommitSender {
		return s.key
	}
	return s.group.key
}

// advance returns the group in the epoch that the commit a opens, and that epoch's joiner
// secret. RFC 9420, section 8.
func (s *staged) advance(a *wire.AuthenticatedContent) (*Group, []byte) {
	g, context := s.group, s.context
	context.ConfirmedTranscriptHash = schedule.ConfirmedTranscript(g.suite, g.interim, a)
	next := g.clone()
	next.past, next.proposals, next.source, next.usage = g.remember(), nil, nil, 0
	next.context, next.tree, next.keys, next.key, next.reInit = context, s.tree, s.keys, s.key, s.reInit
	joiner := schedule.Joiner(g.suite, s.init, s.commitSecret, &context)
	next.begin(schedule.FromJoiner(g.suite, joiner, s.psk, &context))
	return next, joiner
}

// welcome seals the secrets of next, the group after the commit, to the KeyPackages that it
// adds. RFC 9420, section 12.4.3.1.
func (s *staged) welcome(next *Group, joiner []byte, treeOutOfBand bool) ([]byte, error) {
	info, err := next.groupInfo(GroupInfoOptions{WithoutExternalPub: true, WithoutTree: treeOutOfBand})
	if err != nil {
		return nil, err
	}
	cipher := next.suite
	key, nonce := schedule.WelcomeKey(cipher, schedule.Welcome(cipher, joiner, s.psk))
	w := &wire.Welcome{CipherSuite: cipher.ID(), EncryptedGroupInfo: cipher.Seal(key, nonce, nil, wire.Marshal(info))}
	w.Secrets = make([]wire.EncryptedGroupSecrets, len(s.adds))
	sealer := cipher.NewSealer("Welcome", w.EncryptedGroupInfo)
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
		w.Secrets[k] = wire.EncryptedGroupSecrets{NewMember: cipher.KeyPackageRef(wire.Marshal(pack)), Secrets: sealed}
		return err
	})
	if err != nil {
		return nil, err
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w}), nil
}
