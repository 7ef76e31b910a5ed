package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// TestCommitRace: members that add people at the same moment. One commit wins each
// epoch; the others follow it and do again what is still missing. In the end
// everybody is in once, and all agree.
func TestCommitRace(t *testing.T) {
	w := newWorld(t)
	founders := w.people("ann", "bob", "cid")
	ann := founders[0]
	room, err := ann.CreateRoom(w.ctx, founders[1].did(), founders[2].did())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range founders[1:] {
		p.nextType(EventJoined)
	}
	w.agree(room, founders...)
	guests := w.people("dee", "eva", "flo", "gus")
	var names []string
	for _, p := range guests {
		if err := p.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
		names = append(names, p.did())
	}
	// On the server they are members already, so that anybody may commit them.
	var kept tokens
	if err := ann.db.update(w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("tokens", &kept); return err }); err != nil {
		t.Fatal(err)
	}
	if err := ann.call(w.ctx, kept.Session, "/v1/rooms/invite", gateway.RoomMembers{ConvID: room, Members: names}, &gateway.Status{}); err != nil {
		t.Fatal(err)
	}
	var ready sync.WaitGroup
	for i, p := range founders {
		ready.Go(func() {
			err := p.db.update(w.ctx, func(tx *tx) error {
				conv := tx.conversation(room)
				for j := range names { // everybody wants all of them, in another order
					info := conv.editInfo()
					info.Wanted = append(info.Wanted, wanted{Account: names[(i+j)%len(names)]})
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			p.wake(room)
			p.says(room, "while it happens, says "+p.name)
		})
	}
	ready.Wait()
	for _, p := range guests {
		p.nextType(EventJoined)
	}
	everybody := slices.Concat(founders, guests)
	w.agree(room, everybody...)
	for _, p := range founders {
		w.eventually(p.name+" has nothing left to do", func() bool {
			n, err := p.Pending(w.ctx)
			return err == nil && n == 0 && len(p.must(room).Inviting) == 0
		})
	}
	for _, p := range everybody {
		if c := p.must(room); len(c.Members) != len(everybody) {
			t.Errorf("%s sees %d members, want %d", p.name, len(c.Members), len(everybody))
		}
		p.says(room, "here is "+p.name)
	}
	for _, p := range everybody {
		for _, other := range everybody {
			found := func() bool { return slices.Contains(p.transcript(room), "here is "+other.name) }
			w.eventually(p.name+" hears "+other.name, found)
		}
		if s := p.Stats(); s.Undecryptable != 0 || s.Gaps != 0 {
			t.Errorf("%s: %+v", p.name, s)
		}
	}
	w.agree(room, everybody...)
}

// TestDisconnects: connections are cut all the time, and the server is restarted,
// while everybody talks. Everything arrives once, in one order, everywhere.
func TestDisconnects(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	room, err := people[0].CreateRoom(w.ctx, people[1].did(), people[2].did())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range people {
		p.nextType(EventJoined)
	}
	w.agree(room, people...)
	w.talksWhile(room, func() (stop func()) { return w.cutting(120*time.Millisecond, 8, people...) }, 100*time.Millisecond, people...)
}

// talksWhile has everybody talk, with pauses up to that long, while disturb makes it hard
// for them, until it is stopped. Then everything has to arrive once, in one order,
// everywhere, and what one said in the order in which it was said.
func (w *world) talksWhile(room string, disturb func() (stop func()), pauseMax time.Duration, people ...*person) {
	w.t.Helper()
	const each = 40
	var talking sync.WaitGroup
	for _, p := range people {
		talking.Go(func() {
			for i := range each {
				if _, err := p.Send(w.ctx, room, fmt.Appendf(nil, "%s %02d", p.name, i)); err != nil {
					w.t.Error(err)
				}
				time.Sleep(rand.N(pauseMax))
			}
		})
	}
	stop := disturb()
	talking.Wait()
	stop()
	for _, p := range people {
		if err := p.Flush(w.ctx); err != nil {
			w.t.Fatal(p.name, err)
		}
	}
	total := each * len(people)
	for _, p := range people {
		w.eventually(p.name+" has everything", func() bool { return len(p.transcript(room)) == total })
	}
	w.agree(room, people...)
	want := people[0].transcript(room)
	for _, p := range people {
		if got := p.transcript(room); !slices.Equal(got, want) {
			w.t.Errorf("%s has\n%q, others\n%q", p.name, got, want)
		}
		var own []string
		for _, text := range want {
			if text[:3] == p.name {
				own = append(own, text)
			}
		}
		if len(own) != each || !slices.IsSorted(own) {
			w.t.Errorf("what %s said is out of order: %q", p.name, own)
		}
		checkSequence(w.t, p, room, total)
		w.t.Logf("%s: %+v", p.name, p.Stats())
	}
}

// checkSequence checks that a person's inbox holds so many messages of a room, each
// one seq behind the one before.
func checkSequence(t testing.TB, p *person, room string, total int) {
	t.Helper()
	var seq int64
	messages := 0
	for e, err := range p.Events(p.w.ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == EventUndecryptable || e.Type == EventRefused || e.Type == EventLost {
			t.Errorf("%s: %+v", p.name, e)
		}
		if e.Type != EventMessage || e.Conversation != room {
			continue
		}
		if seq > 0 && e.Seq != seq+1 {
			t.Errorf("%s: %d comes after %d", p.name, e.Seq, seq)
		}
		seq = e.Seq
		if messages++; messages == total {
			return
		}
	}
}

// TestRateLimit: what the server puts off is sent later, in order.
func TestRateLimit(t *testing.T) {
	w := newWorld(t)
	w.stopServer()
	w.config.Limit = []string{"all=off", "sends=2/1s"}
	w.startServer()
	two := w.people("ann", "bob")
	ann, bob := two[0], two[1]
	dm := ann.dm(bob)
	for i := range 4 {
		ann.says(dm, fmt.Sprint(i))
	}
	bob.reads("3")
	if got := bob.transcript(dm); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("bob has %q", got)
	}
}

// TestEpochLeftBehind: a message that was encrypted and not sent before the group
// moved on by more epochs than the server's window is encrypted again.
func TestEpochLeftBehind(t *testing.T) {
	w := newWorld(t)
	two := w.people("ann", "bob")
	ann, bob := two[0], two[1]
	room, err := ann.CreateRoom(w.ctx, bob.did())
	if err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventJoined)
	bob.net.setDown(true)
	bob.says(room, "left behind")
	if err := bob.db.update(w.ctx, func(tx *tx) error {
		conv := tx.conversation(room)
		o, err := tx.Outbox.Next(room, 0)
		if err != nil {
			return err
		}
		return tx.sealOutgoing(conv, o)
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		guest := w.people(fmt.Sprint("guest", i))[0]
		if err := ann.Invite(w.ctx, room, guest.did()); err != nil {
			t.Fatal(err)
		}
		guest.nextType(EventJoined)
		guest.close()
	}
	bob.net.setDown(false)
	ann.reads("left behind")
	if e := bob.reads("left behind"); !e.Own {
		t.Errorf("bob sees %+v", e)
	}
	w.agree(room, ann, bob)
}

// remove takes an account out of a room and waits until it is done.
func (p *person) remove(room string, other *person) {
	p.w.t.Helper()
	if err := p.Remove(p.w.ctx, room, other.did()); err != nil {
		p.w.t.Fatal(err)
	}
	// Whoever published no key packages in time came in by a commit of its own before.
	e := p.next("a removal", func(e Event) bool { return e.Type == EventMembers && len(e.Gone) > 0 })
	if len(e.Gone) != 1 || e.Gone[0].Account != other.did() {
		p.w.t.Errorf("%s sees %+v", p.name, e)
	}
}

// TestRemoved: who is removed reads what comes before, is told, and gets back what
// can no longer be sent; an invitation brings them back.
func TestRemoved(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room, err := ann.CreateRoom(w.ctx, bob.did(), cid.did())
	if err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventJoined)
	cid.nextType(EventJoined)
	w.agree(room, people...)
	ann.says(room, "before")
	ann.reads("before") // commits do not wait for messages
	ann.remove(room, bob)
	ann.says(room, "after")
	bob.reads("before")
	bob.nextType(EventRemoved)
	cid.reads("after")
	if c := bob.must(room); c.Phase != Removed || slices.Contains(bob.transcript(room), "after") {
		t.Errorf("bob is still there: %+v", c)
	}
	if _, err := bob.Send(w.ctx, room, []byte("hello?")); !errors.Is(err, ErrNoGroup) {
		t.Errorf("bob sends: %v", err)
	}
	cid.net.setDown(true)
	cid.says(room, "too late")
	ann.remove(room, cid)
	cid.net.setDown(false)
	cid.nextType(EventRemoved)
	if e := cid.nextType(EventRefused); string(e.Text) != "too late" {
		t.Errorf("cid is told %+v", e)
	}
	if err := ann.Invite(w.ctx, room, bob.did(), cid.did()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{bob, cid} {
		p.nextType(EventJoined)
		p.says(room, p.name+" is back")
	}
	for _, p := range people {
		for _, other := range []*person{bob, cid} {
			w.eventually("all hear all", func() bool { return slices.Contains(p.transcript(room), other.name+" is back") })
		}
	}
	w.agree(room, people...)
}

// BenchmarkConversation is one message from Send to the peer's inbox and back to
// the sender's, with two clients and their server in this process.
func BenchmarkConversation(b *testing.B) {
	w := newWorld(b)
	two := w.people("ann", "bob")
	dm := two[0].dm(two[1])
	two[0].says(dm, "first")
	two[1].reads("first")
	w.limit(10 * time.Minute)
	b.ResetTimer()
	for i := range b.N {
		two[0].says(dm, fmt.Sprint(i))
	}
	if err := two[0].Flush(w.ctx); err != nil {
		b.Fatal(err)
	}
	two[1].reads(fmt.Sprint(b.N - 1))
}
