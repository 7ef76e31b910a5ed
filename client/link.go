package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// link holds the parts that the connections to both doors have in common: the events for the
// session, the calls that it has requested, and the end.
type link struct {
	out    chan event
	ctx    context.Context // ends with the link; its cause is the reason
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup
	calls  queue[func()]
}

// silentAfter is the number of half intervals without a sign of life after which the connection
// is given up.
const silentAfter = 5

// signOfLife is the time at which the server last sent something, by the machine's clock. It is
// safe for concurrent use.
type signOfLife struct{ at atomic.Int64 } // UnixNano

func (s *signOfLife) now() { s.at.Store(time.Now().UnixNano()) }

// isMissing reports whether there was none for so long that the server must be gone.
func (s *signOfLife) isMissing(pingInterval time.Duration) bool {
	return time.Since(time.Unix(0, s.at.Load())) > pingInterval*silentAfter/2
}

func newLink(ctx context.Context) link {
	ctx, cancel := context.WithCancelCause(ctx)
	return link{out: make(chan event, eventsAhead), ctx: ctx, cancel: cancel, calls: newQueue[func()]()}
}

// start begins to make calls, a number at a time. Once the link has ended it calls stop, which
// unblocks the tasks, and closes the events when they are done.
func (l *link) start(callsMax int, stop func()) {
	for range callsMax {
		l.tasks.Go(func() {
			l.each(l.calls.bell, func() {
				if call, ok := l.calls.take(); ok {
					call()
				}
			})
		})
	}
	go func() {
		<-l.ctx.Done()
		stop()
		l.tasks.Wait()
		close(l.out)
	}()
}

// each calls f each time the bell rings, until the link ends.
func (l *link) each(bell <-chan struct{}, f func()) {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-bell:
			f()
		}
	}
}

func (l *link) incoming() <-chan event { return l.out }

// close ends a link that was started, and waits for its tasks.
func (l *link) close() {
	l.cancel(nil)
	for range l.out {
	}
}

// fail ends the link; the first error is the reason.
func (l *link) fail(err error) { l.cancel(err) }

func (l *link) failure() error { return context.Cause(l.ctx) }

// deliver passes an event to the session; it returns false if the link ends first.
func (l *link) deliver(e event) bool { return l.deliverWithin(l.ctx, e) }

// deliverWithin is deliver that ends with ctx, a child of the link's. An event of a conversation
// with an invalid id is dropped.
func (l *link) deliverWithin(ctx context.Context, e event) bool {
	if id, ok := conversationOf(e); ok && !isConversationID(id) {
		return true
	}
	select {
	case l.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// answer delivers the result of a call in place of a request. Without an answer the outcome is
// unknown: the link ends, and the session repeats the request on the next one, with the same
// id.
func (l *link) answer(number int, seq int64, err error) {
	r := asRefusal(err)
	switch {
	case err == nil:
		l.deliver(appended{number, seq})
	case r == nil || r.Code == codeUnauthorized:
		l.fail(err)
	default:
		l.deliver(refused{number, r})
	}
}

// queue passes values from one goroutine to others. It is safe for concurrent use.
type queue[T any] struct {
	mu     sync.Mutex
	values []T           // guarded by mu
	bell   chan struct{} // wakes a receiver while there are values
}

func newQueue[T any]() queue[T] { return queue[T]{bell: make(chan struct{}, 1)} }

func (q *queue[T]) add(v T) {
	q.mu.Lock()
	q.values = append(q.values, v)
	q.mu.Unlock()
	ring(q.bell)
}

// take returns the next value; if there are more, it wakes another receiver.
func (q *queue[T]) take() (v T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.values) == 0 {
		return v, false
	}
	v, q.values = q.values[0], q.values[1:]
	if len(q.values) > 0 {
		ring(q.bell)
	}
	return v, true
}

func (q *queue[T]) takeAll() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	values := q.values
	q.values = nil
	return values
}

// latest passes names with a number each from some goroutines to another, such as positions in
// logs: of each name the greatest number suffices. It is safe for concurrent use.
type latest struct {
	mu   sync.Mutex
	of   map[string]int64 // guarded by mu
	bell chan struct{}    // wakes the receiver when there are new ones
}

func newLatest() latest { return latest{of: map[string]int64{}, bell: make(chan struct{}, 1)} }

func (l *latest) set(name string, number int64) {
	l.mu.Lock()
	l.of[name] = max(l.of[name], number)
	l.mu.Unlock()
	ring(l.bell)
}

func (l *latest) takeAll() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of
	l.of = map[string]int64{}
	return of
}

// pause waits, and reports whether ctx is still active.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ring wakes the receiver of the bell, now or at its next receive.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
