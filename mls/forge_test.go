package mls

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// The forgers below are members and joiners that check nothing: what they make has
// good signatures, tags and keys, and breaks only the rule that a test names.

// forgery is the difference between a forged commit and a good one.
type forgery struct {
	list   []proposal
	noPath bool
	// leaf changes the leaf before it is signed, path and commit change the path and the commit
	// before the commit is signed.
	leaf   func(*wire.LeafNode)
	path   func(*wire.UpdatePath)
	commit func(*wire.Commit)
	// source replaces the source of the leaf, which is then signed again.
	source wire.LeafNodeSource
	frame  func(*wire.AuthenticatedContent) // before it is signed
	key    *SignatureKey                    // signs the commit
	init   []byte
}

// unchecked applies a list that may be nonsense as a commit of sender.
func (g *Group) unchecked(t testing.TB, list []proposal, sender wire.Sender) *staged {
	t.Helper()
	c := &plan{list: list, sender: sender, extensions: g.context.Extensions, touched: map[uint32]bool{}}
	for _, p := range list {
		_ = c.include(p)
	}
	c.removes = slices.DeleteFunc(c.removes, func(i uint32) bool { return g.tree.Leaf(i) == nil }) // no member to remove
	c.updates = slices.DeleteFunc(c.updates, func(p proposal) bool { return g.tree.Leaf(p.sender.Index) == nil })
	s, err := stage(g, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// forge makes the commit of a member that checks nothing.
func (g *Group) forge(t testing.TB, f forgery) []byte {
	t.Helper()
	s := g.unchecked(t, f.list, g.sender())
	next := *g.tree.Leaf(g.own)
	if s.tree.Leaf(g.own) == nil {
		s.tree.Update(g.own, &next) // a committer that removes itself
	}
	return g.forgeFrom(t, f, s, next)
}

// forgeJoin makes the external commit of a joiner that checks nothing. f.list holds its proposals
// after the ExternalInit.
func forgeJoin(t testing.TB, groupInfo []byte, id Identity, f forgery) []byte {
	t.Helper()
	var m wire.Message
	if err := wire.Unmarshal(groupInfo, &m); err != nil {
		t.Fatal(err)
	}
	info := m.GroupInfo
	cipher, err := lookup(id.Key.suite)
	if err != nil {
		t.Fatal(err)
	}
	checked, err := verifiedTree(cipher, info, nil, ErrInvalidGroupInfo)
	if err != nil {
		t.Fatal(err)
	}
	public, err := externalPub(cipher, info)
	if err != nil {
		t.Fatal(err)
	}
	kemOutput, init, err := cipher.ExternalInit(public)
	if err != nil {
		t.Fatal(err)
	}
	g := &Group{
		settings: newSettings(nil, nil, testNow, nil, Limits{}), suite: cipher, key: id.Key, context: info.Context, tree: checked,
		interim: schedule.InterimTranscript(cipher, info.Context.ConfirmedTranscriptHash, info.ConfirmationTag), epoch: &schedule.Epoch{}, keys: tree.Keys{},
	}
	sender := wire.Sender{Type: wire.NewMemberCommitSender}
	f.list = append([]proposal{{sender: sender, body: &wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: kemOutput}}}, f.list...)
	s := g.unchecked(t, f.list, sender)
	s.key, s.init = id.Key, init
	g.own = s.tree.Vacancy()
	return g.forgeFrom(t, f, s, id.leaf(nil))
}

// forgeFrom finishes a forged commit.
func (g *Group) forgeFrom(t testing.TB, f forgery, s *staged, next wire.LeafNode) []byte {
	t.Helper()
	s.commit, s.psk = &wire.Commit{Proposals: references(f.list)}, schedule.NoPSK()
	if f.init != nil {
		s.init = f.init
	}
	if f.leaf != nil {
		f.leaf(&next)
	}
	if !f.noPath {
		var err error
		if s.path, err = s.tree.Replace(g.own, next, g.context.GroupID, s.key.private); err != nil {
			t.Fatal(err)
		}
		s.context.TreeHash = s.tree.Hash()
		if s.commit.Path, err = s.path.Seal(wire.Marshal(&s.context), indexSet(s.added)); err != nil {
			t.Fatal(err)
		}
		s.commitSecret = s.path.CommitSecret
		if f.source != 0 {
			l := &s.commit.Path.Leaf
			l.Source, l.NotAfter = f.source, 1<<40
			if err := leaf.Sign(g.suite, s.key.private, l, g.context.GroupID, g.own); err != nil {
				t.Fatal(err)
			}
		}
		if f.path != nil {
			f.path(s.commit.Path)
		}
	}
	s.keys, s.context.TreeHash = tree.Keys{}, s.tree.Hash()
	if f.commit != nil {
		f.commit(s.commit)
	}
	a := &wire.AuthenticatedContent{WireFormat: wire.PublicMessageFormat, Content: g.content(nil)}
	a.Content.Sender, a.Content.ContentType, a.Content.Commit = s.sender, wire.CommitContent, s.commit
	if f.frame != nil {
		f.frame(a)
	}
	signer := s.signer()
	if f.key != nil {
		signer = *f.key
	}
	if err := framing.Sign(g.suite, signer.private, a, &g.context); err != nil {
		t.Fatal(err)
	}
	after, _ := s.advance(a)
	a.ConfirmationTag = after.confirmationTag
	message, _, err := g.frame(a, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// byValue returns proposals of who, for its own commit.
func (w *world) byValue(who string, list ...*wire.Proposal) []proposal {
	var out []proposal
	for _, p := range list {
		out = append(out, proposal{sender: w.groups[who].sender(), body: p})
	}
	return out
}

func removal(i uint32) *wire.Proposal {
	return &wire.Proposal{Type: wire.RemoveProposal, Remove: i}
}

func addition(k *wire.KeyPackage) *wire.Proposal {
	return &wire.Proposal{Type: wire.AddProposal, Add: k}
}

func pskOf(id *wire.PreSharedKeyID) *wire.Proposal {
	return &wire.Proposal{Type: wire.PSKProposal, PSK: id}
}

func extending(list ...wire.Extension) *wire.Proposal {
	return &wire.Proposal{Type: wire.GroupContextExtensionsProposal, Extensions: list}
}

func (w *world) leafOf(name string) uint32 { return w.groups[name].own }

// groupInfo returns the GroupInfo of who for external joins.
func (w *world) groupInfo(who string) []byte {
	w.t.Helper()
	info, err := w.groups[who].GroupInfo()
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// A forged commit that breaks no rule is accepted: other forgeries are refused because of the rule
// that their test names.
func TestForgersMakeGoodCommits(t *testing.T) {
	for _, s := range []Suite{X25519_AES128GCM_SHA256_Ed25519, P256_AES128GCM_SHA256_P256} {
		w := newWorld(t, s, "ann", "bob", "cay")
		dan := keyPackage(t, identity(t, s, "dan")).public
		message := w.groups["ann"].forge(t, forgery{list: w.byValue("ann", addition(dan), removal(w.leafOf("bob")))})
		out := w.process("cay", message)
		if len(out.Added) != 1 || len(out.Removed) != 1 || len(out.Proposals) != 2 {
			t.Errorf("got %+v", out)
		}
		joined := w.process("cay", forgeJoin(t, w.groupInfo("cay"), identity(t, s, "eve"), forgery{}))
		if joined.SenderKind != SentByJoiner || len(joined.Added) != 1 || string(joined.Added[0].Credential) != "did:ex:eve" {
			t.Errorf("got %+v", joined)
		}
	}
}

// refusesForgery checks that name refuses a commit with the error want, and that its group does not
// change.
func (w *world) refusesForgery(name, test string, message []byte, want error) {
	w.t.Helper()
	g := w.groups[name]
	before := save(w.t, g)
	out, err := g.Process(message)
	if !errors.Is(err, want) || out != nil {
		w.t.Errorf("%s: got %v, want %v", test, err, want)
	}
	if !bytes.Equal(before, save(w.t, g)) {
		w.t.Errorf("%s: the group changed", test)
	}
}
