package chat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/client"
)

// MakeRoom creates a room with people and a title, "" for none, prints its id at once, because it
// is already stored, and waits until they are in it.
func (t *Terminal) MakeRoom(ctx context.Context, dids []string, title string, wait time.Duration) error {
	people, err := t.people.persons(ctx, dids)
	if err != nil {
		return err
	}
	room, err := makeRoom(ctx, t, people, title)
	if err != nil {
		return err
	}
	if err := t.print(room); err != nil {
		return err
	}
	return t.until(ctx, wait, t.invited(ctx, room, people, title))
}

// makeRoom creates a room with people and a title, "" for none.
func makeRoom(ctx context.Context, t *Terminal, people []string, title string) (room string, err error) {
	if err := t.client.SetTitle(ctx, "", title); errors.Is(err, client.ErrName) { // before there is a room
		return "", titleError(err)
	}
	if room, err = t.client.CreateRoom(ctx, people...); err == nil && title != "" {
		err = titleError(t.client.SetTitle(ctx, room, title))
	}
	return room, err
}

// invited returns a condition for until: all these accounts are in the room, which has the title
// if there is to be one.
func (t *Terminal) invited(ctx context.Context, room string, people []string, title string) func() (bool, string, error) {
	titled := func() (bool, string, error) { return true, "", nil }
	if title != "" {
		titled = t.titled(ctx, client.Conversation{ID: room}, title)
	}
	return func() (bool, string, error) {
		c, err := t.client.Conversation(ctx, room)
		if err != nil {
			return false, "", err
		}
		if c.Problem != "" {
			return false, "", refused(c.Problem)
		}
		for _, p := range people {
			if slices.Contains(c.Inviting, p) {
				return false, t.people.called(p), nil
			}
		}
		if c.Phase != client.Joined {
			return false, "the room to be made", nil
		}
		return titled()
	}
}

// Invite brings people into a room, and waits until they are in.
func (t *Terminal) Invite(ctx context.Context, word string, dids []string, wait time.Duration) error {
	room, people, err := t.roomAndPeople(ctx, word, dids)
	if err != nil {
		return err
	}
	if err := t.client.Invite(ctx, room.ID, people...); err != nil {
		return roomError(err)
	}
	return t.until(ctx, wait, t.invited(ctx, room.ID, people, ""))
}

func (t *Terminal) roomAndPeople(ctx context.Context, word string, dids []string) (client.Conversation, []string, error) {
	room, err := t.find(ctx, word)
	if err != nil {
		return room, nil, err
	}
	people, err := t.people.persons(ctx, dids)
	return room, people, err
}

// Remove takes people out of a room with all their devices, and waits until they are out
// of the group.
func (t *Terminal) Remove(ctx context.Context, word string, dids []string, wait time.Duration) error {
	room, people, err := t.roomAndPeople(ctx, word, dids)
	if err != nil {
		return err
	}
	for _, p := range people {
		if !slices.Contains(accountsOf([]client.Conversation{room}), p) {
			return fmt.Errorf("%s is not in the room", p)
		}
	}
	if err := t.client.Remove(ctx, room.ID, people...); err != nil {
		return roomError(err)
	}
	return t.until(ctx, wait, func() (bool, string, error) {
		now, err := t.client.Conversation(ctx, room.ID)
		if err == nil && now.Problem != "" {
			err = refused(now.Problem)
		}
		for _, p := range people {
			if slices.Contains(now.Removing, p) || slices.ContainsFunc(now.Members, func(m client.Member) bool { return m.Account == p }) {
				return false, t.people.called(p) + " to be removed", err
			}
		}
		return true, "", err
	})
}

// Leave leaves a conversation with all devices of this account, and waits until the
// server knows. newOwner owns the room from then on; with "", the server chooses.
func (t *Terminal) Leave(ctx context.Context, word, newOwner string, wait time.Duration) error {
	room, err := t.find(ctx, word)
	if err != nil {
		return err
	}
	heir := ""
	if newOwner != "" {
		heir, err = t.people.person(ctx, newOwner)
	}
	if err == nil {
		heir, err = leave(ctx, t, room, heir)
	}
	if err != nil {
		return err
	}
	if next := t.people.leaving(room, heir); next != "" && newOwner == "" {
		if err := t.print(next); err != nil {
			return err
		}
	}
	return t.until(ctx, wait, func() (bool, string, error) {
		now, err := t.client.Conversation(ctx, room.ID)
		if err == nil && now.Phase != client.Leaving && now.Phase != client.Removed {
			err = refused(cmp.Or(now.Problem, "the server does not let you leave"))
		}
		return now.Phase == client.Removed, "what is in the outbox", err
	})
}
