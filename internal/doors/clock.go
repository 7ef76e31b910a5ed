package doors

import (
	"sync/atomic"
	"time"
)

// Clock is the time of a watchdog and its connections: milliseconds since it was made, never
// 0. The watchdog moves it, so reading it is one atomic load.
type Clock struct {
	began time.Time
	now   atomic.Int64
}

// NewClock makes a running Clock.
func NewClock() *Clock {
	c := &Clock{began: time.Now()}
	c.Tick()
	return c
}

// Now returns the time of the latest Tick.
func (c *Clock) Now() int64 { return c.now.Load() }

// Tick moves the clock and returns its time.
func (c *Clock) Tick() int64 {
	now := time.Since(c.began).Milliseconds() + 1
	c.now.Store(now)
	return now
}
