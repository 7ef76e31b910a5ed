package doors

import (
	"errors"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// The bounds of Addresses.
const (
	addressHandshakesMax = 256
	addressSocketsMax    = 4096
	handshakesMax        = 8192 // of all addresses
	handshakeRetry       = time.Second
)

var (
	refuseHandshakes = &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: handshakeRetry}
	refuseSockets    = ds.Refuse(ds.LimitExceeded, "at most %d sockets of one address", addressSocketsMax)
	errHandshakes    = ds.UnavailableFor(errors.New("too many handshakes"), handshakeRetry)
)

// Addresses bounds the sockets of each address and, more narrowly, those of them that have not
// proven an account yet: a socket costs memory, and who opens it shows only later. It is safe for
// concurrent use.
type Addresses struct {
	mu         sync.Mutex // guards the rest
	sockets    map[string]int
	handshakes map[string]int
	underWay   int // handshakes of all addresses
}

// NewAddresses returns an Addresses without sockets.
func NewAddresses() *Addresses {
	return &Addresses{sockets: map[string]int{}, handshakes: map[string]int{}}
}

// Arrival is a socket that is counted. Its methods may be called once each, Leave last; they are
// not safe for concurrent use. They do nothing for a nil Arrival, a socket that is not counted.
type Arrival struct {
	addresses *Addresses
	address   string
	isKnown   bool
}

// Begin counts a socket of an address, before its handshake; one of the address "" is bounded with
// all others only. Refusals: rate_limited, limit_exceeded; unavailable where the server has as
// many handshakes as it can.
func (a *Addresses) Begin(address string) (*Arrival, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.underWay >= handshakesMax:
		return nil, errHandshakes
	case address == "":
	case a.handshakes[address] >= addressHandshakesMax:
		return nil, refuseHandshakes
	case a.sockets[address] >= addressSocketsMax:
		return nil, refuseSockets
	}
	a.underWay++
	if address != "" {
		a.handshakes[address]++
		a.sockets[address]++
	}
	return &Arrival{addresses: a, address: address}, nil
}

// Known ends the handshake: the socket has proven its account.
func (v *Arrival) Known() {
	if v == nil {
		return
	}
	v.addresses.mu.Lock()
	defer v.addresses.mu.Unlock()
	v.known()
}

// known does the work of Known; the caller holds mu.
func (v *Arrival) known() {
	if v.isKnown {
		return
	}
	v.isKnown = true
	v.addresses.underWay--
	decrement(v.addresses.handshakes, v.address)
}

// Leave ends the count of the socket.
func (v *Arrival) Leave() {
	if v == nil {
		return
	}
	v.addresses.mu.Lock()
	defer v.addresses.mu.Unlock()
	v.known()
	decrement(v.addresses.sockets, v.address)
}

// decrement lowers a count, and forgets it at 0.
func decrement(counts map[string]int, key string) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}
