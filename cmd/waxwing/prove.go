package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"waxwing.im/waxwing/internal/prove"
)

type proveCommand struct {
	Rows     []string `arg:"" optional:"" name:"id" help:"Rows of the risk register or of the threat model, as RR-001. All when there are none."`
	Quick    bool     `env:"-" help:"Run the small size: at most 20 seconds for each row."`
	Built    bool     `env:"-" help:"Leave out the rows that are not built."`
	Database string   `default:"sqlite" env:"-" placeholder:"sqlite|postgres|URL|both" help:"Database of the attacked servers: sqlite, postgres (a private PostgreSQL is started, which must be installed), both, or the postgres:// URL of a role that may create databases. The database in the URL is not touched."`
	Seed     uint64   `env:"-" placeholder:"N" help:"Seed of everything that is random, to repeat a run. A random one when it is 0."`
	JSON     string   `name:"json" env:"-" placeholder:"FILE" help:"Write the results as JSON; - is standard output."`
	HTML     string   `name:"html" env:"-" placeholder:"FILE" help:"Write the results as a page in one file."`
	List     bool     `env:"-" help:"List the rows, and run none."`
}

// Help returns the text below the flags.
func (proveCommand) Help() string {
	return "Each row attacks servers of its own in processes of their own, on this machine, measures, and compares with bounds. " +
		"docs/risk-register.md and docs/threat-model.md explain the rows.\n\n" +
		"Exit codes: 0, every row asked for holds; 1, a row failed, or was named and is not built; 2, a mistake in the command line; 69, something needed is missing."
}

// Run runs the rows and prints what they find.
func (c *proveCommand) Run(ctx context.Context, std streams) error {
	rows, err := c.rows()
	if err != nil {
		return usageError{err}
	}
	if c.List {
		for _, p := range rows {
			fmt.Fprintf(std.out, "%-7s %-32s %s\n", p.ID, p.Title, state(p))
		}
		return nil
	}
	databases, err := c.databases()
	if err != nil {
		return usageError{err}
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	if c.Seed == 0 {
		c.Seed = 1 + rand.Uint64N(1e9)
	}
	files, err := c.openFiles(std)
	if err != nil {
		return usageError{err}
	}
	// A terminal that is closed, or a pager that is left, ends the run like Ctrl-C, which cleans up.
	hangUp := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(hangUp, syscall.SIGHUP)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	go func() {
		select {
		case <-hangUp:
			interrupt()
		case <-ctx.Done():
		}
	}()
	out := std.out
	if c.JSON == "-" {
		out = std.err
	}
	shown := newProgress(out, interrupt)
	built := currentBuild()
	report, err := prove.Suite{
		Rows: rows, Databases: databases, Quick: c.Quick, Seed: c.Seed, Binary: binary,
		Version: built.version, Commit: built.commit, OnProgress: shown.progress, OnResult: shown.result,
	}.Run(ctx)
	shown.clear()
	err = errors.Join(err, files.write(report))
	verdict := c.verdict(ctx, report, out)
	return cmp.Or(err, verdict)
}

// state returns what is built of a row, for the list.
func state(p prove.Proof) string {
	switch {
	case p.NotBuilt != "":
		return "not built: it comes with " + p.NotBuilt
	case p.Missing != "":
		return "built in part, without " + p.Missing
	}
	return "built"
}

// rows returns the rows that are asked for.
func (c *proveCommand) rows() ([]prove.Proof, error) {
	if c.Built && len(c.Rows) > 0 {
		return nil, errors.New("--built and names of rows exclude each other")
	}
	if len(c.Rows) > 0 {
		return prove.Find(c.Rows)
	}
	rows := prove.Proofs()
	if c.Built {
		rows = slices.DeleteFunc(rows, func(p prove.Proof) bool { return p.NotBuilt != "" })
	}
	return rows, nil
}

func (c *proveCommand) databases() ([]string, error) {
	switch {
	case c.Database == "both":
		return []string{prove.SQLite, prove.PostgreSQL}, nil
	case c.Database == prove.SQLite, c.Database == prove.PostgreSQL, strings.HasPrefix(c.Database, "postgres://"), strings.HasPrefix(c.Database, "postgresql://"):
		return []string{c.Database}, nil
	}
	return nil, errors.New("database is sqlite, postgres, both or a postgres:// URL")
}

// verdict prints the summary and returns the exit code as an error.
func (c *proveCommand) verdict(ctx context.Context, report *prove.Report, out io.Writer) error {
	code := 0
	for _, row := range report.Rows {
		switch {
		case row.Status == prove.Failed, row.Status == prove.NotBuilt && len(c.Rows) > 0:
			code = exitFailed
		case row.Status == prove.NotRun && code == 0:
			code = exitMissing
		}
	}
	fmt.Fprintf(out, "%s; seed %d\n", report.Summary(), report.Seed)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if code != 0 {
		return exit(code)
	}
	return nil
}

// reportFiles are the files for the report, opened before the rows run: a mistake shows at once.
type reportFiles struct{ json, html io.WriteCloser }

func (c *proveCommand) openFiles(std streams) (f reportFiles, err error) {
	if c.HTML == "-" || c.HTML == c.JSON && c.HTML != "" {
		return f, errors.New("--html is a file of its own")
	}
	open := func(name string) (io.WriteCloser, error) {
		if name == "" {
			return nil, nil
		}
		return os.Create(name)
	}
	if c.JSON == "-" {
		f.json = keptOpen{std.out}
	} else if f.json, err = open(c.JSON); err != nil {
		return f, err
	}
	f.html, err = open(c.HTML)
	return f, err
}

// keptOpen is a stream that is not ours to close.
type keptOpen struct{ io.Writer }

// Close does nothing.
func (keptOpen) Close() error { return nil }

func (f reportFiles) write(report *prove.Report) error {
	var errs []error
	if f.json != nil {
		errs = append(errs, report.WriteJSON(f.json), f.json.Close())
	}
	if f.html != nil {
		errs = append(errs, report.WriteHTML(f.html), f.html.Close())
	}
	return errors.Join(errs...)
}

const (
	// lineInterval is the interval of lines about a running row where the output is not a terminal.
	lineInterval = 10 * time.Second
	barWidth     = 20
)

// proveProgress shows what the running row does: in one line that changes on a terminal, in a line
// now and then elsewhere.
type proveProgress struct {
	out   io.Writer
	width int    // of the terminal; 0 if it is none
	gone  func() // called when out cannot be written to any more

	mu   sync.Mutex // guards the rest
	last time.Time
	row  string
}

func newProgress(out io.Writer, gone func()) *proveProgress {
	p := &proveProgress{out: out, gone: gone}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil {
			p.width = max(width, 20)
		}
	}
	return p
}

// progress shows what a row does.
func (p *proveProgress) progress(at prove.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	row := at.ID + " " + at.Database
	now := time.Now()
	if p.width == 0 && row == p.row && now.Sub(p.last) < lineInterval || p.width > 0 && row == p.row && now.Sub(p.last) < 50*time.Millisecond {
		return
	}
	p.row, p.last = row, now
	text, end := fmt.Sprintf("%-7s %s, %s", at.ID, cmp.Or(at.Database, "no database"), at.Step), ""
	if at.Total > 0 {
		if p.width > 0 {
			filled := barWidth * min(at.Done, at.Total) / at.Total
			end = " " + strings.Repeat("█", filled) + strings.Repeat("░", barWidth-filled)
		}
		end += fmt.Sprintf(" %d/%d", at.Done, at.Total)
	}
	end += fmt.Sprintf(" (%s)", at.Elapsed.Round(time.Second))
	if p.width == 0 {
		p.print(text + end + "\n")
		return
	}
	if over := utf8.RuneCountInString(text+end) - p.width + 1; over > 0 { // the last column would wrap
		letters := []rune(text)
		text = string(letters[:max(len(letters)-over, 0)])
	}
	text = string([]rune(text + end)[:min(utf8.RuneCountInString(text+end), p.width-1)])
	p.print("\r\x1b[K" + text)
}

// print writes a text.
func (p *proveProgress) print(text string) {
	if _, err := io.WriteString(p.out, text); err != nil {
		p.gone()
	}
}

// clear removes the line that changes.
func (p *proveProgress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// result shows the outcome of a row.
func (p *proveProgress) result(r *prove.Result) {
	p.clear()
	p.mu.Lock()
	defer p.mu.Unlock()
	where := r.Title
	if r.Database != "" {
		where += ", " + r.Database
	}
	text := fmt.Sprintf("%-7s %s: %s", r.ID, where, strings.ToUpper(r.Status))
	if r.Seconds > 0 {
		text += fmt.Sprintf(" in %.1f s", r.Seconds)
	}
	lines := append([]string{text}, strings.Split(strings.TrimSuffix(r.Reason, "\n"), "\n")...)
	if r.Status != prove.NotBuilt {
		lines = append(lines, r.Did...)
		for _, figure := range r.Figures {
			lines = append(lines, "- "+figure.String())
		}
		lines = append(lines, "again: "+r.Repeat)
	}
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	p.print(strings.Join(lines, "\n        ") + "\n")
}
