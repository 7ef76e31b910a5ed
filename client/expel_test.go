package client

import (
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/server"
)

// operates carries out an act of the operator of the running server.
func (w *world) operates(operation string, of *person) {
	w.t.Helper()
	answer, err := w.server.Administer(w.ctx, "local", server.AdminRequest{Operation: operation, Name: of.did()})
	if err != nil || answer.Error != "" {
		w.t.Fatalf("%s: %v, %s", operation, err, answer.Error)
	}
}

// TestExpelled: the members' clients take an account that the operator has expelled out of the
// group, and the history does not say that the one whose client did so has removed it. The
// account learns why it is refused. Let in again, it is in no room, and can be invited.
func TestExpelled(t *testing.T) {
	overBothDoors(t, func(t *testing.T, w *world) {
		w.limit(10 * time.Minute) // roles are requested at intervals
		people := w.people("ann", "bob", "cid")
		ann, bob, cid := people[0], people[1], people[2]
		room, dm := w.room(ann, bob, cid), ann.dm(bob)
		bob.joins(dm)
		w.operates(server.AdminAccountsExpel, ann)
		ann.becomes(ReasonExpelled)
		w.settles(room, bob, cid)
		w.settles(dm, bob)
		bob.tells(room, "without ann", cid)
		for _, p := range []*person{bob, cid} {
			if got := p.changes(room, people...); !slices.ContainsFunc(got, func(text string) bool { return strings.HasSuffix(text, " left ann") }) {
				t.Errorf("%s's history is %q", p.name, got)
			}
		}
		w.operates(server.AdminAllowAdd, ann)
		for range 2 {
			if e := ann.nextType(EventRemoved); e.Conversation != room && e.Conversation != dm {
				t.Errorf("it is out of %q", e.Conversation)
			}
		}
		inviter := bob
		w.eventually("a member knows that it manages the room", func() bool {
			if inviter = bob; !mayManage(bob.must(room).Role) {
				inviter = cid
			}
			return mayManage(inviter.must(room).Role)
		})
		if err := inviter.Invite(w.ctx, room, ann.did()); err != nil {
			t.Fatal(err)
		}
		w.eventually("ann is in the room again", func() bool { return ann.must(room).Phase == Joined })
		ann.tells(room, "here again", bob, cid)
	})
}

// TestNewDeviceAfterReturn: the account was removed and invited back before the device existed. It
// reads of both in the log of the account, and enters the group.
func TestNewDeviceAfterReturn(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	if err := ann.Remove(w.ctx, room, bob.did()); err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventRemoved)
	w.eventually("bob is out", func() bool { return len(ann.members(room)) == 1 }) // for ann too, whose echo may come later
	if err := ann.Invite(w.ctx, room, bob.did()); err != nil {
		t.Fatal(err)
	}
	bob.joins(room)
	tablet := bob.device("tablet")
	tablet.open()
	w.eventually("the tablet is in the room", func() bool {
		c, err := tablet.Conversation(w.ctx, room)
		return err == nil && c.Phase == Joined
	})
	w.agree(room, ann, bob, tablet)
}
