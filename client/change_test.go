package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// changes describes the changes in the person's history of a conversation, with the names of
// people in place of their accounts.
func (p *person) changes(conversation string, people ...*person) []string {
	p.w.t.Helper()
	history, err := p.History(context.Background(), conversation, 0, 0)
	if err != nil {
		p.w.t.Fatal(err)
	}
	names := func(accounts ...string) string {
		for i := range accounts {
			for _, other := range people {
				if other.did() == accounts[i] {
					accounts[i] = strings.Split(other.name, "'")[0]
				}
			}
		}
		slices.Sort(accounts)
		return strings.Join(accounts, ",")
	}
	var out []string
	for _, e := range history {
		if e.Type == EventMessage {
			out = append(out, string(e.Text))
			continue
		}
		text := string(e.Type)
		if e.Type == EventTitle {
			text += " " + e.Title
		}
		if e.By.Account != "" {
			text += " by " + names(e.By.Account)
		}
		for _, list := range []struct {
			what     string
			accounts []string
		}{{"added", e.Added}, {"removed", e.Removed}, {"left", e.Left}} {
			if len(list.accounts) > 0 {
				text += fmt.Sprintf(" %s %s", list.what, names(slices.Clone(list.accounts)...))
			}
		}
		for _, change := range e.Roles {
			text += ": " + names(change.Account) + " " + change.Role
		}
		out = append(out, text)
	}
	return out
}

// TestComings: the history has who was added, who was removed by another member and who has
// left, also for a device that was away meanwhile, and after a restart. Another device is no
// other person.
func TestComings(t *testing.T) {
	overBothDoors(t, func(t *testing.T, w *world) {
		w.limit(10 * time.Minute)
		people := w.people("ann", "bob", "cid", "dee")
		ann, bob, cid, dee := people[0], people[1], people[2], people[3]
		room := w.room(ann, bob, cid)
		cid.close()
		if err := ann.Invite(w.ctx, room, dee.did()); err != nil {
			t.Fatal(err)
		}
		dee.joins(room)
		ann.tells(room, "welcome", bob, dee)
		phone := ann.device("phone")
		phone.open()
		phone.joins(room)
		w.agree(room, ann, bob, dee, phone)
		if err := ann.Remove(w.ctx, room, dee.did()); err != nil {
			t.Fatal(err)
		}
		dee.nextType(EventRemoved)
		if err := bob.Leave(w.ctx, room); err != nil {
			t.Fatal(err)
		}
		bob.nextType(EventRemoved)
		w.eventually("bob is out", func() bool { return slices.Equal(ann.members(room), dids(ann, cid, phone)) })
		cid.open()
		w.agree(room, ann, cid, phone)
		cid.tells(room, "back", ann, cid)
		want := []string{"members by ann added dee", "welcome", "members by ann", "members by ann removed dee", "members by NAME left bob", "back"}
		for _, p := range []*person{ann, cid} {
			for range 2 {
				got := p.changes(room, people...)
				got = got[1:]              // how it entered
				for i, text := range got { // either device of ann's, or cid, takes bob out
					if strings.HasSuffix(text, "left bob") {
						got[i] = want[4]
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s's history is %q, want %q", p.name, got, want)
				}
				if c := p.must(room); c.Unread > 1 {
					t.Errorf("%s has %d unread messages", p.name, c.Unread)
				}
				p.close()
				p.open()
			}
		}
		for p, want := range map[*person][]string{
			bob: {"joined by ann", "members by ann added dee", "welcome", "members by ann", "members by ann removed dee", "removed left bob"},
			dee: {"joined by ann", "welcome", "members by ann", "removed by ann"},
		} {
			if got := p.changes(room, people...); !slices.Equal(got, want) {
				t.Errorf("%s's history is %q, want %q", p.name, got, want)
			}
		}
		found, err := ann.Search(w.ctx, Query{Conversation: room})
		if err != nil || len(found) != 2 {
			t.Errorf("a search finds %d messages, %v", len(found), err)
		}
	})
}
