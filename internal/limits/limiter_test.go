package limits

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// buckets counts what a limiter remembers.
func (l *Limiter) buckets() (n int) {
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].buckets)
		l.shards[i].mu.Unlock()
	}
	return n
}

func TestLimits(t *testing.T) {
	now := time.UnixMilli(0)
	l := New(Rates{"sends": {3, time.Minute}}, func() time.Time { return now })
	for i := range 3 {
		if r := l.TakeN("sends", "a", "b", 1); r != nil {
			t.Fatalf("call %d: %v", i, r)
		}
	}
	if left := l.Left("sends", "a", "b"); left != 0 {
		t.Errorf("%d are left of three that were taken", left)
	}
	r := l.TakeN("sends", "a", "b", 1)
	if r == nil || r.RetryAfter != 20*time.Second {
		t.Fatalf("the fourth at once: %+v", r)
	}
	if r := l.TakeN("sends", "a", "c", 1); r != nil {
		t.Errorf("another key: %v", r)
	}
	now = now.Add(20 * time.Second)
	if left := l.Left("sends", "a", "b"); left != 1 {
		t.Errorf("%d are left after a third of the period, want 1", left)
	}
	if r := l.TakeN("sends", "a", "b", 1); r != nil {
		t.Errorf("after the wait: %v", r)
	}
	if r := l.TakeN("sends", "a", "b", 1); r == nil {
		t.Error("a second one after the wait")
	}
	now = now.Add(time.Hour)
	if r := l.TakeN("sends", "x", "y", 99); r != nil { // more than the burst counts as the burst
		t.Errorf("a large call on a full bucket: %v", r)
	}
	for range shardCount {
		now = now.Add(time.Second)
		_ = l.TakeN("sends", "x", "y", 1)
	}
	if n := l.buckets(); n != 1 {
		t.Errorf("%d buckets are remembered", n)
	}
	rates := Default()
	for _, bad := range []string{"", "sends", "sends=", "sends=0/1m", "sends=x/1m", "sends=1/0s", "sends=1/fortnight", "nope=1/m", "all=1/m", "sends=-1/m"} {
		if err := rates.Set(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if err := rates.Set("sends=7/30s"); err != nil || rates["sends"] != (Rate{7, 30 * time.Second}) {
		t.Error(rates["sends"], err)
	}
	if err := rates.Set("all=off"); err != nil || rates["invites"].Count != 0 {
		t.Error(rates, err)
	}
}

// TestLimiterIsBounded: names that clients choose are not kept, and beyond its bound the
// limiter forgets the buckets that are nearest to full, not the one that is used up.
func TestLimiterIsBounded(t *testing.T) {
	now := time.UnixMilli(0)
	l := New(Rates{"sends": {2, time.Hour}}, func() time.Time { return now })
	for range 2 {
		if r := l.TakeN("sends", "culprit", "", 1); r != nil {
			t.Fatal(r)
		}
	}
	const strangers = shardCount * shardKeys * 3 / 2
	before := heapInUse()
	long := strings.Repeat("x", 100)
	for n := range strangers {
		if r := l.TakeN("sends", fmt.Sprint(long, n), long, 1); r != nil {
			t.Fatalf("stranger %d: %v", n, r)
		}
	}
	if n := l.buckets(); n > shardCount*shardKeys || n < shardCount*shardKeys*7/8 {
		t.Errorf("%d buckets are remembered", n)
	}
	if grown := heapInUse() - before; grown > 64<<20 {
		t.Errorf("%d bytes are kept", grown)
	}
	if r := l.TakeN("sends", "culprit", "", 1); r == nil {
		t.Error("a bucket that was used up is full again")
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // the first one empties pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBucket: a caller that keeps below its rate never waits, and one that does not waits
// for about as long as it was ahead.
func TestBucket(t *testing.T) {
	var b Bucket
	var now time.Duration
	const frame, most = 1 << 20, 128 << 20
	rate := Rate{most, time.Minute}
	for i := range most / frame {
		b.Take(rate, frame, now)
		if wait := b.Wait(rate, 0, now); wait > 0 {
			t.Fatalf("after %d MiB: %s", i+1, wait)
		}
	}
	b.Take(rate, frame, now)
	const want = time.Minute * frame / most
	if wait := b.Wait(rate, 0, now); wait > want || wait < want*9/10 {
		t.Errorf("ahead by a frame: %s", wait)
	}
	now += 3 * time.Minute
	for range 10 * 60 {
		now += time.Second
		b.Take(rate, frame, now)
		if wait := b.Wait(rate, 0, now); wait > 0 {
			t.Fatal(wait)
		}
	}
}
