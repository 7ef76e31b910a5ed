package chat

import (
	"slices"
	"testing"

	"waxwing.im/waxwing/client"
)

func TestRoomTitle(t *testing.T) {
	members := []client.Member{device(screenAnn, true, true), device(screenBob, true, false), device(screenBob, true, false)}
	for want, c := range map[string]client.Conversation{
		"room 5eb1f0c2":  {ID: "5eb1f0c2aa"},
		"Waxwings (2)":   {ID: "5eb1f0c2aa", Title: "Waxwings", ServerTitle: "Birds", Members: members},
		"[Birds] (2)":    {ID: "5eb1f0c2aa", ServerTitle: "Birds", Members: members},
		"room short (2)": {ID: "short", Members: members},
	} {
		if got := roomTitle(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestChangeNotes: a line says who did what, and a further device is no further person.
func TestChangeNotes(t *testing.T) {
	ann, bob, cat := device(screenAnn, true, true), device(screenBob, true, false), device(screenCat, true, false)
	chat := screenUI(80, 24).chat
	name := chat.people.nameOf
	for _, row := range []struct {
		event client.Event
		want  []string
	}{
		{client.Event{Type: client.EventMembers, By: ann, Members: []client.Member{bob}, Added: []string{screenBob}}, []string{"you added " + name(bob)}},
		{client.Event{Type: client.EventMembers, By: bob, Members: []client.Member{cat, cat}, Added: []string{screenCat}}, []string{name(bob) + " added " + name(cat)}},
		{client.Event{Type: client.EventMembers, By: bob, Members: []client.Member{bob}}, []string{"a new device of " + name(bob) + ": d1"}},
		{client.Event{Type: client.EventMembers, By: ann, Gone: []client.Member{bob, cat}, Removed: []string{screenBob}, Left: []string{screenCat}},
			[]string{"you removed " + name(bob), name(cat) + " left"}},
		{client.Event{Type: client.EventJoined, By: bob}, []string{"you are in: " + name(bob) + " added you"}},
		{client.Event{Type: client.EventRemoved, By: bob}, []string{name(bob) + " removed you"}},
		{client.Event{Type: client.EventRemoved, Left: []string{screenAnn}}, []string{"you left"}},
		{client.Event{Type: client.EventRoles, By: bob, Roles: []client.RoleChange{{Account: screenAnn, Role: client.RoleAdmin}, {Account: screenCat, Role: client.RoleMember}}},
			[]string{name(bob) + " made you an admin", name(bob) + " made " + chat.people.called(screenCat) + " a plain member"}},
		{client.Event{Type: client.EventRoles, Roles: []client.RoleChange{{Account: screenBob, Role: client.RoleOwner}}}, []string{chat.people.called(screenBob) + " is the owner now"}},
		{client.Event{Type: client.EventTitle, By: bob, Title: "Birds\x1b[2J"}, []string{name(bob) + " named the room “Birds\uFFFD[2J”"}},
		{client.Event{Type: client.EventTitle, Title: "Birds"}, []string{"the room is called “Birds”"}},
	} {
		if got := chat.noteOf(row.event); !slices.Equal(got, row.want) {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}
