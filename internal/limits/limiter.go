package limits

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// The buckets that a limiter remembers, sixteen bytes and the map's own each.
const (
	shardCount = 64
	shardKeys  = 1_000_000 / shardCount
)

// Limiter counts calls under names and keys, and forgets the buckets that are full. Keys
// are kept as hashes of eight bytes, however long the names are that they are made of, in
// shards with a lock each. Times are counted from the limiter's start, so that a clock
// that is set back has no effect. It is safe for concurrent use.
type Limiter struct {
	rates   Rates
	now     func() time.Time
	began   time.Time
	seed    maphash.Seed
	shards  [shardCount]shard
	refused *prometheus.CounterVec // by policy, which is the name of a limit

	swept atomic.Int64 // the second of the latest sweep
	turn  atomic.Int64 // counts sweeps: each takes one shard
}

type shard struct {
	mu      sync.Mutex
	buckets map[Key]Bucket // mu guards it; times are since began
}

// Key is a keyed hash of the name of a limit and the keys that it counts by.
type Key uint64

// New makes a Limiter with full buckets. Rates must not be changed any more.
func New(rates Rates, now func() time.Time) *Limiter {
	l := &Limiter{rates: rates, now: now, began: now(), seed: maphash.MakeSeed(),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_rate_limited_total",
			Help: "Calls that were refused because of a limit, by its name (--limit)."}, []string{"policy"})}
	for name := range rates {
		l.refused.WithLabelValues(name) // 0 is a figure, too
	}
	for i := range l.shards {
		l.shards[i].buckets = map[Key]Bucket{}
	}
	return l
}

// Collectors lists the metrics for a registry.
func (l *Limiter) Collectors() []prometheus.Collector { return []prometheus.Collector{l.refused} }

// Rate returns the rate of a name.
func (l *Limiter) Rate(name string) Rate { return l.rates[name] }

// Key returns the key of a name for a and b, either of which may be "".
func (l *Limiter) Key(name, a, b string) Key {
	return Key(maphash.Comparable(l.seed, [3]string{name, a, b}))
}

func (l *Limiter) shard(key Key) *shard { return &l.shards[key%shardCount] }

// TakeN counts n calls under (name, a, b), and notes it in m, which may be nil. It returns nil,
// or a refusal with the time until one more is admitted; a refused call is not counted.
func (l *Limiter) TakeN(m *ds.Meter, name, a, b string, n int64) *ds.Refusal {
	if l.rates[name].Count == 0 {
		return nil
	}
	key := l.Key(name, a, b)
	note(m, name, key)
	_, r := l.charge(name, key, n, l.now())
	return r
}

// Take counts one call under a name and a key. Refusals: rate_limited.
func (l *Limiter) Take(name, key string) error { return l.TakeOwn(nil, name, key) }

// TakeOwn counts one call as Take does, and notes it in m, which may be nil.
func (l *Limiter) TakeOwn(m *ds.Meter, name, key string) error {
	if r := l.TakeN(m, name, key, "", 1); r != nil {
		return r
	}
	return nil
}

// charge takes n calls from the bucket of a key of a name and returns their cost. The rate of the
// name must limit.
func (l *Limiter) charge(name string, key Key, n int64, at time.Time) (cost time.Duration, r *ds.Refusal) {
	rate := l.rates[name]
	n = min(n, rate.Count) // more than the burst could never be admitted
	now := at.Sub(l.began)
	l.sweep(now)
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	bucket, isThere := s.buckets[key]
	if wait := bucket.Wait(rate, n, now); wait > 0 {
		l.refused.WithLabelValues(name).Inc()
		return 0, &ds.Refusal{Code: ds.RateLimited, Message: "rate limited", RetryAfter: wait}
	}
	if cost = bucket.Take(rate, n, now); cost <= 0 {
		return 0, nil
	}
	if !isThere && len(s.buckets) >= shardKeys {
		s.makeRoom()
	}
	s.buckets[key] = bucket
	return cost, nil
}

// Left returns the number of calls under (name, a, b) that are admitted now.
func (l *Limiter) Left(name, a, b string) int64 {
	rate := l.rates[name]
	if rate.Count == 0 {
		return math.MaxInt64
	}
	return rate.left(l.spent(l.Key(name, a, b)))
}

// spent returns the time that the bucket of a key takes to fill.
func (l *Limiter) spent(key Key) time.Duration {
	now := l.now().Sub(l.began)
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(time.Duration(s.buckets[key]), now) - now
}

// GiveBack undoes a charge of that cost.
func (l *Limiter) GiveBack(key Key, cost time.Duration) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if bucket, isThere := s.buckets[key]; isThere {
		s.buckets[key] = bucket - Bucket(cost)
	}
}

// sweep forgets the full buckets of one shard each second, so that memory holds used buckets
// only and no call waits for a scan of all shards.
func (l *Limiter) sweep(now time.Duration) {
	second := int64(now / time.Second)
	if before := l.swept.Load(); before == second || !l.swept.CompareAndSwap(before, second) {
		return
	}
	s := &l.shards[l.turn.Add(1)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, bucket := range s.buckets {
		if bucket <= Bucket(now) {
			delete(s.buckets, key)
		}
	}
}

// makeRoom forgets the sixteenth part of a shard, the buckets that are nearest to full: this
// loses the least, and one scan of the shard serves many calls.
func (s *shard) makeRoom() {
	order := make([]Bucket, 0, len(s.buckets))
	for _, bucket := range s.buckets {
		order = append(order, bucket)
	}
	slices.Sort(order)
	n := len(order)/16 + 1
	last := order[n-1]
	for key, bucket := range s.buckets {
		if bucket <= last && n > 0 {
			delete(s.buckets, key)
			n--
		}
	}
}
