package core

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// limiter counts calls by GCRA: per key it keeps the time at which the bucket would be
// full again, and forgets keys whose bucket is. Keys are kept as hashes of eight bytes,
// however long the names are that they are made of, in shards with a lock each. Times
// are counted from the limiter's start, so that a clock that is set back has no effect.
type limiter struct {
	limits Limits
	now    func() time.Time
	began  time.Time
	seed   maphash.Seed
	shards [limiterShards]limiterShard

	swept atomic.Int64 // the second of the latest sweep
	turn  atomic.Int64 // counts sweeps: each takes one shard
}

type limiterShard struct {
	mu    sync.Mutex
	until map[limitKey]time.Duration // mu guards it; since began
}

// limitKey is a keyed hash of the name of a limit and what it is per.
type limitKey uint64

func newLimiter(limits Limits, now func() time.Time) *limiter {
	l := &limiter{limits: limits, now: now, began: now(), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].until = map[limitKey]time.Duration{}
	}
	return l
}

func (l *limiter) key(name, a, b string) limitKey {
	return limitKey(maphash.Comparable(l.seed, [3]string{name, a, b}))
}

func (l *limiter) shard(key limitKey) *limiterShard { return &l.shards[key%limiterShards] }

// take counts n calls under (name, a, b). It returns nil, or the refusal that says
// when one more would be let through; a refused call is not counted.
func (l *limiter) take(name, a, b string, n int64) *ds.Refusal {
	if l.limits[name].Count == 0 {
		return nil
	}
	_, r := l.charge(l.key(name, a, b), l.limits[name], n, l.now())
	return r
}

// charge takes n calls from a bucket and returns what they cost it.
func (l *limiter) charge(key limitKey, rate Rate, n int64, at time.Time) (cost time.Duration, r *ds.Refusal) {
	n = min(n, rate.Count) // what exceeds the burst at once could never pass
	now := at.Sub(l.began)
	l.sweep(now)
	cost = rate.Period / time.Duration(rate.Count) * time.Duration(n)
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	until, isThere := s.until[key]
	until = max(until, now)
	if wait := until + cost - now - rate.Period; wait > 0 {
		return 0, &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: wait}
	}
	if cost <= 0 {
		return 0, nil
	}
	if !isThere && len(s.until) >= limiterShardKeys {
		s.makeRoom()
	}
	s.until[key] = until + cost
	return cost, nil
}

// left returns how many calls under (name, a, b) would be let through now.
func (l *limiter) left(name, a, b string) int64 {
	rate := l.limits[name]
	if rate.Count == 0 || rate.Period < time.Duration(rate.Count) {
		return math.MaxInt64 // none, or too many to be counted
	}
	key, now := l.key(name, a, b), l.now().Sub(l.began)
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64((rate.Period - (max(s.until[key], now) - now)) / (rate.Period / time.Duration(rate.Count)))
}

// giveBack returns what a charge has cost.
func (l *limiter) giveBack(key limitKey, cost time.Duration) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, isThere := s.until[key]; isThere {
		s.until[key] = until - cost
	}
}

// sweep forgets the full buckets of one shard each second, so that memory is bounded by
// what is in use and no call waits for a look at all of it.
func (l *limiter) sweep(now time.Duration) {
	second := int64(now / time.Second)
	if before := l.swept.Load(); before == second || !l.swept.CompareAndSwap(before, second) {
		return
	}
	s := &l.shards[l.turn.Add(1)%limiterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, until := range s.until {
		if until <= now {
			delete(s.until, key)
		}
	}
}

// makeRoom forgets the sixteenth part of a shard, the buckets that are nearest to full:
// what is forgotten of them is least, and the look at all of them is paid for by many
// calls.
func (s *limiterShard) makeRoom() {
	order := make([]time.Duration, 0, len(s.until))
	for _, until := range s.until {
		order = append(order, until)
	}
	slices.Sort(order)
	n := len(order)/16 + 1
	last := order[n-1]
	for key, until := range s.until {
		if until <= last && n > 0 {
			delete(s.until, key)
			n--
		}
	}
}

// bill holds what one request was charged under limits and what is to be counted of it,
// until its answer is final: a rule may run more than once, over other states of its
// conversation, and what a transaction that failed would have stored is not paid for.
// The zero value is empty. It belongs to one goroutine.
type bill struct {
	charges  []charge
	isRepeat bool // answered by the record of an earlier request
	lostRace bool // a commit for an epoch that another one has ended
}

type charge struct {
	key     limitKey
	n       int64
	cost    time.Duration
	refusal *ds.Refusal
	isBytes bool // paid for what is stored, and not for the call
	stands  bool // the latest run of the rule asked for it
}

// rerun begins another run of a rule.
func (b *bill) rerun() {
	b.isRepeat, b.lostRace = false, false
	for i := range b.charges {
		b.charges[i].stands = false
	}
}

// takeOnce is take for a request that may ask again for the same: it is neither counted
// nor asked twice.
func (l *limiter) takeOnce(b *bill, name, a, key string, n int64, now time.Time) *ds.Refusal {
	rate := l.limits[name]
	if rate.Count == 0 {
		return nil
	}
	c := charge{key: l.key(name, a, key), n: n, isBytes: name == LimitStoredBytes, stands: true}
	i := slices.IndexFunc(b.charges, func(old charge) bool { return old.key == c.key })
	if i >= 0 && b.charges[i].n == n {
		b.charges[i].stands = true
		return b.charges[i].refusal
	}
	if i >= 0 { // as much as it is by now
		l.giveBack(c.key, b.charges[i].cost)
		b.charges = slices.Delete(b.charges, i, i+1)
	}
	c.cost, c.refusal = l.charge(c.key, rate, n, now)
	b.charges = append(b.charges, c)
	return c.refusal
}

// settle ends a bill with the answer to its request. Kept are charges for calls that were
// answered, with success or with a refusal, and for bytes that were stored; all else is
// given back. Where the outcome of a transaction is unknown it is given back too: had it
// been kept and nothing stored, the same request would be paid for twice, while a repeat of
// what was stored costs nothing, so that at most one batch for each fault is free.
func (l *limiter) settle(b *bill, err error) {
	isAnswered := err == nil || ds.CodeOf(err) != ""
	for _, c := range b.charges {
		if c.cost > 0 && !(c.stands && isAnswered && (err == nil || !c.isBytes)) {
			l.giveBack(c.key, c.cost)
		}
	}
	b.charges = nil
}
