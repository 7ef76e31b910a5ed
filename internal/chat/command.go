package chat

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"waxwing.im/waxwing/client"
)

// reply is the result of one line of input.
type reply struct {
	quit   bool
	sent   string // the message that it became
	opened string // the conversation that was turned to
	title  string // of the following lines
	lines  []string
	hits   []client.Event // results of a search
}

// slashCommand is a command of a line that begins with a slash.
type slashCommand struct {
	name, args, help string
	run              func(t *Terminal, ctx context.Context, words []string) (reply, error)
}

// slashCommands returns all of them, in the order of /help.
func slashCommands() []slashCommand {
	return []slashCommand{
		{"/dm", "PERSON", "talk to one person", (*Terminal).doDM},
		{"/room", "[PERSON…]", "make a room with these people", (*Terminal).doRoom},
		{"/list", "", "the conversations", (*Terminal).doList},
		{"/open", "CONVERSATION", "turn to one: its number in /list, its id or a person", (*Terminal).doOpen},
		{"/who", "", "who is in this conversation", (*Terminal).doWho},
		{"/name", "[NAME]", "the name that others see; - for none", (*Terminal).doName},
		{"/alias", "PERSON NAME", "name a person, for you alone; - for their own name", (*Terminal).doAlias},
		{"/invite", "PERSON…", "bring people into this room", (*Terminal).doInvite},
		{"/remove", "PERSON…", "take people out of this room", (*Terminal).doRemove},
		{"/admin", "PERSON…", "make people admins of this room", doAdmin},
		{"/unadmin", "PERSON…", "make admins plain members again", doUnadmin},
		{"/title", "[TEXT]", "the title of this room; - for none", doTitle},
		{"/leave", "[PERSON]", "leave this conversation, perhaps to a new owner", (*Terminal).doLeave},
		{"/verify", "PERSON [NUMBER|yes]", "show a safety number, or that it is the same", (*Terminal).doVerify},
		{"/unverify", "PERSON", "take that back", (*Terminal).doUnverify},
		{"/devices", "[add|remove …]", "the devices of this account", (*Terminal).doDevices},
		{"/search", "WORDS", "look through the history", (*Terminal).doSearch},
		{"/help", "", "this list", (*Terminal).doHelp},
		{"/quit", "", "end the chat", func(*Terminal, context.Context, []string) (reply, error) { return reply{quit: true}, nil }},
	}
}

// obey executes a line of input: a command, or a message to send.
func (t *Terminal) obey(ctx context.Context, line string) (reply, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return reply{}, nil
	}
	if !strings.HasPrefix(line, "/") || strings.HasPrefix(line, "//") {
		return t.say(ctx, line)
	}
	for _, c := range slashCommands() {
		if c.name == words[0] {
			return c.run(t, ctx, words[1:])
		}
	}
	return reply{}, mistake("%s is not a command: /help lists them; // begins a message with a slash", words[0])
}

// say puts a line into the outbox: from then on it is not lost.
func (t *Terminal) say(ctx context.Context, line string) (reply, error) {
	if t.conv == "" {
		return reply{}, mistake("no conversation is open yet: /dm PERSON, /room PERSON… or /open")
	}
	id, err := t.client.Send(ctx, t.conv, []byte(strings.TrimPrefix(line, "/"))) // the first of two
	if errors.Is(err, client.ErrNoGroup) {
		err = errors.New("you have left this conversation, or were removed")
	}
	return reply{sent: id}, err
}

// turnTo makes conv the conversation that lines go to.
func (t *Terminal) turnTo(conv string) reply {
	t.conv = conv
	return reply{opened: conv}
}

func (t *Terminal) doDM(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/dm takes one person")
	}
	word := strings.Join(words, " ")
	conv, err := t.people.dmWith(ctx, word)
	if err != nil {
		return reply{}, fmt.Errorf("talk to %q: %w", word, err)
	}
	return t.turnTo(conv), nil
}

func (t *Terminal) doRoom(ctx context.Context, words []string) (reply, error) {
	people, err := t.people.persons(ctx, words)
	if err != nil {
		return reply{}, err
	}
	conv, err := t.client.CreateRoom(ctx, people...)
	if err != nil {
		return reply{}, err
	}
	return t.turnTo(conv), nil
}

func (t *Terminal) doList(ctx context.Context, _ []string) (reply, error) {
	all, err := t.client.Conversations(ctx)
	out := reply{title: "Conversations", lines: []string{"no conversations yet: /dm PERSON or /room PERSON…"}}
	for i, c := range all {
		if i == 0 {
			out.lines = nil
		}
		line := fmt.Sprintf("%d  %s", i+1, t.titleOf(c))
		if c.Unread > 0 {
			line += fmt.Sprintf(", %d unread", c.Unread)
		}
		if note := t.people.phaseNote(c); note != "" {
			line += ", " + note
		}
		out.lines = append(out.lines, line)
	}
	return out, err
}

func (t *Terminal) doOpen(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/open takes one conversation: its number in /list, its id or a person")
	}
	conv, err := t.find(ctx, strings.Join(words, " "))
	if err != nil {
		return reply{}, err
	}
	return t.turnTo(conv.ID), nil
}

func (t *Terminal) doWho(ctx context.Context, _ []string) (reply, error) {
	c, err := t.here(ctx)
	if err != nil {
		return reply{}, err
	}
	return reply{title: "In " + t.titleOf(c), lines: t.people.memberLines(c)}, nil
}

// here returns the conversation that lines go to.
func (t *Terminal) here(ctx context.Context) (client.Conversation, error) {
	if t.conv == "" {
		return client.Conversation{}, mistake("no conversation is open: /list and /open, or /dm PERSON")
	}
	return t.client.Conversation(ctx, t.conv)
}

func (t *Terminal) doInvite(ctx context.Context, words []string) (reply, error) {
	return t.manage(ctx, "/invite", words, t.client.Invite, "is to be invited")
}

func (t *Terminal) doRemove(ctx context.Context, words []string) (reply, error) {
	return t.manage(ctx, "/remove", words, t.client.Remove, "is to be removed")
}

func (t *Terminal) manage(ctx context.Context, command string, words []string, do func(context.Context, string, ...string) error, what string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("%s takes people", command)
	}
	c, err := t.here(ctx)
	if err != nil {
		return reply{}, err
	}
	people, err := t.people.persons(ctx, words)
	if err != nil {
		return reply{}, err
	}
	if err := do(ctx, c.ID, people...); err != nil {
		return reply{}, roomError(err)
	}
	var out reply
	for _, p := range people {
		out.lines = append(out.lines, t.people.called(p)+" "+what)
	}
	return out, nil
}

// roomError explains ErrNoGroup for people and returns other errors as they are.
func roomError(err error) error {
	if errors.Is(err, client.ErrNoGroup) {
		return fmt.Errorf("you are not in the room, or not yet: %w", err)
	}
	return err
}

func (t *Terminal) doLeave(ctx context.Context, words []string) (reply, error) {
	c, err := t.here(ctx)
	if err != nil {
		return reply{}, err
	}
	var heir string
	if len(words) > 0 {
		heir, err = t.people.person(ctx, strings.Join(words, " "))
	}
	if err == nil {
		heir, err = leave(ctx, t, c, heir)
	}
	if err != nil {
		return reply{}, err
	}
	line := "leaving " + t.titleOf(c)
	if next := t.people.leaving(c, heir); next != "" {
		line += "; " + next
	}
	return reply{lines: []string{line}}, nil
}

func (t *Terminal) doHelp(context.Context, []string) (reply, error) {
	out := reply{title: "Commands"}
	for _, c := range slashCommands() {
		out.lines = append(out.lines, fmt.Sprintf("%-28s %s", c.name+" "+c.args, c.help))
	}
	out.lines = append(out.lines, "", "A PERSON is a DID, or of a known one what is shown of it, its end, its alias or its name.", "")
	out.lines = append(out.lines, marksHelp...)
	return out, nil
}
