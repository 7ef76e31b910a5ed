package gatewayserver

import (
	"io"
	"net/http"
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

// frameFreeBytes is how much of a frame counts against nothing: most frames are smaller,
// and a socket that holds so much costs little more than one that holds none.
const frameFreeBytes = 16 << 10

// countedFrame is a message of a socket that counts against the intake while it is read
// and handled: one that does not end costs whoever sends it a connection, no more.
type countedFrame struct {
	io.Reader
	intake     *intake.Intake
	address    string
	seen, held int64
	refused    error // why the intake takes no more of it
}

// Read reads in pieces, for the library fills all of p before it returns.
func (f *countedFrame) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p[:min(len(p), frameFreeBytes)])
	f.seen += int64(n)
	if more := f.seen - frameFreeBytes - f.held; more > 0 {
		if f.refused = f.intake.Take(f.address, more); f.refused != nil {
			return 0, f.refused
		}
		f.held += more
	}
	return n, err
}

// release is the end of the message. It may be called again.
func (f *countedFrame) release() {
	if f.held > 0 {
		f.intake.Release(f.address, f.held)
	}
	*f = countedFrame{}
}

// ServeHTTP answers /v1/… and /healthz, and 404 for everything else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.intake.Count(r, s.proxies.AddressOf(r))()
	s.mux.ServeHTTP(w, r)
}
