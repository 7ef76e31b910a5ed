package core

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

// request is a change of one conversation that a flusher is to make.
type request struct {
	conversation ds.ConversationID
	who          ds.Caller
	messageID    ds.MessageID // "" unless the request is a message
	needs        Needs
	bytes        int // that it keeps alive; begin adds names and the request itself
	rule         rule

	deadline time.Time
	err      error         // valid once the request is answered
	done     chan struct{} // closed with the answer, if a caller waits for it
	tell     func()        // else called with it

	state      atomic.Int32 // waiting, taken, or abandoned
	isAnswered atomic.Bool
	order      uint64    // of arrival, within the flusher
	tries      int       // for a lock that another transaction held
	due        time.Time // of the next try
	isSingle   bool      // it runs alone, because a batch with it failed
	bill       bill
}

// rule decides a request as a pure function of what was loaded: it may run more than once,
// each time over fresh state, and the last run counts.
type rule interface {
	decide(c *conversation, nowMS int64) error
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
func (r *request) answer(err error) {
	r.err = err
	if r.tell != nil {
		r.tell()
		return
	}
	close(r.done)
}

// begin passes a request to its conversation's flusher. Requests for one conversation that are
// passed one after the other take effect in that order. If there is an error, it is the
// answer; otherwise the request will be answered.
func (s *Service) begin(r *request) error {
	if err := r.checkNames(); err != nil {
		return err
	}
	r.bytes += requestBytes + len(r.conversation) + len(r.messageID) + len(r.needs.Message) + len(r.who.Account) + len(r.who.Device)
	r.deadline = time.Now().Add(requestTimeout)
	f := s.flushers[maphash.String(s.seed, string(r.conversation))%uint64(len(s.flushers))]
	select {
	case <-s.closing:
		return errClosed
	default:
	}
	if f.bytes.Add(int64(r.bytes)) > queueBytesMax {
		f.bytes.Add(-int64(r.bytes))
		return errFull
	}
	select {
	case f.queue <- r:
	default:
		f.bytes.Add(-int64(r.bytes))
		return errFull
	}
	select {
	case <-f.ended:
		f.refuseRest() // the flusher does not any more
	default:
	}
	return nil
}

// checkNames refuses a request with invalid names, before anything of it is kept.
func (r *request) checkNames() error {
	switch {
	case len(r.who.Account) > ds.AccountBytesMax || len(r.who.Device) > deviceNameBytesMax:
		return ds.Refuse(ds.InvalidRequest, "the caller's name is too long")
	case r.messageID != "":
		return CheckIDs(r.conversation, r.messageID)
	case r.needs.Message != "":
		return CheckIDs(r.conversation, r.needs.Message)
	}
	return checkConversationID(r.conversation)
}

// nameBytes returns the bytes that a list of accounts keeps alive.
func nameBytes(accounts []ds.AccountID) int {
	n := 0
	for _, account := range accounts {
		n += requestNameBytes + len(account)
	}
	return n
}

// weight returns the bytes of a request within a batch: its own, and those that may be loaded
// for it.
func (r *request) weight() int {
	if r.needs.Everyone {
		return r.bytes + everyoneBytes
	}
	return r.bytes
}

var errFull = ds.Unavailable(errors.New("too many requests are waiting"))

// submit does the work of begin and waits for the answer. If ctx ends before the request is
// taken, it is withdrawn; afterwards its outcome is unknown and reported as unavailable.
func (s *Service) submit(ctx context.Context, r *request) error {
	r.done = make(chan struct{})
	if err := s.begin(r); err != nil {
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

// refuseRest answers requests that arrived while the flusher ended. begin checks after it has
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

// end does the work of finish for a request that has been in a batch: it counts its outcome,
// which is final now. Only the flusher itself ends a request.
func (f *flusher) end(r *request, err error) {
	r.bill.Settle(f.s.limits, err)
	if r.bill.isRepeat && err == nil {
		f.s.metrics.duplicates.Inc()
	}
	if r.bill.lostRace && ds.CodeOf(err) == ds.EpochConflict {
		f.s.metrics.commitConflicts.Inc()
	}
	f.finish(r, err)
}

// finish answers a request and frees its place. The first answer counts.
func (f *flusher) finish(r *request, err error) {
	if r.isAnswered.CompareAndSwap(false, true) {
		f.bytes.Add(-int64(r.bytes))
		r.answer(err)
	}
}

// watch answers requests while the store does not return from one attempt, as with a disk that
// hangs: those of the attempt, with an unknown outcome, the held ones, and all that wait or
// arrive meanwhile. It ends when over is called.
func (f *flusher) watch(batch []*request) (over func()) {
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
type line []*request

// hold keeps a request for another attempt. The first attempts skip locked heads; later ones
// wait for the locks in a transaction of their own, where they delay no other request.
func (f *flusher) hold(r *request) {
	r.tries++
	r.due = time.Now().Add(holdDelay * time.Duration(r.tries))
	if r.isAlone() {
		r.due = time.Now().Add(holdAloneDelay)
	}
	f.keep(r)
}

// keep adds a request to its conversation's line.
func (f *flusher) keep(r *request) {
	if f.heldRequests >= queueRequestsMax {
		f.end(r, errBusy)
		return
	}
	if r.due.IsZero() {
		r.due = time.Now()
	}
	f.heldRequests++
	l := f.held[r.conversation]
	i, _ := slices.BinarySearchFunc(l, r, func(a, b *request) int { return cmp.Compare(a.order, b.order) })
	f.held[r.conversation] = slices.Insert(l, i, r)
}

// isBehind reports whether an earlier request for the same conversation is held.
func (f *flusher) isBehind(r *request) bool {
	l := f.held[r.conversation]
	return len(l) > 0 && l[0].order < r.order
}

// isAlone reports whether the next attempt waits for its locks, alone.
func (r *request) isAlone() bool { return r.tries >= holdTries }

// retryAlone runs the requests that are due and run alone, until holdAloneTurn has passed:
// each may wait for its locks, and the queue waits for all of them.
func (f *flusher) retryAlone() {
	for began := time.Now(); ; {
		r := f.takeAlone()
		if r == nil {
			return
		}
		f.flush([]*request{r})
		if time.Since(began) >= holdAloneTurn {
			return
		}
	}
}

// takeAlone removes and returns the request that has been due longest, of those that run alone
// and are the first of their line; nil if there is none.
func (f *flusher) takeAlone() *request {
	f.expire()
	now := time.Now()
	var first *request
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
		f.leave(first.conversation, 1)
	}
	return first
}

// takeHeld removes and returns held requests that are due and may share a batch, whole lines
// of them as far as they fit. One always fits.
func (f *flusher) takeHeld(countMax, bytesMax int) []*request {
	f.expire()
	var due []*request
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
