package client

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"waxwing.im/waxwing/internal/pgtest"
)

// The tests of this package that use PostgreSQL stand in this file, and their names begin with
// TestDatabases: make test runs them by that name without PostgreSQL too.

// onBothDatabases runs a test on SQLite and on PostgreSQL.
func onBothDatabases(t *testing.T, names []string, test func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newXRPCWorld(t, names...)) })
	t.Run("postgres", func(t *testing.T) {
		w := newXRPCWorld(t, names...)
		w.stopServer()
		w.config.Database = pgtest.URL(t)
		w.startServer()
		test(t, w)
	})
}

// TestDatabasesXRPC: two clients over XRPC meet, talk, and see the same as over the gateway.
func TestDatabasesXRPC(t *testing.T) {
	onBothDatabases(t, nil, func(t *testing.T, w *world) {
		people := w.people("ann", "bob", "cid")
		ann, bob, cid := people[0], people[1], people[2]
		if err := bob.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
		if state, _ := bob.State(); state.Transport != XRPC {
			t.Errorf("bob is connected by %q", state.Transport)
		}
		dm := ann.dm(bob)
		ann.says(dm, "hello")
		if e := bob.reads("hello"); e.From.Account != ann.did() || !e.From.Verified || e.From.Device != "ann-device" || e.Own {
			t.Errorf("bob reads %+v", e)
		}
		bob.says(dm, "hello yourself")
		ann.reads("hello yourself")
		if again := bob.dm(ann); again != dm {
			t.Errorf("bob starts another conversation, %s beside %s", again, dm)
		}
		if c := bob.must(dm); c.Kind != DM || c.Peer != ann.did() || c.Phase != Joined {
			t.Errorf("bob's conversation is %+v", c)
		}
		w.agree(dm, ann, bob)
		room := w.room(ann, bob, cid)
		for i := range 10 {
			people[i%3].says(room, fmt.Sprint("message ", i))
		}
		for i := range 10 {
			for _, p := range people {
				want := fmt.Sprint("message ", i)
				w.eventually(p.name+" has "+want, func() bool { return slices.Contains(p.transcript(room), want) })
			}
		}
		for _, p := range people[1:] {
			if got, want := p.transcript(room), ann.transcript(room); !slices.Equal(got, want) {
				t.Errorf("%s has %q, ann %q", p.name, got, want)
			}
		}
		if role := ann.must(room).Role; role != RoleOwner {
			t.Errorf("ann's role is %q", role)
		}
		w.eventually("bob learns his role", func() bool { return bob.must(room).Role == RoleMember })
		if err := cid.Leave(w.ctx, room); err != nil {
			t.Fatal(err)
		}
		cid.nextType(EventRemoved)
		w.settles(room, ann, bob)
		if err := ann.LeaveTo(w.ctx, room, bob.did()); !errors.Is(err, ErrNotOverXRPC) {
			t.Errorf("a successor is named: %v", err)
		}
		for _, p := range people {
			if s := p.Stats(); s.Undecryptable+s.Rejoins+s.Rewinds+s.Gaps != 0 {
				t.Errorf("%s: %+v", p.name, s)
			}
		}
	})
}

// TestDatabasesBothDoors: clients of both doors talk to each other, in conversations that either
// has made.
func TestDatabasesBothDoors(t *testing.T) {
	onBothDatabases(t, []string{"xara", "xeno"}, func(t *testing.T, w *world) {
		people := w.people("ann", "xara", "bob", "xeno")
		ann, xara, bob, xeno := people[0], people[1], people[2], people[3]
		for _, pair := range [][2]*person{{ann, xara}, {xeno, bob}} {
			dm := pair[0].dm(pair[1])
			pair[0].says(dm, "hello from "+pair[0].name)
			pair[1].reads("hello from " + pair[0].name)
			pair[1].says(dm, "hello from "+pair[1].name)
			pair[0].reads("hello from " + pair[1].name)
			w.agree(dm, pair[0], pair[1])
			if again := pair[1].dm(pair[0]); again != dm {
				t.Errorf("%s starts another conversation with %s", pair[1].name, pair[0].name)
			}
		}
		for _, owner := range []*person{ann, xara} {
			others := slices.DeleteFunc(slices.Clone(people), func(p *person) bool { return p == owner || p == xeno })
			room := w.room(slices.Concat([]*person{owner}, others)...)
			for _, p := range people[:3] {
				p.says(room, p.name+" is here")
			}
			for _, p := range people[:3] {
				for _, other := range people[:3] {
					w.eventually(p.name+" reads "+other.name, func() bool { return slices.Contains(p.transcript(room), other.name+" is here") })
				}
			}
			if err := owner.Invite(w.ctx, room, xeno.did()); err != nil {
				t.Fatal(err)
			}
			xeno.joins(room)
			w.settles(room, people...)
			if err := owner.Remove(w.ctx, room, bob.did()); err != nil {
				t.Fatal(err)
			}
			bob.next("to be removed", func(e Event) bool { return e.Type == EventRemoved && e.Conversation == room })
			w.settles(room, ann, xara, xeno)
			xeno.says(room, "without bob")
			ann.reads("without bob")
			if err := xeno.Leave(w.ctx, room); err != nil {
				t.Fatal(err)
			}
			w.settles(room, ann, xara)
			// Back in, and out again, for who is not there.
			if err := owner.Invite(w.ctx, room, bob.did(), xeno.did()); err != nil {
				t.Fatal(err)
			}
			bob.joins(room)
			xeno.joins(room)
			w.settles(room, people...)
		}
		for _, p := range people {
			if s := p.Stats(); s.Undecryptable+s.Rewinds != 0 {
				t.Errorf("%s: %+v", p.name, s)
			}
		}
	})
}

// TestDatabasesChurn is TestChurn on PostgreSQL, by fewer.
func TestDatabasesChurn(t *testing.T) {
	w := newWorld(t)
	w.stopServer()
	w.config.Database = pgtest.URL(t)
	w.startServer()
	churn(t, w, churnSize{accounts: 6, devices: 8, epochs: churnEpochs(t) / 5})
}
