package gatewayserver

import (
	"io"

	"waxwing.im/waxwing/internal/doors"
)

// countedFrame is a message of a socket that counts against the intake while it is read and
// handled, so that unfinished messages cannot fill the memory.
type countedFrame struct {
	io.Reader
	doors.Message
	refused error // by the intake
}

// Read reads in pieces, since the library fills all of p before it returns.
func (f *countedFrame) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p[:min(len(p), doors.FreeBytes)])
	if f.refused = f.Arrived(n); f.refused != nil {
		return n, f.refused
	}
	return n, err
}
