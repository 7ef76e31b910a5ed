package client

import (
	"errors"
	"slices"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// room makes one by the first of people with all the others in it.
func (w *world) room(people ...*person) string {
	w.t.Helper()
	var others []string
	for _, p := range people[1:] {
		if err := p.WaitOnline(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		others = append(others, p.did())
	}
	if w.memory != nil {
		time.Sleep(time.Second) // all have published their packages
	}
	room, err := people[0].CreateRoom(w.ctx, others...)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range people {
		p.joins(room)
	}
	w.agree(room, people...)
	return room
}

// joins waits until the person is in the conversation.
func (p *person) joins(conversation string) {
	p.w.t.Helper()
	p.next("to join", func(e Event) bool { return e.Type == EventJoined && e.Conversation == conversation })
}

// members are the accounts in the person's view of a group, by their names in the test.
func (p *person) members(conversation string) []string {
	p.w.t.Helper()
	var out []string
	for _, m := range p.must(conversation).Members {
		out = append(out, m.Account)
	}
	slices.Sort(out)
	return out
}

func dids(people ...*person) []string {
	var out []string
	for _, p := range people {
		out = append(out, p.did())
	}
	slices.Sort(out)
	return out
}

// settles waits until everybody's group consists of these people and all agree.
func (w *world) settles(conversation string, people ...*person) {
	w.t.Helper()
	for _, p := range people {
		w.eventually(p.name+" sees who is left", func() bool {
			c := p.must(conversation)
			return slices.Equal(p.members(conversation), dids(people...)) && len(c.Removing)+len(c.Inviting) == 0
		})
	}
	w.agree(conversation, people...)
}

// TestRemove: who is removed is out of both lists, and what is said afterwards waits
// until they are: it is encrypted for those who stay.
func TestRemove(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	epoch := ann.must(room).Epoch
	if err := ann.Remove(w.ctx, room, bob.did()); err != nil {
		t.Fatal(err)
	}
	ann.says(room, "without bob")
	cid.reads("without bob")
	bob.nextType(EventRemoved)
	w.settles(room, ann, cid)
	if got := ann.must(room).Epoch; got != epoch+1 {
		t.Errorf("it took %d commits", got-epoch)
	}
	if slices.Contains(bob.transcript(room), "without bob") {
		t.Error("bob has read on")
	}
	// By somebody who may not, it is refused, and said.
	if err := cid.Remove(w.ctx, room, ann.did()); err != nil {
		t.Fatal(err)
	}
	if e := cid.nextType(EventProblem); e.Code != codeForbidden {
		t.Errorf("cid is told %+v", e)
	}
	w.eventually("cid gives it up", func() bool { return len(cid.must(room).Removing) == 0 })
	cid.says(room, "still here")
	ann.reads("still here")
	for name, err := range map[string]error{
		"oneself":              ann.Remove(w.ctx, room, ann.did()),
		"nobody":               ann.Remove(w.ctx, room, "bob"),
		"an unknown room":      ann.Remove(w.ctx, "elsewhere", bob.did()),
		"a room that was left": bob.Remove(w.ctx, room, ann.did()),
		"a dm":                 ann.Remove(w.ctx, ann.dm(bob), bob.did()),
	} {
		if !errors.Is(err, ErrAccount) && !errors.Is(err, ErrUnknownConversation) && !errors.Is(err, ErrNoGroup) && !errors.Is(err, ErrDirect) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Back in, and out again at once: one after the other.
	if err := ann.Invite(w.ctx, room, bob.did()); err != nil {
		t.Fatal(err)
	}
	bob.joins(room)
	w.settles(room, ann, bob, cid)
}

// TestLeave: who leaves is taken out of the group by those who stay before anything
// else is said, without anybody asking for it.
func TestLeave(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid", "dee")
	ann, bob, cid, dee := people[0], people[1], people[2], people[3]
	room := w.room(people...)
	bob.says(room, "goodbye")
	if err := bob.Leave(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Send(w.ctx, room, []byte("one more thing")); !errors.Is(err, ErrNoGroup) {
		t.Errorf("bob goes on talking: %v", err)
	}
	cid.reads("goodbye")
	if e := bob.nextType(EventRemoved); e.Problem != "left" {
		t.Errorf("bob is told %+v", e)
	}
	w.settles(room, ann, cid, dee)
	// The owner hands over to the one it names.
	if err := ann.LeaveTo(w.ctx, room, dee.did()); err != nil {
		t.Fatal(err)
	}
	ann.nextType(EventRemoved)
	w.settles(room, cid, dee)
	dee.net.cut() // roles are asked for on each connection
	w.eventually("dee is the owner", func() bool { return dee.must(room).Role == RoleOwner })
	if err := dee.Invite(w.ctx, room, ann.did()); err != nil {
		t.Fatal(err)
	}
	ann.joins(room)
	w.settles(room, ann, cid, dee)
	// Without a name it is whoever is left.
	for _, p := range []*person{dee, cid, ann} {
		if err := p.Leave(w.ctx, room); err != nil {
			t.Fatal(err)
		}
		p.nextType(EventRemoved)
	}
	if err := ann.Leave(w.ctx, "elsewhere"); !errors.Is(err, ErrUnknownConversation) {
		t.Error(err)
	}
}

// TestRemovalPending: an account is off the server's list, by a call without a commit,
// and no admin is there: whoever wants to speak takes it out of the group first.
func TestRemovalPending(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	session := bob.session()
	ann.close()
	if err := bob.call(w.ctx, session, "/v1/rooms/leave", gateway.LeaveRoom{ConvID: room}, &gateway.Status{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("cid knows", func() bool { return slices.Equal(cid.must(room).Removing, dids(bob)) })
	cid.says(room, "not for bob")
	cid.reads("not for bob")
	if got := cid.members(room); !slices.Equal(got, dids(ann, cid)) {
		t.Errorf("cid said it to %v", got)
	}
	// And who was away reads of it on the way.
	ann.open()
	ann.reads("not for bob")
	w.settles(room, ann, cid)
}

// TestRemovalPendingWhileAway: what happened while the admin was away is seen on the
// next connection, where no record of it is replayed.
func TestRemovalPendingWhileAway(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	session := bob.session()
	ann.close()
	cid.close()
	if err := bob.call(w.ctx, session, "/v1/rooms/leave", gateway.LeaveRoom{ConvID: room}, &gateway.Status{}); err != nil {
		t.Fatal(err)
	}
	ann.open()
	w.eventually("ann takes bob out", func() bool { return slices.Equal(ann.members(room), dids(ann, cid)) })
	cid.open()
	w.settles(room, ann, cid)
}

// session returns the token of the person's session.
func (p *person) session() string {
	p.w.t.Helper()
	var kept tokens
	if err := p.db.update(p.w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("tokens", &kept); return err }); err != nil {
		p.w.t.Fatal(err)
	}
	return kept.Session
}

// TestWrongRoster: what a server says of the members takes out whoever it leaves out,
// which it could do anyway, and brings in nobody.
func TestWrongRoster(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	take := func(r roster) (c Conversation, ok bool) {
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			conv := tx.conversation(room)
			r.changes = conv.rosterChanges
			ok = ann.keeper.applyRoster(conv, r)
			var err error
			c, err = ann.describe(tx, conv)
			return errors.Join(err, errors.New("only a look"))
		}); err == nil {
			t.Fatal("it was kept")
		}
		return c, ok
	}
	epoch := ann.must(room).Epoch
	for _, row := range []struct {
		name     string
		accounts []string
		epoch    uint64
		removing []string
		ok       bool
	}{
		{"as it is", dids(ann, bob), epoch, nil, true},
		{"an unknown account more", append(dids(ann, bob), "did:example:eve"), epoch, nil, true},
		{"bob is missing", dids(ann), epoch, dids(bob), true},
		{"bob is missing in an older list", dids(ann), epoch - 1, nil, false},
		{"without ourselves", dids(bob), epoch, nil, true},
		{"nobody", nil, epoch, nil, true},
	} {
		c, ok := take(roster{accounts: row.accounts, epoch: row.epoch})
		if ok != row.ok || !slices.Equal(c.Removing, row.removing) || !slices.Equal(ann.members(room), dids(ann, bob)) {
			t.Errorf("%s: %v, removing %v", row.name, ok, c.Removing)
		}
	}
}

// TestLeftDM: whoever has left a direct conversation comes back when the other one
// starts it again.
func TestLeftDM(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	dm := ann.dm(bob)
	ann.says(dm, "before")
	bob.reads("before")
	if err := bob.Leave(w.ctx, dm); err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventRemoved)
	w.eventually("ann is alone", func() bool { return len(ann.must(dm).Members) == 1 })
	if again := ann.dm(bob); again != dm {
		t.Errorf("it is another one: %q", again)
	}
	bob.joins(dm)
	ann.says(dm, "welcome back")
	bob.reads("welcome back")
	w.agree(dm, ann, bob)
}

// TestOutdatedRoster: a list of members that was requested before one of them left does not
// undo the report that it has left.
func TestOutdatedRoster(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	seen, err := ann.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	before := roster{accounts: dids(ann, bob), epoch: seen.epoch(), changes: seen.rosterChanges}
	after := before
	after.accounts, after.changes = dids(ann), seen.rosterChanges+1
	undone := errors.New("only a look")
	if err := ann.db.update(w.ctx, func(tx *tx) error {
		b := &batch{s: newSession(ann.Client, nil, nil), tx: tx, named: map[string]bool{}}
		if err := b.accountsChanged(accountsChanged{room, nil, dids(bob)}); err != nil {
			return err
		}
		conv := tx.conversation(room)
		if ann.keeper.applyRoster(conv, before) || !slices.Equal(conv.info.Missing, dids(bob)) {
			t.Errorf("after an outdated list %q are to be removed", conv.info.Missing)
		}
		if !ann.keeper.applyRoster(conv, after) || !slices.Equal(conv.info.Missing, dids(bob)) {
			t.Errorf("after the next list %q are to be removed", conv.info.Missing)
		}
		return undone
	}); !errors.Is(err, undone) {
		t.Fatal(err)
	}
}

// TestLeaveDuringList: a list of conversations that the server made before this account
// left does not bring it back.
func TestLeaveDuringList(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	before, err := bob.errands.snapshots(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := bob.calls().conversations(w.ctx, "")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := bob.Leave(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventRemoved)
	if _, err := bob.errands.learnList(w.ctx, list, before); err != nil {
		t.Fatal(err)
	}
	if phase := bob.must(room).Phase; phase != Removed {
		t.Errorf("bob is %v again", phase)
	}
	w.settles(room, ann, cid)
}
