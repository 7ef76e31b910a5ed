//go:build !unix

package pgserver

import "fmt"

// Server is a private PostgreSQL, which is not available on this system.
type Server struct{}

// New returns ErrNotInstalled.
func New(Options) (*Server, error) {
	return nil, fmt.Errorf("%w: private servers need Unix", ErrNotInstalled)
}

// IsInstalled returns false.
func IsInstalled() bool { return false }

// URL returns "".
func (*Server) URL() string { return "" }

// Restart returns ErrNotInstalled.
func (*Server) Restart() error { return ErrNotInstalled }

// Kill does nothing.
func (*Server) Kill() {}

// Stop does nothing.
func (*Server) Stop() error { return nil }

// Close does nothing.
func (*Server) Close() error { return nil }

// Log returns "".
func (*Server) Log() string { return "" }
