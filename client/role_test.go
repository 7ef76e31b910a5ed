package client

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// roles waits until the person knows these roles of the accounts in a room.
func (p *person) roles(room string, want map[*person]string) {
	p.w.t.Helper()
	all := map[string]string{}
	for who, role := range want {
		all[who.did()] = role
	}
	p.w.eventually(p.name+" knows the roles", func() bool { return maps.Equal(p.must(room).Roles, all) })
}

// TestSetAdmin: the owner makes an admin, who may then do what admins may, and a plain member of
// it again. Members learn of it at once, and its place and author are in their histories.
func TestSetAdmin(t *testing.T) {
	overBothDoors(t, func(t *testing.T, w *world) {
		w.limit(10 * time.Minute)
		people := w.people("ann", "bob", "cid", "dee")
		ann, bob, cid, dee := people[0], people[1], people[2], people[3]
		room := w.room(ann, bob, cid)
		for _, p := range people[:3] {
			p.roles(room, map[*person]string{ann: RoleOwner, bob: RoleMember, cid: RoleMember})
		}
		for err, want := range map[error]error{
			ann.SetAdmin(w.ctx, room, true, bob.did(), dee.did()): ErrNoMember,
			ann.SetAdmin(w.ctx, room, false, ann.did()):           ErrOwner,
			ann.SetAdmin(w.ctx, ann.dm(bob), true, bob.did()):     ErrDirect,
		} {
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		cid.close()
		// Without a connection, and before a restart.
		ann.close()
		w.stopServer()
		ann.open()
		if err := ann.SetAdmin(w.ctx, room, true, bob.did()); err != nil {
			t.Fatal(err)
		}
		ann.close()
		w.away(time.Second)
		ann.open()
		if e := ann.nextType(EventRoles); e.By.Account != ann.did() || !slices.Equal(e.Roles, []RoleChange{{bob.did(), RoleAdmin}}) {
			t.Errorf("ann is told %+v", e)
		}
		if e := bob.nextType(EventRoles); e.By.Account != ann.did() || !slices.Equal(e.Roles, []RoleChange{{bob.did(), RoleAdmin}}) {
			t.Errorf("bob is told %+v", e)
		}
		if err := bob.Invite(w.ctx, room, dee.did()); err != nil {
			t.Fatal(err)
		}
		dee.joins(room)
		dee.roles(room, map[*person]string{ann: RoleOwner, bob: RoleAdmin, cid: RoleMember, dee: RoleMember})
		if err := ann.SetAdmin(w.ctx, room, false, bob.did()); err != nil {
			t.Fatal(err)
		}
		dee.nextType(EventRoles)
		bob.roles(room, map[*person]string{ann: RoleOwner, bob: RoleMember, cid: RoleMember, dee: RoleMember})
		if err := bob.Remove(w.ctx, room, dee.did()); err != nil {
			t.Fatal(err)
		}
		if e := bob.nextType(EventProblem); e.Code != codeForbidden {
			t.Errorf("bob is told %+v", e)
		}
		cid.open()
		cid.roles(room, map[*person]string{ann: RoleOwner, bob: RoleMember, cid: RoleMember, dee: RoleMember})
		want := []string{"joined by ann", "roles by ann: bob admin", "members by bob added dee", "roles by ann: bob member"}
		for range 2 {
			if got := cid.changes(room, people...); !slices.Equal(got, want) {
				t.Errorf("cid's history is %q, want %q", got, want)
			}
			cid.close()
			cid.open()
		}
		// By a plain member the server refuses it.
		if err := cid.SetAdmin(w.ctx, room, true, cid.did()); err != nil {
			t.Fatal(err)
		}
		if e := cid.nextType(EventProblem); e.Code != codeForbidden {
			t.Errorf("cid is told %+v", e)
		}
		// An owner that leaves is followed by the one that was announced.
		follows := ann.must(room).Successor
		if err := ann.Leave(w.ctx, room); err != nil {
			t.Fatal(err)
		}
		ann.nextType(EventRemoved)
		if ann.options.useXRPC {
			return // which shows no owner but the creator
		}
		e := dee.next("a new owner", func(e Event) bool { return e.Type == EventRoles && e.Roles[0].Role == RoleOwner })
		if e.Roles[0].Account != follows {
			t.Errorf("%s is the owner, and not %s", e.Roles[0].Account, follows)
		}
	})
}

// TestClaimsOfRolesCostLittle: whatever a plain member says about the room, it does not make the
// others ask the server each time.
func TestClaimsOfRolesCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		ann, calls := w.counted("ann")
		ann.open()
		mal := w.people("mal")[0]
		room := w.room(ann, mal)
		time.Sleep(time.Minute)
		before := calls.all()
		for range 60 {
			if err := mal.change(w.ctx, room, func(tx *tx, conv *conversation) error {
				return mal.keeper.addContent(tx, conv, contentRoom, roomContent{Roles: []RoleChange{{mal.did(), RoleAdmin}}})
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := calls.all() - before; n < 1 || n > 4 {
			t.Errorf("%d calls in a minute: %v", n, calls)
		}
		ann.roles(room, map[*person]string{ann: RoleOwner, mal: RoleMember})
		ann.close()
		mal.close()
		w.stopServer()
	})
}
