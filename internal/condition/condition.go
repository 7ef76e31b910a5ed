// Package condition reduces repeated failures of a dependency to two log lines: one when it
// begins to fail and one when it works again.
//
// A dependency that is called often, such as a database, fails as often. An operator needs to
// know that it fails, why, and when that ended; not once per request.
package condition

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Condition tracks whether one dependency works. Its methods are safe for concurrent use.
type Condition struct {
	logger *slog.Logger
	what   string
	settle time.Duration

	mu       sync.Mutex    // guards the rest
	since    time.Time     // time of the first failure; zero while the dependency works
	last     time.Time     // of the last failure
	failures int64         // since it began to fail
	lost     time.Duration // of all earlier outages
}

// New returns the condition of a working dependency. Log lines say that what "fails" and "works
// again", so it must be the dependency's name. A success ends an outage only if there was no
// failure for settle before it: a dependency that fails now and then has one outage.
func New(logger *slog.Logger, what string, settle time.Duration) *Condition {
	return &Condition{logger: logger, what: what, settle: settle}
}

// Failed records a failure, and logs it if the dependency worked before. It reports whether it
// did.
func (c *Condition) Failed(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	c.failures++
	if !c.since.IsZero() {
		return false
	}
	c.since = c.last
	c.logger.Warn(c.what+" fails; this is logged again when it works", "err", err)
	return true
}

// Worked records a success, logs it if it ends an outage, and reports whether the dependency
// works. The line has the level of the first one, so that a log filter passes both or neither.
func (c *Condition) Worked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return true
	}
	now := time.Now()
	if now.Sub(c.last) < c.settle {
		return false
	}
	c.lost += now.Sub(c.since)
	c.logger.Warn(c.what+" works again", "after", now.Sub(c.since).Round(time.Millisecond), "failures", c.failures)
	c.since, c.failures = time.Time{}, 0
	return true
}

// Note calls Failed with an error and Worked without one.
func (c *Condition) Note(err error) {
	if err != nil {
		c.Failed(err)
	} else {
		c.Worked()
	}
}

// Every calls do at each interval until ctx ends, and notes its results. Those of a database that
// is unavailable it leaves out: the store logs them. A failure is retried the next time.
func (c *Condition) Every(ctx context.Context, interval time.Duration, do func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := do(ctx); ctx.Err() == nil && !ds.IsUnavailable(err) {
			c.Note(err)
		}
	}
}

// IsFailing reports whether there is an outage.
func (c *Condition) IsFailing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.since.IsZero()
}

// Lost returns the duration of all outages together, with that of the present one.
func (c *Condition) Lost() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return c.lost
	}
	return c.lost + time.Since(c.since)
}
