package mls

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// join lets id join by external commit, with all members following.
func (w *world) join(name string, id Identity, groupInfo []byte, o ExternalJoinOptions) *PendingCommit {
	w.t.Helper()
	o.Now = testNow
	p, err := JoinExternal(groupInfo, id, o)
	if err != nil {
		w.t.Fatalf("%s joins: %v", name, err)
	}
	for other := range w.groups {
		if other == name {
			continue
		}
		out := w.process(other, p.Message())
		if out.Kind != Commit || out.SenderKind != SentByJoiner || len(out.Added) != 1 || string(out.Added[0].Credential) != string(id.Credential) || out.Added[0].Index != out.Sender.Index {
			w.t.Fatalf("%s sees %+v", other, out)
		}
	}
	if w.groups[name], err = p.Apply(nil); err != nil {
		w.t.Fatal(err)
	}
	w.agree()
	return p
}

func TestExternalJoin(t *testing.T) {
	for _, s := range []Suite{X25519_AES128GCM_SHA256_Ed25519, P256_AES128GCM_SHA256_P256, X25519_CHACHA20POLY1305_SHA256_Ed25519} {
		w := newWorld(t, s, "ann", "bob", "cay")
		p := w.join("dan", identity(t, s, "dan"), w.groupInfo("bob"), ExternalJoinOptions{AuthenticatedData: []byte("hello")})
		if !p.IsExternal() || p.Base() != nil || p.Epoch() != 1 || len(p.Removed()) != 0 {
			t.Errorf("got %+v", p)
		}
		text := w.seal("dan", "hello")
		for _, name := range []string{"ann", "bob", "cay"} {
			w.reads(name, text, "hello")
		}
		w.reads("dan", w.seal("ann", "hi"), "hi")
		w.reload()
		w.commit("ann", CommitOptions{})
		w.commit("dan", CommitOptions{Remove: []uint32{w.leafOf("ann")}})
		w.agree()
		w.add("dan", "eve")
		// The tree again, from the GroupInfo of a commit.
		info, err := w.groups["cay"].GroupInfoWith(GroupInfoOptions{WithoutTree: true})
		if err != nil {
			t.Fatal(err)
		}
		fay := identity(t, s, "fay")
		if _, err := JoinExternal(info, fay, ExternalJoinOptions{}); !errors.Is(err, ErrInvalidGroupInfo) {
			t.Errorf("joined without a tree: %v", err)
		}
		w.join("fay", fay, info, ExternalJoinOptions{RatchetTree: w.groups["eve"].RatchetTree()})
		w.reload()
		w.commit("fay", CommitOptions{})
		w.agree()
	}
}

// The first member to come after the founder, and a tree that must grow.
func TestExternalJoinGrowsTheTree(t *testing.T) {
	w := newWorld(t, testSuite, "m0")
	for i := 1; i < 10; i++ {
		name := fmt.Sprint("m", i)
		w.join(name, identity(t, testSuite, name), w.groupInfo(fmt.Sprint("m", i-1)), ExternalJoinOptions{})
		if i%3 == 0 {
			w.commit(fmt.Sprint("m", i-2), CommitOptions{Remove: []uint32{w.leafOf(fmt.Sprint("m", i-1))}})
			w.add("m0", fmt.Sprint("m", i-1))
		}
	}
	for name := range w.groups {
		w.commit(name, CommitOptions{})
		w.agree()
	}
}

func TestPendingExternalCommitSurvivesARestart(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	p, err := JoinExternal(w.groupInfo("ann"), identity(t, testSuite, "dan"), ExternalJoinOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadPendingCommit(state, LoadOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := loaded.MarshalBinary(); err != nil || !bytes.Equal(again, state) {
		t.Errorf("the state changed, %v", err)
	}
	if !loaded.IsExternal() || loaded.Epoch() != 1 || !bytes.Equal(loaded.Message(), p.Message()) || !bytes.Equal(loaded.GroupInfo(), p.GroupInfo()) {
		t.Error("the loaded commit differs")
	}
	for _, name := range []string{"ann", "bob"} {
		w.process(name, loaded.Message())
	}
	if w.groups["dan"], err = loaded.Apply(nil); err != nil {
		t.Fatal(err)
	}
	w.agree()
	w.join("eve", identity(t, testSuite, "eve"), loaded.GroupInfo(), ExternalJoinOptions{})
}

// A joiner that loses the race starts again from a newer GroupInfo.
func TestExternalJoinLosesARace(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	info, dan := w.groupInfo("ann"), identity(t, testSuite, "dan")
	lost, err := JoinExternal(info, dan, ExternalJoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.commit("bob", CommitOptions{})
	w.refuses("ann", lost.Message(), ErrWrongEpoch)
	w.join("dan", dan, w.groupInfo("ann"), ExternalJoinOptions{})
	// A member with a pending commit processes that of a joiner.
	mine, err := w.groups["ann"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["ann"] = mine.Base()
	w.join("eve", identity(t, testSuite, "eve"), w.groupInfo("bob"), ExternalJoinOptions{})
	if _, err := mine.Apply(w.groups["ann"]); !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("the loser applies: %v", err)
	}
}

func TestResync(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	late := w.seal("ann", "to the old bob")
	old := w.groups["bob"]
	sameKey := Identity{Credential: []byte("did:ex:bob"), Key: old.key}
	if _, err := JoinExternal(w.groupInfo("ann"), sameKey, ExternalJoinOptions{}); !errors.Is(err, ErrInvalidTree) {
		t.Errorf("joined twice with one key: %v", err)
	}
	p := w.join("bob", sameKey, w.groupInfo("ann"), ExternalJoinOptions{Resync: true})
	if got := p.Removed(); len(got) != 1 || got[0].Index != old.own {
		t.Errorf("removed %v", got)
	}
	// What is left of the old bob notices, and still opens what was sent to it.
	out, err := old.Process(p.Message())
	if err != nil || !out.SelfRemoved {
		t.Fatalf("got %+v, %v", out, err)
	}
	if out, err = out.Group.Process(late); err != nil || string(out.Plaintext) != "to the old bob" {
		t.Errorf("got %+v, %v", out, err)
	}
	// With a new key, the only leaf with the same credential is the old one.
	w.join("bob", identity(t, testSuite, "bob"), w.groupInfo("cay"), ExternalJoinOptions{Resync: true})
	// No leaf to replace: a plain join.
	w.join("dan", identity(t, testSuite, "dan"), w.groupInfo("cay"), ExternalJoinOptions{Resync: true})
	// Two leaves of one account: the application selects the old one.
	w.join("dan2", identity(t, testSuite, "dan"), w.groupInfo("cay"), ExternalJoinOptions{})
	if _, err := JoinExternal(w.groupInfo("ann"), identity(t, testSuite, "dan"), ExternalJoinOptions{Resync: true}); !errors.Is(err, ErrInvalidCommit) {
		t.Errorf("replaced one of two: %v", err)
	}
	second := w.leafOf("dan2")
	w.join("dan2", identity(t, testSuite, "dan"), w.groupInfo("cay"), ExternalJoinOptions{Resync: true, IsOld: func(l Leaf) bool { return l.Index == second }})
	w.commit("dan2", CommitOptions{})
	w.agree()
}

func TestExternalJoinWithPreSharedKeys(t *testing.T) {
	source := func(id []byte) ([]byte, error) { return append([]byte("secret of "), id...), nil }
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	for _, g := range w.groups {
		g.psk = source
	}
	stale := w.groups["cay"]
	delete(w.groups, "cay")
	w.commit("ann", CommitOptions{})
	// cay lost its state's future, but can show that it was in epoch 1.
	id := Identity{Credential: []byte("did:ex:cay"), Key: stale.key}
	o := ExternalJoinOptions{PSK: source, PSKs: [][]byte{[]byte("known")}, Resume: stale, Resync: true}
	w.join("cay", id, w.groupInfo("ann"), o)
	// A member without the key does not follow, and is as before.
	w.groups["bob"].psk = nil
	o.Resume, o.Now = w.groups["cay"], testNow
	p, err := JoinExternal(w.groupInfo("ann"), id, o)
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", p.Message(), ErrUnknownPSK)
	other := newWorld(t, testSuite, "eve").groups["eve"]
	other.context.GroupID = []byte("another")
	if _, err := JoinExternal(w.groupInfo("ann"), id, ExternalJoinOptions{Resume: other}); !errors.Is(err, ErrWrongGroup) {
		t.Errorf("resumed another group: %v", err)
	}
	if _, err := JoinExternal(w.groupInfo("ann"), id, ExternalJoinOptions{Resync: true, PSKs: [][]byte{[]byte("x")}}); !errors.Is(err, ErrUnknownPSK) {
		t.Errorf("joined with a key it does not have: %v", err)
	}
}

// resigned changes a GroupInfo as its signer might.
func resigned(t *testing.T, g *Group, spoil func(*wire.GroupInfo)) []byte {
	t.Helper()
	info, err := g.groupInfo(GroupInfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spoil(info)
	if info.Signature, err = g.suite.SignWithLabel(g.key.private, "GroupInfoTBS", info.SignedContent()); err != nil {
		t.Fatal(err)
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: info})
}

// withExternalPub replaces the data of external_pub.
func withExternalPub(data func(key []byte) []byte) func(*wire.GroupInfo) {
	return func(info *wire.GroupInfo) {
		for i := range info.Extensions {
			if e := &info.Extensions[i]; e.Type == wire.ExternalPubExtension {
				var public wire.ExternalPub
				if err := wire.Unmarshal(e.Data, &public); err != nil {
					panic(err)
				}
				e.Data = data(public.Key)
			}
		}
	}
}

func TestGroupInfosOfOthers(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	ann := w.groups["ann"]
	id := identity(t, testSuite, "dan")
	for _, test := range []struct {
		name  string
		spoil func(*wire.GroupInfo)
		want  error
	}{
		{"no external key", func(i *wire.GroupInfo) { i.Extensions = i.Extensions[1:] }, ErrInvalidGroupInfo},
		{"an empty external key", withExternalPub(func([]byte) []byte { return nil }), ErrInvalidGroupInfo},
		{"a short external key", withExternalPub(func(k []byte) []byte { return k[1:] }), ErrInvalidGroupInfo},
		{"an external key of no bytes", withExternalPub(func([]byte) []byte { return []byte{0} }), ErrInvalidKey},
		{"two external keys", func(i *wire.GroupInfo) { i.Extensions = append(i.Extensions, i.Extensions[0]) }, ErrInvalidGroupInfo},
		{"unknown extensions", func(i *wire.GroupInfo) { i.Extensions = append(i.Extensions, wire.Extension{Type: 0x1a1a}) }, nil},
		{"a signer that is not there", func(i *wire.GroupInfo) { i.Signer = 7 }, ErrInvalidGroupInfo},
		{"another signer", func(i *wire.GroupInfo) { i.Signer = w.leafOf("bob") }, ErrInvalidSignature},
		{"another tree hash", func(i *wire.GroupInfo) { i.Context.TreeHash = make([]byte, 32) }, ErrInvalidTree},
		{"another suite", func(i *wire.GroupInfo) { i.Context.CipherSuite = 3 }, ErrInvalidKey},
		{"a suite that is not there", func(i *wire.GroupInfo) { i.Context.CipherSuite = 99 }, ErrUnsupportedSuite},
		{"another version", func(i *wire.GroupInfo) { i.Context.Version = 2 }, ErrInvalidGroupInfo},
		{"an extension that dan does not support", func(i *wire.GroupInfo) { i.Context.Extensions = []wire.Extension{{Type: 0xf00d}} }, ErrInvalidLeaf},
		{"an extension twice", func(i *wire.GroupInfo) {
			i.Context.Extensions = []wire.Extension{{Type: 5, Data: []byte{0}}, {Type: 5, Data: []byte{0}}}
		}, ErrInvalidGroupInfo},
	} {
		if _, err := JoinExternal(resigned(t, ann, test.spoil), id, ExternalJoinOptions{}); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	info := w.groupInfo("ann")
	info[len(info)-1] ^= 1
	if _, err := JoinExternal(info, id, ExternalJoinOptions{}); !errors.Is(err, ErrInvalidSignature) {
		t.Errorf("a spoilt signature: %v", err)
	}
	if _, err := JoinExternal(w.seal("ann", "x"), id, ExternalJoinOptions{}); !errors.Is(err, ErrUnexpectedMessage) {
		t.Errorf("a message as group info: %v", err)
	}
	if _, err := JoinExternal(append(w.groupInfo("ann"), 0), id, ExternalJoinOptions{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a trailing byte: %v", err)
	}
	// As ts-mls writes it.
	bare := resigned(t, ann, withExternalPub(bytes.Clone))
	w.join("dan", id, bare, ExternalJoinOptions{})
}

func TestHookSeesExternalCommits(t *testing.T) {
	veto := errors.New("not welcome")
	var seen []string
	var refused error
	hook := func(c CredentialChange) error {
		old := "-"
		if c.Old != nil {
			old = string(c.Old.SignatureKey[:4])
		}
		seen = append(seen, fmt.Sprintf("%d %x %s %d", c.Kind, old, c.New.Credential, c.Epoch))
		return refused
	}
	w := newWorld(t, testSuite, "ann", "bob")
	w.groups["ann"].hook = hook
	first := identity(t, testSuite, "dan")
	w.join("dan", first, w.groupInfo("bob"), ExternalJoinOptions{})
	w.join("dan", identity(t, testSuite, "dan"), w.groupInfo("bob"), ExternalJoinOptions{Resync: true})
	want := []string{fmt.Sprintf("4 %x did:ex:dan 2", "-"), fmt.Sprintf("4 %x did:ex:dan 3", first.Key.public[:4])}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("the hook saw %q, want %q", seen, want)
	}
	refused = veto
	p, err := JoinExternal(w.groupInfo("bob"), identity(t, testSuite, "dan"), ExternalJoinOptions{Resync: true})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("ann", p.Message(), veto)
	// The hook of a joiner can refuse a member.
	if _, err := JoinExternal(w.groupInfo("bob"), identity(t, testSuite, "eve"), ExternalJoinOptions{Hook: hook}); !errors.Is(err, veto) {
		t.Errorf("joined strangers: %v", err)
	}
}

// External commits of a joiner that signs anything.
func TestHostileExternalCommits(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	info, eve := w.groupInfo("ann"), identity(t, testSuite, "eve")
	ann, bob := w.leafOf("ann"), w.leafOf("bob")
	sender := wire.Sender{Type: wire.NewMemberCommitSender}
	from := func(list ...*wire.Proposal) []proposal {
		var out []proposal
		for _, p := range list {
			out = append(out, proposal{sender: sender, body: p})
		}
		return out
	}
	dan := keyPackage(t, identity(t, testSuite, "dan")).public
	asBob := identity(t, testSuite, "bob")
	oldKey := func(n *wire.UpdatePath) { n.Leaf.EncryptionKey = w.groups["bob"].tree.Leaf(bob).EncryptionKey }
	for _, test := range []struct {
		name string
		id   Identity
		f    forgery
		want error
	}{
		{"evicts a member", eve, forgery{list: from(removal(bob))}, ErrInvalidCommit},
		{"evicts whoever reads it", eve, forgery{list: from(removal(w.leafOf("cay")))}, ErrInvalidCommit},
		{"evicts itself and another", asBob, forgery{list: from(removal(bob), removal(ann))}, ErrInvalidProposal},
		{"evicts nobody", eve, forgery{list: from(removal(99))}, ErrInvalidProposal},
		{"evicts itself with the old key", asBob, forgery{list: from(removal(bob)), path: oldKey}, ErrInvalidLeaf},
		{"adds", eve, forgery{list: from(addition(dan))}, ErrInvalidProposal},
		{"updates", eve, forgery{list: from(&wire.Proposal{Type: wire.UpdateProposal, Update: w.groups["ann"].tree.Leaf(ann)})}, ErrInvalidProposal},
		{"extends", eve, forgery{list: from(extending())}, ErrInvalidProposal},
		{"reinitializes", eve, forgery{list: from(&wire.Proposal{Type: wire.ReInitProposal, ReInit: &wire.ReInit{Version: 1}})}, ErrInvalidProposal},
		{"two external inits", eve, forgery{list: from(&wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: []byte("x")})}, ErrInvalidProposal},
		{"no external init", eve, forgery{commit: func(c *wire.Commit) { c.Proposals = nil }}, ErrInvalidProposal},
		{"an external init of nothing", eve, forgery{commit: func(c *wire.Commit) { c.Proposals[0].Proposal.ExternalInit = nil }}, ErrDecrypt},
		{"another external init", eve, forgery{init: make([]byte, 32)}, ErrInvalidTag},
		{"a key that nobody has", eve, forgery{list: from(pskOf(&wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: []byte("x"), Nonce: make([]byte, 32)}))}, ErrUnknownPSK},
		{"a branch's key", eve, forgery{list: from(pskOf(&wire.PreSharedKeyID{Kind: wire.ResumptionPSK, Usage: wire.BranchUsage, Nonce: make([]byte, 32)}))}, ErrInvalidProposal},
		{"by reference", eve, forgery{commit: func(c *wire.Commit) { c.Proposals = append(c.Proposals, wire.ProposalOrRef{Reference: []byte("x")}) }}, ErrInvalidCommit},
		{"no path", eve, forgery{noPath: true}, ErrInvalidCommit},
		{"signed by another key", eve, forgery{key: &asBob.Key}, ErrInvalidSignature},
		{"a leaf from a key package", eve, forgery{source: wire.KeyPackageLeaf}, ErrInvalidLeaf},
		{"a leaf of an update", eve, forgery{source: wire.UpdateLeaf}, ErrInvalidLeaf},
		{"a leaf with a bad signature", eve, forgery{path: func(p *wire.UpdatePath) { p.Leaf.Signature = make([]byte, 64) }}, ErrInvalidSignature},
		{"a leaf without the suite", eve, forgery{leaf: func(n *wire.LeafNode) { n.Capabilities.CipherSuites = []uint16{2} }}, ErrInvalidLeaf},
		{"the key of a member", Identity{Credential: []byte("did:ex:eve"), Key: w.groups["bob"].key}, forgery{}, ErrInvalidTree},
		{"a path that is too short", eve, forgery{path: func(p *wire.UpdatePath) { p.Nodes = p.Nodes[1:] }}, ErrInvalidTree},
		{"a path with an old key", eve, forgery{path: func(p *wire.UpdatePath) { p.Nodes[0].EncryptionKey = w.groups["ann"].tree.Leaf(ann).EncryptionKey }}, ErrInvalidTree},
		{"another group", eve, forgery{frame: func(a *wire.AuthenticatedContent) { a.Content.GroupID = []byte("other") }}, ErrWrongGroup},
		{"another epoch", eve, forgery{frame: func(a *wire.AuthenticatedContent) { a.Content.Epoch = 0 }}, ErrWrongEpoch},
		{"a proposal by a joiner", eve, forgery{frame: func(a *wire.AuthenticatedContent) {
			a.Content.ContentType, a.Content.Proposal = wire.ProposalContent, addition(dan)
		}}, ErrInvalidMessage},
	} {
		w.refusesForgery("cay", test.name, forgeJoin(t, info, test.id, test.f), test.want)
	}
	// A hook that accepts everything still cannot be talked into an eviction.
	w.groups["cay"].hook = func(CredentialChange) error { return nil }
	w.refusesForgery("cay", "evicts in front of a trusting hook", forgeJoin(t, info, eve, forgery{list: from(removal(bob))}), ErrInvalidCommit)
	// A member cannot commit as a joiner does.
	w.refusesForgery("cay", "a member with an external init", w.groups["ann"].forge(t, forgery{list: w.byValue("ann", &wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: []byte("x")})}), ErrInvalidProposal)
	w.join("eve", eve, info, ExternalJoinOptions{})
}

// An external commit is public and names the proposals in it; its bytes cannot be
// changed by their carrier.
func TestExternalCommitsCannotBeChanged(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	p, err := JoinExternal(w.groupInfo("ann"), identity(t, testSuite, "dan"), ExternalJoinOptions{AuthenticatedData: []byte("for the server")})
	if err != nil {
		t.Fatal(err)
	}
	message := p.Message()
	for at := range message {
		spoilt := bytes.Clone(message)
		spoilt[at] ^= 1
		if _, err := w.groups["bob"].Process(spoilt); err == nil {
			t.Fatalf("byte %d can be changed", at)
		}
	}
	w.process("bob", message)
}
