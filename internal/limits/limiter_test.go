package limits

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
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
		if r := l.TakeN(nil, "sends", "a", "b", 1); r != nil {
			t.Fatalf("call %d: %v", i, r)
		}
	}
	if left := l.Left("sends", "a", "b"); left != 0 {
		t.Errorf("%d are left of three that were taken", left)
	}
	r := l.TakeN(nil, "sends", "a", "b", 1)
	if r == nil || r.RetryAfter != 20*time.Second {
		t.Fatalf("the fourth at once: %+v", r)
	}
	if r := l.TakeN(nil, "sends", "a", "c", 1); r != nil {
		t.Errorf("another key: %v", r)
	}
	now = now.Add(20 * time.Second)
	if left := l.Left("sends", "a", "b"); left != 1 {
		t.Errorf("%d are left after a third of the period, want 1", left)
	}
	if r := l.TakeN(nil, "sends", "a", "b", 1); r != nil {
		t.Errorf("after the wait: %v", r)
	}
	if r := l.TakeN(nil, "sends", "a", "b", 1); r == nil {
		t.Error("a second one after the wait")
	}
	now = now.Add(time.Hour)
	if r := l.TakeN(nil, "sends", "x", "y", 99); r != nil { // more than the burst counts as the burst
		t.Errorf("a large call on a full bucket: %v", r)
	}
	for range shardCount {
		now = now.Add(time.Second)
		_ = l.TakeN(nil, "sends", "x", "y", 1)
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
		if r := l.TakeN(nil, "sends", "culprit", "", 1); r != nil {
			t.Fatal(r)
		}
	}
	const strangers = shardCount * shardKeys * 3 / 2
	before := heapInUse()
	long := strings.Repeat("x", 100)
	for n := range strangers {
		if r := l.TakeN(nil, "sends", fmt.Sprint(long, n), long, 1); r != nil {
			t.Fatalf("stranger %d: %v", n, r)
		}
	}
	if n := l.buckets(); n > shardCount*shardKeys || n < shardCount*shardKeys*7/8 {
		t.Errorf("%d buckets are remembered", n)
	}
	if grown := heapInUse() - before; grown > 64<<20 {
		t.Errorf("%d bytes are kept", grown)
	}
	if r := l.TakeN(nil, "sends", "culprit", "", 1); r == nil {
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

// TestTightest: of the limits of the caller's own that a request was counted under, the one with
// the smallest part left is shown, and no limit that others use up too.
func TestTightest(t *testing.T) {
	now := time.UnixMilli(0)
	l := New(Rates{Sends: {4, time.Minute}, Lists: {100, time.Minute}, KeyPackageTargets: {1, time.Hour}, RecordReads: {}}, func() time.Time { return now })
	var nobody *ds.Meter
	if err := l.TakeOwn(nobody, Sends, "ann"); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Tightest(nobody); ok {
		t.Error("a usage without a meter")
	}
	m := new(ds.Meter)
	for _, name := range []string{Lists, RecordReads, KeyPackageTargets, Sends, Sends} {
		if err := l.TakeOwn(m, name, "ann"); err != nil {
			t.Fatal(err)
		}
	}
	want := Usage{Name: Sends, Rate: Rate{4, time.Minute}, Left: 1, Wait: 45 * time.Second, Reset: now.Add(45 * time.Second)}
	if got, ok := l.Tightest(m); !ok || got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for range 2 {
		_ = l.TakeOwn(m, Sends, "ann") // the second one is refused
	}
	want = Usage{Name: Sends, Rate: Rate{4, time.Minute}, Left: 0, Wait: 15 * time.Second, Reset: now.Add(15 * time.Second)}
	if got, _ := l.Tightest(m); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	now = now.Add(time.Hour)
	want = Usage{Name: Lists, Rate: Rate{100, time.Minute}, Left: 100, Reset: now}
	if got, _ := l.Tightest(m); got.Left != got.Rate.Count || got.Wait != 0 || got.Reset != want.Reset {
		t.Errorf("%+v after an hour", got)
	}
}
