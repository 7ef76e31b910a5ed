package client

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// batchEvents bounds the events in one transaction.
	batchEvents = 64
	// answerTimeout bounds the wait for an answer of the server.
	answerTimeout = 45 * time.Second
	// jobsMax bounds concurrent HTTP calls.
	jobsMax = 4
)

// session is one active connection. It remembers only its requests on this connection; the work
// to do is recorded in the home, so a session may end at any point and the next one continues.
//
// One goroutine runs it. HTTP calls are jobs on goroutines of their own; they write to the home
// and report through done.
type session struct {
	c      *Client
	wire   connection
	calls  service
	worked bool // a log event was applied, or a request was answered

	lastID   int
	requests map[int]request // by number
	subs     map[string]*subscription
	due      map[string]bool // conversations and chores to advance

	devicePos, deviceAcked int64 // account log: applied, acknowledged

	available int64 // the server's last count of the pool of key packages; -1: unknown
	jobs      map[string]bool
	done      chan finished
	slots     chan struct{}
	tasks     sync.WaitGroup

	entries    map[string]entry // conversations with a group to be requested
	entering   int              // requests for groups under way
	entrySlots chan struct{}    // for these requests, which must not occupy the other slots
}

// request is a request that expects an answer.
type request struct {
	conversation string
	outgoing     int64  // the row of a message
	commit       string // or the id of a commit
}

// subscription is the state of a conversation on this connection. Chores have one too, for
// their retries.
type subscription struct {
	active        bool      // subscribed
	wasSubscribed bool      // since it last ended
	caughtUp      bool      // all events from before the subscription have come
	missing       bool      // an event is missing and was requested
	applied       int64     // the last event applied
	acked         int64     // the last event acknowledged
	lastEventAt   time.Time // of an event, or of the subscription

	sending     bool      // a message waits for its answer
	sentThrough int64     // the last row of the outbox that the server has
	holdEpoch   uint64    // no message is encrypted in a lower epoch: the server is ahead
	heldAt      time.Time // start of that delay

	committing         bool      // a commit waits for its answer
	answered           string    // the pending commit that need not be sent again: acknowledged, or beaten
	hasFetched         bool      // key packages were requested
	hasWaited          bool      // has waited for an invitation
	mustCommit         bool      // proposals of others keep messages from being encrypted
	overlap, overlapTo int64     // the earlier events that the subscription begins with and that are still to come
	earliest           int64     // the server has refused to begin before this event
	rewinds            int       // of the log, in a row
	rewoundAt          time.Time // of the last one
	rosterDue          bool      // the members on the server have to be requested
	rosterRequested    bool      // and were requested
	lostRaces          int       // of commits, in a row
	isDone             bool      // a chore
	mustRedo           bool      // and was marked again while it ran
	follow             retry
	send               retry
	commit             retry
	checkedForRemovals removalCheck // when the group last had no one to be removed
	reported           uint64       // the last epoch with a reported authenticator
	remove             retry        // when this device may commit a removal that any member may
	introduce          retry        // when this device sends its account's name by itself
	roles              retry        // when the roles that members speak of may be requested
	report             retry        // when the epoch authenticator is reported
	refetch            retry        // when packages may be fetched again of accounts with unusable ones; of a chore, when it is due again
}

func (s *subscription) retries() [8]*retry {
	return [...]*retry{&s.follow, &s.send, &s.commit, &s.remove, &s.introduce, &s.roles, &s.report, &s.refetch}
}

// hold delays the messages of the conversation until it has applied the commits that the server
// already has.
func (s *subscription) hold(epoch uint64) {
	if epoch > s.holdEpoch {
		s.holdEpoch, s.heldAt = epoch, time.Now()
	}
}

// retry spaces the attempts at one thing.
type retry struct {
	failed int
	at     time.Time
}

// The waits between attempts at a request that the server did not carry out.
const (
	retryMin = 300 * time.Millisecond
	retryMax = 15 * time.Second
)

func (r *retry) isReady() bool { return !time.Now().Before(r.at) }
func (r *retry) ok()           { *r = retry{} }

// sooner makes it ready after wait, unless it is ready earlier.
func (r *retry) sooner(wait time.Duration) {
	if at := time.Now().Add(wait); r.at.IsZero() || at.Before(r.at) {
		r.at = at
	}
}

func (r *retry) later(err error) {
	r.at = time.Now().Add(r.wait(err))
}

// wait records a failure, and returns the wait after it.
func (r *retry) wait(err error) time.Duration {
	r.failed++
	if refusal := asRefusal(err); refusal != nil && refusal.RetryAfter > 0 {
		return refusal.RetryAfter
	}
	return backoff(r.failed, retryMin, retryMax)
}

// finished is a completed job.
type finished struct {
	name string // of the conversation or chore
	err  error
	then func(error)
}

// The chores of a connection. Their names cannot be conversation ids.
const (
	choreList        = "\x00list"
	choreKeyPackages = "\x00keypackages"
	choreRevoke      = "\x00revoke"
	choreEntries     = "\x00entries"
)

func newSession(c *Client, wire connection, calls service) *session {
	return &session{c: c, wire: wire, calls: calls, requests: map[int]request{}, subs: map[string]*subscription{},
		due: map[string]bool{choreList: true, choreKeyPackages: true, choreRevoke: true}, available: -1,
		jobs: map[string]bool{}, done: make(chan finished), slots: make(chan struct{}, jobsMax),
		entries: map[string]entry{}, entrySlots: make(chan struct{}, entriesMax)}
}

func (s *session) sub(name string) *subscription {
	sub, ok := s.subs[name]
	if !ok {
		sub = &subscription{}
		s.subs[name] = sub
	}
	return sub
}

// serve works until the connection ends, and returns the cause.
func (s *session) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.tasks.Wait()
	defer cancel()
	err := s.c.db.update(ctx, func(tx *tx) (err error) {
		for _, conv := range tx.conversations() {
			s.due[conv.id] = true
		}
		s.devicePos, err = tx.Counters.Get("device_pos")
		s.deviceAcked = s.devicePos
		return err
	})
	heartbeat := time.NewTicker(s.c.options.PingInterval)
	defer heartbeat.Stop()
	for err == nil {
		if err = s.advanceDue(ctx); err != nil {
			break
		}
		s.acknowledge()
		timer := time.NewTimer(s.nextRetry())
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case e, ok := <-s.wire.incoming():
			if !ok {
				err = s.wire.failure()
				break
			}
			err = s.takeIncoming(ctx, e)
		case <-s.c.woken.bell:
			for id := range s.c.woken.takeAll() {
				s.doAgain(id)
			}
		case f := <-s.done:
			err = s.finish(f)
		case <-timer.C:
			s.wakeRetries()
		case <-heartbeat.C:
			err = s.beat()
		}
		timer.Stop()
	}
	return err
}

// takeIncoming applies an event and those that are already queued.
func (s *session) takeIncoming(ctx context.Context, e event) error {
	events := []event{e}
	for len(events) < batchEvents {
		isMore := false
		select {
		case e, isMore = <-s.wire.incoming(): // if closed, the next receive reports it again
		default:
		}
		if !isMore {
			break
		}
		events = append(events, e)
	}
	return s.take(ctx, events)
}

// beat checks that the server is still alive.
func (s *session) beat() error {
	if err := s.wire.check(s.c.options.PingInterval); err != nil {
		return err
	}
	held := s.wire.heldBack()
	for id, sub := range s.subs {
		if !sub.heldAt.IsZero() && time.Since(sub.heldAt) > answerTimeout {
			s.due[id] = true
		}
		if sub.active && !sub.caughtUp && min(time.Since(sub.lastEventAt), time.Since(held)) > answerTimeout {
			return errors.New("timeout of a replay")
		}
	}
	return nil
}

// number assigns a number to a request that expects an answer.
func (s *session) number(r request) int {
	s.lastID++
	s.requests[s.lastID] = r
	return s.lastID
}

// start runs fn as a job for the conversation or chore name, unless one is running. fn may not
// touch the session; then, if not nil, runs on the session's goroutine.
func (s *session) start(ctx context.Context, name string, fn func(ctx context.Context) error, then func(error)) {
	s.startIn(ctx, s.slots, name, fn, then)
}

// startIn is start with slots of its own.
func (s *session) startIn(ctx context.Context, slots chan struct{}, name string, fn func(ctx context.Context) error, then func(error)) {
	if s.jobs[name] {
		return
	}
	s.jobs[name] = true
	s.tasks.Add(1)
	go func() {
		defer s.tasks.Done()
		f := finished{name: name, then: then}
		select {
		case slots <- struct{}{}:
			f.err = fn(ctx)
			<-slots
		case <-ctx.Done():
			return
		}
		select {
		case s.done <- f:
		case <-ctx.Done():
		}
	}()
}

// finish handles the result of a job.
func (s *session) finish(f finished) error {
	delete(s.jobs, f.name)
	s.due[f.name] = true
	if f.then != nil {
		f.then(f.err)
	}
	sub := s.sub(f.name)
	if f.err == nil {
		sub.commit.ok()
		sub.isDone, sub.mustRedo = !sub.mustRedo, false
		return nil
	}
	if r := asRefusal(f.err); r != nil && r.Code == codeUnauthorized {
		return f.err // the session is over: begin another
	}
	sub.commit.later(f.err)
	s.c.log.Debug("will try again", "what", f.name, "err", f.err)
	return nil
}

// doAgain marks a conversation, or a chore even if it is done or running: its input may be
// older than the reason for this call.
func (s *session) doAgain(name string) {
	sub := s.sub(name)
	s.due[name], sub.isDone, sub.mustRedo = true, false, s.jobs[name]
}

// nextRetry returns the time until the next retry.
func (s *session) nextRetry() time.Duration {
	if len(s.due) > 0 {
		return time.Millisecond // marked while others were advanced
	}
	wait := time.Minute
	now := time.Now()
	for _, sub := range s.subs {
		for _, r := range sub.retries() {
			if !r.at.IsZero() {
				wait = min(wait, max(r.at.Sub(now), time.Millisecond))
			}
		}
	}
	return wait
}

// wakeRetries marks the conversations and chores with a retry that is ready.
func (s *session) wakeRetries() {
	for name, sub := range s.subs {
		for _, r := range sub.retries() {
			if !r.at.IsZero() && r.isReady() {
				r.at = time.Time{}
				s.doAgain(name)
			}
		}
	}
}

// acknowledge acknowledges to the server the events that are on disk in the home, and no
// others.
func (s *session) acknowledge() {
	for id, sub := range s.subs {
		if sub.applied > sub.acked && sub.active {
			s.wire.acknowledge(id, sub.applied)
			sub.acked = sub.applied
		}
	}
	if s.devicePos > s.deviceAcked {
		s.wire.acknowledge(accountLog, s.devicePos)
		s.deviceAcked = s.devicePos
	}
}
