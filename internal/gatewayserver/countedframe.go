package gatewayserver

import (
	"io"

	"waxwing.im/waxwing/internal/doors"
)

// countedFrame is a message of a socket that counts against the intake while it is read
// and handled: one that does not end costs whoever sends it a connection, no more.
type countedFrame struct {
	io.Reader
	doors.Message
	refused error // why the intake takes no more of it
}

// Read reads in pieces, for the library fills all of p before it returns.
func (f *countedFrame) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p[:min(len(p), doors.FreeBytes)])
	if f.refused = f.Arrived(n); f.refused != nil {
		return n, f.refused
	}
	return n, err
}
