package mls

import (
	"bytes"
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// proposes makes a proposal of who, which all members process.
func (w *world) proposes(who string, c Change, o ProposeOptions) ProposalInfo {
	w.t.Helper()
	message, next, err := w.groups[who].Propose(c, o)
	if err != nil {
		w.t.Fatalf("%s proposes: %v", who, err)
	}
	w.groups[who] = next
	list := next.PendingProposals()
	info := list[len(list)-1]
	for name := range w.groups {
		if name == who {
			w.refuses(name, message, ErrOwnMessage)
			continue
		}
		out := w.process(name, message)
		if out.Kind != Proposal || len(out.Proposals) != 1 || !bytes.Equal(out.Proposals[0].Ref, info.Ref) || out.Proposals[0].Type != info.Type ||
			out.SenderKind != SentByMember || out.Sender.Index != w.leafOf(who) {
			w.t.Fatalf("%s sees %+v", name, out)
		}
	}
	return info
}

func TestProposalsByReference(t *testing.T) {
	source := func(id []byte) ([]byte, error) { return []byte("secret"), nil }
	for _, public := range []bool{false, true} {
		w := newWorld(t, testSuite, "ann", "bob", "cay", "dan")
		for _, g := range w.groups {
			g.psk = source
		}
		o := ProposeOptions{Public: public, AuthenticatedData: []byte("why")}
		bobKey := w.groups["bob"].OwnLeaf().EncryptionKey
		newDan := identity(t, testSuite, "dan")
		eve := keyPackage(t, identity(t, testSuite, "eve"))
		if got := w.proposes("bob", Update(nil), o); got.Type != UpdateProposal || got.Leaf == nil {
			t.Errorf("got %+v", got)
		}
		w.proposes("dan", Update(&newDan), o)
		if got := w.proposes("bob", Remove(w.leafOf("cay")), o); got.Removed == nil || string(got.Removed.Credential) != "did:ex:cay" {
			t.Errorf("got %+v", got)
		}
		w.proposes("cay", Add(eve.Message()), o)
		w.proposes("dan", ExternalPSK([]byte("id")), o)
		w.proposes("ann", ResumptionPSK(w.groups["ann"].Epoch()), o)
		w.proposes("ann", SetExtensions([]Extension{ExternalSenders(ExternalSender{Credential: []byte("server"), SignatureKey: newDan.Key.Public()})}), o)
		for _, g := range w.groups {
			if g.Proposals() != 7 {
				t.Errorf("%d proposals wait", g.Proposals())
			}
		}
		if _, _, err := w.groups["bob"].Seal(nil, nil, SealOptions{}); !errors.Is(err, ErrProposalsPending) {
			t.Errorf("sealed: %v", err)
		}
		w.reload()
		for _, g := range w.groups {
			g.psk = source
		}
		p := w.commit("ann", CommitOptions{Public: public})
		delete(w.groups, "cay")
		g, err := Join(p.Welcome(), eve, JoinOptions{Now: testNow, PSK: func(id []byte) ([]byte, error) { return source(id) }})
		if !errors.Is(err, ErrUnknownPSK) {
			t.Errorf("eve has a key of an epoch that it was not in: %v", err)
		}
		if g != nil {
			t.Error("and a group")
		}
		for _, name := range []string{"ann", "bob", "dan"} {
			g := w.groups[name]
			if g.Proposals() != 0 || len(g.ExternalSenders()) != 1 || string(g.ExternalSenders()[0].Credential) != "server" || len(g.Members()) != 4 {
				t.Errorf("%s: %d proposals, %v", name, g.Proposals(), g.ExternalSenders())
			}
		}
		if bytes.Equal(bobKey, w.groups["bob"].OwnLeaf().EncryptionKey) || !bytes.Equal(w.groups["dan"].OwnLeaf().SignatureKey, newDan.Key.Public()) {
			t.Error("the updates were not made")
		}
		w.reload()
		w.reads("bob", w.seal("dan", "with the new key"), "with the new key")
		w.commit("dan", CommitOptions{})
		w.commit("bob", CommitOptions{})
	}
}

// A committer of its own Update brings fresh keys anyway.
func TestOwnUpdateIsNotCommitted(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	w.proposes("ann", Update(nil), ProposeOptions{})
	if p := w.commit("ann", CommitOptions{}); len(p.Removed()) != 0 {
		t.Errorf("got %+v", p)
	}
	w.agree()
	if _, err := w.groups["ann"].Commit(CommitOptions{Changes: []Change{Update(nil)}}); !errors.Is(err, ErrInvalidProposal) {
		t.Errorf("an update by value: %v", err)
	}
}

// An Update by reference, committed by another member, while more of the tree
// changes around it.
func TestUpdatesMeetOtherChanges(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan", "eve")
	for name := range w.groups {
		w.commit(name, CommitOptions{})
	}
	w.proposes("bob", Update(nil), ProposeOptions{})
	second := w.proposes("bob", Update(nil), ProposeOptions{})
	w.proposes("eve", Update(nil), ProposeOptions{Public: true})
	w.proposes("ann", Remove(w.leafOf("eve")), ProposeOptions{})
	p := w.commit("dan", CommitOptions{Changes: []Change{Remove(w.leafOf("cay"))}})
	if len(p.Removed()) != 2 || len(w.groups) != 3 {
		t.Errorf("removed %v", p.Removed())
	}
	if !bytes.Equal(w.groups["bob"].OwnLeaf().EncryptionKey, second.Leaf.EncryptionKey) {
		t.Error("the older of two updates was committed")
	}
	w.reload()
	for name := range w.groups {
		w.commit(name, CommitOptions{})
		w.agree()
	}
}

func TestProposalsThatNobodyElseHas(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	_, next, err := w.groups["ann"].Propose(Remove(w.leafOf("cay")), ProposeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	lost, err := next.Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", lost.Message(), ErrUnknownProposal)
	w.groups["ann"] = lost.Base().WithoutProposal(next.PendingProposals()[0].Ref)
	w.commit("ann", CommitOptions{})
	w.agree()
	if w.groups["ann"].Proposals() != 0 || len(w.groups) != 3 {
		t.Error("the proposal was committed")
	}
}

// A proposal that cannot be committed prevents neither commits nor other proposals.
func TestBadProposalsAmongGoodOnes(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	unwelcome := errors.New("not welcome")
	w.groups["ann"].hook = func(c CredentialChange) error {
		if string(c.New.Credential) == "did:ex:eve" {
			return unwelcome
		}
		return nil
	}
	dan, eve := keyPackage(t, identity(t, testSuite, "dan")), keyPackage(t, identity(t, testSuite, "eve"))
	w.proposes("bob", Add(eve.Message()), ProposeOptions{})
	w.proposes("bob", Add(dan.Message()), ProposeOptions{})
	w.proposes("bob", ExternalPSK([]byte("nobody has it")), ProposeOptions{})
	w.proposes("bob", Update(nil), ProposeOptions{})
	w.proposes("bob", SetExtensions([]Extension{{Type: 0xbeef}}), ProposeOptions{})
	bob := w.groups["bob"].PendingProposals()[3].Leaf
	p := w.commit("ann", CommitOptions{Changes: []Change{Remove(w.leafOf("cay"))}})
	if len(p.Added()) != 1 || string(p.Added()[0].Credential) != "did:ex:dan" || len(p.Removed()) != 1 {
		t.Errorf("added %v, removed %v", p.Added(), p.Removed())
	}
	if !bytes.Equal(w.groups["ann"].Members()[1].EncryptionKey, bob.EncryptionKey) {
		t.Error("bob's update was not committed")
	}
	// What we want ourselves and cannot have is an error all the same.
	w.proposes("bob", Update(nil), ProposeOptions{})
	if _, err := w.groups["ann"].Commit(CommitOptions{Add: [][]byte{eve.Message()}}); !errors.Is(err, unwelcome) {
		t.Errorf("got %v", err)
	}
}

func TestSkippedProposals(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	w.proposes("bob", Remove(w.leafOf("cay")), ProposeOptions{})
	w.proposes("cay", Update(nil), ProposeOptions{})
	p := w.commit("ann", CommitOptions{Skip: func(i ProposalInfo) bool { return i.Type == RemoveProposal }})
	if len(p.Removed()) != 0 || len(w.groups) != 3 {
		t.Error("the removal was committed")
	}
	w.agree()
}

func TestChangesByValue(t *testing.T) {
	source := func(id []byte) ([]byte, error) { return []byte("secret"), nil }
	for _, public := range []bool{false, true} {
		w := newWorld(t, testSuite, "ann", "bob", "cay")
		for _, g := range w.groups {
			g.psk = source
		}
		dan := keyPackage(t, identity(t, testSuite, "dan"))
		p := w.commit("ann", CommitOptions{Public: public, Changes: []Change{
			Add(dan.Message()), Remove(w.leafOf("cay")), ExternalPSK([]byte("id")), SetExtensions(nil),
		}})
		g, err := Join(p.Welcome(), dan, JoinOptions{Now: testNow, PSK: source})
		if err != nil {
			t.Fatal(err)
		}
		w.groups["dan"] = g
		w.agree()
		w.commit("bob", CommitOptions{Changes: []Change{ResumptionPSK(2), ResumptionPSK(1)}, Remove: []uint32{w.leafOf("dan")}})
		w.agree()
	}
}

// Resumption keys of epochs before the history are deleted.
func TestResumptionHistoryIsBounded(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	for range HistoryEpochs {
		w.commit("bob", CommitOptions{})
	}
	if _, err := w.groups["ann"].Commit(CommitOptions{Changes: []Change{ResumptionPSK(1)}}); err != nil {
		t.Errorf("a key of %d epochs ago: %v", HistoryEpochs, err)
	}
	w.commit("bob", CommitOptions{})
	w.reload()
	for _, epoch := range []uint64{0, 1, 100} {
		if _, err := w.groups["ann"].Commit(CommitOptions{Changes: []Change{ResumptionPSK(epoch)}}); !errors.Is(err, ErrUnknownPSK) {
			t.Errorf("a key of epoch %d: %v", epoch, err)
		}
	}
}

// Without a path no keys change: allowed where only additions are made.
func TestCommitsWithoutAPath(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	before := w.groups["ann"].OwnLeaf()
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	p := w.commit("ann", CommitOptions{OmitPath: true, Public: true, Add: [][]byte{dan.Message()}})
	var m wire.Message
	if err := wire.Unmarshal(p.Message(), &m); err != nil || m.Public.Content.Commit.Path != nil {
		t.Errorf("there is a path, %v", err)
	}
	g, err := Join(p.Welcome(), dan, JoinOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["dan"] = g
	w.agree()
	if !bytes.Equal(before.EncryptionKey, w.groups["dan"].Members()[0].EncryptionKey) {
		t.Error("the committer's key changed")
	}
	w.reload()
	for _, name := range []string{"dan", "bob"} {
		w.commit(name, CommitOptions{})
		w.agree()
	}
	w.proposes("bob", Update(nil), ProposeOptions{})
	w.commit("ann", CommitOptions{OmitPath: true}) // needs one all the same
	w.agree()
}

func TestTreeOutOfBand(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	p := w.commit("ann", CommitOptions{Add: [][]byte{dan.Message()}, TreeOutOfBand: true})
	if _, err := Join(p.Welcome(), dan, JoinOptions{}); !errors.Is(err, ErrInvalidWelcome) {
		t.Errorf("joined without a tree: %v", err)
	}
	other := newWorld(t, testSuite, "eve").groups["eve"].RatchetTree()
	if _, err := Join(p.Welcome(), dan, JoinOptions{RatchetTree: other}); !errors.Is(err, ErrInvalidTree) {
		t.Errorf("joined with another tree: %v", err)
	}
	g, err := Join(p.Welcome(), dan, JoinOptions{RatchetTree: w.groups["bob"].RatchetTree(), Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["dan"] = g
	w.agree()
	tree := g.RatchetTree()
	w.join("eve", identity(t, testSuite, "eve"), p.GroupInfo(), ExternalJoinOptions{RatchetTree: tree})
	info, err := g.GroupInfoWith(GroupInfoOptions{WithoutExternalPub: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := JoinExternal(info, identity(t, testSuite, "fay"), ExternalJoinOptions{}); !errors.Is(err, ErrInvalidGroupInfo) {
		t.Errorf("joined without an external key: %v", err)
	}
}

func TestProposalsThatCannotBe(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	ann := w.groups["ann"]
	wrong := identity(t, P256_AES128GCM_SHA256_P256, "ann")
	for name, test := range map[string]struct {
		change Change
		want   error
	}{
		"nothing":             {Change{}, ErrInvalidProposal},
		"removes nobody":      {Remove(9), ErrInvalidProposal},
		"adds rubbish":        {Add([]byte("rubbish")), ErrMalformed},
		"adds a message":      {Add(w.groupInfo("bob")), ErrUnexpectedMessage},
		"another suite":       {Update(&wrong), ErrInvalidKey},
		"an extension twice":  {SetExtensions([]Extension{{Type: 9}, {Type: 9}}), ErrInvalidProposal},
		"bad external sender": {SetExtensions([]Extension{{Type: wire.ExternalSendersExtension, Data: []byte{9}}}), ErrInvalidProposal},
		"bad requirements":    {SetExtensions([]Extension{{Type: wire.RequiredCapabilitiesExtension}}), ErrInvalidProposal},
		"reinit with a twin":  {Reinit(ReInit{Suite: testSuite, Extensions: []Extension{{Type: 9}, {Type: 9}}}), ErrInvalidProposal},
	} {
		if _, _, err := ann.Propose(test.change, ProposeOptions{}); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if name == "another suite" {
			continue
		}
		if _, err := ann.Commit(CommitOptions{Changes: []Change{test.change}}); !errors.Is(err, test.want) {
			t.Errorf("%s by value: got %v", name, err)
		}
	}
}

func TestOwnUpdateSurvivesARestart(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	w.proposes("ann", Update(nil), ProposeOptions{})
	state := save(t, w.groups["ann"])
	loaded, err := LoadGroup(state, LoadOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(state, save(t, loaded)) {
		t.Error("the state changed")
	}
	pair := w.groups["ann"].proposals[0].own.pair
	if !bytes.Contains(state, pair.Private) {
		t.Fatal("the update's key is not saved")
	}
	old := w.groups["ann"].keys[2*w.leafOf("ann")].Private
	w.groups["ann"] = loaded
	w.commit("bob", CommitOptions{})
	w.agree()
	state = save(t, w.groups["ann"])
	if bytes.Contains(state, old) {
		t.Error("the key that the update replaced is still there")
	}
	w.proposes("ann", Update(nil), ProposeOptions{})
	unused := w.groups["ann"].proposals[0].own.pair.Private
	w.commit("ann", CommitOptions{})
	if bytes.Contains(save(t, w.groups["ann"]), unused) {
		t.Error("the key of an update that was not committed is still there")
	}
}
