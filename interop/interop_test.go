// Package interop runs waxwing's MLS against ts-mls, through the peer protocol
// (docs/command-line.md, section dev): groups with members of both, in which each
// has every part. ts/ holds the other side. The same stories run among ours alone,
// which needs no node.
package interop

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// story is a sequence of events in a group that a's client creates; b's are the others.
type story struct {
	name string
	run  func(w *world, a, b *peer, public bool)
}

var stories = []story{
	{"members come, talk and go", membersComeAndGo},
	{"proposals", proposals},
	{"external join", externalJoin},
	{"commit race", commitRace},
	{"out of order", outOfOrder},
	{"save and load", saveAndLoad},
	{"half of the tree empties", halfEmpties},
	{"unmerged leaves", unmergedLeaves},
	{"nonsense", nonsense},
}

// suites are those that both sides know.
var suites = []int{1, 2, 3}

func wireName(public bool) string {
	if public {
		return "public"
	}
	return "private"
}

// TestOurs tells the stories among ours alone.
func TestOurs(t *testing.T) {
	ours := startOurs(t)
	for _, s := range stories {
		for _, public := range []bool{false, true} {
			t.Run(s.name+"/"+wireName(public), func(t *testing.T) {
				s.run(newWorld(t, 1), ours, ours, public)
			})
		}
	}
	t.Run("churn", func(t *testing.T) {
		churn(newWorld(t, 3), ours, ours, churnSteps/2, rand.New(rand.NewPCG(churnSeed, 0)))
	})
}

// TestBoth tells them in both directions.
func TestBoth(t *testing.T) {
	for _, suite := range suites {
		t.Run(fmt.Sprint("suite ", suite), func(t *testing.T) {
			t.Parallel()
			ours, theirs := startOurs(t), startTheirs(t)
			for i, s := range stories {
				for _, public := range []bool{false, true} {
					name := s.name + "/" + wireName(public)
					// Suite 1 has it all. In the others the sides take turns from story to
					// story in who creates the group of which wire format, to save time.
					oursCreates := public == (i%2 == 0)
					if suite == 1 || oursCreates {
						t.Run(name+"/ours creates", func(t *testing.T) { s.run(newWorld(t, suite), ours, theirs, public) })
					}
					if suite == 1 || !oursCreates {
						t.Run(name+"/theirs creates", func(t *testing.T) { s.run(newWorld(t, suite), theirs, ours, public) })
					}
				}
			}
		})
	}
}

func membersComeAndGo(w *world, a, b *peer, public bool) {
	ann, bob, cat, dan := w.client(a, "ann"), w.client(b, "bob"), w.client(a, "cat"), w.client(b, "dan")
	ann.create(map[string]any{"type": 0xf001, "data": []byte("unknown to both")})
	w.check()
	ann.changes(change{add: []*member{bob}, public: public})
	w.allTalk()
	bob.changes(change{public: public}) // fresh keys for bob
	bob.changes(change{add: []*member{cat, dan}, public: public})
	w.allTalk()
	dan.changes(change{public: public})
	ann.changes(change{public: public})
	w.allTalk()
	late := bob.sends("said before bob left")
	cat.changes(change{remove: []*member{bob}, public: public})
	ann.reads(late)
	dan.reads(late)
	w.allTalk()
	// Back at a free leaf, while another goes.
	dan.changes(change{add: []*member{bob}, remove: []*member{cat}, public: public})
	w.allTalk()
	bob.changes(change{public: public})
	w.allTalk()
	ann.changes(change{remove: []*member{bob, dan}, public: public})
	ann.changes(change{add: []*member{cat}, public: public})
	w.allTalk()
}

func proposals(w *world, a, b *peer, public bool) {
	ann, bob, cat, dan := w.client(a, "ann"), w.client(b, "bob"), w.client(a, "cat"), w.client(b, "dan")
	ann.create()
	ann.changes(change{add: []*member{bob, cat}, public: public})

	// Each side commits an Add of the other, and Updates of both.
	bob.proposes(map[string]any{"type": "add", "keyPackage": dan.keyPackage(false)})
	ann.proposes(map[string]any{"type": "update"})
	p := cat.commit(change{public: public})
	w.joins([]*member{dan}, p.Welcome)
	p.win()
	w.members = append(w.members, dan)
	w.check()
	w.allTalk()

	ann.proposes(map[string]any{"type": "update"})
	cat.proposes(map[string]any{"type": "update"})
	dan.changes(change{public: public})
	w.allTalk()
	bob.proposes(map[string]any{"type": "update"})
	dan.proposes(map[string]any{"type": "update"})
	ann.changes(change{public: public})
	w.allTalk()

	// The committer leaves its own Update out, and an Update of the member that it removes.
	ann.proposes(map[string]any{"type": "update"})
	bob.proposes(map[string]any{"type": "update"})
	cat.proposes(map[string]any{"type": "update"})
	ann.changes(change{remove: []*member{bob}, public: public})
	w.allTalk()

	// One member proposes a removal that another commits.
	dan.proposes(map[string]any{"type": "remove", "identity": ann.name})
	p = cat.commit(change{public: public})
	p.remove = []*member{ann}
	p.wins()
	w.allTalk()
}

func externalJoin(w *world, a, b *peer, public bool) {
	ann, bob, cat, dan := w.client(a, "ann"), w.client(b, "bob"), w.client(a, "cat"), w.client(b, "dan")
	ann.create(map[string]any{"type": 0xff01, "data": []byte{}})
	bob.joinsExternally(ann)
	w.allTalk()
	cat.joinsExternally(bob)
	w.allTalk()
	dan.joinsExternally(ann)
	w.allTalk()
	// Into the place of one that left, from a tree with unmerged leaves and blanks.
	cat.changes(change{remove: []*member{bob}, public: public})
	bob.joinsExternally(dan)
	w.allTalk()
	// Again, in its own place; where it was before notices.
	former := dan.twin()
	dan.joinsExternally(cat)
	former.processes(dan.joined)
	w.allTalk()
	ann.joinsExternally(bob)
	w.allTalk()
	for _, m := range slices.Clone(w.members) {
		m.changes(change{public: public})
	}
	w.allTalk()
}

func commitRace(w *world, a, b *peer, public bool) {
	ann, bob, cat, dan := w.client(a, "ann"), w.client(b, "bob"), w.client(a, "cat"), w.client(b, "dan")
	ann.create()
	ann.changes(change{add: []*member{bob}, public: public})
	for _, winner := range []*member{ann, bob} {
		loser := bob
		if winner == bob {
			loser = ann
		}
		lost := loser.commit(change{add: []*member{cat}, public: public})
		won := winner.commit(change{public: public})
		// The race is open, and life goes on.
		winner.talks()
		loser.talks()
		won.wins()
		loser.refuses("its commit lost", "mergePending", nil)
		winner.refusesMessage("a commit of the last epoch", lost.Commit)
		cat.refuses("nobody has its group", "state", nil)
		w.allTalk()
		// Again in the new epoch.
		loser.changes(change{add: []*member{dan}, public: public})
		w.allTalk()
		winner.changes(change{remove: []*member{dan}, public: public})
	}
	// A commit that the delivery service refused is discarded; the epoch goes on.
	for _, m := range []*member{ann, bob} {
		m.commit(change{add: []*member{cat}, public: true})
		m.must("discardPending", nil, nil)
		m.refuses("it was discarded", "mergePending", nil)
		w.check()
		w.allTalk()
		m.changes(change{public: public})
	}
}

func outOfOrder(w *world, a, b *peer, public bool) {
	ann, bob, cat := w.client(a, "ann"), w.client(b, "bob"), w.client(b, "cat")
	ann.create()
	ann.changes(change{add: []*member{bob, cat}, public: public})
	for _, pair := range [][2]*member{{ann, bob}, {bob, ann}, {cat, ann}} {
		sender, receiver := pair[0], pair[1]
		var letters []letter
		for i := range 9 {
			letters = append(letters, sender.sends(fmt.Sprint("letter ", i)))
			if i%3 == 2 {
				// Epochs change between them; the application's ratchet is another's.
				sender.changes(change{public: public})
			}
		}
		order := rand.New(rand.NewPCG(1, 2)).Perm(len(letters))
		for _, i := range order {
			receiver.reads(letters[i])
			receiver.refusesMessage("it was read before", letters[i].message)
		}
		w.allTalk()
	}
	// Far back is gone: more epochs than anybody keeps.
	old := bob.sends("too late")
	for range 6 {
		ann.changes(change{public: public})
	}
	ann.refusesMessage("its epoch is forgotten", old.message)
	w.allTalk()
}

func saveAndLoad(w *world, a, b *peer, public bool) {
	ann, bob, cat := w.client(a, "ann"), w.client(b, "bob"), w.client(b, "cat")
	ann.create()
	ann.changes(change{add: []*member{bob}, public: public})
	for _, m := range []*member{ann, bob} {
		other := bob
		if m == bob {
			other = ann
		}
		read, late := other.sends("read before"), other.sends("late")
		m.reads(read)
		m.restarts()
		m.refusesMessage("it was read before the state was saved", read.message)
		m.reads(late)
		w.check()
		w.allTalk()
		// A proposal that waits for a commit.
		other.proposes(map[string]any{"type": "update"})
		m.restarts()
		m.changes(change{public: public})
		// An own Update that another member commits.
		m.proposes(map[string]any{"type": "update"})
		m.restarts()
		other.changes(change{public: public})
		// A commit whose echo comes after the restart.
		p := m.commit(change{public: public})
		m.restarts()
		m.restarts()
		p.wins()
		// One that is overtaken.
		m.commit(change{public: public})
		m.restarts()
		other.changes(change{public: public})
		m.refuses("another commit won", "mergePending", nil)
		other.restarts()
		w.allTalk()
	}
	p := ann.commit(change{add: []*member{cat}, public: public})
	ann.restarts()
	p.wins()
	w.allTalk()
}

// halfEmpties leaves the root's one half without members, so that paths do not
// reach the root. RFC 9420, section 7.5.
func halfEmpties(w *world, a, b *peer, public bool) {
	ann, bob, cat, dan := w.client(a, "ann"), w.client(b, "bob"), w.client(a, "cat"), w.client(b, "dan")
	ann.create()
	ann.changes(change{add: []*member{bob, cat, dan}, public: public})
	cat.changes(change{remove: []*member{ann, bob}, public: public})
	dan.changes(change{public: public})
	w.allTalk()
	dan.changes(change{add: []*member{bob}, public: public})
	w.allTalk()
	cat.changes(change{add: []*member{ann}, remove: []*member{bob}, public: public})
	w.allTalk()
}

// unmergedLeaves lets a client join a tree in which a node has unmerged leaves and
// its parent has none. RFC 9420, section 7.9.2.
func unmergedLeaves(w *world, a, b *peer, public bool) {
	ann, bob, cat, dan, eve, joiner := w.client(a, "ann"), w.client(b, "bob"), w.client(b, "cat"), w.client(a, "dan"), w.client(b, "eve"), w.client(b, "joiner")
	ann.create()
	ann.changes(change{add: []*member{bob, cat, dan, eve}, public: public})
	ann.changes(change{remove: []*member{bob}, public: public})
	eve.changes(change{add: []*member{joiner}, public: public})
	w.allTalk()
	dan.changes(change{add: []*member{bob}, public: public})
	w.allTalk()
	cat.changes(change{public: public})
	w.allTalk()
}

// nonsense gives members what they must refuse, and shows that they are as before.
func nonsense(w *world, a, b *peer, public bool) {
	ann, bob, cat := w.client(a, "ann"), w.client(b, "bob"), w.client(a, "cat")
	ann.create()
	ann.changes(change{add: []*member{bob}, public: public})
	l := ann.sends("a letter")
	p := ann.commit(change{public: public})
	for _, original := range [][]byte{l.message, p.Commit} {
		for i := 0; i < len(original); i += 1 + len(original)/40 {
			bad := slices.Clone(original)
			bad[i] ^= 0x40
			bob.refusesMessage(fmt.Sprintf("byte %d was changed", i), bad)
		}
		bob.refusesMessage("it has a byte too many", append(slices.Clone(original), 0))
		bob.refusesMessage("it has a byte too few", original[:len(original)-1])
	}
	bob.reads(l)
	bob.refusesMessage("a key package is not a message of the group", cat.keyPackage(true))
	bob.refuses("nobody has this name", "commit", map[string]any{"remove": []string{"did:ex:nobody"}})
	bob.refuses("this is no key package", "commit", map[string]any{"add": [][]byte{l.message}})
	cat.refuses("there is nothing to join with", "join", map[string]any{"welcome": l.message})
	p.wins()
	w.allTalk()
}

// TestChurn is a group of up to twelve, half of them ours, through a hundred random
// changes; all agree after each.
func TestChurn(t *testing.T) {
	for _, suite := range []int{1, 3} {
		t.Run(fmt.Sprint("suite ", suite), func(t *testing.T) {
			t.Parallel()
			churn(newWorld(t, suite), startOurs(t), startTheirs(t), churnSteps, rand.New(rand.NewPCG(churnSeed, uint64(suite))))
		})
	}
}

const (
	churnMembers = 12
	churnSteps   = 100
	churnSeed    = 1
)

func churn(w *world, a, b *peer, steps int, random *rand.Rand) {
	var outside []*member
	for i := range churnMembers {
		p := a
		if i%2 == 1 {
			p = b
		}
		outside = append(outside, w.client(p, fmt.Sprint("member", i)))
	}
	outside[0].create()
	outside = outside[1:]
	for step := range steps {
		outside = churnStep(w, outside, random, step)
	}
}

// churnStep does one random thing, and returns who is outside afterwards.
func churnStep(w *world, outside []*member, random *rand.Rand, step int) []*member {
	anyone := func() *member { return w.members[random.IntN(len(w.members))] }
	m, public := anyone(), random.IntN(2) == 0
	c := change{public: public}
	// The group grows at first and then stays large.
	switch what := random.IntN(10); {
	case len(outside) > 0 && (what < 3 || len(w.members) < 3 || step < 12):
		n := 1 + random.IntN(min(2, len(outside)))
		c.add, outside = outside[:n:n], outside[n:]
		m.changes(c)
	case what < 4 && len(outside) > 0:
		outside[0].joinsExternally(m)
		outside = outside[1:]
	case what < 6 && len(w.members) > 3:
		if other := anyone(); other != m {
			c.remove = []*member{other}
			m.changes(c)
			outside = append(outside, other)
		}
	case what < 7:
		if other := anyone(); other != m {
			other.proposes(map[string]any{"type": "update"})
		}
		m.changes(c)
	case what < 8:
		m.restarts()
		m.changes(c)
	case what < 9:
		if other := anyone(); other != m {
			other.commit(change{public: public}) // loses
		}
		m.changes(c)
	default:
		m.changes(c)
	}
	anyone().talks()
	return outside
}
