package client

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"
)

// A conversation that the server has us in and that has no group here is asked for: for the
// GroupInfo by which a device enters by itself. Anybody can make any number of such
// conversations, so asking is bounded by itself, for each and for all together, whatever
// number there is. An invitation (Welcome) needs none of this: it comes as an event.

const (
	// entryMin and entryMax are the least and the greatest wait between two questions for
	// one conversation; it doubles.
	entryMin = time.Second
	entryMax = 15 * time.Minute
	// entryGiveUp is how long a conversation is waited for in all.
	entryGiveUp = 24 * time.Hour
	// entriesMax is how many conversations are asked for at the same time.
	entriesMax = 8
	// entryBurst and entryEvery bound the questions in vain for all conversations
	// together: so many at once, and one more in each such time.
	entryBurst = 32
	entryEvery = time.Second
)

// waiting is how a conversation has been waited for: what was asked in vain since the last
// time that the group was entered.
type waiting struct {
	Tries int `json:"tries,omitempty"`
	// NotBefore is when it may be asked again, in Unix milliseconds, and WaitedMS the sum
	// of all waits. Time without a question does not count.
	NotBefore int64 `json:"not_before,omitempty"`
	WaitedMS  int64 `json:"waited_ms,omitempty"`
	// GaveUp: it is not asked any more.
	GaveUp bool `json:"gave_up,omitempty"`
}

// entryWait returns the wait after so many questions in vain, within a fifth.
func entryWait(tries int) time.Duration {
	d := entryMin << min(max(tries-1, 0), 20)
	if d > entryMax {
		d = entryMax
	}
	return d*4/5 + rand.N(d*2/5+1)
}

// left returns how long the conversation must not be asked for. A clock that was set
// back does not make that longer.
func (w *waiting) left(now time.Time) time.Duration {
	return min(max(time.UnixMilli(w.NotBefore).Sub(now), 0), 2*entryMax)
}

// waitLonger notes a question in vain. It gives up a conversation that has never had a
// group here once it has been waited for long enough; the application is notified if it
// may be waiting too.
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

// Retry asks again for the group of a conversation that was given up, or that will be
// asked for only after a while: Conversation.Problem says so.
func (c *Client) Retry(ctx context.Context, id string) error {
	return c.change(ctx, id, func(_ *tx, conv *conversation) error {
		conv.askAgain()
		return nil
	})
}

// askAgain forgets what was asked in vain.
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

// pacer lets entryBurst things happen at once, and one in each entryEvery after that. It
// is safe for concurrent use.
type pacer struct {
	mu    sync.Mutex
	spent float64   // guarded by mu
	at    time.Time // of spent; guarded by mu
}

// take takes one, or returns how long there is none.
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

// entry is a conversation that is to be asked for now.
type entry struct {
	tries     int
	createdMS int64
	isOld     bool // there is a group, to be entered again
}

// before says which of two is asked for first: rooms that have a group, then what
// was asked for less often, then what is newer. So what a stranger has piled up is behind
// what comes after it.
func (e entry) before(other entry) bool {
	if e.isOld != other.isOld {
		return e.isOld
	}
	if d := cmp.Compare(e.tries, other.tries); d != 0 {
		return d < 0
	}
	return e.createdMS > other.createdMS
}

// startEntries asks for as many conversations as may be now.
func (s *session) startEntries(ctx context.Context) {
	pause := &s.sub(choreEntries).refetch
	*pause = retry{}
	// What is busy with something else is looked at again after that.
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
			if hasEntered && first { // more often it may be an attack
				s.c.entryPace.giveBack()
			}
		})
	}
}
