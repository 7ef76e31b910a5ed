package logs

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// flusher writes the requests of its share of the conversations, batch by batch. Requests that
// arrive during a batch form the next one, so that a lone request does not wait and concurrent
// ones share one fsync.
type flusher struct {
	engine *Engine
	queue  chan *Request
	bytes  atomic.Int64 // of unanswered requests
	ended  chan struct{}

	// The rest belongs to the goroutine of run.
	held         map[ds.ConversationID]line // when due, they precede the queue
	heldRequests int
	arrived      uint64 // the number of the latest request
	known        *known
}

func newFlusher(e *Engine) *flusher {
	return &flusher{engine: e, queue: make(chan *Request, queueRequestsMax), ended: make(chan struct{}), held: map[ds.ConversationID]line{}, known: newKnown()}
}

// run works until stop is closed and no request waits.
func (f *flusher) run(stop <-chan struct{}) {
	defer f.refuseRest()
	defer close(f.ended)
	for {
		first, more := f.next(stop)
		if !more {
			return
		}
		f.retryAlone()
		if batch := f.gather(first); len(batch) > 0 {
			f.flush(batch)
			f.listen(len(batch))
		}
	}
}

// next waits for a request, or until a held one is due again (nil). more is false once stop is
// closed and there is neither.
func (f *flusher) next(stop <-chan struct{}) (first *Request, more bool) {
	if len(f.held) > 0 {
		timer := time.NewTimer(time.Until(f.nextDue()))
		defer timer.Stop()
		select {
		case first = <-f.queue:
		case <-timer.C:
		}
		return first, true
	}
	select {
	case first = <-f.queue:
		return first, true
	case <-stop:
	}
	select {
	case first = <-f.queue: // accepted requests are still written
		return first, true
	default:
		return nil, false
	}
}

// listen lets clients that were just answered send again, so that their requests join the next
// batch and not the one after it: it yields as long as the queue keeps growing. It uses no
// timer, and does nothing after a small batch.
func (f *flusher) listen(answered int) {
	if answered < listenRequestsMin {
		return
	}
	for quiet, waiting := 0, len(f.queue); quiet < listenYields && waiting < batchRequestsMax; quiet++ {
		runtime.Gosched()
		if n := len(f.queue); n > waiting {
			quiet, waiting = 0, n
		}
	}
}

// gather forms a batch of the held requests that are due, first, and the waiting ones, up to
// the bounds of a batch. Abandoned requests are dropped here.
func (f *flusher) gather(first *Request) []*Request {
	batch := make([]*Request, 0, 64)
	bytes := 0
	take := func(r *Request) {
		if r.order == 0 {
			f.arrived++
			r.order = f.arrived
		}
		switch {
		case !r.state.CompareAndSwap(waiting, taken) && r.state.Load() != taken:
			f.bytes.Add(-int64(r.Bytes)) // abandoned by its caller
		case time.Until(r.deadline) < batchTimeout && r.tries == 0: // the store was blocked meanwhile
			f.end(r, errLate)
		case f.isBehind(r):
			f.keep(r)
		default:
			batch = append(batch, r)
			bytes += r.weight()
		}
	}
	countMax, bytesMax := batchRequestsMax, batchBytesMax
	if first != nil { // has a place already
		countMax, bytesMax = countMax-1, bytesMax-first.weight()
	}
	for _, r := range f.takeHeld(countMax, bytesMax) {
		take(r)
	}
	if first != nil {
		take(first)
	}
	for len(batch) < batchRequestsMax && bytes < batchBytesMax {
		select {
		case r := <-f.queue:
			take(r)
		default:
			return batch
		}
	}
	return batch
}

// flush writes a batch in one transaction. If the database refuses it, or a lock that it needs
// is held too long, each request runs again in a transaction of its own, so that only the
// offender fails or waits. They are held until then, and retryAlone runs a few at a time: new
// requests do not wait for all of them. Requests that were decided on outdated memory run
// again at once.
func (f *flusher) flush(batch []*Request) {
	started := time.Now()
	over := f.watch(batch)
	result, err := f.attempt(batch)
	over()
	f.engine.metrics.appendSeconds.Observe(time.Since(started).Seconds())
	f.engine.metrics.batchRequests.Observe(float64(len(batch)))
	if err != nil && (!ds.IsUnavailable(err) || store.IsLockLost(err)) && len(batch) > 1 {
		if store.IsLockLost(err) {
			f.engine.metrics.lockWaitsLost.Inc()
		}
		for _, r := range batch {
			r.isSingle = true
			f.keep(r)
		}
		return
	}
	if again := f.answer(batch, result, err); len(again) > 0 {
		f.flush(again) // under the locks this time: these conversations are no longer in memory
	}
}

// outcome holds the results of a committed batch.
type outcome struct {
	verdicts []error            // per request
	locked   []bool             // per request: its conversation is held by another node
	records  []ds.Record        // of conversations, each conversation's in order
	heads    map[ds.LogID]int64 // of the logs that moved

	conversations map[ds.ConversationID]*Conversation // as the batch left them
}

// answer answers the requests of a batch and returns those that have to run again. A retryable
// fault is the answer to all of them, never a refusal: they retry under the same message id.
func (f *flusher) answer(batch []*Request, out outcome, err error) (again []*Request) {
	if err != nil {
		f.engine.metrics.storeFailed(err)
		err = translate(err)
	} else {
		f.engine.tails.addBatch(out.records, f.engine.wakes.isFollowed)
		for log, pos := range out.heads {
			f.engine.wakes.wake(log, pos)
		}
	}
	for i, r := range batch {
		isLost := err == nil && out.locked[i] || errors.Is(err, errRunAgain)
		switch {
		case err == nil && out.conversations[r.Conversation].hasMoved:
			again = append(again, r)
		case isLost && time.Now().Before(r.deadline) && !r.isAnswered.Load():
			f.hold(r)
		case isLost:
			f.end(r, errBusy)
		case err != nil:
			f.end(r, err)
		default:
			f.end(r, out.verdicts[i])
		}
	}
	return again
}

// errRunAgain marks a lost race: the request is decided again.
var errRunAgain = errors.New("lost a race")

// translate converts an error of the database for a lone request into its answer.
func translate(err error) error {
	switch {
	case store.IsHeadTaken(err), store.IsLockLost(err):
		return fmt.Errorf("%w: %w", errRunAgain, err)
	case errors.Is(err, store.ErrMoved): // under the lock: only a writer without locks can cause it
		return ds.Unavailable(err)
	}
	return err
}

// attempt runs one batch: lock, then load, decide in order of arrival, write. If it was
// decided from memory and a write shows that memory is outdated, it runs again under the
// locks, which show the heads that have moved.
func (f *flusher) attempt(batch []*Request) (outcome, error) {
	// The batch has a context of its own: no single caller may cancel it for the others.
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	for mayTrust := true; ; mayTrust = false {
		var out outcome
		err := f.engine.store.Append(ctx, func(tx *store.Tx) error {
			var err error
			out, err = f.decide(tx, batch, mayTrust)
			return err
		})
		switch {
		case err == nil:
			f.known.remember(out.conversations)
			return out, nil
		case errors.Is(err, store.ErrMoved) && mayTrust:
			continue
		case ds.IsUnavailable(err) && !store.IsLockLost(err) || errors.Is(err, store.ErrMoved): // it may have been written
			for _, r := range batch {
				f.known.forget(r.Conversation)
			}
		}
		return outcome{}, err
	}
}

func (f *flusher) decide(tx *store.Tx, batch []*Request, mayTrust bool) (outcome, error) {
	out := outcome{verdicts: make([]error, len(batch)), locked: make([]bool, len(batch))}
	loaded, err := f.load(tx, batch, mayTrust)
	if err != nil {
		return out, err
	}
	write, now := store.Batch{}, f.engine.now()
	for _, c := range loaded.conversations {
		c.Out, c.before = &write, c.Head
	}
	for i, r := range batch {
		if loaded.locked[r.Conversation] {
			out.locked[i] = true
			continue
		}
		out.verdicts[i] = r.Rule.Decide(loaded.conversations[r.Conversation], now)
	}
	out.heads = make(map[ds.LogID]int64, len(loaded.conversations))
	var unverified []ds.ConversationID
	for id, c := range loaded.conversations {
		switch {
		case !c.isVerified():
			unverified = append(unverified, id)
			continue
		case c.created:
			write.Created = append(write.Created, c.Head)
		case c.touched:
			write.Changed = append(write.Changed, store.Change{Before: c.before, After: c.Head})
		default:
			continue
		}
		out.heads[ds.ConversationLog(id)] = c.Head.Pos
	}
	for _, e := range write.Events {
		out.heads[ds.AccountLog(e.Account)] = unknownHead
	}
	out.records, out.conversations = write.Records, loaded.conversations
	if err := verify(tx, loaded.conversations, unverified); err != nil {
		return out, err
	}
	return out, tx.Logs.Write(write)
}

// verify sets hasMoved for conversations that were decided from memory, are not written to,
// and no longer have the head that they were decided on: data loaded before may not be valid
// for them.
func verify(tx *store.Tx, conversations map[ds.ConversationID]*Conversation, ids []ds.ConversationID) error {
	heads, err := tx.Logs.HeadVersions(ids)
	for _, id := range ids {
		c := conversations[id]
		at, isThere := heads[id]
		c.hasMoved = !isThere || !at.IsEqual(c.before.Version())
	}
	return err
}
