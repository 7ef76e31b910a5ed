package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	serveStartMax   = 60 * time.Second // the race detector on a busy machine
	serveStopMax    = 30 * time.Second
	serveLogBytes   = 64 << 10
	portLow         = 18000 // below the ports that systems use for outgoing connections
	portHigh        = 28000
	portAttemptsMax = 100
)

// raceFlags turn the race detector on, but for SQLite, which is translated C with locks of its
// own, and for the arithmetic of elliptic curves: checking each of their steps takes most of the
// time and finds nothing. Their callers are checked. The Makefile has the same flags, so that
// tests and servers share build results.
var raceFlags = []string{
	"-race", "-gcflags=modernc.org/...=-race=false -d=checkptr=0",
	"-gcflags=crypto/internal/fips140/edwards25519/...=-race=false",
	"-gcflags=crypto/internal/fips140/nistec/...=-race=false",
}

// BuildServer builds the waxwing command into folder and returns its path. With race it has the
// race detector, and exits with its findings. The working directory must be inside the module.
func BuildServer(ctx context.Context, folder string, race bool) (string, error) {
	binary := filepath.Join(folder, "waxwing")
	args := []string{"build", "-o", binary}
	if race {
		args = append(args, raceFlags...)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "waxwing.im/waxwing/cmd/waxwing")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return binary, nil
}

// FreePort returns a port of the loopback address for a server that will be restarted on it.
// The system does not use it for outgoing connections while the server is down.
func FreePort() (int, error) {
	listener, err := listenFree()
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// listenFree listens on such a port.
func listenFree() (net.Listener, error) {
	for range portAttemptsMax {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", portLow+rand.IntN(portHigh-portLow)))
		if err == nil {
			return listener, nil
		}
	}
	return nil, errors.New("no free port")
}

// Process is a server in a process of its own. Its methods are safe for concurrent use.
type Process struct {
	URL string // http://HOST:PORT
	DID string

	command *exec.Cmd
	log     *logTail
	exited  chan struct{}
	err     error // its exit error; valid once exited is closed
}

// Serve runs `binary serve args…` and returns when it accepts requests. The process is killed
// when ctx ends, and with us where the system can do that. It does not inherit the environment.
func Serve(ctx context.Context, binary string, args ...string) (*Process, error) {
	return Surroundings{}.Serve(ctx, binary, args...)
}

// Surroundings holds the inputs of a server besides its options.
type Surroundings struct {
	Env []string  // variables, as NAME=VALUE
	Log io.Writer // for a copy of its log; nil: none
}

// Serve does the work of the function Serve.
func (s Surroundings) Serve(ctx context.Context, binary string, args ...string) (*Process, error) {
	p := &Process{log: &logTail{}, exited: make(chan struct{})}
	line := &firstLine{got: make(chan string, 1)}
	p.command = exec.CommandContext(ctx, binary, append([]string{"serve"}, args...)...)
	p.command.Env = slices.Concat([]string{"GORACE=halt_on_error=1 atexit_sleep_ms=0"}, inherited(), s.Env)
	p.command.Stdout, p.command.Stderr = line, p.log
	if s.Log != nil {
		p.command.Stderr = io.MultiWriter(p.log, s.Log)
	}
	p.command.SysProcAttr = attributes(syscall.SIGKILL)
	p.command.WaitDelay = time.Second
	err := startProcess(p.command, func(err error) {
		p.err = err
		close(p.exited)
	})
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	timer := time.NewTimer(serveStartMax)
	defer timer.Stop()
	select {
	case text := <-line.got:
		// listening on http://HOST:PORT as DID
		words := strings.Fields(text)
		if len(words) != 5 || words[0] != "listening" {
			p.Kill()
			return nil, fmt.Errorf("the server printed %q", text)
		}
		p.URL, p.DID = words[2], words[4]
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("the server did not start: %w\n%s", p.err, p.log)
	case <-timer.C:
		p.Kill()
		return nil, fmt.Errorf("the server did not start in %s\n%s", serveStartMax, p.log)
	}
}

// inherited returns what a server gets of our environment: only the name of a mutant, which
// binaries that are built for that look at.
func inherited() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool { return !strings.HasPrefix(variable, "WAXWING_MUTANT=") })
}

// Start starts a command that is not a server, and calls ended with its exit error when it has
// ended. Like a server it inherits the name of a mutant alone, gets no signals of our terminal,
// and ends with us where the system can do that.
func Start(command *exec.Cmd, ended func(error)) error {
	command.Env = append(inherited(), command.Env...)
	command.SysProcAttr = attributes(syscall.SIGKILL)
	return startProcess(command, ended)
}

// startProcess starts a command and calls ended with its exit error when it has ended.
func startProcess(command *exec.Cmd, ended func(error)) error {
	started := make(chan error)
	go func() {
		// The kernel ends the process with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			ended(command.Wait())
		}
	}()
	return <-started
}

// Address returns HOST:PORT.
func (p *Process) Address() string { return strings.TrimPrefix(p.URL, "http://") }

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Check returns an error if the server has ended or has logged errors, panics or races.
func (p *Process) Check() error {
	select {
	case <-p.exited:
		return fmt.Errorf("the server ended by itself: %w\n%s", p.err, p.log)
	default:
	}
	if line := p.log.complaint(); line != "" {
		return fmt.Errorf("the server logged: %s", line)
	}
	return nil
}

// Kill ends the process at once with SIGKILL, without any cleanup, and waits until it has
// ended.
func (p *Process) Kill() {
	_ = p.command.Process.Kill() // an error: it has ended already
	<-p.exited
}

// Stop ends the process with SIGTERM. It is an error if that is not clean.
func (p *Process) Stop() error {
	if err := p.Check(); err != nil {
		p.Kill()
		return err
	}
	_ = p.command.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(serveStopMax)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("the server did not stop in %s\n%s", serveStopMax, p.log)
	}
	if p.err != nil {
		return fmt.Errorf("stop the server: %w\n%s", p.err, p.log)
	}
	return nil
}

// firstLine is a writer that returns the first line and drops the rest.
type firstLine struct {
	text []byte
	got  chan string
	done bool
}

func (f *firstLine) Write(p []byte) (int, error) {
	if !f.done {
		f.text = append(f.text, p...)
		if line, _, ok := bytes.Cut(f.text, []byte("\n")); ok {
			f.done = true
			f.got <- string(line)
		}
	}
	return len(p), nil
}

// logTail keeps the end of a log, and the first line that should not be in it.
type logTail struct {
	mu      sync.Mutex // guards the rest
	text    []byte
	partial []byte // a line that is not complete yet
	bad     string
}

func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - serveLogBytes; over > 0 {
		l.text = append(l.text[:0], l.text[over:]...)
	}
	l.partial = append(l.partial, p...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if l.bad == "" && isComplaint(string(line)) {
			l.bad = string(line)
		}
		l.partial = append([]byte(nil), rest...)
	}
}

func isComplaint(line string) bool {
	for _, word := range []string{"level=ERROR", "DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(line, word) {
			return true
		}
	}
	return false
}

func (l *logTail) complaint() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad
}

func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
