package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes makes the server die with us: SIGQUIT is its own signal for an immediate end.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGQUIT, Setpgid: true}
}

// segmentBytes is the size of a file of a write-ahead log with SmallSegments.
const segmentBytes = 1 << 20

// FillDisk makes the kernel refuse writes that would grow any table beyond the size of the
// largest one plus more bytes, as on a full disk. The server must have been started with
// SmallSegments; its write-ahead log can still grow.
func (s *Server) FillDisk(more int64) error {
	largest := int64(segmentBytes)
	err := filepath.WalkDir(filepath.Join(s.data(), "base"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		if err == nil {
			largest = max(largest, info.Size())
		}
		return ignoreGone(err)
	})
	if err != nil {
		return err
	}
	return s.limitFiles(strconv.FormatInt(largest+more, 10))
}

// ignoreGone ignores files that the server removes meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// FreeDisk undoes FillDisk.
func (s *Server) FreeDisk() error { return s.limitFiles("unlimited") }

// limitFiles sets the limit by util-linux's prlimit, run as the server's user: in a container,
// root may lack the right to change the limits of others.
func (s *Server) limitFiles(bytes string) error {
	return s.each(func(pid int) error {
		cmd := exec.Command("prlimit", "--pid", strconv.Itoa(pid), "--fsize="+bytes+":")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential}
		out, err := cmd.CombinedOutput()
		switch {
		case err == nil:
			return nil
		case unix.Kill(pid, 0) != nil:
			return unix.ESRCH
		}
		return fmt.Errorf("prlimit: %w: %s", err, out)
	})
}

// Pause stops every process of the server: connections stay open and nothing is answered. The
// kernel still accepts new connections for it.
func (s *Server) Pause() error {
	return s.each(func(pid int) error { return unix.Kill(pid, unix.SIGSTOP) })
}

// Resume undoes Pause.
func (s *Server) Resume() error {
	return s.each(func(pid int) error { return unix.Kill(pid, unix.SIGCONT) })
}

// each calls do for the first process of the server, for its later children to inherit the effect,
// and for all the others.
func (s *Server) each(do func(pid int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return errors.New("PostgreSQL is not running")
	}
	if err := do(s.running.pid); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	for _, pid := range s.running.children() {
		if err := do(pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("a process of postgres: %w", err)
		}
	}
	return nil
}
