package mls

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// secretTree computes a member's message keys straight from the encryption secret
// of an epoch, by the formulas of RFC 9420, section 9, and names every secret on
// the way: the holder of one of them can derive the keys that follow from it.
type secretTree struct {
	suite *suite.Suite
	names map[string][]byte
}

// newSecretTree reads the encryption secret of an epoch in which no message was
// sent or received yet.
func newSecretTree(t *testing.T, g *Group) *secretTree {
	t.Helper()
	raw := wire.Marshal(&g.secrets)
	if len(raw) != 2+suite.HashBytes || raw[0] != 0 {
		t.Fatalf("the epoch was used already: % x", raw[:min(8, len(raw))])
	}
	return &secretTree{suite: g.suite, names: map[string][]byte{"encryption secret": raw[2:]}}
}

// follow names what leads to a member's message of one generation, and its key.
func (s *secretTree) follow(who string, size, leaf uint32, label string, generation uint32) {
	secret := s.names["encryption secret"]
	for at := fmt.Sprintf("%s: node", who); size > 1; {
		side := "left"
		if size /= 2; leaf >= size {
			side, leaf = "right", leaf-size
		}
		at += " " + side
		secret = s.suite.ExpandWithLabel(secret, "tree", []byte(side), suite.HashBytes)
		s.names[at] = secret
	}
	secret = s.suite.ExpandWithLabel(secret, label, nil, suite.HashBytes)
	for n := range generation + 1 {
		s.names[fmt.Sprintf("%s: %s secret %d", who, label, n)] = secret
		if n == generation {
			break
		}
		secret = s.suite.ExpandWithLabel(secret, "secret", binary.BigEndian.AppendUint32(nil, n), suite.HashBytes)
	}
	number := binary.BigEndian.AppendUint32(nil, generation)
	s.names[fmt.Sprintf("%s: %s key %d", who, label, generation)] = s.suite.ExpandWithLabel(secret, "key", number, s.suite.KeyBytes())
	s.names[fmt.Sprintf("%s: %s nonce %d", who, label, generation)] = s.suite.ExpandWithLabel(secret, "nonce", number, suite.NonceBytes)
}

// absent checks that none of what was named is in the state.
func (s *secretTree) absent(t *testing.T, when string, state []byte) {
	t.Helper()
	for name, secret := range s.names {
		if bytes.Contains(state, secret) {
			t.Errorf("%s, the state holds %s", when, name)
		}
	}
}

// Forward secrecy of saved state: it contains neither a key that was used nor a secret from which
// one could be derived.
func TestUsedKeysAreNotInTheState(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan", "eve")
	w.commit("ann", CommitOptions{})
	bob := w.groups["bob"]
	ann, size := w.groups["ann"].own, bob.tree.Size()
	secrets := newSecretTree(t, bob)
	if !bytes.Contains(save(t, bob), secrets.names["encryption secret"]) {
		t.Fatal("the scan does not find the secret of an epoch without messages")
	}

	// Ann's messages 0 to 5: bob opens 0, 2 and 5; 1, 3 and 4 are late.
	var messages [][]byte
	for n := range 6 {
		messages = append(messages, w.seal("ann", fmt.Sprint(n)))
	}
	for _, n := range []uint32{0, 2, 5} {
		w.reads("bob", messages[n], fmt.Sprint(n))
		secrets.follow("ann", size, ann, "application", n)
	}
	secrets.absent(t, "after messages", save(t, w.groups["bob"]))
	late := newSecretTree(t, bob)
	late.follow("ann", size, ann, "application", 3)
	if key := late.names["ann: application key 3"]; !bytes.Contains(save(t, w.groups["bob"]), key) {
		t.Error("the key of a late message is not in the state: it could not be opened after a restart")
	}

	// Our own messages, and a handshake.
	w.seal("bob", "mine")
	secrets.follow("bob", size, bob.own, "application", 0)
	secrets.absent(t, "after sending", save(t, w.groups["bob"]))
	proposal := w.propose("ann", &wire.Proposal{Type: wire.RemoveProposal, Remove: w.groups["eve"].own}, wire.PrivateMessageFormat)
	w.process("bob", proposal)
	secrets.follow("ann", size, ann, "handshake", 0)
	secrets.absent(t, "after a handshake", save(t, w.groups["bob"]))

	// A pending commit uses a key of ours and contains the history.
	p, err := w.groups["bob"].Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secrets.follow("bob", size, bob.own, "handshake", 0)
	secrets.absent(t, "with a commit pending", save(t, p.Base()))
	pending, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	secrets.absent(t, "in the pending commit", pending)
	for n := range uint32(7) { // 6 is the first that bob has no key of; he may use all while the commit is pending
		unused := newSecretTree(t, bob)
		unused.follow("ann", size, ann, "application", n)
		unused.absent(t, "with keys that are not used yet", pending)
	}

	// In the next epoch the late messages still open, each once; then all keys are deleted.
	next, err := p.Apply(p.Base())
	if err != nil {
		t.Fatal(err)
	}
	w.groups["bob"] = next
	secrets.absent(t, "in the next epoch", save(t, next))
	for _, n := range []uint32{4, 1, 3} {
		w.reads("bob", messages[n], fmt.Sprint(n))
		secrets.follow("ann", size, ann, "application", n)
		secrets.absent(t, fmt.Sprintf("after late message %d", n), save(t, w.groups["bob"]))
	}
}

// The secrets of the epoch before are deleted: the private keys that a path replaced and the init
// secret.
func TestReplacedKeysAreNotInTheState(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay", "dan")
	w.commit("ann", CommitOptions{})
	w.commit("dan", CommitOptions{}) // cay now shares a key with dan alone
	before, shared := w.groups["ann"], w.groups["cay"]
	gone := map[string][]byte{"init secret": before.epoch.Init, "membership key": before.epoch.Membership, "exporter secret": before.epoch.Exporter}
	for x, pair := range before.keys {
		gone[fmt.Sprintf("private key of node %d", x)] = pair.Private
	}
	state := save(t, before)
	for name, secret := range gone {
		if !bytes.Contains(state, secret) {
			t.Fatalf("the scan does not find the %s", name)
		}
	}
	w.commit("ann", CommitOptions{})
	state = save(t, w.groups["ann"])
	for name, secret := range gone {
		if bytes.Contains(state, secret) {
			t.Errorf("after the next commit the state holds the old %s", name)
		}
	}
	w.commit("ann", CommitOptions{Remove: []uint32{w.leafOf("dan")}})
	state = save(t, w.groups["cay"])
	for x, pair := range shared.keys {
		if x != 2*shared.own && bytes.Contains(state, pair.Private) {
			t.Errorf("after dan's removal cay has the key of node %d still", x)
		}
	}
}

// A private handshake uses a key of the handshake ratchet.
// RFC 9420, section 6.3.1.
func TestHandshakesCountByThemselves(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	for range 3 {
		w.seal("ann", "x")
	}
	var m wire.Message
	if err := wire.Unmarshal(w.propose("ann", removal(w.leafOf("cay")), wire.PrivateMessageFormat), &m); err != nil {
		t.Fatal(err)
	}
	g := w.groups["bob"]
	if data, err := framing.OpenSender(g.suite, g.epoch.SenderData, m.Private); err != nil || data.Generation != 0 {
		t.Errorf("the first handshake has generation %d, %v", data.Generation, err)
	}
}

// The marks of the history: bounded in epochs, and forgotten keys are unusable.
func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	oldest := w.groups["bob"].epoch.SenderData
	for range HistoryEpochs {
		w.commit("ann", CommitOptions{})
	}
	if !bytes.Contains(save(t, w.groups["bob"]), oldest) {
		t.Error("an epoch is forgotten too early")
	}
	w.commit("ann", CommitOptions{})
	if bytes.Contains(save(t, w.groups["bob"]), oldest) {
		t.Error("an epoch is kept too long")
	}
	sealed := w.seal("ann", "x")
	for range schedule.SkippedMax / 2 {
		sealed = w.seal("ann", "x")
	}
	w.reads("bob", sealed, "x")
	if n := len(save(t, w.groups["bob"])); n > 64<<10 {
		t.Errorf("%d bytes of state after skipping %d messages", n, schedule.SkippedMax/2)
	}
}
