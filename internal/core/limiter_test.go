package core

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// buckets counts what a limiter remembers.
func (l *limiter) buckets() (n int) {
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].until)
		l.shards[i].mu.Unlock()
	}
	return n
}

func TestLimits(t *testing.T) {
	now := time.UnixMilli(0)
	l := newLimiter(Limits{"sends": {3, time.Minute}}, func() time.Time { return now })
	for i := range 3 {
		if r := l.take("sends", "a", "b", 1); r != nil {
			t.Fatalf("call %d: %v", i, r)
		}
	}
	if left := l.left("sends", "a", "b"); left != 0 {
		t.Errorf("%d are left of three that were taken", left)
	}
	r := l.take("sends", "a", "b", 1)
	if r == nil || r.RetryAfter != 20*time.Second {
		t.Fatalf("the fourth at once: %+v", r)
	}
	if r := l.take("sends", "a", "c", 1); r != nil {
		t.Errorf("another key: %v", r)
	}
	now = now.Add(20 * time.Second)
	if left := l.left("sends", "a", "b"); left != 1 {
		t.Errorf("%d are left after a third of the period, want 1", left)
	}
	if r := l.take("sends", "a", "b", 1); r != nil {
		t.Errorf("after the wait: %v", r)
	}
	if r := l.take("sends", "a", "b", 1); r == nil {
		t.Error("a second one after the wait")
	}
	now = now.Add(time.Hour)
	if r := l.take("sends", "x", "y", 99); r != nil { // more than the burst counts as the burst
		t.Errorf("a large call on a full bucket: %v", r)
	}
	for range limiterShards {
		now = now.Add(time.Second)
		_ = l.take("sends", "x", "y", 1)
	}
	if n := l.buckets(); n != 1 {
		t.Errorf("%d buckets are remembered", n)
	}
	limits := DefaultLimits()
	for _, bad := range []string{"", "sends", "sends=", "sends=0/1m", "sends=x/1m", "sends=1/0s", "sends=1/fortnight", "nope=1/m", "all=1/m", "sends=-1/m"} {
		if err := limits.Set(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if err := limits.Set("sends=7/30s"); err != nil || limits["sends"] != (Rate{7, 30 * time.Second}) {
		t.Error(limits["sends"], err)
	}
	if err := limits.Set("all=off"); err != nil || limits["invites"].Count != 0 {
		t.Error(limits, err)
	}
}

// TestLimiterIsBounded: names that clients choose are not kept, and beyond its bound the
// limiter forgets the buckets that are nearest to full, not the one that is used up.
func TestLimiterIsBounded(t *testing.T) {
	now := time.UnixMilli(0)
	l := newLimiter(Limits{"sends": {2, time.Hour}}, func() time.Time { return now })
	for range 2 {
		if r := l.take("sends", "culprit", "", 1); r != nil {
			t.Fatal(r)
		}
	}
	const strangers = limiterShards * limiterShardKeys * 3 / 2
	before := heapInUse()
	long := strings.Repeat("x", 100)
	for n := range strangers {
		if r := l.take("sends", fmt.Sprint(long, n), long, 1); r != nil {
			t.Fatalf("stranger %d: %v", n, r)
		}
	}
	if n := l.buckets(); n > limiterShards*limiterShardKeys || n < limiterShards*limiterShardKeys*7/8 {
		t.Errorf("%d buckets are remembered", n)
	}
	if grown := heapInUse() - before; grown > 64<<20 {
		t.Errorf("%d bytes are kept", grown)
	}
	if r := l.take("sends", "culprit", "", 1); r == nil {
		t.Error("a bucket that was used up is full again")
	}
}

// TestBill: charges stand for calls that were answered and for bytes that were stored, and
// only as far as the last run of a rule asked for them.
func TestBill(t *testing.T) {
	const most = 100
	limits := Limits{LimitSends: {most, time.Hour}, LimitStoredBytes: {most, time.Hour}}
	fault, refusal := errors.New("away"), ds.Refuse(ds.Forbidden, "no")
	rows := []struct {
		name                string
		runs                [][2]int64 // sends and bytes that each run asks for
		err                 error
		wantSends, wantSize int64
	}{
		{"accepted", [][2]int64{{1, 30}}, nil, 1, 30},
		{"refused", [][2]int64{{1, 30}}, refusal, 1, 0},
		{"a fault", [][2]int64{{1, 30}}, fault, 0, 0},
		{"run again", [][2]int64{{1, 30}, {1, 30}}, nil, 1, 30},
		{"run again, and found to be a repeat", [][2]int64{{1, 30}, {0, 0}}, nil, 0, 0},
		{"run again, and smaller", [][2]int64{{1, 30}, {1, 10}}, nil, 1, 10},
		{"run again, and larger", [][2]int64{{1, 10}, {1, 30}}, nil, 1, 30},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			now := time.UnixMilli(0)
			l := newLimiter(limits, func() time.Time { return now })
			var b bill
			for _, run := range row.runs {
				b.rerun()
				for i, name := range []string{LimitSends, LimitStoredBytes} {
					if run[i] == 0 {
						continue
					}
					if r := l.takeOnce(&b, name, "ann", "", run[i], now); r != nil {
						t.Fatal(r)
					}
				}
			}
			l.settle(&b, row.err)
			for i, name := range []string{LimitSends, LimitStoredBytes} {
				left := most - []int64{row.wantSends, row.wantSize}[i]
				if r := l.take(name, "ann", "", left); r != nil {
					t.Errorf("%s: not %d left: %v", name, left, r)
				}
				if r := l.take(name, "ann", "", 1); r == nil {
					t.Errorf("%s: more than %d were left", name, left)
				}
			}
		})
	}
}
