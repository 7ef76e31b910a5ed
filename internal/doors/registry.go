package doors

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// The watchdog looks at every connection a few times in the shortest of the door's bounds.
const (
	tickMin = 5 * time.Millisecond
	tickMax = 250 * time.Millisecond
)

// Connection is a socket or a stream in a registry.
type Connection interface {
	// Check is called by the watchdog periodically, to end a connection that exceeds a
	// bound and to keep a silent one open. It does not block: the registry's mu is held.
	Check(now int64)
	// Abort cuts the connection off at once. It does not block.
	Abort()
}

// Registry holds the open connections of a door, counts them by account and has the
// watchdog that checks them: timers per connection and contexts per write would cost more
// than the writes. It is safe for concurrent use.
type Registry[C interface {
	comparable
	Connection
}] struct {
	// Running counts the admitted connections; their goroutines may be added to it.
	Running sync.WaitGroup

	accountMax int
	refuse     error
	watchdog   sync.WaitGroup
	over       chan struct{} // closed by Drain; ends the watchdog
	ended      sync.Once

	mu       sync.Mutex // guards the rest
	open     map[C]struct{}
	accounts map[ds.AccountID]int
	isClosed bool
}

// NewRegistry makes a registry that refuses further connections of an account that has max.
func NewRegistry[C interface {
	comparable
	Connection
}](max int, refuse error) *Registry[C] {
	return &Registry[C]{accountMax: max, refuse: refuse, over: make(chan struct{}),
		open: map[C]struct{}{}, accounts: map[ds.AccountID]int{}}
}

// SlowReaders returns a door's counter of sockets and streams that were cut off because their
// client read too slowly.
func SlowReaders(door string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_slow_readers_total", ConstLabels: prometheus.Labels{"door": door},
		Help: "Sockets, streams and subscriptions that were cut off because their client read too slowly, by door."})
}

// Enter counts a connection of an account. Leave must be called unless it is refused.
func (r *Registry[C]) Enter(account ds.AccountID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accounts[account] >= r.accountMax {
		return r.refuse
	}
	r.accounts[account]++
	return nil
}

// Leave undoes a call of Enter.
func (r *Registry[C]) Leave(account ds.AccountID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accounts[account]--; r.accounts[account] <= 0 {
		delete(r.accounts, account)
	}
}

// Entered returns the number of connections that are counted for an account, and the number
// of accounts that have any.
func (r *Registry[C]) Entered(account ds.AccountID) (connections, accounts int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accounts[account], len(r.accounts)
}

// Admit adds a connection and reports whether it may go on: after Close none may.
func (r *Registry[C]) Admit(c C) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed {
		return false
	}
	r.open[c] = struct{}{}
	r.Running.Add(1)
	return true
}

// Forget removes a connection that was admitted. The registry does not use it after that:
// net/http may use the connection of a stream for the next request.
func (r *Registry[C]) Forget(c C) {
	r.mu.Lock()
	delete(r.open, c)
	r.mu.Unlock()
	r.Running.Done()
}

// Close admits no more connections and returns the open ones.
func (r *Registry[C]) Close() []C {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isClosed = true
	return slices.Collect(maps.Keys(r.open))
}

// IsClosed reports whether Close was called.
func (r *Registry[C]) IsClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isClosed
}

// Each calls do with every open connection. It must not block.
func (r *Registry[C]) Each(do func(C)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		do(c)
	}
}

// Watch starts the watchdog, which moves the clock and checks every connection four times
// in bound, the shortest time that any of them waits for, and at once when wake is sent to;
// wake may be nil. Drain ends it.
func (r *Registry[C]) Watch(clock *Clock, bound time.Duration, wake <-chan struct{}) {
	r.watchdog.Go(func() {
		ticker := time.NewTicker(min(max(bound/4, tickMin), tickMax))
		defer ticker.Stop()
		for {
			select {
			case <-r.over:
				return
			case <-ticker.C:
			case <-wake:
			}
			now := clock.Tick()
			r.Each(func(c C) { c.Check(now) })
		}
	})
}

// Drain waits until no connection runs and reports whether that was in time: when ctx
// ends first it calls cut, aborts the open connections and waits for them. Then it ends the
// watchdog.
func (r *Registry[C]) Drain(ctx context.Context, cut func()) (inTime bool) {
	finished := make(chan struct{})
	go func() {
		r.Running.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		inTime = true
	case <-ctx.Done():
		cut()
		r.Each(C.Abort)
		<-finished
	}
	r.ended.Do(func() { close(r.over) })
	r.watchdog.Wait()
	return inTime
}
