package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/client"
)

const (
	// historyLines is how much of what was said is shown when a chat is opened.
	historyLines = 20
	// farewell is how long an ending chat waits for what was typed to be delivered.
	farewell = 5 * time.Second
)

type chatCommand struct {
	Init chatInitCommand `cmd:"" help:"Make a home: the keys and the history of one person on one device. Prints the person's DID."`
	DM   chatDMCommand   `cmd:"" name:"dm" help:"Talk to one other person. Makes the home when it is missing."`
}

// chatOptions are what every command of chat takes.
type chatOptions struct {
	Home          string `placeholder:"DIR" help:"Directory of keys and history, encrypted. By default homes/NAME in the configuration directory."`
	Server        string `placeholder:"URL" help:"Server to talk through. By default the one that the home was made with, at first http://127.0.0.1:8420."`
	As            string `placeholder:"NAME" help:"Who talks: the name of an account of the seed. By default whose home it is, at first me."`
	Passphrase    string `placeholder:"TEXT" help:"Passphrase that seals the key of the home. Prefer WAXWING_PASSPHRASE: other users can see flags."`
	AskPassphrase bool   `help:"Ask for a passphrase when a home is made. A home that has one asks by itself."`
	Invite        string `placeholder:"CODE" help:"Invite code, which a server may ask for the first time. Prefer WAXWING_INVITE: other users can see flags."`
	seedOption
}

type chatInitCommand struct{ chatOptions }

// Run makes the home and prints the DID. A home that is there already stays as it is.
func (c *chatInitCommand) Run(std streams, g *globals) error {
	home, err := c.openHome(g)
	if err != nil {
		return err
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

// open opens the client of the home. It connects by itself.
func (o *chatOptions) open(ctx context.Context, g *globals) (*client.Client, error) {
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
	return client.Open(ctx, client.Options{
		Dir: filepath.Join(home.dir, "store"), StorageKey: key, Server: home.Server, Account: account,
		InviteCode: o.Invite,
	})
}

type chatDMCommand struct {
	Peer string `arg:"" name:"did" help:"DID of the other person, as printed by waxwing did or chat init."`
	JSON bool   `name:"json" help:"Print JSON lines {type, conv, from, text, seq, ts} with type message, state, joined, left or error, for scripts."`
	chatOptions
}

// Help is shown below the flags.
func (chatDMCommand) Help() string {
	return "Each line of standard input is a message, except /dm DID, which turns to another person, and /quit, " +
		"which ends the chat like the end of the input does; // begins a message with a slash. " +
		"What is typed while the server is away waits and is sent later, even after a restart."
}

// chat is one running chat.
type chat struct {
	client *client.Client
	screen *screen
	conv   string // what a line is sent to
}

// Run talks until /quit, the end of the input or a signal.
func (c *chatDMCommand) Run(ctx context.Context, std streams, g *globals) error {
	sdk, err := c.open(ctx, g)
	if err != nil {
		return err
	}
	talk := &chat{client: sdk, screen: newScreen(std.out, c.JSON, sdk.Self().Account)}
	err = talk.run(ctx, std.in, c.Peer)
	return errors.Join(err, sdk.Close())
}

func (t *chat) run(ctx context.Context, in io.Reader, peer string) error {
	if err := t.turnTo(ctx, peer); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return t.showEvents(running) })
	group.Go(func() error { return t.showStates(running) })
	lines := readLines(in)
	group.Go(func() error {
		defer stop()
		if err := t.obey(running, lines); err != nil {
			return err
		}
		return t.leave(running)
	})
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil // by a signal, or by us
	}
	return err
}

// readLines reads in a goroutine of its own, which may outlive the chat: nothing
// interrupts a read from a terminal.
func readLines(in io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(in)
		scanner.Buffer(nil, 2*client.TextBytesMax)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	return lines
}

// obey does what each line says until the last one.
func (t *chat) obey(ctx context.Context, lines <-chan string) error {
	for {
		var line string
		var more bool
		select {
		case line, more = <-lines:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return nil
		}
		line = strings.TrimSuffix(line, "\r")
		command, argument, _ := strings.Cut(line, " ")
		switch {
		case strings.TrimSpace(line) == "":
		case command == "/quit":
			return nil
		case command == "/dm":
			if err := t.turnTo(ctx, strings.TrimSpace(argument)); err != nil {
				t.screen.complain(t.conv, err.Error())
			}
		case strings.HasPrefix(line, "/") && !strings.HasPrefix(line, "//"):
			t.screen.complain(t.conv, command+" is no command: /dm DID, /quit, or // for a message that begins with a slash")
		default:
			if err := t.say(ctx, line); err != nil {
				return err
			}
		}
	}
}

// say puts a line into the outbox: from then on it is not lost.
func (t *chat) say(ctx context.Context, line string) error {
	line = strings.TrimPrefix(line, "/") // the first of two
	t.screen.saying.Lock()
	defer t.screen.saying.Unlock()
	id, err := t.client.Send(ctx, t.conv, []byte(line))
	if err != nil && ctx.Err() == nil {
		t.screen.complain(t.conv, err.Error())
		return nil
	}
	t.screen.said(id)
	return err
}

// turnTo makes the conversation with peer the one that lines go to.
func (t *chat) turnTo(ctx context.Context, peer string) error {
	if !strings.HasPrefix(peer, "did:") { // the protocol knows opaque names; people do not mean them
		return usageError{fmt.Errorf("talk to %q: want a DID, as printed by waxwing did", peer)}
	}
	conv, err := t.client.StartDM(ctx, peer)
	if err != nil {
		return fmt.Errorf("talk to %q: %w", peer, err)
	}
	t.conv = conv
	history, err := t.client.History(ctx, conv, 0, historyLines)
	if err != nil {
		return err
	}
	t.screen.open(conv, peer, history)
	return nil
}

// leave gives what was typed a moment to be delivered.
func (t *chat) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	err := t.client.Flush(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		t.screen.complain(t.conv, "not everything is delivered yet; what is left will be sent next time")
		return nil
	}
	return err
}

// showEvents prints what happens. An event is acknowledged once it is printed: after
// a crash it may be printed again, but never not at all.
func (t *chat) showEvents(ctx context.Context) error {
	for {
		event, err := t.client.Next(ctx)
		if err != nil {
			return err
		}
		if err := t.screen.show(event); err != nil {
			return err
		}
		if err := t.client.Ack(ctx, event.ID); err != nil {
			return err
		}
	}
}

// showStates prints whether the server can be reached, whenever that changes.
func (t *chat) showStates(ctx context.Context) error {
	shown := ""
	for {
		state, changed := t.client.State()
		if now := state.Link.String(); now != shown && (t.screen.asJSON || state.Link != client.Connecting) {
			shown = now
			if refused := (*client.Refusal)(nil); errors.As(state.Err, &refused) {
				t.screen.complain("", refused.Error())
			}
			t.screen.state(now)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
