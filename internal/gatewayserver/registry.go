package gatewayserver

import (
	"maps"
	"slices"
	"sync"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
)

// connection is a socket or a stream, as the server keeps it.
type connection interface {
	// check is asked by the watchdog, again and again. It does not block, and the
	// registry's mu is held.
	check(now int64)
	// drain says goodbye because the server stops, and ends the connection.
	drain(d gateway.Drain)
	// abort cuts the connection off, whatever it does. It does not block.
	abort()
	// transport is transportWS or transportSSE, ending why the connection ended.
	transport() string
	ending() string
}

// registry is the open connections of a server.
type registry struct {
	metrics *metrics
	mu      sync.Mutex // guards all but running
	open    map[connection]struct{}
	account map[ds.AccountID]int // open connections; those without a session are not counted
	closed  bool                 // nobody is admitted any more
	running sync.WaitGroup       // connections and their goroutines
}

// admit enters a connection, unless the server is shutting down.
func (r *registry) admit(c connection) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.open[c] = struct{}{}
	r.metrics.open(c.transport()).Inc()
	r.running.Add(1)
	return true
}

// accountConnectionsMax bounds the sockets and streams of one account on this server.
const accountConnectionsMax = 1024

var refuseConnections = ds.Refuse(ds.LimitExceeded, "at most %d connections of one account", accountConnectionsMax)

// enter counts a connection of an account whose session it has. leave must be called
// unless it is refused.
func (r *registry) enter(account ds.AccountID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account[account] >= accountConnectionsMax {
		return refuseConnections
	}
	r.account[account]++
	return nil
}

// leave is the end of a connection that was entered.
func (r *registry) leave(account ds.AccountID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account[account]--; r.account[account] <= 0 {
		delete(r.account, account)
	}
}

// ended counts a connection that has begun to end; saying goodbye may take it a while.
func (r *registry) ended(c connection) {
	r.metrics.closes.WithLabelValues(c.ending(), c.transport()).Inc()
}

// forget is the end of a connection that was admitted. Nobody touches it from outside
// after that: what is below a stream goes on to the next request.
func (r *registry) forget(c connection) {
	r.mu.Lock()
	delete(r.open, c)
	r.mu.Unlock()
	r.metrics.open(c.transport()).Dec()
	r.running.Done()
}

// close lets nobody in any more, and returns who is.
func (r *registry) close() []connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return slices.Collect(maps.Keys(r.open))
}

func (r *registry) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// each calls do with every open connection. It must not block.
func (r *registry) each(do func(connection)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		do(c)
	}
}
