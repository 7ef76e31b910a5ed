package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"waxwing.im/waxwing/client"
)

type chatRoomCommand struct {
	New    chatRoomNewCommand    `cmd:"" help:"Make a room with other people. Prints its id."`
	Talk   chatRoomTalkCommand   `cmd:"" help:"Talk in a room, line by line."`
	Invite chatRoomInviteCommand `cmd:"" help:"Bring people into a room."`
	Remove chatRoomRemoveCommand `cmd:"" help:"Take people out of a room, with all their devices."`
	Leave  chatRoomLeaveCommand  `cmd:"" help:"Leave a room or a direct conversation, with all devices of this account."`
}

type chatRoomNewCommand struct {
	DIDs []string `arg:"" optional:"" name:"did" help:"Who else is in the room."`
	waitOption
	chatOptions
}

// Run prints the room's id at once: what is noted is not lost.
func (c *chatRoomNewCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.inside(ctx, g, func(t *chat) error {
		people, err := t.persons(ctx, c.DIDs)
		if err != nil {
			return usageOf(err)
		}
		room, err := t.client.CreateRoom(ctx, people...)
		if err != nil {
			return usageOf(err)
		}
		if err := printLines(std, []string{room}); err != nil {
			return err
		}
		return c.until(ctx, t, t.invited(ctx, room, people, ""))
	})
}

// invited is done when all these accounts are in the room. What was the problem before
// is not one of this invitation.
func (t *chat) invited(ctx context.Context, room string, people []string, before string) func() (bool, string, error) {
	return func() (bool, string, error) {
		c, err := t.client.Conversation(ctx, room)
		if err != nil {
			return false, "", err
		}
		if c.Problem != "" && c.Problem != before {
			return false, "", errors.New(c.Problem)
		}
		for _, p := range people {
			if slices.Contains(c.Inviting, p) {
				return false, short(p), nil
			}
		}
		return c.Phase == client.Joined, "the room to be made", nil
	}
}

type chatRoomTalkCommand struct {
	Room string `arg:"" help:"The room: its id or the beginning of it."`
	JSON bool   `name:"json" help:"Print JSON lines, as chat dm does."`
	chatOptions
}

// Run talks until /quit, the end of the input or a signal.
func (c *chatRoomTalkCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		return newLines(t, std, c.JSON).run(ctx, std.in, "/open "+c.Room)
	})
}

type chatRoomInviteCommand struct {
	Room string   `arg:"" help:"The room: its id or the beginning of it."`
	DIDs []string `arg:"" name:"did" help:"Whom to bring in."`
	waitOption
	chatOptions
}

// Run invites and waits until they are in.
func (c *chatRoomInviteCommand) Run(ctx context.Context, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		room, people, err := t.roomAndPeople(ctx, c.Room, c.DIDs)
		if err != nil {
			return err
		}
		if err := t.client.Invite(ctx, room.ID, people...); err != nil {
			return usageOf(roomError(err))
		}
		return c.until(ctx, t, t.invited(ctx, room.ID, people, room.Problem))
	})
}

func (t *chat) roomAndPeople(ctx context.Context, word string, dids []string) (client.Conversation, []string, error) {
	room, err := t.find(ctx, word)
	if err != nil {
		return room, nil, usageOf(err)
	}
	people, err := t.persons(ctx, dids)
	return room, people, usageOf(err)
}

type chatRoomRemoveCommand struct {
	Room string   `arg:"" help:"The room: its id or the beginning of it."`
	DIDs []string `arg:"" name:"did" help:"Whom to take out."`
	waitOption
	chatOptions
}

// Run removes and waits until they are out of the group.
func (c *chatRoomRemoveCommand) Run(ctx context.Context, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		room, people, err := t.roomAndPeople(ctx, c.Room, c.DIDs)
		if err != nil {
			return err
		}
		for _, p := range people {
			if !slices.Contains(accountsOf([]client.Conversation{room}), p) {
				return fmt.Errorf("%s is not in the room", p)
			}
		}
		if err := t.client.Remove(ctx, room.ID, people...); err != nil {
			return usageOf(roomError(err))
		}
		return c.until(ctx, t, func() (bool, string, error) {
			now, err := t.client.Conversation(ctx, room.ID)
			if err == nil && now.Problem != "" && now.Problem != room.Problem {
				err = errors.New(now.Problem)
			}
			for _, p := range people {
				if slices.Contains(now.Removing, p) || slices.ContainsFunc(now.Members, func(m client.Member) bool { return m.Account == p }) {
					return false, short(p) + " to be taken out", err
				}
			}
			return true, "", err
		})
	})
}

type chatRoomLeaveCommand struct {
	Room     string `arg:"" help:"The conversation: its id or the beginning of it."`
	NewOwner string `placeholder:"DID" help:"Who owns the room from then on, if you do. By default its first admin, else its first other member."`
	waitOption
	chatOptions
}

// Run leaves and waits until the server knows.
func (c *chatRoomLeaveCommand) Run(ctx context.Context, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		room, err := t.find(ctx, c.Room)
		if err != nil {
			return usageOf(err)
		}
		if c.NewOwner == "" {
			err = t.client.Leave(ctx, room.ID)
		} else {
			var heir string
			if heir, err = t.person(ctx, c.NewOwner); err == nil {
				err = t.client.LeaveTo(ctx, room.ID, heir)
			}
		}
		if err != nil {
			return usageOf(err)
		}
		return c.until(ctx, t, func() (bool, string, error) {
			now, err := t.client.Conversation(ctx, room.ID)
			if err == nil && now.Phase != client.Leaving && now.Phase != client.Removed {
				err = errors.New(orElse(now.Problem, "the server does not let you leave"))
			}
			return now.Phase == client.Removed, "what is in the outbox", err
		})
	})
}
