package mls

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/wire"
)

// kinds are all errors that a refused message may wrap.
var kinds = []error{
	ErrMalformed, ErrUnsupported, ErrUnsupportedSuite, ErrUnexpectedMessage, ErrTooLarge, ErrWrongGroup, ErrWrongEpoch, ErrOwnMessage,
	ErrReplay, ErrTooFarAhead, ErrDecrypt, ErrInvalidKey, ErrInvalidSignature, ErrInvalidTag, ErrInvalidMessage, ErrInvalidLeaf,
	ErrInvalidTree, ErrInvalidKeyPackage, ErrLifetime, ErrInvalidExtensions, ErrInvalidProposal, ErrUnknownProposal, ErrUnknownPSK,
	ErrProposalsPending, ErrInvalidCommit, ErrInvalidWelcome, ErrNotForUs, ErrRefused, ErrRemoved, ErrReinitialized,
	ErrInvalidSuccessor, ErrInvalidGroupInfo,
}

func isTyped(err error) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// scene is a group in some state: one member that receives, and the others, with keys that the
// fuzzer has.
type scene struct {
	receiver *Group
	others   []*Group
	keys     map[string]SignatureKey // by public key
	spare    SignatureKey            // not of a member
	before   []byte                  // the receiver's state
}

func newScene(t testing.TB, w *world, receiver string, spare SignatureKey) *scene {
	s := &scene{receiver: w.groups[receiver], keys: map[string]SignatureKey{string(spare.public): spare}, spare: spare, before: save(t, w.groups[receiver])}
	for _, name := range w.names() {
		if g := w.groups[name]; name != receiver {
			s.others = append(s.others, g)
			s.keys[string(g.key.public)] = g.key
		}
	}
	return s
}

// fuzzScenes are groups in various states, and messages of every kind for each.
func fuzzScenes(t testing.TB) (scenes []*scene, messages [][]byte) {
	t.Helper()
	spare, err := NewSignatureKey(testSuite)
	if err != nil {
		t.Fatal(err)
	}
	external := []Extension{ExternalSenders(ExternalSender{Credential: []byte("did:ex:server"), SignatureKey: spare.public})}
	psk := func([]byte) ([]byte, error) { return make([]byte, 32), nil }
	add := func(w *world) {
		for name, g := range w.groups {
			g = g.clone()
			g.psk = psk
			w.groups[name] = g
		}
		scenes = append(scenes, newScene(t, w, "bob", spare))
		messages = append(messages, everyMessage(t, w, spare)...)
	}
	// A new group; one where all committed; one with blanks and unmerged
	// leaves; and one with proposals waiting.
	add(newWorld(t, testSuite, "ann", "bob", "cay"))
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan", "eve")
	for _, name := range w.names() {
		w.commit(name, CommitOptions{})
	}
	w.commit("ann", CommitOptions{Changes: []Change{SetExtensions(external)}})
	add(w)
	w.add("cay", "fay", "gil")
	w.commit("dan", CommitOptions{Remove: []uint32{w.leafOf("ann")}})
	w.add("eve", "hal")
	add(w)
	for _, p := range []*wire.Proposal{removal(w.leafOf("hal")), addition(keyPackage(t, identity(t, testSuite, "ida")).public)} {
		message := w.propose("cay", p, wire.PublicMessageFormat)
		for _, name := range w.names() {
			if name != "cay" {
				w.process(name, message)
			}
		}
	}
	add(w)
	return scenes, messages
}

// everyMessage is a good message of each kind from ann or another member, in public.
func everyMessage(t testing.TB, w *world, outsider SignatureKey) [][]byte {
	t.Helper()
	from := w.names()[len(w.groups)-1]
	g := w.groups[from]
	jon := keyPackage(t, identity(t, testSuite, "jon"))
	id := identity(t, testSuite, "kim")
	info := w.groupInfo(from)
	var list [][]byte
	keep := func(message []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, message)
	}
	for _, c := range []Change{Add(jon.Message()), Remove(w.leafOf("cay")), ExternalPSK([]byte("psk")), ResumptionPSK(g.Epoch()), SetExtensions(g.Extensions()),
		Reinit(ReInit{GroupID: []byte("next"), Suite: testSuite}), Update(nil), Update(&id)} {
		message, _, err := g.Propose(c, ProposeOptions{Public: true})
		keep(message, err)
		if c.kind == wire.UpdateProposal {
			continue
		}
		if p, err := g.Commit(CommitOptions{Public: true, Changes: []Change{c}, Skip: func(ProposalInfo) bool { return true }}); err == nil {
			keep(p.Message(), nil)
		}
		if message, err := ExternalProposal(g.context.GroupID, g.Epoch(), 0, outsider, c); err == nil {
			keep(message, nil)
		}
	}
	p, err := g.Commit(CommitOptions{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	keep(p.Message(), nil)
	keep(NewMemberProposal(g.context.GroupID, g.Epoch(), jon))
	j, err := JoinExternal(info, id, ExternalJoinOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	keep(j.Message(), nil)
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(nil)}
	a.Content.ContentType, a.Content.Application = wire.ApplicationContent, []byte("hello")
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		t.Fatal(err)
	}
	message, _, err := g.frame(a, SealOptions{Padding: 100})
	keep(message, err)
	return list
}

// key finds the private key for a public one; an unknown key becomes spare.
func (s *scene) key(public *[]byte) SignatureKey {
	k, known := s.keys[string(*public)]
	if !known {
		k = s.spare
		*public = k.public
	}
	return k
}

// resign makes all signatures inside content good again.
func (s *scene) resign(t *testing.T, content *wire.FramedContent, index uint32) {
	g := s.receiver
	signLeaf := func(n *wire.LeafNode) {
		if err := leaf.Sign(g.suite, s.key(&n.SignatureKey).private, n, g.context.GroupID, index); err != nil {
			t.Fatal(err)
		}
	}
	proposal := func(p *wire.Proposal) {
		switch {
		case p.Update != nil:
			signLeaf(p.Update)
		case p.Add != nil:
			signLeaf(&p.Add.Leaf)
			var err error
			if p.Add.Signature, err = g.suite.SignWithLabel(s.key(&p.Add.Leaf.SignatureKey).private, "KeyPackageTBS", p.Add.SignedContent()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if content.Proposal != nil {
		proposal(content.Proposal)
	}
	if content.Commit == nil {
		return
	}
	for _, p := range content.Commit.Proposals {
		if p.Proposal != nil {
			proposal(p.Proposal)
		}
	}
	if content.Commit.Path != nil {
		signLeaf(&content.Commit.Path.Leaf)
	}
}

// signed returns the content of m in a message that its sender has signed: a member with keys that
// the fuzzer has, or an outsider.
func (s *scene) signed(t *testing.T, m *wire.PublicMessage, format wire.WireFormat) []byte {
	g := s.receiver
	a := m.Authenticated()
	a.WireFormat = format
	content := &a.Content
	content.GroupID, content.Epoch = g.context.GroupID, g.context.Epoch
	from := s.others[int(content.Sender.Index)%len(s.others)]
	key := s.spare
	switch content.Sender.Type {
	case wire.MemberSender:
		content.Sender.Index, key = from.own, from.key
	case wire.NewMemberCommitSender:
		if content.Commit != nil && content.Commit.Path != nil {
			key = s.key(&content.Commit.Path.Leaf.SignatureKey)
		}
	case wire.NewMemberProposalSender:
		if content.Proposal != nil && content.Proposal.Add != nil {
			key = s.key(&content.Proposal.Add.Leaf.SignatureKey)
		}
	}
	index := content.Sender.Index
	if content.Sender.Type == wire.NewMemberCommitSender {
		index = g.tree.Vacancy()
	}
	s.resign(t, content, index)
	if err := framing.Sign(g.suite, key.private, a, &g.context); err != nil {
		t.Fatal(err)
	}
	if content.Sender.Type != wire.MemberSender && format == wire.PublicMessageFormat {
		return wire.Marshal(&wire.Message{WireFormat: format, Public: &wire.PublicMessage{Content: *content, Signature: a.Signature, ConfirmationTag: a.ConfirmationTag}})
	}
	message, _, err := from.frame(a, SealOptions{Padding: int(m.Content.Epoch % 64)})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// forged is a commit with the proposals of m, made by a member that checks nothing
// and does everything else right, the confirmation tag included.
func (s *scene) forged(t *testing.T, m *wire.PublicMessage) []byte {
	from := s.others[int(m.Content.Sender.Index)%len(s.others)]
	m.Content.Sender = from.sender()
	s.resign(t, &m.Content, from.own)
	var list []proposal
	for _, p := range m.Content.Commit.Proposals {
		if p.Proposal == nil {
			if len(from.proposals) > 0 {
				list = append(list, from.proposals[len(p.Reference)%len(from.proposals)])
			}
			continue
		}
		if p.Proposal.Type == wire.RemoveProposal {
			p.Proposal.Remove %= from.tree.Size() // so that the forger can carry it out
		}
		if p.Proposal.Type == wire.AddProposal && from.suite.CheckPublicKey(p.Proposal.Add.Leaf.EncryptionKey) != nil {
			continue
		}
		list = append(list, proposal{sender: from.sender(), body: p.Proposal})
	}
	return from.forge(t, forgery{list: list, noPath: m.Content.Commit.Path == nil})
}

// The ways to send what the fuzzer made.
const (
	sendAsItIs = iota
	sendSigned
	sendSealed
	sendForged
	sendWays
)

// FuzzProcess sends a member of a group in various states what an outsider can
// make, what another member can sign, and what another member can carry out. A
// refused message has a typed error and changes nothing; a group that is entered
// has a valid tree, and is the same after saving and loading.
func FuzzProcess(f *testing.F) {
	scenes, messages := fuzzScenes(f)
	for i, message := range messages {
		for way := range uint8(sendWays) {
			f.Add(uint8(i/(len(messages)/len(scenes))), way, message)
		}
	}
	f.Fuzz(func(t *testing.T, number, way uint8, raw []byte) {
		s := scenes[int(number)%len(scenes)]
		message := raw
		var m wire.Message
		if way %= sendWays; way != sendAsItIs {
			if wire.Unmarshal(raw, &m) != nil || m.Public == nil {
				return
			}
			switch {
			case way == sendForged && m.Public.Content.Commit != nil:
				message = s.forged(t, m.Public)
			case way == sendSealed && m.Public.Content.Sender.Type == wire.MemberSender:
				message = s.signed(t, m.Public, wire.PrivateMessageFormat)
			default:
				message = s.signed(t, m.Public, wire.PublicMessageFormat)
			}
		}
		out, err := s.receiver.Process(message)
		if !bytes.Equal(s.before, save(t, s.receiver)) {
			t.Fatal("the group changed")
		}
		if err != nil {
			if out != nil || !isTyped(err) {
				t.Fatalf("refused with %v and %v", err, out)
			}
			return
		}
		state := save(t, out.Group)
		loaded, err := LoadGroup(state, LoadOptions{Now: testNow})
		if err != nil {
			t.Fatalf("the group after it does not load: %v", err)
		}
		if !bytes.Equal(state, save(t, loaded)) {
			t.Fatal("the group after it saves differently once loaded")
		}
		if err := out.Group.tree.Validate(out.Group.context.GroupID, out.Group.context.Extensions); err != nil {
			t.Fatalf("the group after it has an invalid tree: %v", err)
		}
		if out.Kind != Application {
			if _, err := out.Group.Process(message); err == nil && out.Kind == Commit {
				t.Fatal("a commit was taken twice")
			}
			return
		}
		if _, err := out.Group.Process(message); !errors.Is(err, ErrReplay) {
			t.Fatalf("a message was read twice: %v", err)
		}
	})
}

// names lists the members of the world in a fixed order.
func (w *world) names() []string { return slices.Sorted(maps.Keys(w.groups)) }
