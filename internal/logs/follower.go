package logs

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Follower reads any number of logs for one caller: it is the one loop behind WebSocket, SSE
// and every other stream. It keeps a cursor per log and no records, so a slow reader costs no
// memory, and live delivery is the same as catching up.
//
// One goroutine calls Next or NextOr; others may call Follow and Acknowledge.
type Follower struct {
	engine *Engine
	who    ds.Caller

	// Former lets a former member read up to the record that ended its stay.
	// Otherwise it is refused, as in gateway v1. It is set before the first Follow.
	Former bool
	// BodyMax, if it is not 0, leaves longer messages and Welcomes in the store: see
	// ds.Record.Left. It is set before the first Follow.
	BodyMax int
	// Cut is called to end the reader if it is slow to send a page and others wait for the
	// memory. It must not block. It is set before the first Follow; nil does nothing.
	Cut func()

	listener *Listener // or nil

	turn pageTurn // of the last page

	mu     sync.Mutex
	logs   map[ds.LogID]*follow // mu guards the fields from here on, except signal
	ready  []*follow
	closed bool
	signal chan struct{} // holds a token while ready may not be empty
}

// follow is the state of reading one log.
type follow struct {
	owner *Follower
	log   ds.LogID
	home  string

	pos  atomic.Int64 // of the last record read
	seq  atomic.Int64 // of the last message returned, or where reading began
	asOf int64        // the pos at which the caller was seen to be a member
	head int64        // seq (conversation) or pos (account log) when the follow began
	goal int64        // pos when the follow began; a follow that reaches it has caught up

	queued   bool  // owner.mu guards it
	wanted   int64 // the head that woke it; owner.mu guards it
	caughtUp bool  // Next's goroutine only
	isBehind bool  // the last page was cut; Next's goroutine only
}

// Page is a result of Next: records of one log, in order.
type Page struct {
	Log  ds.LogID
	Home string // "" is this service
	// Records are messages and control records of a conversation, or those records of
	// an account log that the caller's device may see.
	Records []ds.Record
	// Frames are parallel to the records of a conversation if readers share them, else nil.
	Frames []*Frames
	// Events are parallel to the records of an account log.
	Events []ds.DeviceEvent
	// CaughtUp is set once in a follow, on the page that completes the records that existed
	// when it began; Head is the log's seq (account log: pos) at that moment.
	CaughtUp bool
	Head     int64
	// Ended is the reason why this log returns nothing more. Records precede it.
	Ended *ds.Refusal
}

// ErrClosed is returned by Next once the follower or the service is closed.
var ErrClosed = errors.New("the follower is closed")

// NewFollower returns a Follower without logs. Close must be called.
func (e *Engine) NewFollower(who ds.Caller) *Follower {
	f := &Follower{engine: e, who: who, logs: map[ds.LogID]*follow{}, signal: make(chan struct{}, 1)}
	f.turn.reader = f
	return f
}

// register creates a follow that is woken by appends from now on. Earlier records are in every
// snapshot taken after it, so none is missed, and a reader that has the whole snapshot need
// not read.
func (f *Follower) register(log ds.LogID) *follow {
	next := &follow{owner: f, log: log}
	f.engine.follows.add(f.who.Account, 1)
	f.engine.wakes.add(next)
	return next
}

// start makes registered follows readable by Next. If err is not nil or the follower is
// closed, it ends them and returns the error.
func (f *Follower) start(err error, registered ...*follow) error {
	f.mu.Lock()
	if err == nil && f.closed {
		err = ErrClosed
	}
	over := registered
	if err == nil {
		over = nil
		for _, next := range registered {
			if old := f.logs[next.log]; old != nil {
				over = append(over, old)
			}
			f.logs[next.log] = next
		}
		for _, next := range registered { // before any wake-up, so in this order
			f.queue(next, next.goal)
		}
	}
	f.mu.Unlock()
	for _, one := range over {
		f.engine.unfollow(one)
	}
	return err
}

// drop removes a follow, unless another of its log has taken its place.
func (f *Follower) drop(one *follow) {
	f.mu.Lock()
	isHere := f.logs[one.log] == one
	if isHere {
		delete(f.logs, one.log)
	}
	f.mu.Unlock()
	if isHere {
		f.engine.unfollow(one)
	}
}

// Close ends Next and removes every log.
func (f *Follower) Close() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	logs := f.logs
	f.logs = nil
	close(f.signal)
	f.mu.Unlock()
	f.turn.close()
	for _, old := range logs {
		f.engine.unfollow(old)
	}
}

func (f *Follower) cutOff() {
	if f.Cut != nil {
		f.Cut()
	}
}

// enqueue marks a log as readable up to head, even if its follow has not started yet.
func (f *Follower) enqueue(one *follow, head int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.queue(one, head)
	}
}

// queue does the work of enqueue. The caller holds mu.
func (f *Follower) queue(one *follow, head int64) {
	one.wanted = max(one.wanted, head)
	if f.logs[one.log] != one || one.queued {
		return
	}
	one.queued = true
	f.ready = append(f.ready, one)
	wakeUp(f.signal)
}

// wakeUp leaves a token in signal, if there is none.
func wakeUp(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

// isReading reports whether a follow has started and not ended.
func (f *Follower) isReading(one *follow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logs[one.log] == one
}

// dequeue returns the next log to read, and the head that it is expected to have.
func (f *Follower) dequeue() (*follow, int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ready) > 0 {
		one := f.ready[0]
		if len(f.ready) > 64 { // moving so many each time costs more than a new slice later
			f.ready[0] = nil
			f.ready = f.ready[1:]
		} else {
			f.ready = slices.Delete(f.ready, 0, 1)
		}
		wanted := one.wanted
		one.queued, one.wanted = false, 0 // before reading, so that a wake-up during the read counts
		if f.logs[one.log] == one && (!one.caughtUp || one.pos.Load() < wanted) {
			return one, wanted // not read up to the head that woke it
		}
	}
	return nil, 0
}

// IsBusy reports whether Next has a log to read without waiting for one.
func (f *Follower) IsBusy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ready) > 0
}

// Next waits until a followed log has something to read and returns one page of it, which the
// caller drops before the next call. Logs take turns, page by page. Next retries after a fault
// that may pass, so it only fails with ctx's error, ErrClosed or an internal fault.
func (f *Follower) Next(ctx context.Context) (Page, error) {
	page, _, err := f.NextOr(ctx, nil)
	return page, err
}

// NextOr does the work of Next, but returns without a page if other has something while there
// is nothing to read. With the channel of a Listener, the caller calls Take after each page too.
func (f *Follower) NextOr(ctx context.Context, other <-chan struct{}) (page Page, isPage bool, err error) {
	f.turn.end()
	for wait := followRetryMin; ; {
		one, wanted := f.dequeue()
		if one == nil {
			f.turn.end() // of a page that had nothing for this reader
			select {
			case _, open := <-f.signal:
				if !open {
					return Page{}, false, ErrClosed
				}
			case <-other:
				return Page{}, false, nil
			case <-ctx.Done():
				return Page{}, false, ctx.Err()
			case <-f.engine.closing:
				return Page{}, false, ErrClosed
			}
			continue
		}
		page, worth, err := f.read(ctx, one, wanted)
		if err != nil {
			if !ds.IsUnavailable(err) || ctx.Err() != nil {
				return Page{}, false, err
			}
			f.enqueue(one, wanted)
			if err := pause(ctx, wait); err != nil {
				return Page{}, false, err
			}
			wait = min(2*wait, followRetryMax)
			continue
		}
		if worth {
			return page, true, nil
		}
		wait = followRetryMin
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read reads one page of a log and reports whether it is worth returning. It moves the cursor
// only when everything that belongs to the page was read.
func (f *Follower) read(ctx context.Context, one *follow, wanted int64) (Page, bool, error) {
	page := Page{Log: one.log, Home: one.home}
	var found welcomes
	var cut bool
	if pos := one.pos.Load(); pos < max(wanted, one.goal) { // else it only has caught up
		var err error
		if found, cut, err = f.load(ctx, &page, one); err != nil {
			return Page{}, false, err
		}
		if one.isConversation() {
			f.engine.noteGaps(page, pos)
		}
	}
	// A short page from the store ends at the head; one from the tail cache may not.
	more := page.Frames != nil || cut
	if one.isConversation() {
		f.endIfRemoved(&page, one)
	}
	if n := len(page.Records); n > 0 {
		if !one.caughtUp {
			// Positions have no gaps, so these are the ones up to the goal.
			f.engine.metrics.recordsReplayed.Add(float64(max(0, min(int64(n), one.goal-page.Records[0].Pos+1))))
		}
		one.pos.Store(page.Records[n-1].Pos)
		f.engine.metrics.recordsRead.Add(float64(n))
	}
	if !one.isConversation() {
		if err := f.keepEvents(&page, found); err != nil {
			return Page{}, false, err
		}
	}
	for _, r := range page.Records {
		if r.Seq > 0 {
			one.seq.Store(r.Seq)
		}
	}
	if page.Ended == nil && !one.caughtUp && one.pos.Load() >= one.goal {
		one.caughtUp = true
		page.CaughtUp, page.Head = true, max(one.head, one.seq.Load())
	}
	one.isBehind = more && one.pos.Load() < wanted
	switch {
	case page.Ended != nil:
		f.drop(one)
	case one.isBehind:
		f.enqueue(one, wanted) // behind the others: logs take turns
	}
	return page, len(page.Records) > 0 || page.CaughtUp || page.Ended != nil, nil
}

func (one *follow) isConversation() bool { return one.log.Conversation() != "" }

// endIfRemoved cuts the page after the record that removes the caller. The membership is read
// from the log itself: the caller was a member at asOf, and every later change is read here.
func (f *Follower) endIfRemoved(page *Page, one *follow) {
	for i, r := range page.Records {
		if r.Kind != ds.Membership || r.Pos <= one.asOf {
			continue
		}
		var change ds.MembershipChange
		if err := json.Unmarshal(r.Body, &change); err != nil || slices.Contains(change.Remove, f.who.Account) {
			page.Records = page.Records[: i+1 : i+1]
			page.Ended = ds.Refuse(ds.Forbidden, "membership revoked")
			return
		}
	}
}

// Acknowledge does the work of Engine.Acknowledge for a log that this follower reads: what it has
// returned needs no check in the store.
func (f *Follower) Acknowledge(ctx context.Context, log ds.LogID, n int64) error {
	if f.AcknowledgeRead(log, n) {
		return nil
	}
	return f.engine.Acknowledge(ctx, f.who, log, n)
}

// AcknowledgeRead does the work of Acknowledge without the store, if everything up to n was
// returned. Otherwise it does nothing and returns false.
func (f *Follower) AcknowledgeRead(log ds.LogID, n int64) bool {
	f.mu.Lock()
	one := f.logs[log]
	f.mu.Unlock()
	switch {
	case one == nil || n < 0:
		return false
	case one.isConversation() && n > one.seq.Load(), !one.isConversation() && (n == 0 || n > one.pos.Load()):
		return false
	}
	f.engine.cursors.put(f.who.AsDevice(), log, n+1)
	return true
}
