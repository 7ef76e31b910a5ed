package mls

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/wire"
)

const testSuite = X25519_AES128GCM_SHA256_Ed25519

var today = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testNow() time.Time { return today }

func identity(t testing.TB, s Suite, name string) Identity {
	t.Helper()
	key, err := NewSignatureKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{
		Credential: []byte("did:ex:" + name), Key: key,
		Extensions: []Extension{{Type: 0xf3a1, Data: []byte("certificate of " + name)}},
	}
}

func keyPackage(t testing.TB, id Identity) *KeyPackage {
	t.Helper()
	kp, err := NewKeyPackage(id.Key.Suite(), id, KeyPackageOptions{NotBefore: today.Add(-time.Hour), NotAfter: today.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

// world is a group whose members see every message in the same order.
type world struct {
	t      testing.TB
	groups map[string]*Group
	hook   CredentialHook
	// supports are the extension types that newcomers understand.
	supports []uint16
}

// newWorld is a group that the first name makes, adding the others in one commit.
func newWorld(t testing.TB, s Suite, names ...string) *world {
	t.Helper()
	w := &world{t: t, groups: map[string]*Group{}}
	g, err := NewGroup(s, []byte("group"), identity(t, s, names[0]), GroupOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	w.groups[names[0]] = g
	if len(names) > 1 {
		w.add(names[0], names[1:]...)
	}
	return w
}

// add makes a commit of who that adds newcomers, which all members process.
func (w *world) add(who string, names ...string) {
	w.t.Helper()
	var packages []*KeyPackage
	var o CommitOptions
	for _, name := range names {
		id := identity(w.t, w.groups[who].Suite(), name)
		id.Supports = w.supports
		kp := keyPackage(w.t, id)
		packages = append(packages, kp)
		o.Add = append(o.Add, kp.Message())
	}
	p := w.commit(who, o)
	for i, name := range names {
		g, err := Join(p.Welcome(), packages[i], JoinOptions{Hook: w.hook, Now: testNow})
		if err != nil {
			w.t.Fatalf("%s joins: %v", name, err)
		}
		w.groups[name] = g
	}
	w.agree()
}

// commit makes a commit of who, which all members process.
func (w *world) commit(who string, o CommitOptions) *PendingCommit {
	w.t.Helper()
	p, err := w.groups[who].Commit(o)
	if err != nil {
		w.t.Fatalf("%s commits: %v", who, err)
	}
	w.groups[who] = p.Base()
	w.echo(who, p)
	return p
}

// echo delivers the commit of who to all members.
func (w *world) echo(who string, p *PendingCommit) {
	w.t.Helper()
	for name, g := range w.groups {
		if name == who {
			next, err := p.Apply(g)
			if err != nil {
				w.t.Fatalf("%s applies: %v", who, err)
			}
			w.groups[name] = next
			continue
		}
		processed := w.process(name, p.Message())
		if processed.SelfRemoved {
			delete(w.groups, name)
		}
	}
}

// process lets name process a message that must be good.
func (w *world) process(name string, message []byte) *Processed {
	w.t.Helper()
	processed, err := w.groups[name].Process(message)
	if err != nil {
		w.t.Fatalf("%s processes: %v", name, err)
	}
	w.groups[name] = processed.Group
	return processed
}

// seal returns a message of who with text.
func (w *world) seal(who, text string) []byte {
	w.t.Helper()
	message, next, err := w.groups[who].Seal([]byte(text), []byte("aad"), SealOptions{})
	if err != nil {
		w.t.Fatalf("%s seals: %v", who, err)
	}
	w.groups[who] = next
	return message
}

// reads checks that name opens message as text.
func (w *world) reads(name string, message []byte, text string) {
	w.t.Helper()
	if got := w.process(name, message); got.Kind != Application || string(got.Plaintext) != text || string(got.AuthenticatedData) != "aad" {
		w.t.Fatalf("%s reads %q, want %q", name, got.Plaintext, text)
	}
}

// refuses checks that name refuses message with an error, and is unchanged.
func (w *world) refuses(name string, message []byte, want error) {
	w.t.Helper()
	before := save(w.t, w.groups[name])
	if _, err := w.groups[name].Process(message); !errors.Is(err, want) {
		w.t.Fatalf("%s: got %v, want %v", name, err, want)
	}
	if !bytes.Equal(before, save(w.t, w.groups[name])) {
		w.t.Fatalf("%s was changed by a refused message", name)
	}
}

// reload saves and loads all members.
func (w *world) reload() {
	w.t.Helper()
	for name, g := range w.groups {
		loaded, err := LoadGroup(save(w.t, g), LoadOptions{Hook: w.hook, Now: testNow})
		if err != nil {
			w.t.Fatalf("load %s: %v", name, err)
		}
		w.groups[name] = loaded
	}
}

// agree checks that all are in the same epoch and sees the same members.
func (w *world) agree() {
	w.t.Helper()
	var first *Group
	for name, g := range w.groups {
		if first == nil {
			first = g
		}
		if g.Epoch() != first.Epoch() || !bytes.Equal(g.EpochAuthenticator(), first.EpochAuthenticator()) {
			w.t.Fatalf("%s is in another epoch %d, not %d", name, g.Epoch(), first.Epoch())
		}
		if fmt.Sprint(g.Members()) != fmt.Sprint(first.Members()) || len(g.Members()) != len(w.groups) {
			w.t.Fatalf("%s sees other members", name)
		}
	}
}

func save(t testing.TB, g *Group) []byte {
	t.Helper()
	state, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// propose sends a proposal by itself, as a hostile member might: unchecked.
func (w *world) propose(who string, body *wire.Proposal, format wire.WireFormat) []byte {
	w.t.Helper()
	g := w.groups[who]
	a := &wire.AuthenticatedContent{WireFormat: format, Content: g.content(nil)}
	a.Content.ContentType, a.Content.Proposal = wire.ProposalContent, body
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		w.t.Fatal(err)
	}
	message, next, err := g.frame(a, SealOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.groups[who] = next
	return message
}

// hostile sends a commit with the given proposals and no path, unchecked.
func (w *world) hostile(who string, spoil func(*wire.Commit), list ...*wire.Proposal) []byte {
	w.t.Helper()
	g := w.groups[who]
	commit := &wire.Commit{}
	for _, p := range list {
		commit.Proposals = append(commit.Proposals, wire.ProposalOrRef{Proposal: p})
	}
	if spoil != nil {
		spoil(commit)
	}
	a := &wire.AuthenticatedContent{WireFormat: wire.PublicMessageFormat, Content: g.content(nil)}
	a.Content.ContentType, a.Content.Commit = wire.CommitContent, commit
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		w.t.Fatal(err)
	}
	a.ConfirmationTag = make([]byte, 32)
	message, _, err := g.frame(a, SealOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return message
}
