//go:build unix && !solaris && !aix

package home

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// lockHome locks a home until the result is closed, or the process ends in any way. The file
// stays: if it were removed, two processes could hold the lock.
func lockHome(path string) (io.Closer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
