package core

import (
	"context"
	"slices"
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// shared answers requests together: those that come while a batch is under way share
// the next one. It is for what a thousand clients do at the same moment, when they
// come back.
type shared[In, Out any] struct {
	most int // requests in a batch
	// do answers a batch; its answers are parallel to the requests.
	do      func(context.Context, []In) ([]Out, error)
	closing <-chan struct{} // nothing is answered any more once it is closed
	wake    chan struct{}   // holds a token while waiting may not be empty

	mu      sync.Mutex
	waiting []*sharedJob[In, Out] // mu guards it
}

type sharedJob[In, Out any] struct {
	in   In
	done chan struct{} // is closed behind out and err
	out  Out
	err  error
}

func newShared[In, Out any](closing <-chan struct{}, most int, do func(context.Context, []In) ([]Out, error)) *shared[In, Out] {
	return &shared[In, Out]{most: most, do: do, closing: closing, wake: make(chan struct{}, 1)}
}

// ask waits for the answer to one request, which comes of a batch that begins after the
// call; it does not wait longer than ctx, nor than requestTimeout. When it gives up on a
// batch that is under way, the request may still be done.
func (s *shared[In, Out]) ask(ctx context.Context, in In) (out Out, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	job := &sharedJob[In, Out]{in: in, done: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, job)
	s.mu.Unlock()
	s.signal()
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
	if i := slices.Index(s.waiting, job); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	return out, err
}

func (s *shared[In, Out]) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run answers batch after batch until ctx ends. No caller's going away disturbs the
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

// batch answers those who have waited longest.
func (s *shared[In, Out]) batch(ctx context.Context) {
	s.mu.Lock()
	n := min(len(s.waiting), s.most)
	jobs := slices.Clone(s.waiting[:n])
	if s.waiting = slices.Delete(s.waiting, 0, n); len(s.waiting) > 0 {
		s.signal()
	}
	s.mu.Unlock()
	if n == 0 {
		return // they went away
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
