// Package intake is what every door does with a request before it looks at it: whom its
// limits per address are counted under, and how many bytes of bodies may be in memory.
//
// One Intake serves all doors of a server, so that the bounds hold for all together.
package intake

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// Intake bounds the bodies of requests that are in memory at one time: of one address,
// so that none takes what is there for all, and altogether. Bytes count as they arrive,
// not as they are announced, until the request has been answered. It is safe for
// concurrent use.
type Intake struct {
	mu    sync.Mutex // guards the rest
	total int64
	held  map[string]int64 // by address; loopback is none
}

// New makes an Intake that holds nothing.
func New() *Intake { return &Intake{held: map[string]int64{}} }

// Refusals of what does not fit. Both pass by themselves, soon.
var (
	ErrFull          = ds.Unavailable(errors.New("too many bytes of requests are in memory"))
	refuseAddressAll = &ds.Refusal{Code: ds.RateLimited, Message: "too many bytes of requests under way from this address", RetryAfter: time.Second}
)

// Take counts n bytes that have arrived, or says why they are too many: ErrFull, or a
// refusal (rate_limited).
func (in *Intake) Take(address string, n int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case address != "" && in.held[address]+n > core.AddressBodyBytesMax:
		return refuseAddressAll
	case in.total+n > core.TotalBodyBytesMax:
		return ErrFull
	}
	in.total += n
	if address != "" {
		in.held[address] += n
	}
	return nil
}

// Release gives back what Take counted.
func (in *Intake) Release(address string, n int64) {
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

// Held is how many bytes are counted now, of an address and altogether.
func (in *Intake) Held(address string) (ofAddress, total int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.held[address], in.total
}

// Count makes the request's body count as it is read. The function that it returns gives
// the bytes back, once the request is answered.
func (in *Intake) Count(r *http.Request, address string) (release func()) {
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}
	}
	body := &countedBody{ReadCloser: r.Body, intake: in, address: address}
	r.Body = body
	return func() { in.Release(address, body.held) }
}

// countedBody is a request's body that counts against the intake.
type countedBody struct {
	io.ReadCloser
	intake  *Intake
	address string
	held    int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n == 0 {
		return n, err
	}
	if refused := b.intake.Take(b.address, int64(n)); refused != nil {
		return 0, refused
	}
	b.held += int64(n)
	return n, err
}
