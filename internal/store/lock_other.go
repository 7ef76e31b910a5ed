//go:build !windows && (!unix || solaris || aix)

package store

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock a second process could write to the directory.
func lockFile(*os.File) error {
	return errors.New("this system has no file locks that end with a process; use PostgreSQL (--database)")
}
