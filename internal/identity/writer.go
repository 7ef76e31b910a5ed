package identity

import (
	"context"
	"errors"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

const (
	// writerBatchMax bounds how many jobs share a transaction, and how many wait for the next
	// one: a megabyte of each, for a job holds checked names and hashes of at most 2 KiB.
	// Further callers wait outside, for jobTimeout, and enter in turn.
	writerBatchMax = store.NonceBatchMax
	// writerTimeout ends a transaction that hangs, and jobTimeout the wait for one.
	writerTimeout = 20 * time.Second
	jobTimeout    = 10 * time.Second
)

// job is a part of a shared transaction. Equal steps of many jobs are done in one statement:
// the fields before run describe these steps, in the order in which they are done.
type job struct {
	isRevocation bool           // run revokes sessions
	nonce        *store.Nonce   // consumed first; a used one ends the job with errReplayed
	admit        *admission     // of the account, if the nonce was fresh
	start        *store.Session // inserted if the nonce was fresh and the account is admitted
	resume       *resumption
	answered     *store.Successor
	run          func(tx *store.Tx) error // any other step; it may run again

	// err is the outcome, valid once done is closed. A refusal is about this job; any other
	// error is about the transaction.
	err  error
	done chan struct{} // closed by the writer
}

// isNonce reports whether the job consists of its nonce only, as for most calls: a batch of
// such jobs is one statement.
func (j *job) isNonce() bool {
	return j.nonce != nil && j.admit == nil && j.start == nil && j.resume == nil && j.answered == nil && j.run == nil
}

// writer combines jobs of many callers into few transactions: the commit is the expensive part,
// and jobs that arrive during one transaction share the next.
type writer struct {
	store   *store.DB
	apply   func(tx *store.Tx, batch []*job) error
	jobs    chan *job
	quit    chan struct{} // closed to end the goroutine
	stopped chan struct{} // closed when it has ended
}

func newWriter(db *store.DB, apply func(tx *store.Tx, batch []*job) error) *writer {
	w := &writer{store: db, apply: apply, jobs: make(chan *job, writerBatchMax), quit: make(chan struct{}), stopped: make(chan struct{})}
	go w.loop()
	return w
}

// close waits for the running transaction. Jobs that wait after it end as unavailable.
func (w *writer) close() {
	close(w.quit)
	<-w.stopped
}

var errClosed = errors.New("identity: closed")

// do runs a job and waits for its commit. If the caller gives up first or the transaction
// fails, the outcome is unknown: ds.Unavailable.
func (w *writer) do(ctx context.Context, j *job) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	j.done = make(chan struct{})
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

// later queues a job without a waiting caller. It returns false, and drops the job, if the
// writer is busy.
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

// commit writes a batch in one transaction and sets the outcome of every job. A batch that
// fails because of one of its jobs is split.
func (w *writer) commit(batch []*job) {
	ctx, cancel := context.WithTimeout(context.Background(), writerTimeout)
	defer cancel()
	update := w.store.Update
	if !slices.ContainsFunc(batch, func(j *job) bool { return !j.isNonce() }) {
		update = w.store.UpdateOne
	}
	err := update(ctx, func(tx *store.Tx) error { return w.apply(tx, batch) })
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

// apply carries out the jobs of a batch.
func (a *Authenticator) apply(tx *store.Tx, batch []*job) error {
	var (
		nonces  []store.Nonce
		starts  []store.Session
		admits  []*job
		resumes []*job
		answers []store.Successor
	)
	if slices.ContainsFunc(batch, func(j *job) bool { return j.isRevocation }) {
		if err := tx.Sessions.LockRevocations(); err != nil { // before any other lock
			return err
		}
	}
	for _, j := range batch {
		j.err = nil // of an earlier run
		if j.nonce != nil {
			nonces = append(nonces, *j.nonce)
		}
		if j.resume != nil {
			resumes = append(resumes, j)
		}
		if j.answered != nil {
			answers = append(answers, *j.answered)
		}
	}
	fresh, err := tx.Sessions.ConsumeNonces(nonces)
	if err != nil {
		return err
	}
	for _, j := range batch {
		if j.nonce == nil {
			continue
		}
		if !fresh[0] {
			j.err = errReplayed
		} else if j.admit != nil {
			admits = append(admits, j)
		}
		fresh = fresh[1:]
	}
	if err := a.applyAdmissions(tx, admits); err != nil {
		return err
	}
	if err := a.checkStarts(tx, batch); err != nil {
		return err
	}
	for _, j := range batch {
		if j.start != nil && j.err == nil {
			starts = append(starts, *j.start)
		}
	}
	if err := tx.Sessions.Insert(starts); err != nil {
		return err
	}
	if err := a.applyResumes(tx, resumes); err != nil {
		return err
	}
	if err := tx.Sessions.LimitPredecessors(answers, a.o.Now().Add(predecessorFor).UnixMilli()); err != nil {
		return err
	}
	for _, j := range batch {
		if j.run == nil {
			continue
		}
		if err := j.run(tx); err != nil {
			return err
		}
	}
	return nil
}
