package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/chat"
)

type chatCommand struct {
	UI       chatUICommand       `cmd:"" name:"ui" default:"withargs" help:"Open the terminal UI. This is what chat does without a command; without a terminal it reads and prints lines."`
	Init     chatInitCommand     `cmd:"" help:"Make a home: the keys and the history of one person on one device. Prints the person's DID."`
	DM       chatDMCommand       `cmd:"" name:"dm" help:"Talk to one other person, line by line. Makes the home when it is missing."`
	Send     chatSendCommand     `cmd:"" help:"Send one message, and say what became of it."`
	Room     chatRoomCommand     `cmd:"" help:"Rooms: talk with several people."`
	List     chatListCommand     `cmd:"" help:"List the conversations."`
	Contacts chatContactsCommand `cmd:"" help:"List the people that this home knows, with their names."`
	Name     chatNameCommand     `cmd:"" help:"Set the name that others see, or print it."`
	Alias    chatAliasCommand    `cmd:"" help:"Give a person a name of your own, which only your devices know."`
	Verify   chatVerifyCommand   `cmd:"" help:"Verify a person: compare safety numbers."`
	Unverify chatUnverifyCommand `cmd:"" help:"Revoke a verification."`
	Devices  chatDevicesCommand  `cmd:"" help:"The devices of this account."`
	Search   chatSearchCommand   `cmd:"" help:"Search the history of this device."`
}

// chatOptions holds the options of every command of chat.
type chatOptions struct {
	Home          string `placeholder:"DIR" help:"Directory of keys and history, encrypted. By default homes/NAME in the configuration directory."`
	Server        string `placeholder:"URL" help:"Server to talk through. By default the one that the home was made with, at first http://127.0.0.1:8420."`
	ServerDID     string `name:"server-did" placeholder:"DID" help:"DID that the server must have. By default, over https, the did:web of its address."`
	As            string `placeholder:"NAME" help:"Name of your account among those of the seed. By default that of the home, at first me."`
	Passphrase    string `placeholder:"TEXT" help:"Passphrase that seals the key of the home. Prefer WAXWING_PASSPHRASE: other users can see flags."`
	AskPassphrase bool   `help:"Ask for a passphrase when a home is made. A home that has one asks by itself."`
	Invite        string `placeholder:"CODE" help:"Invite code, which a server may ask for the first time. Prefer WAXWING_INVITE: other users can see flags."`
	XRPC          bool   `name:"xrpc" help:"Use the server's AT Protocol API instead of its gateway. Users of either can talk with each other. A home created with it keeps it."`
	Log           string `placeholder:"FILE" help:"Append to FILE what the client does: connections, and reasons why there is none. It contains no secrets and no messages."`
	Verbose       bool   `short:"v" help:"Log more, without --log to standard error."`
	seedOption
}

// options returns the options of package chat.
func (o *chatOptions) options(std streams, g *globals) chat.Options {
	return chat.Options{ConfigDir: g.configHome, Seed: func() ([]byte, error) { return o.secret(g) },
		Home: o.Home, Name: o.As, Server: o.Server, DefaultServer: defaultServer, ServerDID: o.ServerDID, InviteCode: o.Invite, XRPC: o.XRPC,
		Passphrase: o.Passphrase, AskPassphrase: o.AskPassphrase, LogFile: o.Log, Verbose: o.Verbose, In: std.in, Out: std.out, Err: std.err,
		Command: func(ctx context.Context, args []string, t *chat.Terminal, in io.Reader, out, err io.Writer) int {
			return run(ctx, args, streams{in: in, out: out, err: err, open: t})
		},
		NoColor: os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"} // https://no-color.org
}

// within opens an existing home, runs one function and closes it again.
func (o *chatOptions) within(ctx context.Context, std streams, g *globals, do func(t *chat.Terminal) error) error {
	options := o.options(std, g)
	options.MustExist = true
	return o.inHome(ctx, std, options, do, passOn(std))
}

// inside is like within, but creates a missing home.
func (o *chatOptions) inside(ctx context.Context, std streams, g *globals, do func(t *chat.Terminal) error) error {
	return o.inHome(ctx, std, o.options(std, g), do, passOn(std))
}

// talking is like inside or within, for commands that read until the end of the input. Where
// another process has the home open they end, or pass on JSON.
func (o *chatOptions) talking(ctx context.Context, std streams, g *globals, mustExist, passesOn bool, do func(t *chat.Terminal) error) error {
	options := o.options(std, g)
	options.MustExist, options.IsTalking = mustExist, true
	return o.inHome(ctx, std, options, do, func(ctx context.Context, r *chat.Running) error {
		switch {
		case !r.HasEvents: // it will soon end
			return errors.Join(client.ErrInUse, r.Close())
		case !passesOn:
			return errors.Join(chat.ErrNoGuests, r.Close())
		}
		return r.Talk(ctx, std.in, std.out)
	})
}

// passOn has the process that has the home open execute the command.
func passOn(std streams) func(ctx context.Context, r *chat.Running) error {
	return func(ctx context.Context, r *chat.Running) error {
		code, err := r.Command(ctx, std.args, std.out, std.err)
		if err == nil && code != 0 {
			err = exit(code)
		}
		return err
	}
}

// A process that is about to open or to close a home can neither be asked nor replaced.
const (
	openPatience = 5 * time.Second
	openInterval = 50 * time.Millisecond
)

// inHome opens the home, runs do and closes it again. If another process has it open it calls ask.
func (o *chatOptions) inHome(ctx context.Context, std streams, options chat.Options, do func(t *chat.Terminal) error, ask func(ctx context.Context, r *chat.Running) error) error {
	if std.open != nil {
		return do(std.open)
	}
	for began := time.Now(); ; {
		running, err := chat.Dial(ctx, options)
		if running != nil {
			err = ask(ctx, running)
			if !errors.Is(err, client.ErrInUse) {
				return err
			}
		} else if err == nil {
			var t *chat.Terminal
			if t, err = chat.Open(ctx, options); err == nil {
				return errors.Join(do(t), t.Close())
			}
		}
		if !errors.Is(err, client.ErrInUse) || time.Since(began) > openPatience || ctx.Err() != nil {
			return err
		}
		time.Sleep(openInterval)
	}
}

// waitOption is the time that a command waits for its effect.
type waitOption struct {
	Wait time.Duration `default:"15s" placeholder:"TIME" help:"How long to wait until it is done. With 0 it is only stored, and done when a chat is open next."`
}

type chatInitCommand struct {
	Device string `placeholder:"NAME" help:"The account's name for this device, in a new home; each of its devices has another. By default one is made up."`
	chatOptions
}

// Run creates the home and prints the DID.
func (c *chatInitCommand) Run(std streams, g *globals) error {
	if std.open != nil {
		return usageError{errors.New("init makes another home than the one that is open: run it as a command of its own")}
	}
	options := c.options(std, g)
	options.Device = c.Device
	did, err := chat.Init(options)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, did)
	return err
}

type chatUICommand struct {
	JSON bool `name:"json" help:"Read lines and print JSON lines, as chat dm does, also in a terminal."`
	chatOptions
}

// Run shows the terminal UI on a terminal, and is line based elsewhere.
func (c *chatUICommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.talking(ctx, std, g, false, c.JSON, func(t *chat.Terminal) error { return t.Talk(ctx, c.JSON) })
}

type chatDMCommand struct {
	Peer string `arg:"" name:"person" help:"The other person: the DID, as printed by waxwing did or chat init, or the name of one who is known."`
	JSON bool   `name:"json" help:"Print JSON lines {type, conv, from, text, seq, ts} with type message, state, joined, left, name or error, for scripts."`
	chatOptions
}

// Help returns the text below the flags.
func (chatDMCommand) Help() string {
	return "Each line of standard input is a message, except those that begin with a slash, such as /help, which lists " +
		"them, /dm DID, which turns to another person, and /quit, " +
		"which ends the chat like the end of the input does; // begins a message with a slash. " +
		"What is typed while the server is away waits and is sent later, even after a restart."
}

// Run talks until /quit, the end of the input or a signal.
func (c *chatDMCommand) Run(ctx context.Context, std streams, g *globals) error {
	isNew := strings.HasPrefix(c.Peer, "did:") // it may be; a new home knows nobody
	return c.talking(ctx, std, g, !isNew, false, func(t *chat.Terminal) error { return t.TalkTo(ctx, c.Peer, c.JSON) })
}

type chatSendCommand struct {
	Who  string   `arg:"" help:"The person or conversation: a DID, a name, the id of a conversation or its number in the list."`
	Text []string `arg:"" help:"The message. - reads it from standard input."`
	ID   *string  `name:"id" placeholder:"ID" help:"Id of the message, 1-128 bytes. A second one with the same id and text is not sent."`
	JSON bool     `name:"json" help:"Print one JSON line {type, op, ok, code, error, conv, id, state, seq}."`
	waitOption
	chatOptions
}

// Run sends the message and waits until the server has it.
func (c *chatSendCommand) Run(ctx context.Context, std streams, g *globals) error {
	text := strings.Join(c.Text, " ")
	if text == "-" && std.open == nil {
		read, err := io.ReadAll(io.LimitReader(std.in, client.TextBytesMax+2))
		if err != nil {
			return err
		}
		text = strings.TrimSuffix(string(read), "\n")
	}
	std.args = []string{"chat", "send", fmt.Sprintf("--json=%t", c.JSON), "--wait", c.Wait.String()}
	if c.ID != nil {
		std.args = append(std.args, "--id="+*c.ID)
	}
	std.args = append(std.args, "--", c.Who, text)
	open := c.inside
	if !strings.HasPrefix(c.Who, "did:") {
		open = c.within
	}
	return open(ctx, std, g, func(t *chat.Terminal) error { return t.Send(ctx, c.Who, text, c.ID, c.Wait, c.JSON) })
}

type chatListCommand struct {
	JSON bool `name:"json" help:"Print JSON lines {conv, kind, phase, role, unread, members, inviting, problem, roles}."`
	chatOptions
}

// Run prints the list.
func (c *chatListCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.List(ctx, c.JSON) })
}

type chatContactsCommand struct {
	JSON bool `name:"json" help:"Print JSON lines {did, short, name, alias, verified, resembles}."`
	chatOptions
}

// Run prints the list.
func (c *chatContactsCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Contacts(ctx, c.JSON) })
}

type chatNameCommand struct {
	Name *string `arg:"" optional:"" help:"The name, of at most 64 characters; an empty one for none. Without it the present one is printed."`
	waitOption
	chatOptions
}

// Run sets the name and waits until it is sent.
func (c *chatNameCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.inside(ctx, std, g, func(t *chat.Terminal) error { return t.Name(ctx, c.Name, c.Wait) })
}

type chatAliasCommand struct {
	Person string `arg:"" help:"The person: the DID, or the name of one who is known."`
	Name   string `arg:"" help:"The name that you give; an empty one or - takes it back."`
	waitOption
	chatOptions
}

// Run names the person and waits until that is sent to the other devices of this account.
func (c *chatAliasCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Alias(ctx, c.Person, c.Name, c.Wait) })
}

type chatVerifyCommand struct {
	DID    string   `arg:"" optional:"" name:"person" help:"The person. Without it the people that this home has met are listed."`
	Number []string `arg:"" optional:"" help:"The number that the other person reads: it is compared, and has to be the same."`
	Yes    bool     `help:"The numbers were compared and are the same. Where the account cannot vouch for its devices the NUMBER is needed."`
	chatOptions
}

// Help returns the text below the flags.
func (chatVerifyCommand) Help() string {
	return "Shows the safety number of you and another person, 60 digits, which both of you read alike if nobody stands " +
		"between you. In a terminal it asks whether you do. Without a terminal, a NUMBER or --yes it shows the number and verifies nothing."
}

// Run shows and compares the number and records the result.
func (c *chatVerifyCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error {
		if c.DID == "" {
			return t.People(ctx)
		}
		return t.Verify(ctx, c.DID, c.Number, c.Yes)
	})
}

type chatUnverifyCommand struct {
	DID string `arg:"" name:"person" help:"The person: the DID, or the name of one who is known."`
	chatOptions
}

// Run revokes a verification.
func (c *chatUnverifyCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Unverify(ctx, c.DID) })
}

type chatSearchCommand struct {
	Words  []string `arg:"" help:"Words, or parts of words, that have to be in the message; upper and lower case are alike."`
	In     string   `placeholder:"CONVERSATION" help:"Only in this conversation: its id, the beginning of it, or the person of a direct one."`
	From   string   `placeholder:"PERSON" help:"Only messages of this person."`
	After  string   `placeholder:"DATE" help:"Only from this day on: 2026-12-31, or a time as in RFC 3339."`
	Before string   `placeholder:"DATE" help:"Only before this day or time."`
	Limit  int      `default:"100" placeholder:"N" help:"Largest number of results, 1–1000."`
	JSON   bool     `name:"json" help:"Print JSON lines as chat dm does, with type found."`
	chatOptions
}

// Run searches the history of this device, newest first.
func (c *chatSearchCommand) Run(ctx context.Context, std streams, g *globals) error {
	q := client.Query{Text: strings.Join(c.Words, " "), Limit: c.Limit}
	if c.Limit < 1 || c.Limit > 1000 {
		return usageError{errors.New("limit: want 1–1000")}
	}
	var err error
	if q.After, err = day("after", c.After); err != nil {
		return err
	}
	if q.Before, err = day("before", c.Before); err != nil {
		return err
	}
	if !q.After.IsZero() {
		q.After = q.After.Add(-time.Nanosecond) // the query excludes its bounds
	}
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Search(ctx, q, c.From, c.In, c.JSON) })
}

// day parses a date, which begins at midnight local time, or a time; the zero time for "".
func day(option, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	at, err := time.ParseInLocation(time.DateOnly, text, time.Local)
	if err != nil {
		return at, usageError{fmt.Errorf("%s: %q is not a date: want 2026-12-31, or a time as in RFC 3339", option, text)}
	}
	return at, nil
}

type chatRoomCommand struct {
	New    chatRoomNewCommand    `cmd:"" help:"Make a room with other people. Prints its id."`
	Talk   chatRoomTalkCommand   `cmd:"" help:"Talk in a room, line by line."`
	Invite chatRoomInviteCommand `cmd:"" help:"Invite people to a room."`
	Remove chatRoomRemoveCommand `cmd:"" help:"Remove people from a room, with all their devices."`
	Admin  chatRoomAdminCommand  `cmd:"" help:"Make people admins of a room, who may invite and remove others."`
	Title  chatRoomTitleCommand  `cmd:"" help:"Give a room a title, as its owner or an admin."`
	Leave  chatRoomLeaveCommand  `cmd:"" help:"Leave a room or a direct conversation, with all devices of this account."`
}

type chatRoomNewCommand struct {
	DIDs  []string `arg:"" optional:"" name:"person" help:"Other members of the room."`
	Title string   `placeholder:"TEXT" help:"Title of the room. It is encrypted, and changed by chat room title."`
	waitOption
	chatOptions
}

// Run prints the room's id and waits until the people are in the group.
func (c *chatRoomNewCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.inside(ctx, std, g, func(t *chat.Terminal) error { return t.MakeRoom(ctx, c.DIDs, c.Title, c.Wait) })
}

type chatRoomTalkCommand struct {
	Room string `arg:"" help:"The room: its id or the beginning of it."`
	JSON bool   `name:"json" help:"Print JSON lines, as chat dm does."`
	chatOptions
}

// Run talks until /quit, the end of the input or a signal.
func (c *chatRoomTalkCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.talking(ctx, std, g, true, false, func(t *chat.Terminal) error { return t.TalkIn(ctx, c.Room, c.JSON) })
}

type chatRoomInviteCommand struct {
	Room string   `arg:"" help:"The room: its id or the beginning of it."`
	DIDs []string `arg:"" name:"person" help:"People to invite."`
	waitOption
	chatOptions
}

// Run invites people and waits until they are in the group.
func (c *chatRoomInviteCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Invite(ctx, c.Room, c.DIDs, c.Wait) })
}

type chatRoomRemoveCommand struct {
	Room string   `arg:"" help:"The room: its id or the beginning of it."`
	DIDs []string `arg:"" name:"person" help:"People to remove."`
	waitOption
	chatOptions
}

// Run removes people and waits until they are out of the group.
func (c *chatRoomRemoveCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Remove(ctx, c.Room, c.DIDs, c.Wait) })
}

type chatRoomAdminCommand struct {
	Room string   `arg:"" help:"The room: its id or the beginning of it."`
	DIDs []string `arg:"" name:"person" help:"Members of the room."`
	Take bool     `help:"Make admins plain members again."`
	waitOption
	chatOptions
}

// Run changes the roles and waits until they are changed.
func (c *chatRoomAdminCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.SetAdmin(ctx, c.Room, c.DIDs, !c.Take, c.Wait) })
}

type chatRoomTitleCommand struct {
	Room string   `arg:"" help:"The room: its id or the beginning of it, or its title."`
	Text []string `arg:"" help:"The title, which is encrypted; '' for none."`
	waitOption
	chatOptions
}

// Run sets the title and waits until the room has it.
func (c *chatRoomTitleCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error {
		return t.SetTitle(ctx, c.Room, strings.Join(c.Text, " "), c.Wait)
	})
}

type chatRoomLeaveCommand struct {
	Room     string `arg:"" help:"The conversation: its id or the beginning of it."`
	NewOwner string `placeholder:"PERSON" help:"New owner of the room, if you own it. By default its first admin, else its first other member."`
	waitOption
	chatOptions
}

// Run leaves and waits until the server has the request.
func (c *chatRoomLeaveCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Leave(ctx, c.Room, c.NewOwner, c.Wait) })
}

type chatDevicesCommand struct {
	List   chatDevicesListCommand   `cmd:"" default:"withargs" help:"The devices of this account that were met in conversations, this one first."`
	Add    chatDevicesAddCommand    `cmd:"" help:"Add other devices of this account to all conversations of this one."`
	Remove chatDevicesRemoveCommand `cmd:"" help:"Declare a device lost: it is removed from all conversations and its sessions end."`
}

type chatDevicesListCommand struct {
	JSON bool `name:"json" help:"Print JSON lines {device, fingerprint, this, lost, conversations}."`
	chatOptions
}

// Run prints the list.
func (c *chatDevicesListCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.Devices(ctx, c.JSON) })
}

type chatDevicesAddCommand struct {
	Device string `arg:"" optional:"" help:"The device. By default all devices of the account."`
	waitOption
	chatOptions
}

// Run adds a device and waits until it is in all conversations of this one.
func (c *chatDevicesAddCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.AddDevice(ctx, c.Device, c.Wait) })
}

type chatDevicesRemoveCommand struct {
	Device string `arg:"" help:"The device, as listed by chat devices."`
	waitOption
	chatOptions
}

// Run removes a device and waits until it is out of all conversations.
func (c *chatDevicesRemoveCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, std, g, func(t *chat.Terminal) error { return t.RemoveDevice(ctx, c.Device, c.Wait) })
}
