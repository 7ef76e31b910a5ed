package mls

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/wire"
)

// resignedPackage changes a package as its owner might.
func resignedPackage(t *testing.T, k *KeyPackage, spoil func(*wire.KeyPackage)) *wire.KeyPackage {
	t.Helper()
	p := *k.public
	spoil(&p)
	if err := leaf.Sign(k.suite, k.key.private, &p.Leaf, nil, 0); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.Signature, err = k.suite.SignWithLabel(k.key.private, "KeyPackageTBS", p.SignedContent()); err != nil {
		t.Fatal(err)
	}
	return &p
}

func x509() wire.Credential {
	return wire.Credential{Type: wire.X509Credential, Certificates: [][]byte{[]byte("certificate")}}
}

// Packages that their owner signed, in an Add by value and by reference.
// RFC 9420, sections 7.3, 10.1 and 12.2.
func TestHostileKeyPackages(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	bob := w.groups["bob"]
	key := bob.tree.Leaf(bob.own).EncryptionKey
	for _, test := range []struct {
		name  string
		spoil func(*wire.KeyPackage)
		want  error
		byRef bool // refused as soon as it is proposed
	}{
		{"as it was", func(*wire.KeyPackage) {}, nil, false},
		{"another version", func(k *wire.KeyPackage) { k.Version = 2 }, ErrInvalidKeyPackage, true},
		{"another suite", func(k *wire.KeyPackage) { k.CipherSuite = 3 }, ErrInvalidKeyPackage, true},
		{"one key twice", func(k *wire.KeyPackage) { k.InitKey = k.Leaf.EncryptionKey }, ErrInvalidKeyPackage, true},
		{"no init key", func(k *wire.KeyPackage) { k.InitKey = nil }, ErrInvalidKey, true},
		{"a leaf of an update", func(k *wire.KeyPackage) { k.Leaf.Source = wire.UpdateLeaf }, ErrInvalidKeyPackage, true},
		{"a lifetime that ends first", func(k *wire.KeyPackage) { k.Leaf.NotAfter = k.Leaf.NotBefore }, ErrInvalidLeaf, true},
		{"an extension twice", func(k *wire.KeyPackage) { k.Extensions = []wire.Extension{{Type: 9}, {Type: 9}} }, ErrInvalidKeyPackage, true},
		{"a leaf extension twice", func(k *wire.KeyPackage) { k.Leaf.Extensions = append(k.Leaf.Extensions, k.Leaf.Extensions[0]) }, ErrInvalidLeaf, true},
		{"an extension it does not list", func(k *wire.KeyPackage) { k.Leaf.Extensions = []wire.Extension{{Type: 0xf00d}} }, ErrInvalidLeaf, true},
		{"a credential it does not list", func(k *wire.KeyPackage) { k.Leaf.Credential = x509() }, ErrInvalidLeaf, true},
		{"a suite it does not list", func(k *wire.KeyPackage) { k.Leaf.Capabilities.CipherSuites = []uint16{3} }, ErrInvalidLeaf, true},
		{"a version it does not list", func(k *wire.KeyPackage) { k.Leaf.Capabilities.Versions = []uint16{2} }, ErrInvalidLeaf, true},
		{"a credential that others do not list", func(k *wire.KeyPackage) {
			k.Leaf.Credential, k.Leaf.Capabilities.Credentials = x509(), []uint16{wire.BasicCredential, wire.X509Credential}
		}, ErrInvalidLeaf, false},
		{"without the credential that others have", func(k *wire.KeyPackage) {
			k.Leaf.Credential, k.Leaf.Capabilities.Credentials = x509(), []uint16{wire.X509Credential}
		}, ErrInvalidLeaf, false},
		{"the encryption key of a member", func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = key }, ErrInvalidTree, false},
		{"unknown values", func(k *wire.KeyPackage) {
			c := &k.Leaf.Capabilities
			c.Versions, c.CipherSuites = append(c.Versions, 0x0a0a, 77), append(c.CipherSuites, 0x1a1a, 77)
			c.Extensions, c.Proposals, c.Credentials = append(c.Extensions, 0x2a2a), append(c.Proposals, 0x3a3a), append(c.Credentials, 0x4a4a)
			k.Leaf.Extensions = append(k.Leaf.Extensions, wire.Extension{Type: 0x2a2a, Data: []byte("x")})
			k.Extensions = append(k.Extensions, wire.Extension{Type: 0x5a5a})
		}, nil, false},
		{"an application id", func(k *wire.KeyPackage) {
			id := ApplicationID([]byte("device 7"))
			k.Leaf.Extensions = append(k.Leaf.Extensions, wire.Extension{Type: id.Type, Data: id.Data})
		}, nil, false},
	} {
		pack := resignedPackage(t, keyPackage(t, identity(t, testSuite, "dan")), test.spoil)
		message := w.groups["ann"].forge(t, forgery{list: w.byValue("ann", addition(pack))})
		w.refusesOrTakes("bob", test.name+", by value", message, test.want)
		proposed := w.propose("ann", addition(pack), wire.PublicMessageFormat)
		if test.byRef {
			w.refusesForgery("bob", test.name+", by reference", proposed, test.want)
			continue
		}
		one := &world{t: t, groups: map[string]*Group{"bob": w.groups["bob"], "ann": w.groups["ann"]}}
		one.process("bob", proposed)
		p := one.groups["bob"].proposals[len(one.groups["bob"].proposals)-1]
		one.refusesOrTakes("bob", test.name+", by reference", w.groups["ann"].forge(t, forgery{list: []proposal{p}}), test.want)
	}
}

// refusesOrTakes is refusesForgery, or for no error the opposite; the group stays.
func (w *world) refusesOrTakes(name, test string, message []byte, want error) {
	w.t.Helper()
	if want != nil {
		w.refusesForgery(name, test, message, want)
	} else if _, err := w.groups[name].Process(message); err != nil {
		w.t.Errorf("%s: %v", test, err)
	}
}

// Lists that break a rule as a whole, by value and by reference.
// RFC 9420, section 12.2.
func TestHostileLists(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan")
	ann, bob, cay := w.leafOf("ann"), w.leafOf("bob"), w.leafOf("cay")
	eve := keyPackage(t, identity(t, testSuite, "eve")).public
	twin := resignedPackage(t, keyPackage(t, Identity{Credential: []byte("did:ex:eve2"), Key: identity(t, testSuite, "x").Key}), func(*wire.KeyPackage) {})
	twin.Leaf.SignatureKey = eve.Leaf.SignatureKey // refused before its signature is looked at, or after
	again := keyPackage(t, Identity{Credential: []byte("did:ex:bob"), Key: w.groups["bob"].key}).public
	update := func(name string) *wire.Proposal {
		body, _, err := w.groups[name].update(nil)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	of := func(name string, body *wire.Proposal) proposal {
		return proposal{sender: w.groups[name].sender(), body: body}
	}
	psk := pskOf(&wire.PreSharedKeyID{Kind: wire.ResumptionPSK, Usage: wire.ApplicationUsage, GroupID: w.groups["ann"].ID(), Epoch: 1, Nonce: make([]byte, 32)})
	short := pskOf(&wire.PreSharedKeyID{Kind: wire.ExternalPSK, Nonce: make([]byte, 31)})
	needs := wire.Extension{Type: wire.RequiredCapabilitiesExtension, Data: wire.Marshal(&wire.RequiredCapabilities{Proposals: []uint16{99}})}
	for _, test := range []struct {
		name    string
		list    []proposal // by reference; what is ann's also by value
		byValue bool
		want    error
	}{
		{"nothing wrong", []proposal{of("ann", removal(bob)), of("ann", addition(eve))}, true, nil},
		{"adds who is removed", []proposal{of("ann", addition(again)), of("ann", removal(bob))}, true, nil},
		{"adds who is there", []proposal{of("ann", addition(again))}, true, ErrInvalidProposal},
		{"adds who is there and updates", []proposal{of("bob", update("bob")), of("ann", addition(again))}, false, ErrInvalidProposal},
		{"adds twice", []proposal{of("ann", addition(eve)), of("ann", addition(eve))}, true, ErrInvalidProposal},
		{"updates itself", []proposal{of("ann", update("ann"))}, true, ErrInvalidProposal},
		{"updates twice", []proposal{of("bob", update("bob")), of("bob", update("bob"))}, false, ErrInvalidProposal},
		{"updates and removes", []proposal{of("bob", update("bob")), of("cay", removal(bob))}, false, ErrInvalidProposal},
		{"removes twice", []proposal{of("cay", removal(bob)), of("ann", removal(bob))}, false, ErrInvalidProposal},
		{"removes itself", []proposal{of("ann", removal(ann))}, true, ErrInvalidProposal},
		{"removes itself by another's wish", []proposal{of("bob", removal(ann))}, false, ErrInvalidProposal},
		{"one key twice", []proposal{of("ann", psk), of("ann", psk)}, true, ErrInvalidProposal},
		{"two lists of extensions", []proposal{of("ann", extending()), of("bob", extending())}, false, ErrInvalidProposal},
		{"an extension nobody supports", []proposal{of("ann", extending(wire.Extension{Type: 0xbeef}))}, true, ErrInvalidLeaf},
		{"an extension that means nothing", []proposal{of("ann", extending(wire.Extension{Type: 0x1a1a}))}, true, ErrInvalidLeaf},
		{"requirements nobody meets", []proposal{of("ann", extending(needs))}, true, ErrInvalidLeaf},
	} {
		var byRef []proposal
		one := &world{t: t, groups: map[string]*Group{"dan": w.groups["dan"]}}
		for i, p := range test.list {
			for _, sender := range []string{"ann", "bob", "cay"} {
				if w.leafOf(sender) != p.sender.Index {
					continue
				}
				one.groups[sender] = w.groups[sender]
				one.process("dan", one.propose(sender, p.body, wire.PublicMessageFormat))
				w.groups[sender] = one.groups[sender]
			}
			kept := one.groups["dan"].proposals
			byRef = append(byRef, kept[min(i, len(kept)-1)])
		}
		one.refusesOrTakes("dan", test.name+", by reference", w.groups["ann"].forge(t, forgery{list: byRef}), test.want)
		if test.byValue {
			w.refusesOrTakes("dan", test.name+", by value", w.groups["ann"].forge(t, forgery{list: test.list}), test.want)
		}
	}
	w.refusesForgery("dan", "a short nonce", w.groups["ann"].forge(t, forgery{list: []proposal{of("ann", short)}}), ErrInvalidProposal)
	w.refusesForgery("dan", "another client's key in a package", w.groups["ann"].forge(t, forgery{list: []proposal{of("ann", addition(twin))}}), ErrInvalidSignature)
	for name, list := range map[string][]proposal{
		"an update": {of("bob", update("bob"))}, "a removal": {of("ann", removal(cay))}, "extensions": {of("ann", extending())}, "nothing": nil,
	} {
		if list == nil || list[0].sender.Index == ann {
			w.refusesForgery("dan", name+" without a path", w.groups["ann"].forge(t, forgery{list: list, noPath: true}), ErrInvalidCommit)
		}
	}
}

// Updates by reference whose leaf breaks a rule. RFC 9420, section 7.3.
func TestHostileUpdates(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	ann, cay := w.groups["ann"], w.groups["cay"]
	for _, test := range []struct {
		name     string
		spoil    func(*wire.LeafNode)
		want     error
		inCommit bool // seen only together with the tree
	}{
		{"the old key", func(n *wire.LeafNode) { n.EncryptionKey = ann.tree.Leaf(ann.own).EncryptionKey }, ErrInvalidLeaf, false},
		{"a leaf of a commit", func(n *wire.LeafNode) { n.Source = wire.CommitLeaf }, ErrInvalidLeaf, false},
		{"a leaf of a package", func(n *wire.LeafNode) { n.Source, n.NotAfter = wire.KeyPackageLeaf, 1<<40 }, ErrInvalidLeaf, false},
		{"no key", func(n *wire.LeafNode) { n.EncryptionKey = nil }, ErrInvalidKey, false},
		{"an extension not listed", func(n *wire.LeafNode) { n.Extensions = append(n.Extensions, wire.Extension{Type: 0xf00d}) }, ErrInvalidLeaf, false},
		{"another member's key", func(n *wire.LeafNode) { n.EncryptionKey = cay.tree.Leaf(w.leafOf("bob")).EncryptionKey }, ErrInvalidTree, true},
		{"a credential that others do not list", func(n *wire.LeafNode) {
			n.Credential, n.Capabilities.Credentials = x509(), []uint16{wire.BasicCredential, wire.X509Credential}
		}, ErrInvalidLeaf, true},
	} {
		body, _, err := ann.update(nil)
		if err != nil {
			t.Fatal(err)
		}
		test.spoil(body.Update)
		if err := leaf.Sign(ann.suite, ann.key.private, body.Update, ann.context.GroupID, ann.own); err != nil {
			t.Fatal(err)
		}
		m := w.propose("ann", body, wire.PublicMessageFormat)
		if !test.inCommit {
			w.refusesForgery("bob", test.name, m, test.want)
			continue
		}
		one := &world{t: t, groups: map[string]*Group{"bob": w.groups["bob"]}}
		one.process("bob", m)
		one.refusesForgery("bob", test.name, cay.forge(t, forgery{list: one.groups["bob"].proposals}), test.want)
	}
	// A leaf that was signed for another place.
	body, _, err := ann.update(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", w.propose("cay", body, wire.PublicMessageFormat), ErrInvalidSignature)
}

// A credential that an Update or a path swaps is the hook's to refuse.
// RFC 9420, section 5.3.1.
func TestCredentialSwapByUpdateIsVetoed(t *testing.T) {
	veto := errors.New("that is not ann")
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	var seen []CredentialChange
	w.groups["bob"].hook = func(c CredentialChange) error {
		seen = append(seen, c)
		if c.Old != nil && !bytes.Equal(c.Old.Credential, c.New.Credential) {
			return veto
		}
		return nil
	}
	mallory := identity(t, testSuite, "mallory")
	w.proposes("ann", Update(&mallory), ProposeOptions{})
	p, err := w.groups["cay"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("bob", p.Message(), veto)
	if len(seen) == 0 || seen[0].Kind != CredentialUpdate || string(seen[0].Old.Credential) != "did:ex:ann" || string(seen[0].New.Credential) != "did:ex:mallory" || seen[0].Epoch != 2 {
		t.Errorf("the hook saw %+v", seen)
	}
	// bob itself commits without it.
	w.commit("bob", CommitOptions{})
	w.agree()
}

// What is about to expire is not committed by us, however it was proposed.
func TestExpiredPackagesAreNotCommitted(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	dan := keyPackage(t, identity(t, testSuite, "dan"))
	w.proposes("bob", Add(dan.Message()), ProposeOptions{})
	w.groups["ann"].now = func() time.Time { return today.AddDate(0, 1, 0) }
	if p := w.commit("ann", CommitOptions{}); len(p.Added()) != 0 {
		t.Errorf("added %v", p.Added())
	}
	if _, _, err := w.groups["ann"].Propose(Add(dan.Message()), ProposeOptions{}); !errors.Is(err, ErrLifetime) {
		t.Errorf("proposed: %v", err)
	}
}

// Requirements of a group hold for its extensions, for joiners and for updates.
// RFC 9420, section 11.1.
func TestRequiredCapabilities(t *testing.T) {
	id := identity(t, testSuite, "ann")
	id.Supports = []uint16{0xbeef}
	g, err := NewGroup(testSuite, []byte("group"), id, GroupOptions{Now: testNow, Extensions: []Extension{RequiredCapabilities([]uint16{0xbeef}, nil, []uint16{1})}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, groups: map[string]*Group{"ann": g}, supports: []uint16{0xbeef}}
	w.add("ann", "bob")
	if _, err := JoinExternal(w.groupInfo("ann"), identity(t, testSuite, "eve"), ExternalJoinOptions{}); !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("eve joins: %v", err)
	}
	w.refusesForgery("ann", "a path that lost a capability", w.groups["bob"].forge(t, forgery{leaf: func(n *wire.LeafNode) {
		n.Capabilities.Extensions = []uint16{0xf3a1}
	}}), ErrInvalidLeaf)
	eve := identity(t, testSuite, "eve")
	w.refusesForgery("ann", "a joiner without it", forgeJoin(t, w.groupInfo("ann"), eve, forgery{}), ErrInvalidLeaf)
	eve.Supports = []uint16{0xbeef}
	w.join("eve", eve, w.groupInfo("ann"), ExternalJoinOptions{})
}

// Every error names the section of the RFC with the broken rule.
func TestErrorsNameTheirSection(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	_, err := w.groups["bob"].Process(w.groups["ann"].forge(t, forgery{list: w.byValue("ann", removal(0))}))
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("RFC 9420, section 12.2")) {
		t.Errorf("got %v", err)
	}
	_, err = JoinExternal(w.groupInfo("bob")[:40], identity(t, testSuite, "dan"), ExternalJoinOptions{})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("RFC 9420, section")) {
		t.Errorf("got %v", err)
	}
}

func TestGroupExtensionsOfAnyType(t *testing.T) {
	id := identity(t, testSuite, "ann")
	extensions := []Extension{{Type: 0xf00d, Data: []byte("kept")}, {Type: wire.ExternalSendersExtension, Data: []byte{0}}}
	g, err := NewGroup(testSuite, []byte("group"), id, GroupOptions{Extensions: extensions, Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, groups: map[string]*Group{"ann": g}}
	if _, err := g.Commit(CommitOptions{Add: [][]byte{keyPackage(t, identity(t, testSuite, "bob")).Message()}}); !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("added somebody who does not support an extension of the group: %v", err)
	}
	w.supports = []uint16{0xf00d}
	w.add("ann", "bob")
	w.reload()
	if got := fmt.Sprint(w.groups["bob"].Extensions()); got != fmt.Sprint(extensions) {
		t.Errorf("got %v", got)
	}
	_, err = NewGroup(testSuite, []byte("group"), id, GroupOptions{Extensions: []Extension{{Type: 0x1a1a}}})
	if !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("a group with an extension that means nothing: %v", err)
	}
	required := wire.Marshal(&wire.RequiredCapabilities{Extensions: []uint16{0xbeef}})
	_, err = NewGroup(testSuite, []byte("group"), id, GroupOptions{Extensions: []Extension{{Type: wire.RequiredCapabilitiesExtension, Data: required}}})
	if !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("a group that requires what we do not support: %v", err)
	}
	id.Supports = []uint16{0xbeef}
	g, err = NewGroup(testSuite, []byte("group"), id, GroupOptions{Now: testNow, Extensions: []Extension{{Type: wire.RequiredCapabilitiesExtension, Data: required}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Commit(CommitOptions{Add: [][]byte{keyPackage(t, identity(t, testSuite, "bob")).Message()}}); !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("added somebody who does not support what is required: %v", err)
	}
	if _, err := NewGroup(testSuite, nil, id, GroupOptions{Extensions: []Extension{{Type: 7}, {Type: 7}}}); !errors.Is(err, ErrInvalidExtensions) {
		t.Errorf("an extension twice: %v", err)
	}
}

// X.509 credentials are allowed where all members can verify them. RFC 9420, section 5.3.
func TestX509Credentials(t *testing.T) {
	ann := identity(t, testSuite, "ann")
	g, err := NewGroup(testSuite, []byte("group"), ann, GroupOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	bob := identity(t, testSuite, "bob")
	bob.Certificates = [][]byte{[]byte("leaf"), []byte("root")}
	kp := keyPackage(t, bob)
	if _, err := g.Commit(CommitOptions{Add: [][]byte{kp.Message()}}); !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("bob is added to a group that cannot judge it: %v", err)
	}
	ann.SupportsX509 = true
	if g, err = NewGroup(testSuite, []byte("group"), ann, GroupOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, groups: map[string]*Group{"ann": g}}
	p := w.commit("ann", CommitOptions{Add: [][]byte{kp.Message()}})
	if w.groups["bob"], err = Join(p.Welcome(), kp, JoinOptions{Now: testNow}); err != nil {
		t.Fatal(err)
	}
	w.agree()
	l := w.groups["ann"].Members()[1]
	if l.CredentialType != wire.X509Credential || len(l.Certificates) != 2 || string(l.Certificates[1]) != "root" || l.Credential != nil {
		t.Errorf("got %+v", l)
	}
	w.reload()
	w.commit("bob", CommitOptions{})
	// A resync with other certificates is for the hook alone to decide.
	again := identity(t, testSuite, "bob")
	again.Certificates = [][]byte{[]byte("renewed"), []byte("root")}
	rejoin, err := JoinExternal(w.groupInfo("bob"), again, ExternalJoinOptions{Resync: true, IsOld: func(l Leaf) bool { return l.Index == 1 }})
	if err != nil {
		t.Fatal(err)
	}
	w.refuses("ann", rejoin.Message(), ErrInvalidCommit)
	w.groups["ann"].hook = func(c CredentialChange) error { return nil }
	w.process("ann", rejoin.Message())
}

// A proposal of an unknown type has no known end.
func TestUnknownProposalTypes(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	body := wire.Marshal(removal(1))
	for _, kind := range []byte{0x1a, 0} {
		m := w.propose("ann", removal(1), wire.PublicMessageFormat)
		at := bytes.Index(m, body)
		m[at], m[at+1] = kind, 0x1a
		w.refuses("bob", m, ErrMalformed)
	}
}

func TestThereIsALastEpoch(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	last := resigned(t, w.groups["ann"], func(i *wire.GroupInfo) { i.Context.Epoch = 1<<64 - 1 })
	if _, err := JoinExternal(last, identity(t, testSuite, "dan"), ExternalJoinOptions{}); !errors.Is(err, ErrInvalidCommit) {
		t.Errorf("got %v", err)
	}
}
