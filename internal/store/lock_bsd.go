//go:build unix && !linux && !solaris && !aix

package store

import (
	"errors"
	"io"
	"os"
)

// lockDatabase locks the directory; that lock stays even if the lock file in it is deleted. A
// lock on the database file would conflict with SQLite's own, because on this system the two
// kinds conflict.
func lockDatabase(_ *os.File, directory string) (io.Closer, error) {
	f, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
