package identity

import (
	"context"
	"errors"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

const (
	// writerBatchMax bounds how many jobs share a transaction, and how many wait for the next one.
	writerBatchMax = store.NonceBatchMax
	// writerTimeout ends a transaction that does not come back.
	writerTimeout = 20 * time.Second
)

// job is a piece of a shared transaction.
type job struct {
	nonce *store.Nonce // consumed before run; a used one ends the job with errReplayed
	// run reads and writes; it may be nil and may run again. A refusal ends only this
	// job, any other error the transaction.
	run  func(tx *store.Tx) error
	err  error         // the outcome; valid once done is closed
	done chan struct{} // closed by the writer
}

// writer gathers jobs of many callers into few transactions: committing is what
// costs, and what waits while one transaction commits shares the next.
type writer struct {
	store   *store.DB
	jobs    chan *job
	quit    chan struct{} // closed to end the goroutine
	stopped chan struct{} // closed when it has ended
}

func newWriter(db *store.DB) *writer {
	w := &writer{store: db, jobs: make(chan *job, writerBatchMax), quit: make(chan struct{}), stopped: make(chan struct{})}
	go w.loop()
	return w
}

// close waits for the running transaction. Jobs that wait behind it end as unavailable.
func (w *writer) close() {
	close(w.quit)
	<-w.stopped
}

var errClosed = errors.New("identity: closed")

// do runs a job and waits for its commit. Where the caller gives up first or the
// transaction fails, the outcome is unknown: ds.Unavailable.
func (w *writer) do(ctx context.Context, nonce *store.Nonce, run func(tx *store.Tx) error) error {
	j := &job{nonce: nonce, run: run, done: make(chan struct{})}
	select {
	case <-w.quit:
		return ds.Unavailable(errClosed)
	default:
	}
	select {
	case w.jobs <- j:
	case <-ctx.Done():
		return ds.Unavailable(ctx.Err())
	case <-w.quit:
		return ds.Unavailable(errClosed)
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return ds.Unavailable(ctx.Err())
	case <-w.stopped:
	}
	select {
	case <-j.done:
		return j.err
	default:
		return ds.Unavailable(errClosed)
	}
}

// later hands over a job that nobody waits for. It returns false, and drops the
// job, when the writer is busy.
func (w *writer) later(run func(tx *store.Tx) error) bool {
	select {
	case w.jobs <- &job{run: run, done: make(chan struct{})}:
		return true
	default:
		return false
	}
}

func (w *writer) loop() {
	defer close(w.stopped)
	batch := make([]*job, 0, writerBatchMax)
	for {
		select {
		case <-w.quit:
			return
		case j := <-w.jobs:
			batch = append(batch[:0], j)
		}
	gather:
		for len(batch) < writerBatchMax {
			select {
			case j := <-w.jobs:
				batch = append(batch, j)
			default:
				break gather
			}
		}
		w.commit(batch)
		for _, j := range batch {
			close(j.done)
		}
		clear(batch)
	}
}

// commit writes a batch in one transaction and sets the outcome of every job. A
// batch that fails for what one of its jobs wants is taken apart.
func (w *writer) commit(batch []*job) {
	ctx, cancel := context.WithTimeout(context.Background(), writerTimeout)
	defer cancel()
	err := w.store.Update(ctx, func(tx *store.Tx) error { return apply(tx, batch) })
	if err == nil {
		return
	}
	if len(batch) > 1 && !ds.IsUnavailable(err) {
		for i := range batch {
			w.commit(batch[i : i+1])
		}
		return
	}
	for _, j := range batch {
		j.err = err
	}
}

func apply(tx *store.Tx, batch []*job) error {
	nonces := make([]store.Nonce, 0, len(batch))
	for _, j := range batch {
		if j.nonce != nil {
			nonces = append(nonces, *j.nonce)
		}
	}
	fresh, err := tx.ConsumeNonces(nonces)
	if err != nil {
		return err
	}
	for _, j := range batch {
		j.err = nil
		if j.nonce != nil {
			isFresh := fresh[0]
			fresh = fresh[1:]
			if !isFresh {
				j.err = errReplayed
				continue
			}
		}
		if j.run == nil {
			continue
		}
		err := j.run(tx)
		if ds.CodeOf(err) != "" {
			j.err = err
		} else if err != nil {
			return err
		}
	}
	return nil
}
