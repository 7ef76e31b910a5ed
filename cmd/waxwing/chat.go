package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
)

const (
	// historyLines is how much of what was said is shown when a chat is opened.
	historyLines = 20
	// farewell is how long an ending chat waits for what was typed to be delivered.
	farewell = 5 * time.Second
)

type chatCommand struct {
	UI       chatUICommand       `cmd:"" name:"ui" default:"withargs" help:"Open the terminal UI. This is what chat does without a command; without a terminal it reads and prints lines."`
	Init     chatInitCommand     `cmd:"" help:"Make a home: the keys and the history of one person on one device. Prints the person's DID."`
	DM       chatDMCommand       `cmd:"" name:"dm" help:"Talk to one other person, line by line. Makes the home when it is missing."`
	Room     chatRoomCommand     `cmd:"" help:"Rooms: talk with several people."`
	List     chatListCommand     `cmd:"" help:"List the conversations."`
	Verify   chatVerifyCommand   `cmd:"" help:"Make sure of who somebody is: compare safety numbers."`
	Unverify chatUnverifyCommand `cmd:"" help:"Take a verification back."`
	Devices  chatDevicesCommand  `cmd:"" help:"The devices of this account."`
	Search   chatSearchCommand   `cmd:"" help:"Look through the history of this device."`
}

// chatOptions are what every command of chat takes.
type chatOptions struct {
	Home          string `placeholder:"DIR" help:"Directory of keys and history, encrypted. By default homes/NAME in the configuration directory."`
	Server        string `placeholder:"URL" help:"Server to talk through. By default the one that the home was made with, at first http://127.0.0.1:8420."`
	ServerDID     string `name:"server-did" placeholder:"DID" help:"Who the server must say it is. By default, over https, the did:web of its address."`
	As            string `placeholder:"NAME" help:"Who talks: the name of an account of the seed. By default whose home it is, at first me."`
	Passphrase    string `placeholder:"TEXT" help:"Passphrase that seals the key of the home. Prefer WAXWING_PASSPHRASE: other users can see flags."`
	AskPassphrase bool   `help:"Ask for a passphrase when a home is made. A home that has one asks by itself."`
	Invite        string `placeholder:"CODE" help:"Invite code, which a server may ask for the first time. Prefer WAXWING_INVITE: other users can see flags."`
	XRPC          bool   `name:"xrpc" help:"Speak to the server's AT Protocol door rather than to its gateway. The people behind either talk with each other. A home that is made with it stays with it."`
	seedOption

	device string // of a home that is made
}

// deviceNames are those that people can type and servers take.
var deviceNames = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

type chatInitCommand struct {
	Device string `placeholder:"NAME" help:"The account's name for this device, in a new home; each of its devices has another. By default one is made up."`
	chatOptions
}

// Run makes the home and prints the DID. A home that is there already stays as it is.
func (c *chatInitCommand) Run(std streams, g *globals) error {
	if c.Device != "" && !deviceNames.MatchString(c.Device) {
		return usageError{fmt.Errorf("device: want 1–64 letters, digits, - and _, not %q", c.Device)}
	}
	c.device = c.Device
	home, err := c.openHome(g)
	if err != nil {
		return err
	}
	if c.Device != "" && c.Device != home.Device {
		return usageError{fmt.Errorf("device: %s is the home of the device %q, not of %q", home.dir, home.Device, c.Device)}
	}
	if _, err := home.storageKey(&c.chatOptions, g); err != nil {
		return err
	}
	account, err := c.account(home, g)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, account.DID())
	return err
}

func (o *chatOptions) account(home *chatHome, g *globals) (*client.Account, error) {
	seed, err := o.secret(g)
	if err != nil {
		return nil, err
	}
	return client.AccountFromSeed(seed, home.Name)
}

// open opens the chat of the home. It connects by itself.
func (o *chatOptions) open(ctx context.Context, g *globals) (*chat, error) {
	home, err := o.openHome(g)
	if err != nil {
		return nil, err
	}
	key, err := home.storageKey(o, g)
	if err != nil {
		return nil, err
	}
	account, err := o.account(home, g)
	if err != nil {
		return nil, err
	}
	var with []client.Option
	if home.XRPC {
		with = append(with, client.WithXRPC())
	}
	sdk, err := client.Open(ctx, client.Options{
		Dir: filepath.Join(home.dir, "store"), StorageKey: key, Server: home.Server, ServerDID: o.ServerDID, Account: account,
		DeviceID: home.Device, InviteCode: o.Invite,
	}, with...)
	if errors.Is(err, client.ErrInUse) {
		err = fmt.Errorf("%w: while a waxwing chat is open its /commands do what other commands do", err)
	}
	if err != nil {
		return nil, err
	}
	return &chat{client: sdk, self: sdk.DID(), server: home.Server}, nil
}

type chatDMCommand struct {
	Peer string `arg:"" name:"did" help:"DID of the other person, as printed by waxwing did or chat init."`
	JSON bool   `name:"json" help:"Print JSON lines {type, conv, from, text, seq, ts} with type message, state, joined, left or error, for scripts."`
	chatOptions
}

// Help is shown below the flags.
func (chatDMCommand) Help() string {
	return "Each line of standard input is a message, except those that begin with a slash, such as /help, which lists " +
		"them, /dm DID, which turns to another person, and /quit, " +
		"which ends the chat like the end of the input does; // begins a message with a slash. " +
		"What is typed while the server is away waits and is sent later, even after a restart."
}

// Run talks until /quit, the end of the input or a signal.
func (c *chatDMCommand) Run(ctx context.Context, std streams, g *globals) error {
	if !strings.HasPrefix(c.Peer, "did:") { // the protocol knows opaque names; people do not mean them
		return usageError{fmt.Errorf("talk to %q: want a DID, as printed by waxwing did", c.Peer)}
	}
	return c.inside(ctx, g, func(t *chat) error { return newLines(t, std, c.JSON).run(ctx, std.in, "/dm "+c.Peer) })
}

type chatUICommand struct {
	JSON bool `name:"json" help:"Read lines and print JSON lines, as chat dm does, also in a terminal."`
	chatOptions
}

// Run shows the terminal UI where there is a terminal, and is line based elsewhere.
func (c *chatUICommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.inside(ctx, g, func(t *chat) error {
		if !c.JSON && isTerminal(std.in) && isTerminal(std.out) {
			return runUI(ctx, t, std)
		}
		return newLines(t, std, c.JSON).run(ctx, std.in, "")
	})
}
