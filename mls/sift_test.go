package mls

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/wire"
)

// offers are packages to add, good and bad.
type offers struct {
	t    *testing.T
	list [][]byte
	want map[int]error // of the bad ones, by place
	good []string      // identities
}

func (o *offers) add(k *wire.KeyPackage, want error) {
	if want != nil {
		o.want[len(o.list)] = want
	} else {
		o.good = append(o.good, string(k.Leaf.Credential.Identity))
	}
	o.list = append(o.list, wire.Marshal(&wire.Message{WireFormat: wire.KeyPackageFormat, KeyPackage: k}))
}

// All packages that prevent a commit are named by their indices in one error: without them the
// others are added.
func TestOffendingPackagesAreNamed(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	unwelcome := errors.New("not welcome")
	ann := w.groups["ann"]
	ann.hook = func(c CredentialChange) error {
		if string(c.New.Credential) == "did:ex:eve" {
			return unwelcome
		}
		return nil
	}
	fresh := func(name string) *KeyPackage { return keyPackage(t, identity(t, testSuite, name)) }
	signed := func(name string, spoil func(*wire.KeyPackage)) *wire.KeyPackage {
		return resignedPackage(t, fresh(name), spoil)
	}
	cay, id := fresh("cay"), identity(t, testSuite, "dan")
	first := keyPackage(t, id).public
	o := &offers{t: t, want: map[int]error{}}
	o.add(cay.public, nil)
	o.add(first, nil)
	o.add(keyPackage(t, id).public, ErrInvalidProposal) // of the same client
	o.add(first, ErrInvalidProposal)                    // the very same
	o.add(signed("fay", func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = cay.public.Leaf.EncryptionKey }), ErrInvalidTree)
	o.add(signed("gil", func(k *wire.KeyPackage) { k.InitKey = cay.public.InitKey }), ErrInvalidKeyPackage)
	o.add(signed("hal", func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = ann.tree.Leaf(1).EncryptionKey }), ErrInvalidTree)
	o.add(signed("ida", func(k *wire.KeyPackage) {
		k.Leaf.Credential, k.Leaf.Capabilities.Credentials = x509(), []uint16{wire.X509Credential}
	}), ErrInvalidLeaf)
	o.add(signed("jon", func(k *wire.KeyPackage) { k.Leaf.NotAfter = k.Leaf.NotBefore + 60 }), ErrLifetime)
	o.add(signed("kim", func(k *wire.KeyPackage) { k.Leaf.NotAfter = k.Leaf.NotBefore + 1<<40 }), ErrLifetime)
	o.add(keyPackage(t, identity(t, P256_AES128GCM_SHA256_P256, "leo")).public, ErrInvalidKeyPackage)
	o.add(keyPackage(t, Identity{Credential: []byte("did:ex:bob"), Key: w.groups["bob"].key}).public, ErrInvalidProposal) // a member
	o.add(fresh("eve").public, ErrRefused)
	for i := range 20 {
		o.add(fresh(fmt.Sprint("good", i)).public, nil)
	}
	_, err := ann.Commit(CommitOptions{Add: o.list})
	var bad ChangeErrors
	if !errors.As(err, &bad) {
		t.Fatalf("got %v", err)
	}
	for _, e := range bad {
		if want := o.want[e.Index]; e.Field != "Add" || want == nil || !errors.Is(e, want) {
			t.Errorf("got %v, want %v", e, want)
		}
		if !errors.Is(err, o.want[e.Index]) {
			t.Errorf("the whole error does not wrap %v", e)
		}
		delete(o.want, e.Index)
	}
	for i, want := range o.want {
		t.Errorf("package %d is not named: %v", i, want)
	}
	places := map[int]bool{}
	for _, e := range bad {
		places[e.Index] = true
	}
	var left [][]byte
	for i, k := range o.list {
		if !places[i] {
			left = append(left, k)
		}
	}
	p := w.commit("ann", CommitOptions{Add: left})
	var added []string
	for _, l := range p.Added() {
		added = append(added, string(l.Credential))
	}
	if !slices.Equal(added, o.good) {
		t.Errorf("added %v, want %v", added, o.good)
	}
}

// A package with the encryption key of a valid one and a credential that the hook refuses does not
// prevent the valid one.
func TestPackagesAreJudgedByThemselves(t *testing.T) {
	w := newWorld(t, testSuite, "ann")
	ann := w.groups["ann"]
	ann.hook = func(c CredentialChange) error {
		if string(c.New.Credential) == "did:ex:eve" {
			return errors.New("not welcome")
		}
		return nil
	}
	bob := keyPackage(t, identity(t, testSuite, "bob"))
	eve := resignedPackage(t, keyPackage(t, identity(t, testSuite, "eve")), func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = bob.public.Leaf.EncryptionKey })
	list := [][]byte{wire.Marshal(&wire.Message{WireFormat: wire.KeyPackageFormat, KeyPackage: eve}), bob.Message()}
	_, err := ann.Commit(CommitOptions{Add: list})
	var bad ChangeErrors
	if !errors.As(err, &bad) || len(bad) != 1 || bad[0].Index != 0 || !errors.Is(bad[0], ErrRefused) {
		t.Errorf("named %v", err)
	}
}

// The other parts of a commit are named too.
func TestOffendingChangesAreNamed(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	_, err := w.groups["ann"].Commit(CommitOptions{
		Remove: []uint32{1, 9}, PSK: [][]byte{[]byte("unknown")},
		Changes: []Change{Remove(2), SetExtensions([]Extension{{Type: 0xbeef}}), Update(nil)},
	})
	var bad ChangeErrors
	errors.As(err, &bad)
	var got []string
	for _, e := range bad {
		got = append(got, fmt.Sprint(e.Field, e.Index))
	}
	slices.Sort(got)
	if want := []string{"Changes1", "Changes2", "PSK0", "Remove1"}; !slices.Equal(got, want) {
		t.Errorf("named %v, want %v: %v", got, want, err)
	}
}

// A member that sends as many invalid proposals as it may prevents neither a Remove nor valid
// proposals of others.
func TestBadProposalsPushOutNothing(t *testing.T) {
	bad := map[string]func(w *world, i int) *wire.Proposal{
		"keys that nobody holds": func(*world, int) *wire.Proposal {
			return pskOf(&wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: []byte("nobody has it"), Nonce: random(32)})
		},
		"extensions that nobody supports": func(_ *world, i int) *wire.Proposal { return extending(wire.Extension{Type: 0xbe00 + uint16(i)}) },
		"keys of members": func(w *world, i int) *wire.Proposal {
			g := w.groups["ann"]
			return addition(resignedPackage(w.t.(*testing.T), keyPackage(w.t, identity(w.t, testSuite, fmt.Sprint("x", i))),
				func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = g.tree.Leaf(1).EncryptionKey }))
		},
		"credentials that nobody supports": func(w *world, i int) *wire.Proposal {
			return addition(resignedPackage(w.t.(*testing.T), keyPackage(w.t, identity(w.t, testSuite, fmt.Sprint("x", i))), func(k *wire.KeyPackage) {
				k.Leaf.Credential, k.Leaf.Capabilities.Credentials = x509(), []uint16{wire.BasicCredential, wire.X509Credential}
			}))
		},
	}
	for name, make := range bad {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testSuite, "ann", "bob", "cay", "eve")
			flood := func(n int) {
				for i := range n {
					message := w.propose("eve", make(w, i), wire.PublicMessageFormat)
					for _, who := range []string{"ann", "bob", "cay"} {
						w.process(who, message)
					}
				}
			}
			flood(33)
			dan := keyPackage(t, identity(t, testSuite, "dan"))
			for _, change := range []Change{Add(dan.Message()), Remove(w.leafOf("eve"))} {
				message, next, err := w.groups["bob"].Propose(change, ProposeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				w.groups["bob"] = next
				w.process("ann", message)
				w.process("cay", message)
			}
			flood(32)
			p, err := w.groups["ann"].Commit(CommitOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Removed()) != 1 || len(p.Added()) != 1 || string(p.Added()[0].Credential) != "did:ex:dan" {
				t.Errorf("removed %v, added %v", p.Removed(), p.Added())
			}
			w.process("cay", p.Message())
		})
	}
}

// Keys that we do not hold are left out before anything is tried, so that they do not use
// up the tries.
func TestUnheldKeysCostNothing(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "eve")
	for range 50 {
		message := w.propose("eve", pskOf(&wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: []byte("x"), Nonce: random(32)}), wire.PublicMessageFormat)
		w.process("ann", message)
		w.process("bob", message)
	}
	asked := 0
	w.groups["ann"].psk = func([]byte) ([]byte, error) { asked++; return nil, errors.New("unknown") }
	if list, spare := received(w.groups["ann"], &CommitOptions{}, nil); len(list)+len(spare) != 0 || asked != 50 {
		t.Errorf("%d proposals to commit, %d to spare, asked for %d keys", len(list), len(spare), asked)
	}
	w.groups["ann"].psk = nil
	if p := w.hasCommitted("ann"); len(p.Group().Members()) != 3 {
		t.Error("not committed")
	}
}

// Of what waits for a commit each sender has a share: by number and by size.
func TestStoredProposalsAreShared(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay", "eve")
	bounded := func(l Limits) *Group {
		g, err := LoadGroup(save(t, w.groups["ann"]), LoadOptions{Now: testNow, Limits: l})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	process := func(g *Group, message []byte) (*Group, error) {
		out, err := g.Process(message)
		if err != nil {
			return g, err
		}
		return out.Group, nil
	}
	large := func() []byte {
		return w.propose("eve", pskOf(&wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: random(20_000), Nonce: random(32)}), wire.PublicMessageFormat)
	}
	for name, l := range map[string]Limits{
		"by one sender": {SenderProposals: 5}, "by number": {Proposals: 5}, "by size": {ProposalBytes: 100_000},
	} {
		g := bounded(l)
		var err error
		for i := 0; err == nil; i++ {
			if i == 10 {
				t.Fatalf("%s: there is no bound", name)
			}
			g, err = process(g, large())
		}
		if !errors.Is(err, ErrInvalidProposal) {
			t.Errorf("%s: %v", name, err)
		}
		// Those of bob displace those of eve, also after a restart.
		for _, target := range []string{"eve", "cay"} {
			if g, err = LoadGroup(save(t, g), LoadOptions{Now: testNow, Limits: l}); err != nil {
				t.Fatal(err)
			}
			if g, err = process(g, w.propose("bob", removal(w.leafOf(target)), wire.PublicMessageFormat)); err != nil {
				t.Errorf("%s, bob removes %s: %v", name, target, err)
			}
		}
		infos := g.PendingProposals()
		removes := slices.DeleteFunc(slices.Clone(infos), func(i ProposalInfo) bool { return i.Type != RemoveProposal })
		size := 0
		for _, p := range g.proposals {
			size += p.bytes
		}
		if bound := l.effective(); len(removes) != 2 || len(infos) > bound.Proposals || size > bound.ProposalBytes {
			t.Errorf("%s: %d proposals with %d removes take %d bytes", name, len(infos), len(removes), size)
		}
		if _, err := process(g, large()); !errors.Is(err, ErrInvalidProposal) {
			t.Errorf("%s: eve gets in again: %v", name, err)
		}
	}
	// New members share the bound of one sender.
	g := bounded(Limits{SenderProposals: 3})
	var err error
	for i := range 4 {
		message, failed := NewMemberProposal(g.ID(), g.Epoch(), keyPackage(t, identity(t, testSuite, fmt.Sprint("stranger", i))))
		if failed != nil {
			t.Fatal(failed)
		}
		if g, err = process(g, message); (err != nil) != (i == 3) {
			t.Errorf("stranger %d: %v", i, err)
		}
	}
}

// The longest lifetime holds for packages that others add, and can be set.
func TestLongestLifetime(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	o := KeyPackageOptions{NotBefore: today, NotAfter: today.AddDate(3, 0, 0)}
	id := identity(t, testSuite, "dan")
	if _, err := NewKeyPackage(testSuite, id, o); !errors.Is(err, ErrLifetime) {
		t.Errorf("three years: %v", err)
	}
	o.LifetimeMax = 4 * 366 * 24 * time.Hour
	dan, err := NewKeyPackage(testSuite, id, o)
	if err != nil {
		t.Fatal(err)
	}
	proposed := w.propose("ann", addition(dan.public), wire.PublicMessageFormat)
	committed := w.groups["ann"].forge(t, forgery{list: w.byValue("ann", addition(dan.public))})
	w.refuses("bob", proposed, ErrLifetime)
	w.refuses("bob", committed, ErrLifetime)
	if _, err := w.groups["ann"].Commit(CommitOptions{Add: [][]byte{dan.Message()}}); !errors.Is(err, ErrLifetime) {
		t.Errorf("ann adds: %v", err)
	}
	for _, name := range []string{"ann", "bob"} {
		w.limited(name, Limits{Lifetime: o.LifetimeMax})
	}
	if _, err := w.groups["bob"].Process(committed); err != nil {
		t.Error(err)
	}
	w.commit("ann", CommitOptions{Add: [][]byte{dan.Message()}})
	// Less than the default can be set too.
	w.limited("bob", Limits{Lifetime: time.Hour})
	short := keyPackage(t, identity(t, testSuite, "eve"))
	w.refuses("bob", w.propose("ann", addition(short.public), wire.PublicMessageFormat), ErrLifetime)
	// What never ends has no length that a time.Duration can hold.
	endless := resignedPackage(t, short, func(k *wire.KeyPackage) { k.Leaf.NotBefore, k.Leaf.NotAfter = 0, 1<<64-1 })
	w.limited("bob", Limits{Lifetime: LifetimeUnlimited - 1})
	message := w.propose("ann", addition(endless), wire.PublicMessageFormat)
	w.refuses("bob", message, ErrLifetime)
	w.limited("bob", Limits{Lifetime: LifetimeUnlimited})
	w.process("bob", message)
}

// A group id in use is refused by Join and JoinExternal.
func TestGroupIDsInUse(t *testing.T) {
	w := newWorld(t, testSuite, "ann")
	bob := keyPackage(t, identity(t, testSuite, "bob"))
	p := w.commit("ann", CommitOptions{Add: [][]byte{bob.Message()}})
	for _, used := range []bool{true, false} {
		var asked []byte
		inUse := func(id []byte) bool { asked = id; return used }
		want := error(nil)
		if used {
			want = ErrGroupInUse
		}
		if g, err := Join(p.Welcome(), bob, JoinOptions{Now: testNow, InUse: inUse}); !errors.Is(err, want) || (g == nil) != used || string(asked) != "group" {
			t.Errorf("welcome, in use %v: %v, asked for %q", used, err, asked)
		}
		asked = nil
		if _, err := JoinExternal(w.groupInfo("ann"), identity(t, testSuite, "cay"), ExternalJoinOptions{Now: testNow, InUse: inUse}); !errors.Is(err, want) || string(asked) != "group" {
			t.Errorf("external, in use %v: %v, asked for %q", used, err, asked)
		}
	}
}
