package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLogRewound: a server is restored from a backup. Whoever has read further is told,
// sends again what was theirs, messages and commits, and in the end everything is there
// once, for everybody, as if nothing had happened.
func TestLogRewound(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	say := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			p := people[i%2] // cid only listens
			p.says(room, fmt.Sprintf("%02d", i))
			for _, other := range people {
				other.reads(fmt.Sprintf("%02d", i))
			}
		}
	}
	refresh := func(p *person) {
		t.Helper()
		epoch := p.must(room).Epoch
		if err := p.Refresh(w.ctx, room); err != nil {
			t.Fatal(err)
		}
		w.eventually("the epoch ends", func() bool { return p.must(room).Epoch > epoch })
		w.agree(room, people...)
	}
	say(1, 4)
	restore := w.backup()
	say(5, 6)
	refresh(ann)
	say(7, 8)
	refresh(bob)
	say(9, 10)
	restore()
	// Whoever comes back after the others have put everything in its place sees nothing
	// of it; the first one surely does.
	rewinds := func() (n int64) {
		for _, p := range people {
			n += p.Stats().Rewinds
		}
		return n
	}
	w.eventually("it is noticed", func() bool { return rewinds() > 0 })
	var all []string
	for i := 1; i <= 10; i++ {
		all = append(all, fmt.Sprintf("%02d", i))
	}
	for _, p := range people {
		w.eventually(p.name+" has everything in its place again", func() bool {
			got := p.transcript(room)
			slices.Sort(got)
			return slices.Equal(got, all) && !p.isRewound(room)
		})
	}
	w.agree(room, people...)
	say(11, 12)
	all = append(all, "11", "12")
	for _, p := range people {
		w.eventually(p.name+" has nothing left that is lost", func() bool {
			var lost int
			if err := p.db.update(w.ctx, func(tx *tx) (err error) {
				lost, err = tx.Messages.CountDetached()
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return lost == 0
		})
		got := p.transcript(room)
		before := slices.Clone(got)
		slices.Sort(got)
		if !slices.Equal(got, all) || !slices.Equal(before[:4], all[:4]) {
			t.Errorf("%s has %q", p.name, before)
		}
	}
	told := int64(0)
	for _, p := range people {
		texts := map[string]int{}
		for e, err := range p.Events(w.ctx, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == EventUndecryptable || e.Type == EventRejoined || e.Type == EventRefused {
				t.Errorf("%s is told %+v", p.name, e)
			}
			if e.Type == EventRewound && e.Conversation == room {
				told++
			}
			if e.Type == EventMessage {
				texts[string(e.Text)]++
			}
			if string(e.Text) == "12" {
				break
			}
		}
		for text, n := range texts {
			if n != 1 {
				t.Errorf("%s is given %q %d times", p.name, text, n)
			}
		}
	}
	if told == 0 || told != rewinds() {
		t.Errorf("%d events for %d times that the log was rewound", told, rewinds())
	}
}

// TestLogRewoundBehindAnEqualEvent: after a restore a new message stands where ann's was, and
// the one behind it is in its place again before she returns. She gets the new message, and
// hers are sent again, whether or not the last one was hers.
func TestLogRewoundBehindAnEqualEvent(t *testing.T) {
	for _, last := range []string{"", "two of ann's"} {
		t.Run("last:"+last, func(t *testing.T) {
			w := newWorld(t)
			people := w.people("ann", "bob", "cid")
			ann, bob, cid := people[0], people[1], people[2]
			room := w.room(people...)
			ann.tells(room, "kept", people...)
			kept := cid.must(room).NextSeq - 1
			restore := w.backup()
			ann.tells(room, "one of ann's", people...)
			bob.tells(room, "bob's", people...)
			want := []string{"bob's", "kept", "new", "one of ann's"}
			if last != "" {
				ann.tells(room, last, people...)
				want = append(want, last)
			}
			ann.net.setDown(true)
			bob.net.setDown(true)
			restore()
			w.eventually("cid notices", func() bool { return cid.Stats().Rewinds > 0 && !cid.isRewound(room) })
			if e := cid.nextType(EventRewound); e.Seq != kept {
				t.Errorf("cid learns that all after %d is lost, want %d", e.Seq, kept)
			}
			cid.tells(room, "new", cid)
			bob.net.setDown(false)
			bob.reads("new")
			w.eventually("bob's is back", func() bool { return !bob.isRewound(room) })
			ann.net.setDown(false)
			ann.reads("new")
			for _, p := range people {
				w.eventually(p.name+" has everything", func() bool {
					got := p.transcript(room)
					slices.Sort(got)
					return slices.Equal(got, want) && !p.isRewound(room)
				})
			}
		})
	}
}

// TestLogRewoundAgain: what was sent again is sent again when the same backup is restored once
// more.
func TestLogRewoundAgain(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	ann.says(room, "kept")
	bob.reads("kept")
	restore := w.backup()
	ann.says(room, "lost")
	bob.reads("lost")
	ann.reads("lost")
	for rewinds := range int64(3) {
		restore()
		w.eventually("ann has sent it again", func() bool { return ann.Stats().Rewinds > rewinds && !ann.isRewound(room) })
	}
	for _, p := range people {
		w.eventually(p.name+" has the message in the log", func() bool {
			var lost int
			err := p.db.update(w.ctx, func(tx *tx) (err error) {
				lost, err = tx.Messages.CountDetached()
				return err
			})
			return err == nil && lost == 0 && slices.Equal(p.transcript(room), []string{"kept", "lost"})
		})
	}
}

// TestLogRewoundBeforeJoining: the log of a restored server ends before a device has joined. It
// does not subscribe again and again, and gets its place back.
func TestLogRewoundBeforeJoining(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	ann.says(room, "kept")
	bob.reads("kept")
	restore := w.backup()
	for i := range 4 {
		bob.says(room, fmt.Sprint("lost ", i))
	}
	ann.reads("lost 3")
	two := ann.device("ann2")
	two.open()
	two.joins(room)
	w.eventually("the device is in", func() bool { return two.must(room).Phase == Joined })
	two.net.setDown(true)
	ann.net.setDown(true)
	bob.close()
	restore()
	two.net.setDown(false)
	w.eventually("the device has sent its commit again", func() bool { return two.Stats().Rewinds > 0 && !two.isRewound(room) })
	ann.net.setDown(false)
	two.says(room, "and on")
	ann.reads("and on")
	ann.says(room, "and back")
	two.reads("and back")
	w.agree(room, ann, two)
	if n := two.Stats().Rewinds; n > 2 {
		t.Errorf("the log was rewound %d times", n)
	}
}

// TestLogRewoundBeforeInvitation: a restored server does not know the account that was invited
// since. Once its inviter has sent the commit again, the account is in the conversation again.
func TestLogRewoundBeforeInvitation(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(ann, bob)
	ann.says(room, "kept")
	bob.reads("kept")
	restore := w.backup()
	ann.says(room, "lost")
	bob.reads("lost")
	if err := ann.Invite(w.ctx, room, cid.did()); err != nil {
		t.Fatal(err)
	}
	cid.joins(room)
	cid.says(room, "cid's")
	ann.reads("cid's")
	bob.reads("cid's")
	restore()
	w.eventually("cid has sent the message again", func() bool {
		return cid.Stats().Rewinds > 1 && cid.must(room).Phase == Joined && !cid.isRewound(room)
	})
	cid.says(room, "and on")
	for _, p := range people {
		p.reads("and on")
	}
	w.agree(room, people...)
	for p, want := range map[*person][]string{ann: {"and on", "cid's", "kept", "lost"}, cid: {"and on", "cid's"}} {
		got := p.transcript(room)
		if slices.Sort(got); !slices.Equal(got, want) || p.Stats().Undecryptable > 0 {
			t.Errorf("%s has %q, %+v", p.name, got, p.Stats())
		}
	}
}

// TestLogRewoundBeforeRejoining: a device that has to enter its group again does so once, also
// if the log has meanwhile lost places that it has read.
func TestLogRewoundBeforeRejoining(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	ann.says(room, "kept")
	bob.reads("kept")
	restore := w.backup()
	for i := range 4 {
		ann.says(room, fmt.Sprint("lost ", i))
	}
	bob.reads("lost 3")
	ann.reads("lost 3")
	ann.net.setDown(true)
	bob.net.setDown(true)
	if err := ann.Rejoin(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	restore()
	ann.net.setDown(false)
	ann.nextType(EventRejoined)
	bob.net.setDown(false)
	bob.says(room, "and on")
	ann.reads("and on")
	ann.says(room, "and back")
	bob.reads("and back")
	ann.reads("and back")
	w.agree(room, people...)
	stats := ann.Stats()
	if stats.Rejoins != 1 || stats.Rewinds != 1 || stats.Undecryptable > 0 {
		t.Errorf("ann's counts are %+v", stats)
	}
	if got := ann.transcript(room); len(got) != 7 || got[0] != "kept" {
		t.Errorf("ann's history is %q", got)
	}
}

// TestRewoundBehindPruned: messages that the server has deleted after they were received are
// not lost when the log is read again: they stay where they were, and are not sent again.
func TestRewoundBehindPruned(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	var all []string
	for i := range 6 {
		text := fmt.Sprint(i)
		people[i%2].says(room, text)
		ann.reads(text)
		bob.reads(text)
		all = append(all, text)
	}
	ann.net.setDown(true)
	next := ann.must(room).NextSeq
	prune := func(earliest int64) {
		t.Helper()
		if err := ann.db.edit(w.ctx, room, func(tx *tx, conv *conversation) error {
			if err := ann.keeper.rewind(tx, conv, next-2); err != nil {
				return err
			}
			return ann.keeper.skipPruned(tx, room, pruned(earliest), ann.now())
		}); err != nil {
			t.Fatal(err)
		}
	}
	prune(next - 2) // the last two have to be read again
	var requests, lost int
	if err := ann.db.update(w.ctx, func(tx *tx) error {
		list, err := tx.Journal.Lost(room)
		if err != nil {
			return err
		}
		requests = len(list)
		lost, err = tx.Messages.CountDetached()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if requests != 1 || lost != 2 {
		t.Errorf("%d own messages are to be sent again and %d are detached, want 1 and 2", requests, lost)
	}
	ann.net.setDown(false)
	w.eventually("ann has them again", func() bool { return !ann.isRewound(room) && ann.must(room).NextSeq == next })
	if got := ann.transcript(room); !slices.Equal(got, all) {
		t.Errorf("the history is %q", got)
	}
	ann.net.setDown(true)
	prune(next + 3)
	for e, err := range ann.Events(w.ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == EventLost {
			if want := fmt.Sprintf("messages %d to %d were", next, next+2); !strings.HasPrefix(e.Problem, want) {
				t.Errorf("ann is told %q, want %q", e.Problem, want)
			}
			break
		}
	}
}

// TestUnknownConversations: events of conversations that are not in the home, or cannot be,
// leave nothing behind.
func TestUnknownConversations(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	s := newSession(ann.Client, nil, nil)
	before := len(s.due)
	l := newLink(w.ctx)
	for _, id := range []string{"unknown", choreList, ""} {
		for _, e := range []event{
			&logMessage{conversation: id, seq: 7}, caughtUp{id, 7}, logGap{id}, followEnded{id, pruned(7)}, reportRefused{id, "7", pruned(7)},
			&welcome{Conversation: id, Pos: 1 << 40, isLogged: true}, membership{conversation: id}, accountsChanged{conversation: id}, accountsUnclear{id, ""},
		} {
			if id != "unknown" {
				if !l.deliver(e) || len(l.out) > 0 {
					t.Fatalf("%T with the id %q comes to the session", e, id)
				}
			} else if err := s.take(w.ctx, []event{e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(s.subs) > 0 || len(s.due) != before {
		t.Errorf("the session has %d subscriptions and %d due names", len(s.subs), len(s.due))
	}
}

// TestRewindsArePaced: a server that shows another end of the log each time is not asked
// without a wait.
func TestRewindsArePaced(t *testing.T) {
	s := &session{subs: map[string]*subscription{}, due: map[string]bool{}}
	for i := range 3 {
		s.resubscribe("c")
		if sub := s.sub("c"); sub.follow.isReady() != (i == 0) {
			t.Errorf("rewind %d: ready %v", i, sub.follow.isReady())
		}
	}
	sub := s.sub("c")
	sub.rewoundAt = time.Now().Add(-rewindCalm - time.Second)
	sub.follow.ok()
	if s.resubscribe("c"); !sub.follow.isReady() {
		t.Error("a rewind long after the others has to wait")
	}
}

// TestLogRewoundTwice: a message stays lost while its sender is away, and another one has its
// place when the log is rewound again. All goes on, and the lost message keeps its place in the
// history.
func TestLogRewoundTwice(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	ann.tells(room, "kept", people...)
	restore := w.backup()
	ann.tells(room, "ann's", people...)
	bob.tells(room, "bob's", people...)
	ann.net.setDown(true)
	bob.net.setDown(true)
	restore()
	w.eventually("cid notices", func() bool { return cid.Stats().Rewinds > 0 && !cid.isRewound(room) })
	cid.tells(room, "new", cid)
	bob.net.setDown(false)
	bob.reads("new")
	w.eventually("bob's is back", func() bool { return !bob.isRewound(room) })
	ann.close()
	restore = w.backup()
	cid.tells(room, "later", cid, bob)
	restore()
	w.eventually("cid notices again", func() bool { return cid.Stats().Rewinds > 1 && !cid.isRewound(room) })
	both := people[1:]
	for _, p := range both {
		w.eventually(p.name+" has everything", func() bool {
			got := p.transcript(room)
			slices.Sort(got)
			return slices.Equal(got, []string{"ann's", "bob's", "kept", "later", "new"}) && !p.isRewound(room)
		})
	}
	bob.tells(room, "last", both...)
	for _, p := range both {
		if got, want := p.transcript(room)[:2], []string{"kept", "ann's"}; cid == p && !slices.Equal(got, want) {
			t.Errorf("%s's history begins with %q, want %q", p.name, got, want)
		}
		found, err := p.Search(w.ctx, Query{Conversation: room})
		if err != nil || len(found) != 6 {
			t.Errorf("%s finds %d messages, %v", p.name, len(found), err)
		}
		var paged []string
		for before := int64(0); ; {
			page, err := p.History(w.ctx, room, before, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, e := range slices.Backward(page) {
				if e.Type == EventMessage {
					paged = append(paged, string(e.Text))
				}
			}
			before = page[0].Seq
		}
		slices.Reverse(paged)
		if got := p.transcript(room); !slices.Equal(paged, got) {
			t.Errorf("%s's history by pages is %q, want %q", p.name, paged, got)
		}
	}
}

// backup makes a backup of the server, which restore brings back.
func (w *world) backup() (restore func()) {
	w.t.Helper()
	backup := w.t.TempDir()
	copyAll := func(to, from string) {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.stopServer()
	copyAll(backup, w.config.Data)
	w.startServer()
	return func() {
		w.t.Helper()
		w.stopServer()
		if err := os.RemoveAll(w.config.Data); err != nil {
			w.t.Fatal(err)
		}
		copyAll(w.config.Data, backup)
		if err := filepath.WalkDir(w.config.Data, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			return os.Chmod(path, 0o600) // which a copy does not keep
		}); err != nil {
			w.t.Fatal(err)
		}
		w.startServer()
	}
}

// isRewound says whether the person's client is still about to bring a log up to date.
func (p *person) isRewound(conversation string) bool {
	conv, err := p.snapshot(p.w.ctx, conversation)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return conv.info.Rewound
}

// TestAccountLogRewound: an account log that goes on before where it was is seen as soon
// as something else stands in a place that is known, and what it says then is done.
func TestAccountLogRewound(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	ann.onePackage()
	ann.net.setDown(true)
	const start = 1000
	for i, row := range []struct {
		pos          int64
		conversation string
		isRewound    bool
	}{
		{1, "c1", false},
		{2, "c2", false},
		{2, "c2", false}, // delivered again
		{3, "c3", false},
		{2, "c4", true},  // another one
		{2, "c4", false}, // delivered again
		{1, "c1", false},
		{3, "c5", false},
		{8, "c8", false}, // what is between them is for other devices,
		{5, "c6", true},  // or was
	} {
		before := ann.Stats().Rewinds
		m := membership{accountPlace{start + row.pos, true}, row.conversation, []string{ann.did()}, []string{}}
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			return (&batch{s: &session{c: ann.Client}, tx: tx, named: map[string]bool{}}).membership(m)
		}); err != nil {
			t.Fatal(err)
		}
		if got := ann.Stats().Rewinds > before; got != row.isRewound {
			t.Errorf("step %d: rewound: %v", i, got)
		}
		if row.isRewound {
			if e := ann.nextType(EventRewound); e.Conversation != "" || e.Seq != start+row.pos-1 || !errors.Is(e.Err(), ErrRewound) {
				t.Errorf("step %d: ann is told %+v", i, e)
			}
		}
		if c := ann.must(row.conversation); c.Phase != Waiting {
			t.Errorf("step %d: the conversation is %+v", i, c)
		}
	}
}
