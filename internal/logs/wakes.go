package logs

import (
	"context"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"sync"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// wakes holds the followers of each log on this node. A wake-up carries no data: a woken
// follower reads the log after its own cursor.
type wakes struct {
	seed   maphash.Seed
	shards [64]wakeShard
}

type wakeShard struct {
	mu   sync.Mutex
	logs map[ds.LogID]map[*follow]struct{} // mu guards it
}

func newWakes() *wakes {
	w := &wakes{seed: maphash.MakeSeed()}
	for i := range w.shards {
		w.shards[i].logs = map[ds.LogID]map[*follow]struct{}{}
	}
	return w
}

func (w *wakes) shard(log ds.LogID) *wakeShard {
	return &w.shards[maphash.String(w.seed, string(log))%uint64(len(w.shards))]
}

func (w *wakes) add(f *follow) {
	s := w.shard(f.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[f.log] == nil {
		s.logs[f.log] = map[*follow]struct{}{}
	}
	s.logs[f.log][f] = struct{}{}
}

// remove removes a follow and reports whether it was present, and whether it was the last of
// its log.
func (w *wakes) remove(f *follow) (wasThere, isLast bool) {
	s := w.shard(f.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, wasThere = s.logs[f.log][f]
	delete(s.logs[f.log], f)
	if len(s.logs[f.log]) > 0 {
		return wasThere, false
	}
	delete(s.logs, f.log)
	return wasThere, true
}

// followCounts counts the logs that the connections of each account read on this node. The
// zero value is empty.
type followCounts struct {
	mu       sync.Mutex
	accounts map[ds.AccountID]int // mu guards it
}

func (c *followCounts) add(account ds.AccountID, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accounts == nil {
		c.accounts = map[ds.AccountID]int{}
	}
	if c.accounts[account] += n; c.accounts[account] <= 0 {
		delete(c.accounts, account)
	}
}

func (c *followCounts) of(account ds.AccountID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accounts[account]
}

// FollowsLeft returns the number of further logs that the connections of an account may read on
// this node.
func (e *Engine) FollowsLeft(account ds.AccountID) int { return followsMax - e.follows.of(account) }

// unfollow ends a follow; a log without followers is not kept in memory.
func (e *Engine) unfollow(f *follow) {
	wasThere, isLast := e.wakes.remove(f)
	if wasThere {
		e.follows.add(f.owner.who.Account, -1)
	}
	if isLast {
		e.tails.evict(f.log)
	}
}

// isFollowed reports whether log has followers on this node.
func (w *wakes) isFollowed(log ds.LogID) bool {
	s := w.shard(log)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logs[log]) > 0
}

// unknownHead wakes every follower of a log.
const unknownHead = int64(math.MaxInt64)

// wake notifies the followers of log that are not at head yet that there is more to read.
func (w *wakes) wake(log ds.LogID, head int64) {
	s := w.shard(log)
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.logs[log] {
		if f.pos.Load() < head {
			f.owner.enqueue(f, head)
		}
	}
}

// followed lists the logs that have followers, with the lowest pos of those.
func (w *wakes) followed() map[ds.LogID]int64 {
	all := map[ds.LogID]int64{}
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		for log, follows := range s.logs {
			lowest := int64(-1)
			for f := range follows {
				if pos := f.pos.Load(); lowest < 0 || pos < lowest {
					lowest = pos
				}
			}
			all[log] = lowest
		}
		s.mu.Unlock()
	}
	return all
}

// pollChunk bounds the heads that one statement reads.
const pollChunk = 1000

// poll reads the heads of followed logs and wakes the followers of those that moved: this
// detects records that other nodes wrote. A store that only this process writes to needs no
// polling.
func (e *Engine) poll(ctx context.Context) error {
	followed := e.wakes.followed()
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(followed)), pollChunk) {
		heads, err := store.Get(ctx, e.store.Read, func(tx *store.Tx) (map[ds.LogID]int64, error) { return tx.Logs.HeadPositions(chunk) })
		if err != nil {
			return err
		}
		for log, pos := range heads {
			if pos > followed[log] {
				e.wakes.wake(log, pos)
			}
		}
	}
	return nil
}
