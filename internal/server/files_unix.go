//go:build unix

package server

import "golang.org/x/sys/unix"

// openFilesMax returns the number of files and sockets that the process may have open, or 0 if
// that is not known or unlimited.
func openFilesMax() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return 0
	}
	return uint64(limit.Cur) // signed on some systems
}
