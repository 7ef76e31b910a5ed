package chat

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
)

func doAdmin(t *Terminal, ctx context.Context, words []string) (reply, error) {
	return t.manage(ctx, "/admin", words, setAdmin(t, true), "is to be an admin")
}

func doUnadmin(t *Terminal, ctx context.Context, words []string) (reply, error) {
	return t.manage(ctx, "/unadmin", words, setAdmin(t, false), "is to be no admin any more")
}

// setAdmin returns a function that makes people admins of a room, or plain members. What the
// server would refuse, as far as the roles are known, is an error at once.
func setAdmin(t *Terminal, isAdmin bool) func(context.Context, string, ...string) error {
	return func(ctx context.Context, room string, people ...string) error {
		c, err := t.client.Conversation(ctx, room)
		if err != nil {
			return err
		}
		if c.Role == client.RoleMember || c.Role == client.RoleAdmin && !t.isXRPC {
			return mistake("only the owner of a room makes admins, and takes that back")
		}
		return t.client.SetAdmin(ctx, room, isAdmin, people...)
	}
}

// SetAdmin makes people admins of a room, or plain members, and waits until they are.
func (t *Terminal) SetAdmin(ctx context.Context, word string, dids []string, isAdmin bool, wait time.Duration) error {
	room, people, err := t.roomAndPeople(ctx, word, dids)
	if err != nil {
		return err
	}
	if err := setAdmin(t, isAdmin)(ctx, room.ID, people...); err != nil {
		return roomError(err)
	}
	err = t.until(ctx, wait, func() (bool, string, error) {
		now, err := t.client.Conversation(ctx, room.ID)
		if err == nil && now.Problem != "" {
			err = refused(now.Problem)
		}
		for _, p := range people {
			if role := now.Roles[p]; role == "" || (role == client.RoleAdmin) != isAdmin {
				return false, "the role of " + t.people.called(p), err
			}
		}
		return true, "", err
	})
	if err == nil && !t.isGuest {
		err = t.flush(ctx) // the members learn of it from this device
	}
	return err
}

// SetTitle gives a room a title, and waits until the room has it.
func (t *Terminal) SetTitle(ctx context.Context, word, title string, wait time.Duration) error {
	room, err := t.find(ctx, word)
	if err != nil {
		return err
	}
	if err := t.client.SetTitle(ctx, room.ID, title); err != nil {
		return titleError(err)
	}
	return t.until(ctx, wait, t.titled(ctx, room, title))
}

// titled returns a condition for until: the room, as it was before, has the title.
func (t *Terminal) titled(ctx context.Context, before client.Conversation, title string) func() (bool, string, error) {
	isSame := strings.Join(strings.Fields(title), " ") == before.Title
	return func() (bool, string, error) {
		count, err := t.client.Pending(ctx)
		if err != nil {
			return false, "", err
		}
		c, err := t.client.Conversation(ctx, before.ID)
		switch {
		case err != nil:
			return false, "", err
		case c.Title != before.Title || count == 0 && isSame:
			return true, "", nil
		case count == 0:
			return false, "", refused(cmp.Or(c.Problem, "the title is refused"))
		}
		return false, "the title to be delivered", nil
	}
}

// titleError explains errors of SetTitle for people.
func titleError(err error) error {
	if errors.Is(err, client.ErrName) || errors.Is(err, client.ErrDirect) {
		return Mistake{err}
	}
	return roomError(err)
}

func doTitle(t *Terminal, ctx context.Context, words []string) (reply, error) {
	c, err := t.here(ctx)
	text := strings.Join(words, " ")
	switch {
	case err != nil:
		return reply{}, err
	case text == "":
		return reply{lines: []string{t.titleOf(c)}}, nil
	case text == "-":
		text = ""
	}
	if err := t.client.SetTitle(ctx, c.ID, text); err != nil {
		return reply{}, titleError(err)
	}
	return reply{lines: []string{"the title is on its way"}}, nil
}

// titleNote describes a title that was given.
func (p people) titleNote(e client.Event) string {
	title := "“" + printable(e.Title) + "”"
	switch {
	case e.By.Account == "":
		return "the room is called " + title
	case e.Title == "":
		return p.doer(e.By) + " took the title of the room away"
	}
	return p.doer(e.By) + " named the room " + title
}

// roleMark returns the role of an account after its name; plain members have none.
func roleMark(c client.Conversation, account string) string {
	if role := c.Roles[account]; role != "" && role != client.RoleMember {
		return ", " + role
	}
	return ""
}

// roleNotes describes changed roles.
func (p people) roleNotes(e client.Event) []string {
	var out []string
	for _, change := range e.Roles {
		who, is := p.called(change.Account), " is "
		if change.Account == p.self {
			who, is = "you", " are "
		}
		role := map[string]string{client.RoleOwner: "the owner", client.RoleAdmin: "an admin", client.RoleMember: "a plain member"}[change.Role]
		text := who + is + role + " now"
		if e.By.Account != "" {
			text = p.doer(e.By) + " made " + who + " " + role
		}
		out = append(out, text)
	}
	return out
}

// leave leaves a conversation. The owner is followed by heir or, if that is "", by the account
// that follows anyway; it returns that one, "" if there is none or the server chooses.
func leave(ctx context.Context, t *Terminal, c client.Conversation, heir string) (follows string, err error) {
	if heir == "" {
		heir = c.Successor // the one that is announced, whatever happens meanwhile
	}
	if heir == "" {
		return "", t.client.Leave(ctx, c.ID)
	}
	return heir, t.client.LeaveTo(ctx, c.ID, heir)
}

// leaving describes who follows an owner that leaves.
func (p people) leaving(c client.Conversation, follows string) string {
	switch {
	case c.Role != client.RoleOwner || c.Kind != client.Room:
		return ""
	case follows != "":
		return p.called(follows) + " will be the owner"
	case len(c.Roles) > 1:
		return "an admin will be the owner, or else the member of longest standing"
	}
	return ""
}
