package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"waxwing.im/waxwing/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(cleanup{m}, map[string]func(){"waxwing": main})
}

// cleanup ends the shared PostgreSQL with the tests.
type cleanup struct{ m *testing.M }

func (c cleanup) Run() int {
	code := c.m.Run()
	if err := pgtest.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// TestScripts holds the command line to its contract. Beside testscript's own
// commands a script has
//
//	start NAME ARG…     runs waxwing ARG… until its first line, which sets
//	                    $NAME_url and $NAME_did if it is that of serve
//	end NAME SIGNAL     sends TERM, INT or KILL and expects exit code 0, or death
//	exits N COMMAND…    runs a command and expects the exit code N
//	postgres VAR        sets VAR to the URL of an empty PostgreSQL database
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("WAXWING_CONFIG_HOME", filepath.Join(env.WorkDir, "me"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start": start, "end": end, "exits": exits,
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
	errors *bytes.Buffer
	ended  chan error
}

// scripts holds the processes of each running script by name.
var scripts = struct {
	sync.Mutex // guards processes
	processes  map[*testscript.TestScript]map[string]*process
}{processes: map[*testscript.TestScript]map[string]*process{}}

func waxwing(ts *testscript.TestScript, args ...string) *exec.Cmd {
	path := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if candidate := filepath.Join(dir, "waxwing"); path == "" && isFile(candidate) {
			path = candidate
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WAXWING_CONFIG_HOME", "WAXWING_LISTEN", "WAXWING_CONFIG", "WAXWING_SEED"} {
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
	p := &process{cmd: waxwing(ts, args[1:]...), errors: &bytes.Buffer{}, ended: make(chan error, 1)}
	p.cmd.Stderr = p.errors
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	first := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			select {
			case first <- lines.Text():
			default: // only the first line is of interest
			}
		}
		p.ended <- p.cmd.Wait()
	}()
	ts.Defer(func() { p.cmd.Process.Kill() })
	select {
	case line := <-first:
		var url, did string
		if _, err := fmt.Sscanf(line, "listening on %s as %s", &url, &did); err == nil {
			ts.Setenv(name+"_url", url)
			ts.Setenv(name+"_did", did)
		}
	case err := <-p.ended:
		ts.Fatalf("%s ended at once: %v\n%s", name, err, p.errors)
	case <-time.After(30 * time.Second):
		ts.Fatalf("%s prints nothing", name)
	}
	scripts.Lock()
	defer scripts.Unlock()
	if scripts.processes[ts] == nil {
		scripts.processes[ts] = map[string]*process{}
	}
	scripts.processes[ts][name] = p
}

func end(ts *testscript.TestScript, _ bool, args []string) {
	scripts.Lock()
	p := scripts.processes[ts][args[0]]
	scripts.Unlock()
	signal := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[1]]
	ts.Check(p.cmd.Process.Signal(signal))
	select {
	case err := <-p.ended:
		if err != nil && signal != syscall.SIGKILL {
			ts.Fatalf("%s: %v\n%s", args[0], err, p.errors)
		}
	case <-time.After(30 * time.Second):
		ts.Fatalf("%s does not end", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".err"), p.errors.Bytes(), 0o600))
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	cmd := waxwing(ts, args[2:]...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s: exit code %d (%v), want %s\n%s", strings.Join(args[1:], " "), got, err, args[0], out)
	}
	ts.Check(os.WriteFile(ts.MkAbs("output"), out, 0o600))
}
