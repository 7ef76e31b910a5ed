package mls

import (
	"bytes"
	"errors"
	"testing"
)

// limited reloads name with other limits.
func (w *world) limited(name string, l Limits) {
	w.t.Helper()
	g, err := LoadGroup(save(w.t, w.groups[name]), LoadOptions{Now: testNow, Limits: l})
	if err != nil {
		w.t.Fatal(err)
	}
	w.groups[name] = g
}

func TestLimits(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	w.limited("bob", Limits{PastEpochs: 2, Jump: 4, SkippedKeys: 3, Proposals: 1})
	var old [][]byte
	for range 3 {
		old = append(old, w.seal("ann", "old"))
		w.commit("cay", CommitOptions{})
	}
	w.refuses("bob", old[0], ErrWrongEpoch)
	w.reads("bob", old[1], "old")
	var messages [][]byte
	for range 7 {
		messages = append(messages, w.seal("ann", "x"))
	}
	w.refuses("bob", messages[5], ErrTooFarAhead)
	w.reads("bob", messages[4], "x")
	w.refuses("bob", messages[0], ErrReplay) // four were skipped, three are kept
	w.reads("bob", messages[1], "x")
	w.process("bob", w.propose("cay", removal(0), 1))
	w.refuses("bob", w.propose("cay", removal(1), 1), ErrInvalidProposal)
	// Smaller limits trim what larger ones kept.
	w.limited("cay", Limits{PastEpochs: 1})
	w.reads("cay", old[2], "old")
	w.refuses("cay", old[1], ErrWrongEpoch)
}

func TestLimitsHaveCeilings(t *testing.T) {
	huge := Limits{PastEpochs: 1 << 40, Jump: 1 << 40, SkippedKeys: 1 << 40, Proposals: 1 << 40}.effective()
	if huge.PastEpochs > 1000 || huge.Jump > 100_000 || huge.SkippedKeys > 100_000 || huge.Proposals > 100_000 {
		t.Errorf("got %+v", huge)
	}
	if got := (Limits{PastEpochs: -1}).effective(); got.PastEpochs != HistoryEpochs || got.Jump != 1000 || got.SkippedKeys != 1000 || got.Proposals != 1000 {
		t.Errorf("got %+v", got)
	}
}

// The limits apply to groups that were created, joined or loaded.
func TestLimitsOfJoiners(t *testing.T) {
	w := newWorld(t, testSuite, "ann")
	limits := Limits{Jump: 1}
	bob := keyPackage(t, identity(t, testSuite, "bob"))
	p := w.commit("ann", CommitOptions{Add: [][]byte{bob.Message()}})
	var err error
	if w.groups["bob"], err = Join(p.Welcome(), bob, JoinOptions{Limits: limits, Now: testNow}); err != nil {
		t.Fatal(err)
	}
	w.join("cay", identity(t, testSuite, "cay"), w.groupInfo("ann"), ExternalJoinOptions{Limits: limits})
	var last []byte
	for range 3 {
		last = w.seal("ann", "x")
	}
	for _, name := range []string{"bob", "cay"} {
		if _, err := w.groups[name].Process(last); !errors.Is(err, ErrTooFarAhead) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Secrets are overwritten when they have served, but not those that an older value
// of the group still needs.
func TestOldValuesStayUsable(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	for name := range w.groups {
		w.commit(name, CommitOptions{})
	}
	first, second, third := w.seal("ann", "1"), w.seal("ann", "2"), w.seal("ann", "3")
	commit := w.hasCommitted("ann")
	joining, err := JoinExternal(w.groupInfo("cay"), identity(t, testSuite, "dan"), ExternalJoinOptions{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	before := save(t, w.groups["bob"])
	bob := w.groups["bob"]
	open := func(g *Group, message []byte) *Group {
		t.Helper()
		out, err := g.Process(message)
		if err != nil {
			t.Fatal(err)
		}
		return out.Group
	}
	for range 2 {
		skipped := open(bob, third)
		for range 2 {
			open(open(open(skipped, first), second), commit.Message())
			open(open(skipped, second), joining.Message())
		}
		open(open(bob, commit.Message()), first)
		open(bob, joining.Message())
		if _, err := bob.Commit(CommitOptions{Remove: []uint32{w.leafOf("cay")}}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := bob.Seal([]byte("x"), nil, SealOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(before, save(t, bob)) {
		t.Error("an old value changed")
	}
	after := open(bob, commit.Message())
	if !bytes.Equal(after.EpochAuthenticator(), commit.Group().EpochAuthenticator()) {
		t.Error("an old value leads elsewhere")
	}
	joined := open(bob, joining.Message())
	if !bytes.Equal(joined.EpochAuthenticator(), joining.Group().EpochAuthenticator()) {
		t.Error("an old value leads elsewhere by an external commit")
	}
}

// hasCommitted returns a commit of who that no member has processed.
func (w *world) hasCommitted(who string) *PendingCommit {
	w.t.Helper()
	p, err := w.groups[who].Commit(CommitOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.groups[who] = p.Base()
	return p
}
