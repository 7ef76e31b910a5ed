//go:build !unix

package server

// openFilesMax returns 0: the system has no such limit.
func openFilesMax() uint64 { return 0 }
