//go:build unix && !linux && !solaris && !aix

package store

import (
	"errors"
	"io"
	"os"
)

// lockDatabase takes a lock on the directory, which holds however often the lock file
// in it is deleted. A lock on the database file would be in the way of SQLite's own,
// for here the two kinds see each other.
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
