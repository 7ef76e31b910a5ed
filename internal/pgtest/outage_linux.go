package pgtest

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

// FillDisk lets no table grow any more beyond the size of the largest one, and more
// bytes: the kernel refuses the write, as on a full disk. The server was started with
// SmallSegments; its write-ahead log has room.
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

// ignoreGone passes over files that the server removes meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// FreeDisk takes back FillDisk.
func (s *Server) FreeDisk() error { return s.limitFiles("unlimited") }

// limitFiles sets the limit by util-linux's prlimit, run as the server's user: who
// may change the limits of others is less than root in a container.
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

// Pause stops every process of the server where it is: connections stay open and
// nothing is answered. The kernel still accepts new connections for it.
func (s *Server) Pause() error {
	return s.each(func(pid int) error { return unix.Kill(pid, unix.SIGSTOP) })
}

// Resume takes back Pause.
func (s *Server) Resume() error {
	return s.each(func(pid int) error { return unix.Kill(pid, unix.SIGCONT) })
}

// each does something to the first process of the server, whose later children take
// it over, and to all the others.
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
