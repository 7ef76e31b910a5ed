package store

import (
	"errors"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// lockDatabase locks the database file itself; that lock stays even if the lock file is
// deleted, and by whatever path the database is reached. It covers one byte far behind any
// page, away from SQLite's own locks, and belongs to the open file and not to the process:
// closing another file of the database does not release it.
func lockDatabase(f *os.File, _ string) (io.Closer, error) {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: math.MaxInt64 - 1, Len: 1})
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return nil, errLocked
		}
		return f, err
	}
}
