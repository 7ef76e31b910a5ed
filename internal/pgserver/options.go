// Package pgserver runs a private PostgreSQL from the binaries that are installed on the machine:
// for the tests (package pgtest) and for waxwing prove.
//
// A Server has a temporary directory, a free port and no password on the loopback address; it can
// be stopped, killed and restarted, and dies with the process that started it.
package pgserver

import "errors"

// ErrNotInstalled reports that the machine has no PostgreSQL server to start.
var ErrNotInstalled = errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")

// Options configures a private server.
type Options struct {
	// Fsync makes the server write through to the disk, as in production. Without it, the
	// default, it is faster and still survives a kill, but not a power cut.
	Fsync bool
	// Settings are further server settings, as "name=value".
	Settings []string
	// SmallSegments makes the files of the write-ahead log 1 MiB each instead of 16, so that a
	// limit on the size of files can be low.
	SmallSegments bool
}
