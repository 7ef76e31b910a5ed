package core

import (
	"context"
	"sync"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// readingQueue finds out where readers begin. Those who ask while a query is under way
// share the next one: a thousand clients that come back together, each for twenty
// conversations, are not twenty thousand queries.
type readingQueue struct {
	store *store.DB
	turn  chan struct{} // is full while somebody queries for those who wait

	mu      sync.Mutex
	waiting []*readingJob // mu guards it
}

type readingJob struct {
	start   store.Start
	done    chan struct{} // is closed behind the answer
	reading store.Reading
	err     error
}

func newReadingQueue(db *store.DB) *readingQueue {
	return &readingQueue{store: db, turn: make(chan struct{}, 1)}
}

// read is what Readings says of one start, as of some moment after the call. It waits
// no longer than requestTimeout for its turn, and for its query.
func (q *readingQueue) read(ctx context.Context, start store.Start) (store.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	job := &readingJob{start: start, done: make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, job)
	q.mu.Unlock()
	for {
		select {
		case <-job.done:
			return job.reading, job.err
		case <-ctx.Done():
			q.forget(job)
			return store.Reading{}, ds.Unavailable(ctx.Err())
		case q.turn <- struct{}{}:
			q.query(ctx)
		}
	}
}

// query answers those who have waited longest, and gives up the turn that its caller
// has taken.
func (q *readingQueue) query(ctx context.Context) {
	defer func() { <-q.turn }()
	q.mu.Lock()
	n := min(len(q.waiting), readingsMax)
	jobs := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	q.mu.Unlock()
	if n == 0 {
		return
	}
	starts := make([]store.Start, n)
	for i, j := range jobs {
		starts[i] = j.start
	}
	// No single caller may cancel it for the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	var readings []store.Reading
	err := q.store.Read(ctx, func(tx *store.Tx) (err error) {
		readings, err = tx.Readings(starts)
		return err
	})
	for i, j := range jobs {
		if j.err = err; err == nil {
			j.reading = readings[i]
		}
		close(j.done)
	}
}

// forget takes a job out of the queue that nobody waits for any more.
func (q *readingQueue) forget(job *readingJob) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, j := range q.waiting {
		if j == job {
			q.waiting = append(q.waiting[:i:i], q.waiting[i+1:]...)
			return
		}
	}
}
