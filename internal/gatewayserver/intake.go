package gatewayserver

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"waxwing.im/waxwing/internal/intake"
)

// What one socket may send: bytesAtOnce, then as much again each minute, which leaves
// the 64 MiB of decision 13 to messages of any sensible size. A frame counts for
// frameBytesMin more than its bytes, for handling it costs something too. Nobody is
// refused anything for it; who sends more is read from more slowly.
const (
	bytesAtOnce   = 128 << 20
	frameBytesMin = 64
)

// budget is when everything that was sent would be paid for, by GCRA.
type budget struct{ until time.Time }

// take counts bytes and returns how long to wait before the next.
func (b *budget) take(bytes int, now time.Time) time.Duration {
	if b.until.Before(now) {
		b.until = now
	}
	b.until = b.until.Add(time.Minute * time.Duration(bytes) / bytesAtOnce)
	return b.until.Sub(now) - time.Minute
}

// countedFrame is a message of a socket that counts against the intake while it is read
// and handled: one that does not end costs whoever sends it a connection, no more.
type countedFrame struct {
	io.Reader
	intake.Message
	refused error // why the intake takes no more of it
}

// Read reads in pieces, for the library fills all of p before it returns.
func (f *countedFrame) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p[:min(len(p), intake.FreeBytes)])
	if f.refused = f.Arrived(n); f.refused != nil {
		return n, f.refused
	}
	return n, err
}

// pacedReader reads a message of a socket and ends it where it comes too slowly. What is
// small has mostly arrived at once, and holds nothing: only behind that time is taken.
type pacedReader struct {
	io.Reader
	network interface{ SetReadDeadline(time.Time) error }
	intake  *intake.Intake
	pace    intake.Pace
	seen    int
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if r.seen < intake.FreeBytes {
		n, err := r.Reader.Read(p)
		r.seen += n
		return n, err
	}
	began := time.Now()
	_ = r.network.SetReadDeadline(began.Add(r.intake.Left(&r.pace)))
	n, err := r.Reader.Read(p)
	r.intake.Took(&r.pace, n, time.Since(began))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = intake.ErrSlow
	case err != nil:
		_ = r.network.SetReadDeadline(time.Time{}) // for the next message
	}
	return n, err
}

// ServeHTTP answers /v1/… and /healthz, and 404 for everything else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.intake.Count(w, r, s.proxies.AddressOf(r))()
	s.mux.ServeHTTP(w, r)
}
