package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(cleanup{m}, map[string]func(){"waxwing": main})
}

// cleanup ends the shared PostgreSQL with the tests.
type cleanup struct{ m *testing.M }

func (c cleanup) Run() int { return pgtest.Run(c.m) }

// TestScripts holds the command line to its contract. Beside testscript's own
// commands a script has
//
//	start NAME ARG…     runs waxwing ARG… until its first line, which sets
//	                    $NAME_url, _addr and _did if it is that of serve
//	end NAME HOW [N]    sends TERM, INT or KILL, closes its input (EOF) or just waits
//	                    (SELF) and expects exit code 0 or N, or death
//	say NAME TEXT       types a line
//	expect NAME REGEXP [NOT]
//	                    waits for a line; none before it may match NOT
//	exits N COMMAND…    runs a command and expects the exit code N
//	didof VAR FILE      sets VAR to the content of FILE
//	numberof VAR FILE   sets VAR to the safety number in FILE, without blanks
//	postgres VAR        sets VAR to the URL of an empty PostgreSQL database; to be
//	                    guarded by [!postgres] skip
//
// What start runs has the race detector if the tests have. The hundreds of other commands, which
// have nothing beside them in their process, have not: its start alone takes them five times as long.
func TestScripts(t *testing.T) {
	var plain string // a folder with the other commands' waxwing
	if drive.RaceEnabled {
		plain = t.TempDir()
		if _, err := drive.BuildServer(t.Context(), plain, false); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("WAXWING_CONFIG_HOME", filepath.Join(env.WorkDir, "me"))
			if plain != "" {
				env.Setenv("PATH", plain+string(filepath.ListSeparator)+env.Getenv("PATH"))
			}
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or each of hundreds of processes waits a second at its end
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "postgres" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return pgtest.IsWanted(), nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start": start, "end": end, "exits": exits, "say": say, "expect": expect,
			"didof": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
			},
			"numberof": func(ts *testscript.TestScript, _ bool, args []string) {
				digits := regexp.MustCompile(`(?m)^ +(\d{5} ?){6}$`).FindAllString(ts.ReadFile(args[1]), -1)
				ts.Setenv(args[0], strings.ReplaceAll(strings.Join(digits, ""), " ", ""))
			},
			"postgres": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], pgtest.URL(databaseOwner{t, ts}))
			},
		},
	})
}

// databaseOwner lets a database live as long as its script.
type databaseOwner struct {
	testing.TB
	ts *testscript.TestScript
}

func (o databaseOwner) Cleanup(f func()) { o.ts.Defer(f) }

func (o databaseOwner) Helper() {}

// process is a waxwing that a script runs beside itself.
type process struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	errors *bytes.Buffer
	lines  chan string // of standard output
	ended  chan error
}

// scripts holds the processes of each running script by name.
var scripts = struct {
	sync.Mutex // guards processes
	processes  map[*testscript.TestScript]map[string]*process
}{processes: map[*testscript.TestScript]map[string]*process{}}

func find(ts *testscript.TestScript, name string) *process {
	scripts.Lock()
	defer scripts.Unlock()
	p := scripts.processes[ts][name]
	if p == nil {
		ts.Fatalf("%s was not started", name)
	}
	return p
}

// waxwing is a command with the environment of a script, the first that is found in the folders of path.
func waxwing(ts *testscript.TestScript, path string, args ...string) *exec.Cmd {
	file := ""
	for _, dir := range filepath.SplitList(path) {
		if candidate := filepath.Join(dir, "waxwing"); file == "" && isFile(candidate) {
			file = candidate
		}
	}
	cmd := exec.Command(file, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GORACE", "WAXWING_CONFIG_HOME", "WAXWING_PASSPHRASE", "WAXWING_SERVER"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func start(ts *testscript.TestScript, _ bool, args []string) {
	name := args[0]
	p := &process{cmd: waxwing(ts, os.Getenv("PATH"), args[1:]...), errors: &bytes.Buffer{}, lines: make(chan string, 1000), ended: make(chan error, 1)}
	p.cmd.Stderr = p.errors
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	p.input, err = p.cmd.StdinPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.lines <- lines.Text()
		}
		p.ended <- p.cmd.Wait()
		close(p.lines)
	}()
	ts.Defer(func() { p.cmd.Process.Kill() })
	scripts.Lock()
	if scripts.processes[ts] == nil {
		scripts.processes[ts] = map[string]*process{}
	}
	scripts.processes[ts][name] = p
	scripts.Unlock()
	var url, did string
	if _, err := fmt.Sscanf(p.line(ts, name), "listening on %s as %s", &url, &did); err == nil {
		ts.Setenv(name+"_url", url)
		ts.Setenv(name+"_did", did)
		ts.Setenv(name+"_addr", strings.TrimPrefix(url, "http://"))
	}
}

// line is the next line that the process prints.
func (p *process) line(ts *testscript.TestScript, name string) string {
	select {
	case line, ok := <-p.lines:
		if !ok {
			ts.Fatalf("%s ended: %s", name, p.errors)
		}
		return line
	case <-time.After(30 * time.Second):
		ts.Fatalf("%s prints nothing more", name)
	}
	return ""
}

func say(ts *testscript.TestScript, _ bool, args []string) {
	_, err := fmt.Fprintln(find(ts, args[0]).input, strings.Join(args[1:], " "))
	ts.Check(err)
}

func expect(ts *testscript.TestScript, _ bool, args []string) {
	wanted, err := regexp.Compile(args[1])
	ts.Check(err)
	p := find(ts, args[0])
	for {
		line := p.line(ts, args[0])
		ts.Logf("%s: %s", args[0], line)
		if wanted.MatchString(line) {
			return
		}
		if len(args) > 2 && regexp.MustCompile(args[2]).MatchString(line) {
			ts.Fatalf("%s prints what it must not: %s", args[0], line)
		}
	}
}

func end(ts *testscript.TestScript, _ bool, args []string) {
	p := find(ts, args[0])
	isKilled := false
	switch args[1] {
	case "EOF":
		ts.Check(p.input.Close())
	case "SELF":
	default:
		signal := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[1]]
		isKilled = signal == syscall.SIGKILL
		ts.Check(p.cmd.Process.Signal(signal))
	}
	select {
	case err := <-p.ended:
		want := 0
		if len(args) > 2 {
			want, _ = strconv.Atoi(args[2])
		}
		if got := p.cmd.ProcessState.ExitCode(); got != want && !isKilled {
			ts.Fatalf("%s: %v\n%s", args[0], err, p.errors)
		}
	case <-time.After(30 * time.Second):
		ts.Fatalf("%s does not end", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".err"), p.errors.Bytes(), 0o600))
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	cmd := waxwing(ts, ts.Getenv("PATH"), args[2:]...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s: exit code %d (%v), want %s\n%s", strings.Join(args[1:], " "), got, err, args[0], out)
	}
	ts.Check(os.WriteFile(ts.MkAbs("output"), out, 0o600))
}
