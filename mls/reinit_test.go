package mls

import (
	"bytes"
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// ended returns a world with a group that was reinitialized to continue in r.
func ended(t *testing.T, r ReInit, names ...string) *world {
	t.Helper()
	w := newWorld(t, testSuite, names...)
	w.commit(names[0], CommitOptions{Changes: []Change{Reinit(r)}})
	return w
}

// newcomers makes packages of suite s for the others in names, with new keys.
func (w *world) newcomers(s Suite, names ...string) (map[string]*KeyPackage, [][]byte) {
	packages, list := map[string]*KeyPackage{}, [][]byte{}
	for _, name := range names {
		id := identity(w.t, s, name)
		id.Supports = []uint16{0xf00d}
		packages[name] = keyPackage(w.t, id)
		list = append(list, packages[name].Message())
	}
	return packages, list
}

func TestReinitialization(t *testing.T) {
	r := ReInit{GroupID: []byte("next"), Suite: P256_AES128GCM_SHA256_P256, Extensions: []Extension{{Type: 0xf00d, Data: []byte("x")}}}
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	late := w.seal("cay", "late")
	w.proposes("bob", Reinit(r), ProposeOptions{})
	p, err := w.groups["ann"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p.GroupInfo() != nil {
		t.Error("a group that ended can be joined")
	}
	state, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if p, err = LoadPendingCommit(state, LoadOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bob", "cay"} {
		if out := w.process(name, p.Message()); out.ReInit == nil || string(out.ReInit.GroupID) != "next" || out.ReInit.Suite != r.Suite {
			t.Errorf("%s sees %+v", name, out)
		}
	}
	if w.groups["ann"], err = p.Apply(w.groups["ann"]); err != nil {
		t.Fatal(err)
	}
	w.reload()
	for name, g := range w.groups {
		if got := g.Reinitialized(); got == nil || len(got.Extensions) != 1 {
			t.Errorf("%s: got %+v", name, got)
		}
		_, _, sealing := g.Seal(nil, nil, SealOptions{})
		_, committing := g.Commit(CommitOptions{})
		_, _, proposing := g.Propose(Update(nil), ProposeOptions{})
		_, describing := g.GroupInfo()
		for _, err := range []error{sealing, committing, proposing, describing} {
			if !errors.Is(err, ErrReinitialized) {
				t.Errorf("%s goes on: %v", name, err)
			}
		}
	}
	w.reads("bob", late, "late")
	// Another than the one that committed founds the new group.
	packages, list := w.newcomers(r.Suite, "ann", "bob")
	cay := identity(t, r.Suite, "cay")
	cay.Supports = []uint16{0xf00d}
	found, err := w.groups["cay"].Successor(cay, list, GroupOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	next := &world{t: t, groups: map[string]*Group{}}
	if next.groups["cay"], err = found.Apply(found.Base()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ann", "bob"} {
		if _, err := Join(found.Welcome(), packages[name], JoinOptions{}); !errors.Is(err, ErrUnknownPSK) {
			t.Errorf("%s joins without the old group: %v", name, err)
		}
		if next.groups[name], err = Join(found.Welcome(), packages[name], JoinOptions{Resume: w.groups[name], Now: testNow}); err != nil {
			t.Fatal(err)
		}
	}
	next.agree()
	if g := next.groups["ann"]; string(g.ID()) != "next" || g.Suite() != r.Suite || g.Epoch() != 1 || len(g.Extensions()) != 1 {
		t.Errorf("got %s, suite %d, epoch %d", g.ID(), g.Suite(), g.Epoch())
	}
	next.reload()
	next.commit("bob", CommitOptions{})
	next.reads("ann", next.seal("cay", "here we are"), "here we are")
}

// After a reinitialization all messages in the old group are refused.
func TestEndedGroupRefusesMessages(t *testing.T) {
	w := ended(t, ReInit{GroupID: []byte("next"), Suite: testSuite}, "ann", "bob")
	ann := w.groups["ann"].clone()
	ann.reInit = nil // who does not care
	text, _, err := ann.Seal([]byte("x"), nil, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", text, ErrReinitialized)
	for _, public := range []bool{false, true} {
		p, err := ann.Commit(CommitOptions{Public: public})
		if err != nil {
			t.Fatal(err)
		}
		w.refuses("bob", p.Message(), ErrReinitialized)
		m, _, err := ann.Propose(Update(nil), ProposeOptions{Public: public})
		if err != nil {
			t.Fatal(err)
		}
		w.refuses("bob", m, ErrReinitialized)
	}
	info, err := ann.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	p, err := JoinExternal(info, identity(t, testSuite, "eve"), ExternalJoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", p.Message(), ErrReinitialized)
}

func TestReinitializationIsAlone(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	r := ReInit{GroupID: []byte("next"), Suite: testSuite}
	if _, err := w.groups["ann"].Commit(CommitOptions{Changes: []Change{Reinit(r), Remove(1)}}); !errors.Is(err, ErrInvalidProposal) {
		t.Errorf("with a removal: %v", err)
	}
	body := &wire.Proposal{Type: wire.ReInitProposal, ReInit: &wire.ReInit{Version: 1, CipherSuite: 1}}
	for name, other := range map[string]*wire.Proposal{"a removal": removal(1), "another": body, "an extension": extending()} {
		w.refusesForgery("cay", "with "+name, w.groups["ann"].forge(t, forgery{list: w.byValue("ann", body, other)}), ErrInvalidProposal)
	}
	// Others are preferred, and the reinitialization can be proposed again.
	w.proposes("bob", Reinit(r), ProposeOptions{})
	w.proposes("bob", Update(nil), ProposeOptions{})
	w.commit("ann", CommitOptions{})
	if w.groups["bob"].Reinitialized() != nil {
		t.Error("the group ended")
	}
	w.proposes("bob", Reinit(r), ProposeOptions{})
	p := w.commit("ann", CommitOptions{OmitPath: true})
	if w.groups["cay"].Reinitialized() == nil || p.Group().Reinitialized() == nil {
		t.Error("the group did not end")
	}
}

// foundBadly founds a continuation of g that checks nothing.
func foundBadly(t *testing.T, g *Group, s Suite, groupID string, usage uint8, extensions []Extension, id Identity, list [][]byte, again bool) []byte {
	t.Helper()
	id.Supports = []uint16{0xf00d}
	next, err := NewGroup(s, []byte(groupID), id, GroupOptions{Now: testNow, Extensions: extensions})
	if err != nil {
		t.Fatal(err)
	}
	if again { // one epoch too late
		p, err := next.Commit(CommitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		next = p.Group()
	}
	next.source, next.usage = g, usage
	p, err := next.Commit(CommitOptions{Add: list, Changes: []Change{ResumptionPSK(g.Epoch())}})
	if err != nil {
		t.Fatal(err)
	}
	return p.Welcome()
}

func TestBadSuccessors(t *testing.T) {
	const p256 = P256_AES128GCM_SHA256_P256
	x := []Extension{{Type: 0xf00d, Data: []byte("x")}}
	w := ended(t, ReInit{GroupID: []byte("next"), Suite: testSuite, Extensions: x}, "ann", "bob", "cay")
	going := newWorld(t, testSuite, "ann", "bob", "cay")
	for _, test := range []struct {
		name   string
		of     *world
		suite  Suite
		id     string
		usage  uint8
		ext    []Extension
		others []string
		again  bool
		want   error
	}{
		{"as agreed", w, testSuite, "next", wire.ReInitUsage, x, []string{"bob", "cay"}, false, nil},
		{"somebody more", w, testSuite, "next", wire.ReInitUsage, x, []string{"bob", "cay", "dan"}, false, nil},
		{"another id", w, testSuite, "other", wire.ReInitUsage, x, []string{"bob", "cay"}, false, ErrInvalidSuccessor},
		{"another suite", w, p256, "next", wire.ReInitUsage, x, []string{"bob", "cay"}, false, ErrInvalidSuccessor},
		{"no extensions", w, testSuite, "next", wire.ReInitUsage, nil, []string{"bob", "cay"}, false, ErrInvalidSuccessor},
		{"other extensions", w, testSuite, "next", wire.ReInitUsage, []Extension{{Type: 0xf00d, Data: []byte("y")}}, []string{"bob", "cay"}, false, ErrInvalidSuccessor},
		{"somebody missing", w, testSuite, "next", wire.ReInitUsage, x, []string{"bob"}, false, ErrInvalidSuccessor},
		{"a later epoch", w, testSuite, "next", wire.ReInitUsage, x, []string{"bob", "cay"}, true, ErrInvalidSuccessor},
		{"a group that goes on", going, testSuite, "next", wire.ReInitUsage, x, []string{"bob", "cay"}, false, ErrInvalidSuccessor},
		{"a branch", going, testSuite, "side", wire.BranchUsage, nil, []string{"bob"}, false, nil},
		{"a branch with a stranger", going, testSuite, "side", wire.BranchUsage, nil, []string{"bob", "dan"}, false, ErrInvalidSuccessor},
		{"a branch with somebody twice", going, testSuite, "side", wire.BranchUsage, nil, []string{"bob", "bob2"}, false, ErrInvalidSuccessor},
		{"a branch of another suite", going, p256, "side", wire.BranchUsage, nil, []string{"bob"}, false, ErrInvalidSuccessor},
		{"a branch in a later epoch", going, testSuite, "side", wire.BranchUsage, nil, []string{"bob"}, true, ErrInvalidSuccessor},
	} {
		packages, list := w.newcomers(test.suite, test.others...)
		if p := packages["bob2"]; p != nil {
			id := identity(t, test.suite, "bob")
			id.Supports = []uint16{0xf00d}
			packages["bob2"] = keyPackage(t, id)
			list[1] = packages["bob2"].Message()
		}
		welcome := foundBadly(t, test.of.groups["ann"], test.suite, test.id, test.usage, test.ext, identity(t, test.suite, "ann"), list, test.again)
		_, err := Join(welcome, packages["bob"], JoinOptions{Resume: test.of.groups["bob"], Now: testNow})
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
}

func TestBranch(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	packages, list := w.newcomers(testSuite, "bob")
	found, err := w.groups["ann"].Branch([]byte("side"), identity(t, testSuite, "ann"), list, GroupOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	w.commit("cay", CommitOptions{}) // the group goes on meanwhile
	bob, err := Join(found.Welcome(), packages["bob"], JoinOptions{Resume: w.groups["bob"], Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bob.EpochAuthenticator(), found.Group().EpochAuthenticator()) || len(bob.Members()) != 2 {
		t.Error("the branch is not one")
	}
	_, list = w.newcomers(testSuite, "dan")
	if _, err := w.groups["ann"].Branch([]byte("side"), identity(t, testSuite, "ann"), list, GroupOptions{Now: testNow}); !errors.Is(err, ErrInvalidSuccessor) {
		t.Errorf("a branch with a stranger: %v", err)
	}
	if _, err := w.groups["ann"].Successor(identity(t, testSuite, "ann"), nil, GroupOptions{}); !errors.Is(err, ErrInvalidSuccessor) {
		t.Errorf("a successor of a group that goes on: %v", err)
	}
	// An application that compares members by its own rule.
	packages, list = w.newcomers(testSuite, "bob's tablet")
	welcome := foundBadly(t, w.groups["ann"], testSuite, "side", wire.BranchUsage, nil, identity(t, testSuite, "ann"), list, false)
	o := JoinOptions{Resume: w.groups["bob"], Now: testNow}
	if _, err := Join(welcome, packages["bob's tablet"], o); !errors.Is(err, ErrInvalidSuccessor) {
		t.Errorf("a stranger's branch: %v", err)
	}
	o.SameMember = func(was, is Leaf) bool { return bytes.HasPrefix(is.Credential, was.Credential) }
	if _, err := Join(welcome, packages["bob's tablet"], o); err != nil {
		t.Error(err)
	}
}

// The keys of successors and branches are for nothing else.
func TestKeysOfBranchesStayThere(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	for _, usage := range []uint8{wire.ReInitUsage, wire.BranchUsage} {
		psk := pskOf(&wire.PreSharedKeyID{Kind: wire.ResumptionPSK, Usage: usage, GroupID: w.groups["ann"].ID(), Epoch: 1, Nonce: make([]byte, 32)})
		w.refusesForgery("bob", "by value", w.groups["ann"].forge(t, forgery{list: w.byValue("ann", psk)}), ErrInvalidProposal)
		w.refuses("bob", w.propose("ann", psk, wire.PublicMessageFormat), ErrInvalidProposal)
	}
}

func TestWelcomeThatContinuesTwoGroups(t *testing.T) {
	id := wire.PreSharedKeyID{Kind: wire.ResumptionPSK, Usage: wire.BranchUsage}
	if _, err := continuedUsage(&Group{}, []wire.PreSharedKeyID{id, {Kind: wire.ExternalPSK}, id}); !errors.Is(err, ErrInvalidWelcome) {
		t.Errorf("got %v", err)
	}
}
