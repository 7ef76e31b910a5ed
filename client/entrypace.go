package client

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"
)

// For a conversation on the server's list without a group here the session requests the
// GroupInfo by which a device can enter. Any account can create any number of such
// conversations, so these requests are bounded, for each conversation and for all together. An
// invitation (Welcome) needs no request: it comes as an event.

const (
	// entryMin and entryMax are the least and the greatest wait between two requests for one
	// conversation; it doubles.
	entryMin = time.Second
	entryMax = 15 * time.Minute
	// entryGiveUp is the total wait after which a conversation is given up.
	entryGiveUp = 24 * time.Hour
	// entriesMax bounds concurrent requests.
	entriesMax = 8
	// entryBurst and entryEvery bound the failed requests for all conversations together: so
	// many at once, and one more in each such period.
	entryBurst = 32
	entryEvery = time.Second
)

// waiting holds the failed requests for a group since it was last entered.
type waiting struct {
	Tries int `json:"tries,omitempty"`
	// NotBefore is the time of the next request, in Unix milliseconds, and WaitedMS the sum of
	// all waits. Time without a request does not count.
	NotBefore int64 `json:"not_before,omitempty"`
	WaitedMS  int64 `json:"waited_ms,omitempty"`
	// GaveUp: no more requests are made.
	GaveUp bool `json:"gave_up,omitempty"`
}

// entryWait returns the wait after so many failed requests, with a jitter of a fifth.
func entryWait(tries int) time.Duration {
	d := entryMin << min(max(tries-1, 0), 20)
	if d > entryMax {
		d = entryMax
	}
	return d*4/5 + rand.N(d*2/5+1)
}

// left returns the time until the next request may be made. A clock that was set back does not
// make it longer.
func (w *waiting) left(now time.Time) time.Duration {
	return min(max(time.UnixMilli(w.NotBefore).Sub(now), 0), 2*entryMax)
}

// waitLonger records a failed request. It gives up a conversation that has never had a group
// here after entryGiveUp; the application is notified if it may be waiting too.
func (k keeper) waitLonger(tx *tx, conv *conversation) error {
	w := &conv.editInfo().Waiting
	w.Tries++
	wait := entryWait(w.Tries)
	w.NotBefore, w.WaitedMS = k.c.now().Add(wait).UnixMilli(), w.WaitedMS+wait.Milliseconds()
	if conv.phase != Waiting || w.WaitedMS < entryGiveUp.Milliseconds() {
		return nil
	}
	w.GaveUp = true
	conv.info.Problem = ErrUnfinished.Error()
	o, err := tx.Outbox.Next(conv.id, 0)
	if err != nil || o == nil && conv.info.Peer == "" {
		return err
	}
	return tx.problem(conv.id, k.c.now(), ErrUnfinished)
}

// Retry requests at once the group of a conversation that has none, also after the client has
// given up (Conversation.GaveUp).
func (c *Client) Retry(ctx context.Context, id string) error {
	return c.change(ctx, id, func(_ *tx, conv *conversation) error {
		conv.askAgain()
		return nil
	})
}

// askAgain forgets the failed requests.
func (c *conversation) askAgain() {
	if c.info.Waiting == (waiting{}) {
		return
	}
	info := c.editInfo()
	if info.Waiting.GaveUp {
		info.Problem = ""
	}
	info.Waiting = waiting{}
}

// pacer allows entryBurst actions at once, and one in each entryEvery after that. It is safe
// for concurrent use.
type pacer struct {
	mu    sync.Mutex
	spent float64   // guarded by mu
	at    time.Time // of spent; guarded by mu
}

// take takes one, or returns the wait until one is available.
func (p *pacer) take() (wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.at.IsZero() {
		p.spent = max(0, p.spent-float64(now.Sub(p.at))/float64(entryEvery))
	}
	p.at = now
	if p.spent > entryBurst-1 {
		return max(time.Duration((p.spent-(entryBurst-1))*float64(entryEvery)), time.Millisecond)
	}
	p.spent++
	return 0
}

// giveBack returns one that was not needed.
func (p *pacer) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spent = max(0, p.spent-1)
}

// entry is a conversation with a group that may be requested now.
type entry struct {
	tries     int
	createdMS int64
	isOld     bool // there is a group, to be entered again
}

// before reports whether e is requested before other: first rooms that have a group, then those
// with fewer requests, then newer ones. So the many conversations of a stranger come after
// later ones.
func (e entry) before(other entry) bool {
	if e.isOld != other.isOld {
		return e.isOld
	}
	return cmp.Or(cmp.Compare(e.tries, other.tries), cmp.Compare(other.createdMS, e.createdMS)) < 0
}

// startEntries makes as many requests as are allowed now.
func (s *session) startEntries(ctx context.Context) {
	pause := &s.sub(choreEntries).refetch
	*pause = retry{}
	// A conversation with another job running is checked again after that.
	maps.DeleteFunc(s.entries, func(id string, _ entry) bool { return s.jobs[id] })
	for len(s.entries) > 0 && s.entering < entriesMax {
		if wait := s.c.entryPace.take(); wait > 0 {
			pause.sooner(wait)
			return
		}
		var id string
		for other, e := range s.entries {
			if id == "" || e.before(s.entries[id]) {
				id = other
			}
		}
		first := s.entries[id].tries == 0
		delete(s.entries, id)
		s.entering++
		hasEntered := false
		s.startIn(ctx, s.entrySlots, id, func(ctx context.Context) (err error) {
			hasEntered, err = s.c.errands.enter(ctx, s.calls, id)
			return err
		}, func(error) {
			s.entering--
			s.due[choreEntries] = true
			if hasEntered && first { // repeated ones may be an attack
				s.c.entryPace.giveBack()
			}
		})
	}
}
