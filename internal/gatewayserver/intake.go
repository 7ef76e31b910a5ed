package gatewayserver

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
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

// intake bounds the bodies of requests that are in memory at one time: of one
// address, so that none takes what is there for all, and altogether. Bytes count as
// they arrive, not as they are announced, until the request has been answered. A
// socket has a budget of its own, and holds one frame.
type intake struct {
	mu    sync.Mutex // guards the rest
	total int64
	held  map[string]int64 // by address; loopback is none
}

// refusals of what does not fit. Both pass by themselves, soon.
var (
	errIntakeFull    = ds.Unavailable(errors.New("too many bytes of requests are in memory"))
	refuseAddressAll = &ds.Refusal{Code: ds.RateLimited, Message: "too many bytes of requests under way from this address", RetryAfter: time.Second}
)

// take counts n bytes that have arrived, or says why they are too many.
func (in *intake) take(address string, n int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case address != "" && in.held[address]+n > core.AddressBodyBytesMax:
		return refuseAddressAll
	case in.total+n > core.TotalBodyBytesMax:
		return errIntakeFull
	}
	in.total += n
	if address != "" {
		in.held[address] += n
	}
	return nil
}

func (in *intake) release(address string, n int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.total -= n
	if address == "" {
		return
	}
	if in.held[address] -= n; in.held[address] <= 0 {
		delete(in.held, address)
	}
}

// countedBody is a request's body that counts against the intake.
type countedBody struct {
	io.ReadCloser
	intake  *intake
	address string
	held    int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n == 0 {
		return n, err
	}
	if refused := b.intake.take(b.address, int64(n)); refused != nil {
		return 0, refused
	}
	b.held += int64(n)
	return n, err
}

// frameFreeBytes is how much of a frame counts against nothing: most frames are smaller,
// and a socket that holds so much costs little more than one that holds none.
const frameFreeBytes = 16 << 10

// countedFrame is a message of a socket that counts against the intake while it is read
// and handled: one that does not end costs whoever sends it a connection, no more.
type countedFrame struct {
	io.Reader
	intake     *intake
	address    string
	seen, held int64
	refused    error // why the intake takes no more of it
}

// Read reads in pieces, for the library fills all of p before it returns.
func (f *countedFrame) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p[:min(len(p), frameFreeBytes)])
	f.seen += int64(n)
	if more := f.seen - frameFreeBytes - f.held; more > 0 {
		if f.refused = f.intake.take(f.address, more); f.refused != nil {
			return 0, f.refused
		}
		f.held += more
	}
	return n, err
}

// release is the end of the message. It may be called again.
func (f *countedFrame) release() {
	if f.held > 0 {
		f.intake.release(f.address, f.held)
	}
	*f = countedFrame{}
}

// ServeHTTP answers /v1/… and /healthz, and 404 for everything else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		body := &countedBody{ReadCloser: r.Body, intake: &s.intake, address: s.addressOf(r)}
		defer func() { s.intake.release(body.address, body.held) }()
		r.Body = body
	}
	s.mux.ServeHTTP(w, r)
}
