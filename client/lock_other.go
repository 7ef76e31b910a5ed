//go:build !unix || solaris || aix

package client

import "io"

// lockHome does nothing where there is no flock: SQLite's own lock keeps a second
// client out from the first write on.
func lockHome(string) (io.Closer, error) { return io.NopCloser(nil), nil }
