package logs

import (
	"context"
	"errors"
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// shared runs requests together: those that arrive during a batch share the next one. It is
// for requests that a thousand clients make at the same moment, when they reconnect.
type shared[In, Out any] struct {
	most int          // requests in a batch
	size func(In) int // bytes that a request keeps alive
	// do answers a batch; its answers are parallel to the requests.
	do      func(context.Context, []In) ([]Out, error)
	closing <-chan struct{} // no request is answered once it is closed
	wake    chan struct{}   // holds a token while waiting may not be empty

	mu          sync.Mutex
	waiting     map[uint64]*sharedJob[In, Out] // by order of arrival; mu guards it and the fields below
	first, next uint64                         // the numbers of waiting are from first up to next
	bytes       int                            // of waiting requests
}

var errSharedFull = ds.Unavailable(errors.New("too many requests wait for the store"))

type sharedJob[In, Out any] struct {
	in   In
	size int
	done chan struct{} // closed after out and err are set
	out  Out
	err  error
}

func newShared[In, Out any](closing <-chan struct{}, most int, size func(In) int, do func(context.Context, []In) ([]Out, error)) *shared[In, Out] {
	return &shared[In, Out]{most: most, size: size, do: do, closing: closing, wake: make(chan struct{}, 1), waiting: map[uint64]*sharedJob[In, Out]{}}
}

// ask waits for the answer to one request, from a batch that begins after the call; it waits
// no longer than ctx and requestTimeout. If it gives up during the batch, the request may
// still be done. If too much waits already, it returns a fault that may pass, at once.
func (s *shared[In, Out]) ask(ctx context.Context, in In) (out Out, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if ctx.Err() != nil { // the batch could be over before the wait for it
		return out, ds.Unavailable(ctx.Err())
	}
	job := &sharedJob[In, Out]{in: in, size: sharedJobBytes + s.size(in), done: make(chan struct{})}
	s.mu.Lock()
	if s.bytes+job.size > sharedBytesMax {
		s.mu.Unlock()
		return out, errSharedFull
	}
	s.bytes += job.size
	place := s.next
	s.waiting[place], s.next = job, place+1
	s.mu.Unlock()
	wakeUp(s.wake)
	select {
	case <-job.done:
		return job.out, job.err
	case <-ctx.Done():
		err = ds.Unavailable(ctx.Err())
	case <-s.closing:
		err = errClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(place) // does nothing if a batch has it
	return out, err
}

// drop removes and returns a waiting job; nil if it does not wait. The caller holds mu.
func (s *shared[In, Out]) drop(place uint64) *sharedJob[In, Out] {
	job := s.waiting[place]
	if job != nil {
		s.bytes -= job.size
		delete(s.waiting, place)
	}
	return job
}

// run answers batch after batch until ctx ends. A caller that gives up does not affect the
// others in its batch.
func (s *shared[In, Out]) run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
			s.batch(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// batch answers the requests that have waited longest.
func (s *shared[In, Out]) batch(ctx context.Context) {
	s.mu.Lock()
	n := min(len(s.waiting), s.most)
	jobs := make([]*sharedJob[In, Out], 0, n)
	for ; len(jobs) < n; s.first++ {
		if job := s.drop(s.first); job != nil { // the others were withdrawn
			jobs = append(jobs, job)
		}
	}
	if len(s.waiting) > 0 {
		wakeUp(s.wake)
	}
	s.mu.Unlock()
	if n == 0 {
		return // all were withdrawn
	}
	requests := make([]In, n)
	for i, j := range jobs {
		requests[i] = j.in
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers, err := s.do(ctx, requests)
	for i, j := range jobs {
		if j.err = err; err == nil {
			j.out = answers[i]
		}
		close(j.done)
	}
}
