//go:build !unix || solaris || aix

package home

import "io"

// lockHome does nothing on platforms without flock: SQLite's own lock keeps a second client out
// from the first write on.
func lockHome(string) (io.Closer, error) { return io.NopCloser(nil), nil }
