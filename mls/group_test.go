package mls

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

func TestConversation(t *testing.T) {
	for _, s := range []Suite{X25519_AES128GCM_SHA256_Ed25519, P256_AES128GCM_SHA256_P256, X25519_CHACHA20POLY1305_SHA256_Ed25519} {
		w := newWorld(t, s, "ann", "bob", "cay")
		w.reads("bob", w.seal("ann", "hello"), "hello")
		hi := w.seal("bob", "hi")
		w.reads("ann", hi, "hi")
		w.reads("cay", hi, "hi")
		w.commit("bob", CommitOptions{}) // path only
		w.agree()
		w.add("cay", "dan")
		w.reload()
		p := w.commit("dan", CommitOptions{Remove: []uint32{w.groups["bob"].OwnLeaf().Index}, Public: true, AuthenticatedData: []byte("why")})
		if got := p.Removed(); len(got) != 1 || string(got[0].Credential) != "did:ex:bob" {
			t.Errorf("removed %v", got)
		}
		w.agree()
		if len(w.groups) != 3 {
			t.Errorf("%d members are left", len(w.groups))
		}
		w.reads("ann", w.seal("dan", "without bob"), "without bob")
		a, _ := w.groups["ann"].Export("label", []byte("context"), 40)
		d, err := w.groups["dan"].Export("label", []byte("context"), 40)
		if err != nil || len(a) != 40 || !bytes.Equal(a, d) {
			t.Errorf("exports %x and %x, %v", a, d, err)
		}
	}
}

func TestLeafExtensionsAreSeen(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	leaf := w.groups["ann"].Members()[1]
	if string(leaf.Credential) != "did:ex:bob" || len(leaf.Extensions) != 1 || string(leaf.Extensions[0].Data) != "certificate of bob" || !leaf.NotAfter.Equal(today.Add(time.Hour)) {
		t.Errorf("got %+v", leaf)
	}
	w.commit("bob", CommitOptions{})
	if leaf := w.groups["ann"].Members()[1]; string(leaf.Extensions[0].Data) != "certificate of bob" || !leaf.NotAfter.IsZero() {
		t.Errorf("after a path: got %+v", leaf)
	}
}

func TestRefusedCommitLeavesTheGroupUsable(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	p, err := w.groups["ann"].Commit(CommitOptions{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(p.Message(), &m); err != nil {
		t.Fatal(err)
	}
	m.Public.MembershipTag[0] ^= 1
	w.refuses("bob", wire.Marshal(&m), ErrInvalidTag)
	w.refuses("bob", w.hostile("ann", nil), ErrInvalidCommit)
	w.refuses("bob", w.hostile("ann", nil, &wire.Proposal{Type: wire.AddProposal, Add: keyPackage(t, identity(t, testSuite, "dan")).public}), ErrInvalidTag)
	w.echo("ann", p)
	w.agree()
	w.commit("bob", CommitOptions{})
	w.agree()
}

func TestLoserOfARaceProcessesTheWinner(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	lost, err := w.groups["bob"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["bob"] = lost.Base()
	w.commit("ann", CommitOptions{})
	w.agree()
	if _, err := lost.Apply(w.groups["bob"]); !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("a lost commit applies: %v", err)
	}
	w.refuses("cay", lost.Message(), ErrWrongEpoch)
	w.commit("bob", CommitOptions{})
	w.agree()
	w.reads("cay", w.seal("bob", "still here"), "still here")
}

func TestPendingCommitSurvivesARestart(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	p, err := w.groups["ann"].Commit(CommitOptions{Add: [][]byte{dan.Message()}, Remove: []uint32{1}})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["ann"] = p.Base()
	state, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	w.reload()
	loaded, err := LoadPendingCommit(state, LoadOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(loaded.Message(), p.Message()) || !bytes.Equal(loaded.Welcome(), p.Welcome()) || !bytes.Equal(loaded.GroupInfo(), p.GroupInfo()) ||
		loaded.Epoch() != 1 || len(loaded.Added()) != 1 || len(loaded.Removed()) != 1 || loaded.Base() != nil {
		t.Error("the loaded commit differs")
	}
	w.echo("ann", loaded)
	kp, err := dan.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if dan, err = LoadKeyPackage(kp); err != nil {
		t.Fatal(err)
	}
	if w.groups["dan"], err = Join(loaded.Welcome(), dan, JoinOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
	w.agree()
}

func TestApplyRemembersWhatWasOpened(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	p, err := w.groups["ann"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["ann"] = p.Base()
	opened, late := w.seal("bob", "opened"), w.seal("bob", "late")
	w.reads("ann", opened, "opened")
	w.echo("ann", p)
	w.refuses("ann", opened, ErrReplay)
	w.reads("ann", late, "late")
}

func TestUsedKeysAreGoneAfterLoading(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	var messages [][]byte
	for i := range 6 {
		messages = append(messages, w.seal("ann", fmt.Sprint(i)))
	}
	for _, i := range []int{3, 0, 5} {
		w.reads("bob", messages[i], fmt.Sprint(i))
		w.reload()
	}
	for _, i := range []int{3, 0, 5} {
		w.refuses("bob", messages[i], ErrReplay)
	}
	w.reads("bob", messages[4], "4")
	w.commit("cay", CommitOptions{})
	w.reload()
	w.reads("bob", messages[1], "1") // of the epoch before
	w.reload()
	w.refuses("bob", messages[1], ErrReplay)
	for range HistoryEpochs - 1 {
		w.commit("bob", CommitOptions{})
	}
	w.reload()
	w.reads("bob", messages[2], "2")
	w.reads("cay", messages[2], "2")
	w.commit("ann", CommitOptions{})
	w.refuses("cay", messages[4], ErrWrongEpoch)
}

func TestHandshakesAndApplicationMessagesDoNotMeet(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	for i := range 3 {
		w.reads("bob", w.seal("ann", fmt.Sprint(i)), fmt.Sprint(i))
	}
	w.reload()
	w.commit("ann", CommitOptions{})
	w.agree()
}

func TestSkippedAndDistantGenerations(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	var messages [][]byte
	for range schedule.JumpMax + 2 {
		messages = append(messages, w.seal("ann", "x"))
	}
	w.refuses("bob", messages[schedule.JumpMax+1], ErrTooFarAhead)
	w.reads("bob", messages[schedule.JumpMax], "x")
	w.reload()
	w.reads("bob", messages[schedule.JumpMax+1], "x")
	w.reads("bob", messages[0], "x")
	w.refuses("bob", messages[0], ErrReplay)
	if n := len(save(t, w.groups["bob"])); n > 64<<10 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestRefusedMessages(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	message := w.seal("ann", "hello")
	w.refuses("ann", message, ErrOwnMessage)
	w.refuses("bob", append(bytes.Clone(message), 0), ErrMalformed)
	w.refuses("bob", nil, ErrMalformed)
	w.refuses("bob", keyPackage(t, identity(t, testSuite, "dan")).Message(), ErrUnexpectedMessage)
	spoilt := bytes.Clone(message)
	spoilt[len(spoilt)-1] ^= 1
	w.refuses("bob", spoilt, ErrDecrypt)
	other := newWorld(t, testSuite, "eve", "fay")
	w.refuses("bob", other.seal("eve", "same id, other group"), ErrDecrypt)
	for _, g := range other.groups {
		g.context.GroupID = []byte("another")
	}
	w.refuses("bob", other.seal("eve", "other id"), ErrWrongGroup)
	p, err := w.groups["ann"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("ann", p.Message(), ErrOwnMessage)
	w.reads("bob", message, "hello")
	w.echo("ann", p)
	w.refuses("bob", p.Message(), ErrWrongEpoch)
}

func TestProposalsOfOthers(t *testing.T) {
	for _, format := range []wire.WireFormat{wire.PublicMessageFormat, wire.PrivateMessageFormat} {
		w := newWorld(t, testSuite, "ann", "bob", "cay")
		cay := w.groups["cay"].OwnLeaf().Index
		remove := w.propose("bob", &wire.Proposal{Type: wire.RemoveProposal, Remove: cay}, format)
		dan := keyPackage(t, identity(t, testSuite, "dan"))
		add := w.propose("bob", &wire.Proposal{Type: wire.AddProposal, Add: dan.public}, format)
		twice := w.propose("bob", &wire.Proposal{Type: wire.AddProposal, Add: dan.public}, format)
		for _, m := range [][]byte{remove, add, twice} {
			if w.process("ann", m).Kind != Proposal {
				t.Fatal("not a proposal")
			}
			w.process("cay", m)
		}
		if _, _, err := w.groups["ann"].Seal([]byte("x"), nil, SealOptions{}); !errors.Is(err, ErrProposalsPending) {
			t.Errorf("sealed over pending proposals: %v", err)
		}
		w.reload()
		p, err := w.groups["ann"].Commit(CommitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Added()) != 1 || len(p.Removed()) != 1 {
			t.Errorf("adds %v, removes %v", p.Added(), p.Removed())
		}
		w.refuses("bob", p.Message(), ErrUnknownProposal) // bob did not keep its own here
		delete(w.groups, "bob")
		w.echo("ann", p)
		if w.groups["dan"], err = Join(p.Welcome(), dan, JoinOptions{Now: testNow}); err != nil {
			t.Fatal(err)
		}
		w.reads("dan", w.seal("ann", "welcome"), "welcome")
	}
}

func TestOneBadProposalDoesNotStopCommits(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	again := *keyPackage(t, Identity{Credential: []byte("did:ex:cay"), Key: w.groups["cay"].key}).public
	m := w.propose("bob", &wire.Proposal{Type: wire.AddProposal, Add: &again}, wire.PublicMessageFormat)
	w.process("ann", m)
	w.process("cay", m)
	w.commit("ann", CommitOptions{})
	w.agree()
}

func TestHostileCommits(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	ann, bob := w.groups["ann"].OwnLeaf().Index, w.groups["bob"].OwnLeaf().Index
	dan := keyPackage(t, identity(t, testSuite, "dan")).public
	badLeaf, badPackage := *dan, *dan
	badLeaf.Leaf.Signature = bytes.Repeat([]byte{1}, 64)
	badPackage.Signature = bytes.Repeat([]byte{1}, 64)
	update := *w.groups["ann"].tree.Leaf(ann)
	update.Source = wire.UpdateLeaf
	add := func(k *wire.KeyPackage) *wire.Proposal { return &wire.Proposal{Type: wire.AddProposal, Add: k} }
	remove := func(i uint32) *wire.Proposal { return &wire.Proposal{Type: wire.RemoveProposal, Remove: i} }
	extensions := &wire.Proposal{Type: wire.GroupContextExtensionsProposal}
	tests := []struct {
		name string
		list []*wire.Proposal
		want error
	}{
		{"own update", []*wire.Proposal{{Type: wire.UpdateProposal, Update: &update}}, ErrInvalidLeaf},
		{"removes itself", []*wire.Proposal{remove(ann)}, ErrInvalidProposal},
		{"removes nobody", []*wire.Proposal{remove(77)}, ErrInvalidProposal},
		{"removes twice", []*wire.Proposal{remove(bob), remove(bob)}, ErrInvalidProposal},
		{"removes without a path", []*wire.Proposal{remove(bob)}, ErrInvalidCommit},
		{"adds twice", []*wire.Proposal{add(dan), add(dan)}, ErrInvalidProposal},
		{"two extension proposals", []*wire.Proposal{extensions, extensions}, ErrInvalidProposal},
		{"external init", []*wire.Proposal{{Type: wire.ExternalInitProposal}}, ErrInvalidProposal},
		{"reinit to an older version", []*wire.Proposal{{Type: wire.ReInitProposal, ReInit: &wire.ReInit{}}}, ErrInvalidProposal},
		{"unknown key", []*wire.Proposal{{Type: wire.PSKProposal, PSK: &wire.PreSharedKeyID{Kind: wire.ExternalPSK, Nonce: make([]byte, 32)}}}, ErrUnknownPSK},
		{"empty without a path", nil, ErrInvalidCommit},
		{"wrong confirmation", []*wire.Proposal{add(dan)}, ErrInvalidTag},
	}
	for _, test := range tests {
		t.Log(test.name)
		w.refuses("cay", w.hostile("ann", nil, test.list...), test.want)
	}
	w.refuses("cay", w.hostile("ann", func(c *wire.Commit) { c.Proposals = []wire.ProposalOrRef{{Reference: []byte("none")}} }), ErrUnknownProposal)
	w.refuses("cay", w.hostile("ann", func(c *wire.Commit) { c.Path = &wire.UpdatePath{Leaf: update} }), ErrInvalidLeaf)
	for name, p := range map[string]*wire.Proposal{"leaf": add(&badLeaf), "package": add(&badPackage)} {
		t.Log(name)
		w.refusesForgery("cay", "bad signature by value", w.groups["ann"].forge(t, forgery{list: w.byValue("ann", p)}), ErrInvalidSignature)
		w.refusesForgery("bob", "bad signature beside our removal", w.groups["ann"].forge(t, forgery{list: w.byValue("ann", p, remove(bob))}), ErrInvalidSignature)
		w.refuses("cay", w.propose("ann", p, wire.PrivateMessageFormat), ErrInvalidSignature)
	}
	w.commit("bob", CommitOptions{})
	w.agree()
}

func TestKeyPackagesToAdd(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	id := identity(t, testSuite, "dan")
	made := func(from, to time.Duration) []byte {
		kp, err := NewKeyPackage(testSuite, id, KeyPackageOptions{NotBefore: today.Add(from), NotAfter: today.Add(to), LastResort: true})
		if err != nil {
			t.Fatal(err)
		}
		return kp.Message()
	}
	good := made(-time.Hour, time.Hour)
	spoilt := bytes.Clone(good)
	spoilt[len(spoilt)-1] ^= 1
	for name, test := range map[string]struct {
		raw  []byte
		want error
	}{
		"expired":       {made(-2*time.Hour, -time.Hour), ErrLifetime},
		"not yet":       {made(time.Hour, 2*time.Hour), ErrLifetime},
		"signature":     {spoilt, ErrInvalidSignature},
		"trailing byte": {append(bytes.Clone(good), 0), ErrMalformed},
		"no package":    {w.seal("ann", "x"), ErrUnexpectedMessage},
		"other suite":   {keyPackage(t, identity(t, P256_AES128GCM_SHA256_P256, "dan")).Message(), ErrInvalidKeyPackage},
		"bob again":     {keyPackage(t, Identity{Credential: []byte("x"), Key: w.groups["bob"].key}).Message(), ErrInvalidProposal},
	} {
		if _, err := w.groups["ann"].Commit(CommitOptions{Add: [][]byte{test.raw}}); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := NewKeyPackage(testSuite, id, KeyPackageOptions{NotBefore: today, NotAfter: today.Add(2 * LifetimeMax)}); !errors.Is(err, ErrLifetime) {
		t.Errorf("a package for two years: %v", err)
	}
	for name, test := range map[string]struct {
		o        KeyPackageOptions
		from, to time.Time
	}{
		"zero":          {KeyPackageOptions{}, today.Add(-time.Hour), today.Add(-time.Hour).AddDate(0, 0, 90)},
		"from tomorrow": {KeyPackageOptions{NotBefore: today.AddDate(0, 0, 1)}, today.AddDate(0, 0, 1), today.AddDate(0, 0, 91)},
		"for a day":     {KeyPackageOptions{NotAfter: today.AddDate(0, 0, 1)}, today.Add(-time.Hour), today.AddDate(0, 0, 1)},
		"short groups":  {KeyPackageOptions{LifetimeMax: 2 * time.Hour}, today.Add(-time.Hour), today.Add(time.Hour)},
		"half an hour":  {KeyPackageOptions{LifetimeMax: 30 * time.Minute}, today.Add(-15 * time.Minute), today.Add(15 * time.Minute)},
		"unlimited":     {KeyPackageOptions{LifetimeMax: LifetimeUnlimited}, today.Add(-time.Hour), today.Add(-time.Hour).AddDate(0, 0, 90)},
		"the longest":   {KeyPackageOptions{NotAfter: today.Add(LifetimeMax)}, today, today.Add(LifetimeMax)},
	} {
		test.o.Now = func() time.Time { return today }
		kp, err := NewKeyPackage(testSuite, id, test.o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if from, to := kp.Lifetime(); !from.Equal(test.from) || !to.Equal(test.to) {
			t.Errorf("%s: from %v to %v", name, from, to)
		}
	}
	if _, err := NewKeyPackage(testSuite, id, KeyPackageOptions{NotAfter: today.AddDate(-30, 0, 0)}); !errors.Is(err, ErrLifetime) {
		t.Errorf("a package that has expired: %v", err)
	}
	if _, err := NewKeyPackage(99, id, KeyPackageOptions{}); !errors.Is(err, ErrUnsupported) || !errors.Is(err, ErrUnsupportedSuite) {
		t.Errorf("suite 99: %v", err)
	}
}

func TestHookVetoes(t *testing.T) {
	veto := errors.New("that is not bob")
	var seen []string
	hook := func(c CredentialChange) error {
		old := "-"
		if c.Old != nil {
			old = string(c.Old.Credential)
		}
		seen = append(seen, fmt.Sprint(c.Kind, " ", old, " ", string(c.New.Credential), " ", c.Epoch))
		if strings.Contains(string(c.New.Credential), "eve") {
			return veto
		}
		return nil
	}
	w := newWorld(t, testSuite, "ann", "bob")
	for _, g := range w.groups {
		g.hook = hook
	}
	eve := identity(t, testSuite, "eve")
	swap, err := w.groups["ann"].Commit(CommitOptions{NewIdentity: &eve})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", swap.Message(), ErrRefused)
	w.refuses("bob", swap.Message(), veto)
	_, err = w.groups["ann"].Commit(CommitOptions{Add: [][]byte{keyPackage(t, eve).Message()}})
	if !errors.Is(err, veto) {
		t.Errorf("adding eve: %v", err)
	}
	w.groups["ann"].hook = nil
	add, err := w.groups["ann"].Commit(CommitOptions{Add: [][]byte{keyPackage(t, eve).Message()}})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", add.Message(), veto)
	again := identity(t, testSuite, "ann")
	w.commit("ann", CommitOptions{NewIdentity: &again})
	w.agree()
	w.commit("ann", CommitOptions{})
	evil := newWorld(t, testSuite, "eve")
	bob := keyPackage(t, identity(t, testSuite, "bob"))
	p := evil.commit("eve", CommitOptions{Add: [][]byte{bob.Message()}})
	if _, err := Join(p.Welcome(), bob, JoinOptions{Hook: hook}); !errors.Is(err, veto) {
		t.Errorf("bob joins eve: %v", err)
	}
	want := []string{
		"3 did:ex:ann did:ex:eve 2", "3 did:ex:ann did:ex:eve 2",
		"1 - did:ex:eve 2", "1 - did:ex:eve 2", // and again, to find out what keeps the commit from being made
		"1 - did:ex:eve 2",
		"3 did:ex:ann did:ex:ann 2", "3 did:ex:ann did:ex:ann 3", "5 - did:ex:eve 1",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("the hook saw %q", seen)
	}
}

// A passive server has the GroupInfo, the tree and every message. If the first epoch secret were a
// constant, it could compute the epoch after a commit without a path.
func TestFirstEpochSecretIsRandom(t *testing.T) {
	w := newWorld(t, testSuite, "ann")
	zero := schedule.FromEpochSecret(w.groups["ann"].suite, make([]byte, 32))
	if bytes.Equal(zero.Init, w.groups["ann"].epoch.Init) {
		t.Error("the epoch secret is zero")
	}
	seen := map[string]bool{}
	for range 8 {
		seen[string(newWorld(t, testSuite, "ann").groups["ann"].epoch.Init)] = true
	}
	if len(seen) != 8 {
		t.Error("two groups have the same secret")
	}
	next := w.commit("ann", CommitOptions{Add: [][]byte{keyPackage(t, identity(t, testSuite, "bob")).Message()}}).Group()
	for _, init := range [][]byte{make([]byte, 32), nil, zero.Init} {
		joiner := schedule.Joiner(next.suite, init, make([]byte, suite.HashBytes), &next.context)
		if bytes.Equal(schedule.FromJoiner(next.suite, joiner, schedule.NoPSK(), &next.context).Init, next.epoch.Init) {
			t.Error("epoch 1 follows from public values")
		}
	}
}

func TestRemovedMember(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	late := w.seal("cay", "late")
	bob := w.groups["bob"]
	p, err := w.groups["ann"].Commit(CommitOptions{Remove: []uint32{bob.OwnLeaf().Index}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := bob.Process(p.Message())
	if err != nil || !out.SelfRemoved || out.Kind != Commit || len(out.Removed) != 1 || !out.Group.Removed() {
		t.Fatalf("got %+v, %v", out, err)
	}
	w.groups["bob"] = out.Group
	w.reload()
	w.reads("bob", late, "late")
	if _, _, err := w.groups["bob"].Seal(nil, nil, SealOptions{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("bob seals: %v", err)
	}
	if _, err := w.groups["bob"].Commit(CommitOptions{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("bob commits: %v", err)
	}
	w.refuses("bob", p.Message(), ErrRemoved)
	delete(w.groups, "bob")
	w.echo("ann", p)
	w.agree()
	w.add("cay", "bob") // again, with a new package
}

func TestPreSharedKeys(t *testing.T) {
	source := func(id []byte) ([]byte, error) {
		if string(id) != "known" {
			return nil, errors.New("no such key")
		}
		return []byte("secret"), nil
	}
	w := newWorld(t, testSuite, "ann", "bob")
	for _, g := range w.groups {
		g.psk = source
	}
	if _, err := w.groups["ann"].Commit(CommitOptions{PSK: [][]byte{[]byte("other")}}); !errors.Is(err, ErrUnknownPSK) {
		t.Errorf("an unknown key: %v", err)
	}
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	p := w.commit("ann", CommitOptions{PSK: [][]byte{[]byte("known")}, Add: [][]byte{dan.Message()}})
	if _, err := Join(p.Welcome(), dan, JoinOptions{}); !errors.Is(err, ErrUnknownPSK) {
		t.Errorf("joined without the key: %v", err)
	}
	g, err := Join(p.Welcome(), dan, JoinOptions{PSK: source})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["dan"] = g
	w.agree()
}

func TestWelcomes(t *testing.T) {
	w := newWorld(t, testSuite, "ann")
	bob, eve := keyPackage(t, identity(t, testSuite, "bob")), keyPackage(t, identity(t, testSuite, "eve"))
	welcome := w.commit("ann", CommitOptions{Add: [][]byte{bob.Message()}}).Welcome()
	if _, err := Join(welcome, eve, JoinOptions{}); !errors.Is(err, ErrNotForUs) {
		t.Errorf("eve joins: %v", err)
	}
	if _, err := Join(append(bytes.Clone(welcome), 0), bob, JoinOptions{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("trailing byte: %v", err)
	}
	for at := range welcome {
		spoilt := bytes.Clone(welcome)
		spoilt[at] ^= 1
		if _, err := Join(spoilt, bob, JoinOptions{}); err == nil {
			t.Fatalf("joined although byte %d was changed", at)
		}
	}
	if _, err := Join(bob.Message(), bob, JoinOptions{}); !errors.Is(err, ErrUnexpectedMessage) {
		t.Errorf("a key package as welcome: %v", err)
	}
}

// TestRandomOperations lets members do what they like, restart at will, and checks
// that they agree after every commit.
func TestRandomOperations(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, testSuite, "m0")
	count := 1
	someone := func() string {
		var names []string
		for name := range w.groups {
			names = append(names, name)
		}
		slices.Sort(names)
		return names[r.IntN(len(names))]
	}
	for range 40 {
		who := someone()
		switch op := r.IntN(10); {
		case op < 4 && len(w.groups) < 8:
			var names []string
			for range 1 + r.IntN(3) {
				names = append(names, fmt.Sprintf("m%d", count))
				count++
			}
			w.add(who, names...)
		case op < 6 && len(w.groups) > 2:
			if gone := someone(); gone != who {
				w.commit(who, CommitOptions{Remove: []uint32{w.groups[gone].OwnLeaf().Index}, Public: r.IntN(2) == 0})
			}
		case op < 8:
			w.commit(who, CommitOptions{Public: r.IntN(2) == 0})
		default:
			message := w.seal(who, "text")
			for name := range w.groups {
				if name != who {
					w.reads(name, message, "text")
				}
			}
		}
		if r.IntN(4) == 0 {
			w.reload()
		}
		w.agree()
	}
}
