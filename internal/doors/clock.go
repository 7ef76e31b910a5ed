package doors

import (
	"sync/atomic"
	"time"
)

// Clock is the time that connections are watched by: milliseconds since it was made, never
// 0. It is moved by the watchdog, so that reading it costs nothing.
type Clock struct {
	began time.Time
	now   atomic.Int64
}

// NewClock makes a Clock that has begun.
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
