// Command waxwing is a delivery service for MLS, the tools around it and a small client, in one
// binary.
//
//	waxwing serve          run the service
//	waxwing chat           talk to people, end-to-end encrypted
//	waxwing demo           see all of it work in one process
//	waxwing token, did     identities for scripts
//	waxwing invite, allow  who may begin to use the service
//	waxwing admin          accounts and figures, for the operator
//	waxwing prove          the risk register and the threat model, shown on this machine
//	waxwing config         the effective configuration and its sources
//	waxwing dev            tools for developers of MLS clients
//	waxwing help           the help of a command
//
// The commands translate options and print; the work is done in the packages they call. Options
// come from flags, then WAXWING_… in the environment, then the file named by --config, then
// their defaults.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"waxwing.im/waxwing/internal/chat"
)

// Exit codes. Scripts rely on them; docs/command-line.md has the table. Those above 2 are of
// sysexits.h.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitMissing = 69 // EX_UNAVAILABLE
	exitStored  = 75 // EX_TEMPFAIL
	exitRefused = 77 // EX_NOPERM
)

// exitCodes holds the exit codes of the errors of package chat.
var exitCodes = map[string]int{chat.CodeMistake: exitUsage, chat.CodeBadRequest: exitUsage, chat.CodeInUse: exitMissing, chat.CodeStored: exitStored, chat.CodeRefused: exitRefused}

// globals are the options of every command.
type globals struct {
	Config     string `short:"c" placeholder:"FILE" help:"TOML file of options: NAME = VALUE, with the names of the flags. See waxwing config --sample."`
	ConfigHome string `placeholder:"DIR" help:"Directory of the seed of this user's accounts and of chat's keys. By default waxwing in the user's configuration directory (~/.config)."`

	ShowVersion versionFlag `name:"version" env:"-" help:"Print the version and the commit."`
}

type commands struct {
	globals

	Serve   serveCommand   `cmd:"" help:"Run the delivery service."`
	Chat    chatCommand    `cmd:"" help:"Talk to people from a terminal or a script."`
	Demo    demoCommand    `cmd:"" help:"Show three people, one server, lost connections and a crash, in one process."`
	Token   tokenCommand   `cmd:"" help:"Print service tokens, one per line."`
	DID     didCommand     `cmd:"" name:"did" help:"Print the DID of an account."`
	Invite  inviteCommand  `cmd:"" help:"Make, list and revoke the codes with which accounts are admitted."`
	Allow   allowCommand   `cmd:"" help:"Manage the list of accounts that are admitted without a code."`
	Admin   adminCommand   `cmd:"" help:"See what the server holds; see and expel accounts."`
	Options configCommand  `cmd:"" name:"config" help:"Print the effective options of serve with their sources."`
	Prove   proveCommand   `cmd:"" help:"Attack servers on this machine and show that the risks of the register are met."`
	Dev     devCommand     `cmd:"" help:"Tools for developers of MLS clients."`
	Version versionCommand `cmd:"" help:"Print the version and the commit."`
	Help    helpCommand    `cmd:"" help:"Show the help of a command."`
}

// streams holds the standard streams of a command, and its command line.
type streams struct {
	in       io.Reader
	out, err io.Writer
	args     []string
	open     *chat.Terminal // the home that a command for another process uses; nil for its own
}

// exit is the error of a command that has said what there was to say, with the exit code.
type exit int

// Error describes it.
func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	// The first signal asks the command to end; a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, std streams) (code int) {
	var c commands
	std.args = args
	leave := os.Exit
	if std.open != nil { // the process goes on
		leave = func(code int) { panic(exit(code)) }
		defer func() {
			switch ended := recover().(type) {
			case nil:
			case exit:
				code = int(ended)
			default:
				panic(ended)
			}
		}()
	}
	file, err := readConfigFile(configFileName(args))
	if err != nil {
		return complain(std, exitUsage, err)
	}
	parser, err := kong.New(&c,
		kong.Name("waxwing"),
		kong.Description("A self-hostable delivery service for MLS: it orders, stores and delivers end-to-end encrypted messages that it cannot read."),
		kong.UsageOnError(),
		kong.Exit(leave),
		kong.Writers(std.out, std.err),
		kong.DefaultEnvars("WAXWING"),
		kong.Resolvers(file),
		kong.ValueFormatter(describe),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std, &c.globals),
	)
	if err != nil {
		return complain(std, exitFailed, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		return complain(std, exitUsage, file.locate(explain(parser, err)))
	}
	if err := command.Run(); err != nil {
		var usage usageError
		var ended exit
		if errors.As(err, &ended) {
			return int(ended)
		}
		code, isKnown := exitCodes[chat.CodeOf(err)]
		switch {
		case errors.As(err, &usage) || code == exitUsage:
			return complain(std, exitUsage, file.locate(err))
		case isKnown:
			return complain(std, code, err)
		}
		return complain(std, exitFailed, err)
	}
	return 0
}

// describe returns the help of an option with its default and its variable.
func describe(value *kong.Value) string {
	var notes []string
	if value.HasDefault {
		notes = append(notes, "default "+value.Default)
	}
	if value.Flag != nil && len(value.Flag.Envs) > 0 {
		notes = append(notes, "$"+value.Flag.Envs[0])
	}
	if len(notes) == 0 {
		return value.Help
	}
	return value.Help + " [" + strings.Join(notes, ", ") + "]"
}

// usageError is a mistake in the command line that is detected only when it is run.
type usageError struct{ error }

func complain(std streams, code int, err error) int {
	// One line for each part of a joined error keeps every message readable.
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(std.err, "waxwing: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return code
}

// explain adds to a parse error the help that would have prevented it.
func explain(parser *kong.Kong, err error) error {
	help, message := "", err.Error()
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			if word, ok := strings.CutPrefix(message, "unexpected argument "); ok && node.Parent != nil && node.Parent.DefaultCmd == node {
				// The word was taken for an argument of the default command. Without that,
				// it is compared with the names of the other commands.
				node.Parent.DefaultCmd = nil
				path := strings.Fields(node.Parent.FullPath())[1:]
				_, err = parser.Parse(append(path, word))
				return explain(parser, err)
			}
			help = strings.TrimPrefix(node.FullPath(), "waxwing") + " "
			message = strings.TrimPrefix(message, node.Name+": ") // so does kong begin what Validate returns
		}
	}
	return fmt.Errorf("%s (see waxwing %s--help)", message, strings.TrimPrefix(help, " "))
}

type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command, with its subcommand."`
}

// Run shows the help and ends the process, as --help does.
func (c *helpCommand) Run(parsed *kong.Context) error {
	_, err := parsed.Parse(append(c.Command, "--help"))
	return usageError{explain(parsed.Kong, err)}
}

// dayOrWeek matches the units that time.ParseDuration lacks.
var dayOrWeek = regexp.MustCompile(`(\d+(?:\.\d+)?)([dw])`)

// parseDuration reads a duration as time.ParseDuration does, with days of 24 hours (d) and weeks
// (w) too.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(dayOrWeek.ReplaceAllStringFunc(text, func(part string) string {
		hours := map[byte]float64{'d': 24, 'w': 7 * 24}[part[len(part)-1]]
		n, _ := strconv.ParseFloat(part[:len(part)-1], 64) // the pattern admits numbers only
		return strconv.FormatFloat(n*hours, 'f', -1, 64) + "h"
	}))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration, as 90s, 15m, 1h30m, 7d or 2w", text)
	}
	return d, nil
}

// decodeDuration reads an option that is a duration.
func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	target.SetInt(int64(d))
	return nil
}
