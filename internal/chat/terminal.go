// Package chat is the terminal client: one account on one device, with a terminal UI,
// lines for people, or JSON lines for scripts.
//
// A home (home.go) holds the account, the server and the sealed history. Open makes a
// Terminal of it; the exported methods are the commands of waxwing chat: each does one
// thing and prints the result. The meaning of a line of input is decided in command.go,
// whether lines.go or ui.go reads it.
//
// Encryption, the outbox and reconnecting belong to package client; names of options and
// their help belong to cmd/waxwing.
package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/term"

	"waxwing.im/waxwing/client"
)

// Options configure a chat. Empty texts stand for the defaults that are named.
type Options struct {
	// ConfigDir returns the directory of the keys of homes and, by default, of the homes.
	ConfigDir func() (string, error)
	// Seed returns the secret that the keys of accounts are derived from. It is called
	// once the home is there, as it may make the secret.
	Seed func() ([]byte, error)

	Home      string // directory of the home; homes/NAME in ConfigDir
	MustExist bool   // a missing home is an error; otherwise it is created
	Name      string // of the account among those of the seed; the home's, at first "me"
	// Server is the URL of the server; that of the home, at first DefaultServer.
	Server, DefaultServer string
	ServerDID             string // the DID that the server must have; see client.Options
	Device                string // name of the device of a new home; generated if empty
	InviteCode            string // sent to a server that requires one
	XRPC                  bool   // use XRPC; a home that was created with it keeps it
	// Passphrase seals the key of a new home, or opens the key of a home that has a passphrase.
	// AskPassphrase asks for the former at the terminal; for the latter, Open asks by itself.
	Passphrase    string
	AskPassphrase bool

	// LogFile is the file to which the client's log is appended, "" for none. Verbose adds what
	// concerns developers, and without a LogFile writes the log to Err. It contains no secrets and
	// no messages.
	LogFile string
	Verbose bool

	// Command executes a command line of waxwing chat with an open home, for other processes and
	// programs, and returns its exit code.
	Command Command
	// IsTalking reports that the chat reads events until its end.
	IsTalking bool

	In       io.Reader
	Out, Err io.Writer
	NoColor  bool // use no colours in the terminal UI
}

// logger returns the logger that the options ask for, nil for none, and the file to close.
func (o *Options) logger() (*slog.Logger, io.Closer, error) {
	level := slog.LevelInfo
	if o.Verbose {
		level = slog.LevelDebug
	}
	switch {
	case o.LogFile != "":
		file, err := os.OpenFile(o.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, mistake("log: %w", err)
		}
		return slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: level})), file, nil
	case o.Verbose:
		return slog.New(slog.NewTextHandler(o.Err, &slog.HandlerOptions{Level: level})), nil, nil
	}
	return nil, nil, nil
}

func mistake(format string, args ...any) error { return Mistake{fmt.Errorf(format, args...)} }

// deviceNames matches the names that people can type and servers accept.
var deviceNames = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Init creates the home and returns the DID of its account. An existing home stays unchanged;
// the error is a Mistake if it is not the one that o describes.
func Init(o Options) (did string, err error) {
	if o.Device != "" && !deviceNames.MatchString(o.Device) {
		return "", mistake("device: want 1–64 letters, digits, - and _, not %q", o.Device)
	}
	home, err := o.openHome()
	if err != nil {
		return "", err
	}
	if o.Device != "" && o.Device != home.Device {
		return "", mistake("device: %s is the home of the device %q, not of %q", home.dir, home.Device, o.Device)
	}
	if _, err := home.storageKey(&o); err != nil {
		return "", err
	}
	account, err := o.account(home)
	if err != nil {
		return "", err
	}
	return account.DID(), nil
}

func (o *Options) account(home *home) (*client.Account, error) {
	seed, err := o.Seed()
	if err != nil {
		return nil, err
	}
	return client.AccountFromSeed(seed, home.Name)
}

// Terminal is a running chat, shown as lines, JSON or the terminal UI. Its methods are for
// one goroutine at a time. Executing a line of input never waits for the network.
type Terminal struct {
	client   *client.Client
	self     string // the DID of the account
	conv     string // the conversation that lines are sent to; "" for none
	people   people
	isXRPC   bool                // where it is done by the AT Protocol API
	shown    client.SafetyNumber // the last one shown, to which "yes" refers
	logFile  io.Closer           // nil for none
	logsHere bool                // the log is written to err
	in       io.Reader
	out, err io.Writer

	hasColours bool
	command    Command
	audience   *audience
	socket     *socket // nil if there is none
	isTalking  bool    // it reads events until its end
	isGuest    bool    // it acts for another process
	onWait     func()  // called when until begins to wait; nil for nothing
}

// guest returns the chat with other streams, for another process or program.
func (t *Terminal) guest(in io.Reader, out, err io.Writer) *Terminal {
	return &Terminal{client: t.client, self: t.self, people: t.people, isXRPC: t.isXRPC, in: in, out: out, err: err, audience: t.audience, isGuest: true}
}

// Open opens the chat of a home, which connects by itself. Close ends it.
func Open(ctx context.Context, o Options) (*Terminal, error) {
	if o.MustExist {
		if err := o.checkHome(); err != nil {
			return nil, err
		}
	}
	home, err := o.openHome()
	if err != nil {
		return nil, err
	}
	key, err := home.storageKey(&o)
	if err != nil {
		return nil, err
	}
	account, err := o.account(home)
	if err != nil {
		return nil, err
	}
	var with []client.Option
	if home.XRPC {
		with = append(with, client.WithXRPC())
	}
	logger, logFile, err := o.logger()
	if err != nil {
		return nil, err
	}
	sdk, err := client.Open(ctx, client.Options{
		Dir: filepath.Join(home.dir, "store"), StorageKey: key, Server: home.Server, ServerDID: o.ServerDID, Account: account,
		DeviceID: home.Device, InviteCode: o.InviteCode, Logger: logger,
	}, with...)
	if errors.Is(err, client.ErrInUse) {
		err = fmt.Errorf("%w, which does not answer", err)
	}
	if err != nil {
		if logFile != nil {
			logFile.Close()
		}
		return nil, err
	}
	t := &Terminal{client: sdk, self: sdk.DID(), people: people{sdk, sdk.DID(), sdk.Contacts().Get}, isXRPC: home.XRPC, hasColours: !o.NoColor,
		logFile: logFile, logsHere: o.Verbose && o.LogFile == "", in: o.In, out: o.Out, err: o.Err,
		command: o.Command, isTalking: o.IsTalking, audience: newAudience()}
	if t.socket, err = listen(ctx, t, filepath.Join(home.dir, socketFile)); err != nil && logger != nil {
		logger.Info("other processes cannot talk to this one", "err", err)
	}
	return t, nil
}

// Close ends the chat. Undelivered messages stay in the home and are sent next time.
func (t *Terminal) Close() error {
	if t.socket != nil {
		t.socket.close()
	}
	err := t.client.Close()
	if t.logFile != nil {
		err = errors.Join(err, t.logFile.Close())
	}
	return err
}

// Talk runs the terminal UI until its end or that of ctx. If In or Out is not a terminal, or
// with asJSON, it reads and prints lines instead.
func (t *Terminal) Talk(ctx context.Context, asJSON bool) error {
	if !asJSON && isTerminal(t.in) && isTerminal(t.out) {
		if t.logsHere && isTerminal(t.err) {
			return mistake("verbose: the log would be written over the screen: name a file by --log")
		}
		return runUI(ctx, t)
	}
	return newLines(t, asJSON).run(ctx, "")
}

// TalkTo reads lines, which are messages to the person did or commands, and prints what
// happens until /quit, the end of In or that of ctx.
func (t *Terminal) TalkTo(ctx context.Context, did string, asJSON bool) error {
	return newLines(t, asJSON).run(ctx, "/dm "+did)
}

// TalkIn is TalkTo for a conversation, which word names: its number in List, its id or the
// beginning of it, or the person of a direct one.
func (t *Terminal) TalkIn(ctx context.Context, word string, asJSON bool) error {
	return newLines(t, asJSON).run(ctx, "/open "+word)
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// farewell is the time that an ending chat waits until its messages are delivered.
const farewell = 5 * time.Second

// flush waits at most farewell until the outbox is empty.
func (t *Terminal) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	err := t.client.Flush(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
