package interop

import (
	"os/exec"
	"testing"
)

// faults are the patches that ts-mls needs (ts/patches.mjs, ts/client.mjs), each
// with the smallest story that fails without it. show returns the error of the last
// step; theirs is without the patch.
var faults = []struct {
	patch string
	suite int
	show  func(w *world, ours, theirs *peer) error
}{
	{"unmerged-leaves", 1, func(w *world, ours, theirs *peer) error {
		ann, bob, cat, eve, joiner := w.client(ours, "ann"), w.client(ours, "bob"), w.client(ours, "cat"), w.client(ours, "eve"), w.client(theirs, "joiner")
		dan := w.client(ours, "dan")
		ann.create()
		ann.changes(change{add: []*member{bob, cat, dan, eve}})
		ann.changes(change{remove: []*member{bob}})
		// The joiner is unmerged at the node over ann to dan, not at the root.
		p := eve.commit(change{add: []*member{joiner}})
		p.win()
		return joiner.call("join", map[string]any{"welcome": p.Welcome}, nil)
	}},
	{"filtered-root", 1, func(w *world, ours, theirs *peer) error {
		ann, bob, cat, dan := w.client(ours, "ann"), w.client(ours, "bob"), w.client(ours, "cat"), w.client(theirs, "dan")
		ann.create()
		ann.changes(change{add: []*member{bob, cat, dan}})
		p := cat.commit(change{remove: []*member{ann, bob}})
		return dan.call("process", map[string]any{"message": p.Commit}, nil)
	}},
	{"removed-and-replaced", 1, func(w *world, ours, theirs *peer) error {
		ann, bob, cat := w.client(ours, "ann"), w.client(theirs, "bob"), w.client(ours, "cat")
		ann.create()
		ann.changes(change{add: []*member{bob}})
		p := ann.commit(change{add: []*member{cat}, remove: []*member{bob}})
		return bob.call("process", map[string]any{"message": p.Commit}, nil)
	}},
	{"optional-zero", 1, func(w *world, ours, theirs *peer) error {
		ann, bob := w.client(ours, "ann"), w.client(theirs, "bob")
		ann.create()
		ann.changes(change{add: []*member{bob}})
		ann.proposes(map[string]any{"type": "update"})
		bob.restarts()
		return bob.call("commit", nil, nil)
	}},
	{"own-update", 1, func(w *world, ours, theirs *peer) error {
		ann, bob := w.client(ours, "ann"), w.client(theirs, "bob")
		ann.create()
		ann.changes(change{add: []*member{bob}})
		bob.proposes(map[string]any{"type": "update"})
		p := ann.commit(change{})
		return bob.call("process", map[string]any{"message": p.Commit}, nil)
	}},
	{"external-pub-read", 1, func(w *world, ours, theirs *peer) error {
		ann, bob := w.client(ours, "ann"), w.client(theirs, "bob")
		ann.create()
		var info struct{ GroupInfo []byte }
		ann.must("groupInfo", nil, &info)
		return bob.call("externalJoin", map[string]any{"groupInfo": info.GroupInfo}, nil)
	}},
	{"p256-compressed", 2, func(w *world, ours, theirs *peer) error {
		ann, bob := w.client(ours, "ann"), w.client(theirs, "bob")
		ann.create()
		return ann.call("commit", map[string]any{"add": [][]byte{bob.keyPackage(false)}}, nil)
	}},
}

// TestPatchesAreNeeded shows that every patch does what it is there for. A story
// that goes well without its patch means that ts-mls mended the fault.
func TestPatchesAreNeeded(t *testing.T) {
	ours, patched := startOurs(t), startTheirs(t)
	for _, f := range faults {
		t.Run(f.patch, func(t *testing.T) {
			t.Parallel()
			if err := f.show(newWorld(t, f.suite), ours, patched); err != nil {
				t.Errorf("with the patch: %v", err)
			}
			err := f.show(newWorld(t, f.suite), ours, startTheirs(t, f.patch))
			if err == nil {
				t.Fatal("nothing fails without the patch")
			}
			t.Log(err)
		})
	}
}

// TestBareExternalPubIsUnderstood: ts-mls by itself writes external_pub without its
// length prefix. Ours takes both forms.
func TestBareExternalPubIsUnderstood(t *testing.T) {
	ours, theirs := startOurs(t), startTheirs(t, "external-pub-write")
	for _, suite := range suites {
		w := newWorld(t, suite)
		ann, bob := w.client(theirs, "ann"), w.client(ours, "bob")
		ann.create()
		bob.joinsExternally(ann)
		w.allTalk()
	}
}

// TestOtherFaults shows that the list in README.md is true.
func TestOtherFaults(t *testing.T) {
	command := exec.Command(requireNode(t, "ts", "ts-mls"), "--no-warnings", "faults.mjs")
	command.Dir = "ts"
	out, err := command.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
