package logs

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Request is a change of one conversation. Its names are valid identifiers.
type Request struct {
	Conversation ds.ConversationID
	Account      ds.AccountID // of the caller: its stays are loaded
	Message      ds.MessageID // "" unless the request appends a message
	Needs        Needs
	Bytes        int // that the rule keeps alive; the engine adds the names above and the request itself
	Rule         Rule

	deadline time.Time
	err      error         // valid once done is closed
	done     chan struct{} // closed with the answer, if a caller waits for it
	tell     func(error)   // else called with it

	state      atomic.Int32 // waiting, taken, or abandoned
	isAnswered atomic.Bool
	order      uint64    // of arrival, within the flusher
	tries      int       // for a lock that another transaction held
	due        time.Time // of the next try
	isSingle   bool      // it runs alone, because a batch with it failed
}

// Needs lists the data that a rule needs besides the head, the caller's stays and the record
// of the request's own message id.
type Needs struct {
	Accounts  []ds.AccountID // their stays
	Everyone  bool           // the present stays of all members
	Message   ds.MessageID   // the position of another message, or ""
	Reactions bool           // the caller's reactions to Message
	GroupInfo bool           // the epoch of the stored GroupInfo
}

// Rule decides requests. Its methods are called by one goroutine.
type Rule interface {
	// Decide accepts a request by changing c, or refuses it and leaves c as it was. It is a
	// pure function of what was loaded: it may run more than once, each time over fresh state
	// and at another time, and the last run counts.
	Decide(c *Conversation, now time.Time) error
	// Ended is called once, after the last run, with the answer to the caller; a caller may
	// have been answered before that the outcome is unknown.
	Ended(err error)
}

const (
	waiting int32 = iota
	taken
	abandoned
)

// errLate is the answer to requests for which a slow store leaves no time.
var errLate = ds.Unavailable(errors.New("the request waited too long for the store"))

var errBusy = ds.Unavailable(errors.New("what this request changes is busy elsewhere"))

// answer ends the request with its answer. It is called once, see finish.
func (r *Request) answer(err error) {
	if r.tell != nil {
		r.tell(err)
		return
	}
	r.err = err
	close(r.done)
}

// Begin passes a request to its conversation's flusher. Requests for one conversation that are
// passed one after the other take effect in that order. If it returns an error, that is the
// answer; otherwise done is called with the answer, once, perhaps before Begin returns. Its
// goroutine answers many requests, so done must not block.
func (e *Engine) Begin(r *Request, done func(error)) error {
	r.tell = done
	return e.queue(r)
}

func (e *Engine) queue(r *Request) error {
	r.Bytes += requestBytes + len(r.Conversation) + len(r.Message) + len(r.Needs.Message) + len(r.Account)
	r.deadline = time.Now().Add(requestTimeout)
	f := e.flushers[maphash.String(e.seed, string(r.Conversation))%uint64(len(e.flushers))]
	select {
	case <-e.closing:
		return errClosed
	default:
	}
	if f.bytes.Add(int64(r.Bytes)) > queueBytesMax {
		f.bytes.Add(-int64(r.Bytes))
		return errFull
	}
	select {
	case f.queue <- r:
	default:
		f.bytes.Add(-int64(r.Bytes))
		return errFull
	}
	select {
	case <-f.ended:
		f.refuseRest() // the flusher does not any more
	default:
	}
	return nil
}

// weight returns the bytes of a request within a batch: its own, and those that may be loaded
// for it.
func (r *Request) weight() int {
	if r.Needs.Everyone {
		return r.Bytes + everyoneBytes
	}
	return r.Bytes
}

var errFull = ds.Unavailable(errors.New("too many requests are waiting"))

// Submit passes a request to its conversation's flusher, and waits for the answer. If ctx ends
// before the request is taken, it is withdrawn; afterwards its outcome is unknown and reported
// as unavailable.
func (e *Engine) Submit(ctx context.Context, r *Request) error {
	r.done = make(chan struct{})
	if err := e.queue(r); err != nil {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		r.state.CompareAndSwap(waiting, abandoned)
		return ds.Unavailable(ctx.Err())
	}
}

// refuseRest answers requests that arrived while the flusher ended. queue checks after it has
// enqueued whether the flusher has ended, and the flusher checks the queue after it has, so
// that one of the two finds the request.
func (f *flusher) refuseRest() {
	for {
		select {
		case r := <-f.queue:
			f.finish(r, errClosed)
		default:
			return
		}
	}
}

// end does the work of finish for a request that has been in a batch: its outcome is final
// now. Only the flusher itself ends a request.
func (f *flusher) end(r *Request, err error) {
	r.Rule.Ended(err)
	f.finish(r, err)
}

// finish answers a request and frees its place. The first answer counts.
func (f *flusher) finish(r *Request, err error) {
	if r.isAnswered.CompareAndSwap(false, true) {
		f.bytes.Add(-int64(r.Bytes))
		r.answer(err)
	}
}

// watch answers requests while the store does not return from one attempt, as with a disk that
// hangs: those of the attempt, with an unknown outcome, the held ones, and all that wait or
// arrive meanwhile. It ends when over is called.
func (f *flusher) watch(batch []*Request) (over func()) {
	stuck := batch
	if f.heldRequests > 0 {
		stuck = slices.Clone(batch)
		for _, l := range f.held {
			stuck = append(stuck, l...)
		}
	}
	done := make(chan struct{})
	timer := time.AfterFunc(batchTimeout, func() {
		for _, r := range stuck {
			f.finish(r, errLate)
		}
		for {
			select {
			case r := <-f.queue:
				f.finish(r, errLate)
			case <-done:
				return
			}
		}
	})
	return func() {
		timer.Stop()
		close(done)
	}
}

// line holds the held requests of one conversation, in order of arrival: the first waits for a
// lock that another node has, or for an attempt alone; the others wait behind it.
type line []*Request

// hold keeps a request for another attempt. The first attempts skip locked heads; later ones
// wait for the locks in a transaction of their own, where they delay no other request.
func (f *flusher) hold(r *Request) {
	r.tries++
	r.due = time.Now().Add(holdDelay * time.Duration(r.tries))
	if r.isAlone() {
		r.due = time.Now().Add(holdAloneDelay)
	}
	f.keep(r)
}

// keep adds a request to its conversation's line.
func (f *flusher) keep(r *Request) {
	if f.heldRequests >= queueRequestsMax {
		f.end(r, errBusy)
		return
	}
	if r.due.IsZero() {
		r.due = time.Now()
	}
	f.heldRequests++
	l := f.held[r.Conversation]
	i, _ := slices.BinarySearchFunc(l, r, func(a, b *Request) int { return cmp.Compare(a.order, b.order) })
	f.held[r.Conversation] = slices.Insert(l, i, r)
}

// isBehind reports whether an earlier request for the same conversation is held.
func (f *flusher) isBehind(r *Request) bool {
	l := f.held[r.Conversation]
	return len(l) > 0 && l[0].order < r.order
}

// isAlone reports whether the next attempt waits for its locks, alone.
func (r *Request) isAlone() bool { return r.tries >= holdTries }

// retryAlone runs the requests that are due and run alone, until holdAloneTurn has passed:
// each may wait for its locks, and the queue waits for all of them.
func (f *flusher) retryAlone() {
	for began := time.Now(); ; {
		r := f.takeAlone()
		if r == nil {
			return
		}
		f.flush([]*Request{r})
		if time.Since(began) >= holdAloneTurn {
			return
		}
	}
}

// takeAlone removes and returns the request that has been due longest, of those that run alone
// and are the first of their line; nil if there is none.
func (f *flusher) takeAlone() *Request {
	f.expire()
	now := time.Now()
	var first *Request
	for _, l := range f.held {
		r := l[0]
		if !r.isAlone() && !r.isSingle || now.Before(r.due) {
			continue
		}
		if first == nil || r.due.Before(first.due) || r.due.Equal(first.due) && r.order < first.order {
			first = r
		}
	}
	if first != nil {
		f.leave(first.Conversation, 1)
	}
	return first
}

// takeHeld removes and returns held requests that are due and may share a batch, whole lines
// of them as far as they fit. One always fits.
func (f *flusher) takeHeld(countMax, bytesMax int) []*Request {
	f.expire()
	var due []*Request
	now, bytes := time.Now(), 0
	for id, l := range f.held {
		n := 0
		for n < len(l) && !now.Before(l[0].due) && !l[n].isAlone() && !l[n].isSingle &&
			(len(due) == 0 || len(due) < countMax && bytes+l[n].weight() <= bytesMax) {
			due, bytes = append(due, l[n]), bytes+l[n].weight()
			n++
		}
		f.leave(id, n)
	}
	return due
}

// leave removes the first n requests of a line.
func (f *flusher) leave(id ds.ConversationID, n int) {
	f.heldRequests -= n
	if f.held[id] = f.held[id][n:]; len(f.held[id]) == 0 {
		delete(f.held, id)
	}
}

// expire answers requests that have waited too long and drops those that were answered
// already.
func (f *flusher) expire() {
	now := time.Now()
	for id, l := range f.held {
		kept := l[:0]
		for _, r := range l {
			if now.Before(r.deadline) && !r.isAnswered.Load() {
				kept = append(kept, r)
				continue
			}
			f.heldRequests--
			f.end(r, errBusy)
		}
		clear(l[len(kept):])
		if f.held[id] = kept; len(kept) == 0 {
			delete(f.held, id)
		}
	}
}

// nextDue returns the time at which the next held request is due.
func (f *flusher) nextDue() (due time.Time) {
	for _, l := range f.held {
		if due.IsZero() || l[0].due.Before(due) {
			due = l[0].due
		}
	}
	return due
}
