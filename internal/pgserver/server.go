//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	role           = "postgres"
	readyTimeout   = 30 * time.Second
	stopTimeout    = 20 * time.Second
	portAttempts   = 5
	folderPrefix   = "waxwing-pg-"
	connectionsMax = 300
)

// Server is a private PostgreSQL. Kill, Stop and Restart may be called by one
// goroutine at a time; URL is the same for the whole life of the server.
type Server struct {
	binaries   string
	folder     string // removed by Close
	port       int
	options    Options
	credential *syscall.Credential // nil: our own user

	mu      sync.Mutex // guards running
	running *process
}

// process is one run of the postgres program. exited is closed when it has ended.
type process struct {
	pid    int
	exited chan struct{}
}

// New makes a cluster in a temporary folder and starts it. It returns
// ErrNotInstalled when the machine has no server.
func New(options Options) (*Server, error) {
	binaries, err := findBinaries()
	if err != nil {
		return nil, err
	}
	credential, err := serverUser()
	if err != nil {
		return nil, err
	}
	removeAbandoned()
	folder, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", folderPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("create a folder for PostgreSQL: %w", err)
	}
	s := &Server{binaries: binaries, folder: folder, options: options, credential: credential}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for attempt := 1; ; attempt++ {
		if s.port, err = freePort(); err == nil {
			err = s.Restart()
		}
		if err == nil {
			return s, nil
		}
		// Another process may have taken the port between its reservation and its use.
		if attempt == portAttempts || !strings.Contains(err.Error(), "could not bind") {
			return nil, errors.Join(err, s.Close())
		}
	}
}

// URL returns the URL of the server's maintenance database.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", role, s.port)
}

// create initialises the cluster. The folder is made readable for the server's user, which is
// another one when the tests run as root.
func (s *Server) create() error {
	if err := os.Chmod(s.folder, 0o755); err != nil {
		return err
	}
	data := s.data()
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if s.credential != nil {
		for _, path := range []string{s.folder, data} {
			if err := os.Chown(path, int(s.credential.Uid), int(s.credential.Gid)); err != nil {
				return err
			}
		}
	}
	args := []string{"-D", data, "-U", role, "--locale=C", "-E", "UTF8", "-A", "trust", "--no-sync", "--no-instructions"}
	if s.options.SmallSegments {
		args = append(args, "--wal-segsize=1")
	}
	cmd := s.command("initdb", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(string(out), 5))
	}
	return nil
}

// Restart starts the server, which must not be running, on its port and data, and returns when
// it accepts connections.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return errors.New("PostgreSQL is running already")
	}
	deadline := time.Now().Add(readyTimeout)
	for {
		err := s.start(deadline)
		// Backends of a killed server may take a moment to end and to release its shared
		// memory; the new server refuses to start for that long.
		if err == nil || !strings.Contains(err.Error(), "shared memory block") || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Server) start(deadline time.Time) error {
	onOff := map[bool]string{true: "on", false: "off"}[s.options.Fsync]
	args := []string{"-D", s.data(), "-k", s.folder, "-p", strconv.Itoa(s.port), "-h", "127.0.0.1",
		"-c", "fsync=" + onOff, "-c", "full_page_writes=" + onOff,
		"-c", fmt.Sprintf("max_connections=%d", connectionsMax)}
	for _, setting := range s.options.Settings {
		args = append(args, "-c", setting)
	}
	logFile, err := os.Create(s.logPath())
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := s.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	p, err := run(cmd)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	for {
		if s.answers() {
			s.running = p
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("postgres ended: %s", lastLines(s.Log(), 8))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.killAll()
			return fmt.Errorf("postgres does not answer: %s", lastLines(s.Log(), 8))
		}
	}
}

func (s *Server) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return false
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx) == nil
}

// Kill ends the server and all of its processes with SIGKILL, as a crash would.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.killAll()
		s.running = nil
	}
}

// Stop ends the server cleanly, cutting the connections it has (a "fast" shutdown).
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// Close ends the server and removes its files. It may be called again.
func (s *Server) Close() error {
	return errors.Join(s.end(syscall.SIGQUIT), os.RemoveAll(s.folder))
}

func (s *Server) end(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.running
	if p == nil {
		return nil
	}
	s.running = nil
	if err := syscall.Kill(p.pid, signal); err != nil {
		return fmt.Errorf("signal postgres: %w", err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
		p.killAll()
		return errors.New("postgres did not end in time")
	}
}

// Log returns the server's log since it was last started.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *Server) data() string    { return filepath.Join(s.folder, "data") }
func (s *Server) logPath() string { return filepath.Join(s.folder, "log") }

// command prepares one of PostgreSQL's programs to run as the server's user and to
// die with us: SIGQUIT is the server's own signal for an immediate end.
func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.binaries, program), args...)
	cmd.Dir = s.folder
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGDATA=")
	cmd.SysProcAttr = attributes(s.credential)
	return cmd
}

// run starts cmd on a thread of its own. The kernel sends Pdeathsig when the thread that
// started a child ends, so the thread is kept for as long as the child.
func run(cmd *exec.Cmd) (*process, error) {
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			cmd.Wait() // the exit status of a server that we kill does not matter
			close(p.exited)
		}
	}()
	return p, <-started
}

// killAll kills the process and its children, which have process groups of their own and would
// otherwise finish their work.
func (p *process) killAll() {
	children := p.children()
	syscall.Kill(p.pid, syscall.SIGKILL)
	for _, pid := range children {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.exited
}

// children lists the server's other processes, on systems that provide the list.
func (p *process) children() []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid, p.pid))
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// IsInstalled reports whether the machine has a server to start.
func IsInstalled() bool {
	_, err := findBinaries()
	return err == nil
}

// findBinaries returns the folder of the newest server installed. Debian keeps it
// out of PATH, in a folder for each major version.
func findBinaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	best, bestVersion := "", -1
	for _, path := range found {
		folder := filepath.Dir(path)
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
		if err == nil && version > bestVersion {
			best, bestVersion = folder, version
		}
	}
	if best != "" {
		return best, nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", ErrNotInstalled
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

// serverUser returns the user that the server runs as: PostgreSQL refuses to run as root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// removeAbandoned removes the folders of binaries that were killed before they
// could clean up; their servers died with them.
func removeAbandoned() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, folder := range folders {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), folderPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			os.RemoveAll(folder) // fails for another user's folder, which stays
		}
	}
}

// lastLines returns the end of a text, for an error message.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// freePort reserves a TCP port and releases it.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
