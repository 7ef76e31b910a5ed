package mls

import (
	"bytes"
	"errors"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// serverWorld returns a group with two external senders, and their keys.
func serverWorld(t *testing.T, names ...string) (*world, []SignatureKey) {
	t.Helper()
	var keys []SignatureKey
	var senders []ExternalSender
	for _, name := range []string{"did:ex:server", "did:ex:admin"} {
		key, err := NewSignatureKey(testSuite)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		senders = append(senders, ExternalSender{Credential: []byte(name), SignatureKey: key.Public()})
	}
	w := newWorld(t, testSuite, names...)
	w.commit(names[0], CommitOptions{Changes: []Change{SetExtensions([]Extension{ExternalSenders(senders...)})}})
	return w, keys
}

func TestExternalProposals(t *testing.T) {
	w, keys := serverWorld(t, "ann", "bob", "cay")
	id, epoch := w.groups["ann"].ID(), w.groups["ann"].Epoch()
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	add := outsiderAdd(t, id, epoch, 0, keys[0], dan)
	remove, err := ExternalProposal(id, epoch, 1, keys[1], Remove(w.leafOf("cay")))
	if err != nil {
		t.Fatal(err)
	}
	resume, err := ExternalProposal(id, epoch, 0, keys[0], ResumptionPSK(epoch))
	if err != nil {
		t.Fatal(err)
	}
	for name := range w.groups {
		out := w.process(name, add)
		if out.Kind != Proposal || out.SenderKind != SentByExternalSender || string(out.Sender.Credential) != "did:ex:server" || out.Proposals[0].Type != AddProposal {
			t.Errorf("%s sees %+v", name, out)
		}
		if out = w.process(name, remove); out.Sender.Index != 1 || string(out.Proposals[0].Removed.Credential) != "did:ex:cay" {
			t.Errorf("%s sees %+v", name, out)
		}
	}
	w.reload()
	p := w.commit("bob", CommitOptions{})
	if len(p.Added()) != 1 || len(p.Removed()) != 1 || len(w.groups) != 2 {
		t.Errorf("added %v, removed %v", p.Added(), p.Removed())
	}
	if w.groups["dan"], err = Join(p.Welcome(), dan, JoinOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
	w.agree()
	w.refuses("ann", resume, ErrWrongEpoch)
	// Extensions and a reinitialization, each in its own epoch.
	extend, err := ExternalProposal(id, epoch+1, 0, keys[0], SetExtensions([]Extension{ExternalSenders(ExternalSender{SignatureKey: keys[0].Public()})}))
	if err != nil {
		t.Fatal(err)
	}
	for name := range w.groups {
		w.process(name, extend)
	}
	w.commit("dan", CommitOptions{})
	w.agree()
	if got := w.groups["ann"].ExternalSenders(); len(got) != 1 {
		t.Errorf("external senders %v", got)
	}
	gone, err := ExternalProposal(id, epoch+2, 1, keys[1], Remove(0))
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("ann", gone, ErrInvalidMessage)
	end, err := ExternalProposal(id, epoch+2, 0, keys[0], Reinit(ReInit{GroupID: []byte("next"), Suite: testSuite}))
	if err != nil {
		t.Fatal(err)
	}
	for name := range w.groups {
		w.process(name, end)
	}
	w.commit("bob", CommitOptions{})
	if r := w.groups["dan"].Reinitialized(); r == nil || string(r.GroupID) != "next" {
		t.Errorf("got %+v", r)
	}
}

// outsiderAdd makes the Add of an external sender without checking the lifetime.
func outsiderAdd(t *testing.T, id []byte, epoch uint64, index uint32, key SignatureKey, kp *KeyPackage) []byte {
	t.Helper()
	cipher, err := lookup(testSuite)
	if err != nil {
		t.Fatal(err)
	}
	m, err := outsiderMessage(cipher, key, id, epoch, wire.Sender{Type: wire.ExternalSender, Index: index}, addition(kp.public))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestHostileOutsiders(t *testing.T) {
	w, keys := serverWorld(t, "ann", "bob")
	id, epoch := w.groups["ann"].ID(), w.groups["ann"].Epoch()
	cipher := w.groups["ann"].suite
	server, joiner := wire.Sender{Type: wire.ExternalSender}, wire.Sender{Type: wire.NewMemberProposalSender}
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	spoilt := *dan.public
	spoilt.Signature = make([]byte, 64)
	own := *w.groups["bob"].tree.Leaf(w.leafOf("bob"))
	for _, test := range []struct {
		name   string
		key    SignatureKey
		id     []byte
		epoch  uint64
		sender wire.Sender
		body   *wire.Proposal
		want   error
	}{
		{"another group", keys[0], []byte("other"), epoch, server, removal(1), ErrWrongGroup},
		{"an epoch before", keys[0], id, epoch - 1, server, removal(1), ErrWrongEpoch},
		{"an epoch to come", keys[0], id, epoch + 1, server, removal(1), ErrWrongEpoch},
		{"the key of the other sender", keys[1], id, epoch, server, removal(1), ErrInvalidSignature},
		{"no such sender", keys[0], id, epoch, wire.Sender{Type: wire.ExternalSender, Index: 2}, removal(1), ErrInvalidMessage},
		{"a sender beyond all", keys[0], id, epoch, wire.Sender{Type: wire.ExternalSender, Index: 1<<32 - 1}, removal(1), ErrInvalidMessage},
		{"updates", keys[0], id, epoch, server, &wire.Proposal{Type: wire.UpdateProposal, Update: &own}, ErrInvalidProposal},
		{"external init", keys[0], id, epoch, server, &wire.Proposal{Type: wire.ExternalInitProposal}, ErrInvalidProposal},
		{"removes nobody", keys[0], id, epoch, server, removal(9), ErrInvalidProposal},
		{"a bad package", keys[0], id, epoch, server, addition(&spoilt), ErrInvalidSignature},
		{"a new member that removes", dan.key, id, epoch, joiner, removal(1), ErrInvalidProposal},
		{"a new member that adds another", keys[0], id, epoch, joiner, addition(dan.public), ErrInvalidSignature},
		{"a new member of another group", dan.key, []byte("other"), epoch, joiner, addition(dan.public), ErrWrongGroup},
		{"a new member of another epoch", dan.key, id, epoch + 1, joiner, addition(dan.public), ErrWrongEpoch},
	} {
		m, err := outsiderMessage(cipher, test.key, test.id, test.epoch, test.sender, test.body)
		if err != nil {
			t.Fatal(err)
		}
		w.refusesForgery("bob", test.name, m, test.want)
	}
	// A group without external senders.
	plain := newWorld(t, testSuite, "eve", "fay")
	plain.refusesForgery("fay", "no external senders", outsiderAdd(t, plain.groups["eve"].ID(), 1, 0, keys[0], dan), ErrInvalidMessage)
	// An outsider that commits, and one that seals.
	for _, sender := range []wire.Sender{server, joiner} {
		m := &wire.PublicMessage{Content: w.groups["ann"].content(nil)}
		m.Content.Sender, m.Content.ContentType, m.Content.Commit = sender, wire.CommitContent, &wire.Commit{}
		w.refuses("bob", wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: m}), ErrInvalidMessage)
	}
	for _, sender := range []wire.SenderType{wire.MemberSender, wire.ExternalSender, wire.NewMemberProposalSender, wire.NewMemberCommitSender} {
		m := &wire.PublicMessage{Content: w.groups["ann"].content(nil)}
		m.Content.Sender.Type, m.Content.ContentType, m.Content.Application = sender, wire.ApplicationContent, []byte("x")
		w.refuses("bob", wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: m}), ErrInvalidMessage)
	}
}

func TestNewMembersAskToBeAdded(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	ask, err := NewMemberProposal(w.groups["ann"].ID(), w.groups["ann"].Epoch(), dan)
	if err != nil {
		t.Fatal(err)
	}
	veto := errors.New("no strangers")
	w.groups["bob"].hook = func(c CredentialChange) error {
		if c.Kind != CredentialAdd || string(c.New.Credential) != "did:ex:dan" || c.Epoch != 2 {
			t.Errorf("the hook sees %+v", c)
		}
		return veto
	}
	w.refuses("bob", ask, veto)
	if _, _, err := w.groups["bob"].Seal(nil, nil, SealOptions{}); err != nil {
		t.Errorf("somebody unwelcome keeps bob from talking: %v", err)
	}
	w.groups["bob"].hook = nil
	for name := range w.groups {
		if out := w.process(name, ask); out.SenderKind != SentByNewMember || string(out.Sender.Credential) != "did:ex:dan" {
			t.Errorf("%s sees %+v", name, out)
		}
	}
	w.reload()
	p := w.commit("ann", CommitOptions{})
	if w.groups["dan"], err = Join(p.Welcome(), dan, JoinOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
	w.agree()
	w.refuses("bob", ask, ErrWrongEpoch)
}

func TestExternalProposalsThatCannotBeMade(t *testing.T) {
	key, err := NewSignatureKey(testSuite)
	if err != nil {
		t.Fatal(err)
	}
	expired := keyPackage(t, identity(t, testSuite, "dan"))
	for name, test := range map[string]struct {
		key    SignatureKey
		change Change
		want   error
	}{
		"an update":          {key, Update(nil), ErrInvalidProposal},
		"nothing":            {key, Change{}, ErrInvalidProposal},
		"an expired package": {key, Add(expired.Message()), ErrLifetime},
		"no key":             {SignatureKey{}, Remove(1), ErrUnsupportedSuite},
	} {
		if _, err := ExternalProposal([]byte("group"), 1, 0, test.key, test.change); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	m, err := ExternalProposal([]byte("group"), 1, 0, key, Remove(1))
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHeader(m)
	if err != nil || h.Epoch != 1 || !bytes.Equal(h.GroupID, []byte("group")) || h.Sender.Type != wire.ExternalSender || h.ContentType != wire.ProposalContent {
		t.Errorf("got %+v, %v", h, err)
	}
}
