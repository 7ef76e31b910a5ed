package logs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/testwait"
)

// TestSharedIsBounded: while nothing is answered, what waits stays within its bytes and
// the others are told at once to come again; those that go away make room.
func TestSharedIsBounded(t *testing.T) {
	const each = 1 << 20
	s := newShared(make(chan struct{}), 4, func(in string) int { return len(in) },
		func(_ context.Context, in []string) ([]string, error) { return in, nil })
	ctx, cancel := context.WithCancel(t.Context())
	var refused, left, answered atomic.Int64
	ask := func(ctx context.Context) {
		switch _, err := s.ask(ctx, strings.Repeat("x", each)); {
		case errors.Is(err, errSharedFull):
			refused.Add(1)
		case err != nil:
			left.Add(1)
		default:
			answered.Add(1)
		}
	}
	const most = sharedBytesMax / (each + sharedJobBytes)
	var calls sync.WaitGroup
	for range most + 10 {
		calls.Go(func() { ask(ctx) })
	}
	testwait.Until(t, "some are refused", func() bool { return refused.Load() >= 10 })
	s.mu.Lock()
	n, bytes := len(s.waiting), s.bytes
	s.mu.Unlock()
	if n != most || bytes != most*(each+sharedJobBytes) {
		t.Errorf("%d wait with %d bytes", n, bytes)
	}
	cancel()
	calls.Wait()
	if s.bytes != 0 || len(s.waiting) != 0 || left.Load() != most || refused.Load() != 10 {
		t.Errorf("%d bytes of %d wait, %d went away, %d were refused", s.bytes, len(s.waiting), left.Load(), refused.Load())
	}
	for range most {
		calls.Go(func() { ask(t.Context()) })
	}
	running, stop := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { s.run(running) })
	calls.Wait()
	stop()
	loop.Wait()
	if answered.Load() != most || s.bytes != 0 {
		t.Errorf("%d of %d were answered, %d bytes wait", answered.Load(), most, s.bytes)
	}
}

// TestCursorBufferIsBounded: cursors that cannot be written are hints that are dropped
// beyond a bound.
func TestCursorBufferIsBounded(t *testing.T) {
	b := newCursorBuffer()
	const extra = 2
	for n := range extra * cursorShards * cursorShardMax {
		b.put(ds.Device{Account: "ann", ID: ds.DeviceID(fmt.Sprint(n % 5000))}, ds.LogID(fmt.Sprint("c/", n)), 2)
	}
	list := b.all()
	if len(list) > cursorShards*cursorShardMax || len(list) < cursorShards*cursorShardMax*3/4 {
		t.Errorf("%d cursors are kept", len(list))
	}
	b.written(list)
	b.written(list)
	for i := range b.shards {
		if s := &b.shards[i]; s.count != 0 || len(s.devices) != 0 {
			t.Fatalf("shard %d: %d cursors are counted", i, s.count)
		}
	}
}
