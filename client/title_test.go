package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
)

// titles waits until the person knows a room by this title.
func (p *person) titled(room, title string) {
	p.w.t.Helper()
	p.w.eventually(p.name+" knows the title "+title, func() bool { return p.must(room).Title == title })
}

// entitles gives a room a title in the person's name, without the checks of SetTitle.
func (p *person) entitles(room, title string, of int64) {
	p.w.t.Helper()
	if err := p.db.edit(p.w.ctx, room, func(tx *tx, conv *conversation) error {
		return p.keeper.addContent(tx, conv, contentRoom, roomContent{Title: &title, Of: of})
	}); err != nil {
		p.w.t.Fatal(err)
	}
	p.wake(room)
}

// TestSetTitle: the owner and admins give a room titles, which all members see, also newcomers
// and further devices; those of others are ignored.
func TestSetTitle(t *testing.T) {
	overBothDoors(t, func(t *testing.T, w *world) {
		w.limit(10 * time.Minute)
		people := w.people("ann", "bob", "cid", "dee")
		ann, bob, cid, dee := people[0], people[1], people[2], people[3]
		room, err := ann.CreateRoom(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]error{
			strings.Repeat("é", titleRunesMax): nil, strings.Repeat("é", titleRunesMax+1): ErrName,
			"up\u202eside": ErrName, "two\nlines": ErrName,
		} {
			if err := ann.SetTitle(w.ctx, room, text); !errors.Is(err, want) {
				t.Errorf("%q: %v", text, err)
			}
		}
		if err := ann.SetTitle(w.ctx, room, " Birds "); err != nil { // before anybody is in it
			t.Fatal(err)
		}
		ann.titled(room, "Birds")
		if err := ann.Invite(w.ctx, room, bob.did(), cid.did()); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*person{bob, cid} {
			p.joins(room)
			p.titled(room, "Birds")
		}
		if err := bob.SetTitle(w.ctx, room, "Bob's"); !errors.Is(err, ErrRole) {
			t.Errorf("bob may: %v", err)
		}
		bob.entitles(room, "Bob's", 0)
		bob.entitles(room, "Bob's", 1<<40)
		bob.tells(room, "look", ann, bob, cid)
		cid.close()
		if err := ann.SetAdmin(w.ctx, room, true, bob.did()); err != nil {
			t.Fatal(err)
		}
		bob.nextType(EventRoles)
		if err := bob.SetTitle(w.ctx, room, "Waxwings"); err != nil {
			t.Fatal(err)
		}
		ann.titled(room, "Waxwings")
		if e := ann.next("bob's title", func(e Event) bool { return e.Type == EventTitle && e.By.Account == bob.did() }); e.Title != "Waxwings" {
			t.Errorf("ann is told %+v", e)
		}
		bob.titled(room, "Waxwings")
		ann.entitles(room, "Birds", 2) // again, and too late
		if err := bob.Invite(w.ctx, room, dee.did()); err != nil {
			t.Fatal(err)
		}
		dee.joins(room)
		phone := dee.device("phone")
		phone.open()
		phone.joins(room)
		cid.open()
		for _, p := range []*person{dee, phone, cid, ann} {
			p.titled(room, "Waxwings")
			if got := p.must(room).Unread; p == dee && got != 0 {
				t.Errorf("%s has %d unread messages", p.name, got)
			}
		}
		// An admin no more: what it says is ignored at once.
		if err := ann.SetAdmin(w.ctx, room, false, bob.did()); err != nil {
			t.Fatal(err)
		}
		bob.next("to be a member", func(e Event) bool {
			return e.Type == EventRoles && slices.Contains(e.Roles, RoleChange{bob.did(), RoleMember})
		})
		bob.entitles(room, "Bob's again", 0)
		bob.tells(room, "look again", ann, cid, dee, phone)
		if err := ann.SetTitle(w.ctx, room, ""); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*person{bob, cid, dee, phone} {
			p.titled(room, "")
		}
		want := []string{"joined by ann", "look", "roles by ann: bob admin", "title Waxwings by bob", "members by bob added dee", "members by dee",
			"roles by ann: bob member", "look again", "title  by ann"}
		for range 2 {
			if got := cid.changes(room, people...); !slices.Equal(got, want) {
				t.Errorf("cid's history is %q, want %q", got, want)
			}
			cid.close()
			cid.open()
		}
	})
}

// TestTitleCrash: a title is there once, wherever its sender or receiver is stopped.
func TestTitleCrash(t *testing.T) {
	for _, crashes := range []string{"ann", "bob"} {
		t.Run(crashes, func(t *testing.T) {
			w := newWorld(t)
			people := w.people("ann", "bob")
			ann, bob := people[0], people[1]
			room := w.room(ann, bob)
			victim := people[slices.IndexFunc(people, func(p *person) bool { return p.name == crashes })]
			for at := range 12 {
				victim.close()
				writes := 0
				if err := victim.tryOpen(func(string) error {
					if writes++; writes == at+1 {
						return errors.New("crash")
					}
					return nil
				}); err != nil {
					continue // while it was opened
				}
				title := strings.Repeat("x", at+1)
				err := ann.SetTitle(w.ctx, room, title)
				w.eventually("the victim knows it, or has crashed", func() bool {
					c, err := victim.Conversation(w.ctx, room)
					return err != nil || c.Title == title
				})
				victim.close()
				victim.open()
				if victim == ann && err != nil {
					continue // it was stopped before
				}
				if err != nil {
					t.Fatal(err)
				}
				ann.titled(room, title)
				bob.titled(room, title)
			}
			for _, p := range people {
				var seen []string
				for _, text := range p.changes(room, people...) {
					if strings.HasPrefix(text, "title ") {
						seen = append(seen, text)
					}
				}
				if sorted := slices.Compact(slices.Sorted(slices.Values(seen))); len(sorted) != len(seen) || len(seen) < 2 {
					t.Errorf("%s's history is %q", p.name, seen)
				}
			}
		})
	}
}

// TestServerTitle: a title that the server holds is told apart from one of the members, and is
// cleaned like it.
func TestServerTitle(t *testing.T) {
	w := newXRPCWorld(t, "xara")
	xara := w.people("xara")[0]
	if err := xara.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("5e", groupIDBytes)
	if _, err := procedure[xrpc.CreateConvoOutput](w.ctx, xara.xrpcDoor(), xrpc.CreateConvo, &xrpc.CreateConvoInput{
		GroupID: id, CipherSuite: xrpcSuite, Metadata: &xrpc.Metadata{Name: "Open\u202e secret"}}); err != nil {
		t.Fatal(err)
	}
	xara.close()
	xara.open()
	w.eventually("xara lists it", func() bool {
		c, err := xara.Conversation(w.ctx, id)
		return err == nil && c.Title == "" && c.ServerTitle == "Open secret"
	})
}
