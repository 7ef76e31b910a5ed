// Package condition turns repeated failures of one thing into two log lines: one when
// it begins to fail and one when it works again.
//
// What is asked often, such as a database, fails as often. An operator needs to know
// that it fails, why, and when that ended; not once per request.
package condition

import (
	"log/slog"
	"sync"
	"time"
)

// Condition follows whether one thing works. Its methods are safe for concurrent use.
type Condition struct {
	logger *slog.Logger
	what   string
	settle time.Duration

	mu       sync.Mutex // guards the rest
	since    time.Time  // of the first failure; zero while the thing works
	last     time.Time  // of the last failure
	failures int64      // since it began to fail
}

// New returns the condition of a thing that works. Lines say that what "fails" and
// "works again", so it names the thing in words. A success counts as the end of an
// outage when nothing has failed for settle before it: a thing that fails now and then
// is one outage.
func New(logger *slog.Logger, what string, settle time.Duration) *Condition {
	return &Condition{logger: logger, what: what, settle: settle}
}

// Failed notes a failure, and logs it if the thing worked before. It reports whether
// it did.
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

// Worked notes a success, logs it if it ends an outage, and reports whether the thing
// works. The line has the level of the first one, so that who sees the one sees the other.
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
	c.logger.Warn(c.what+" works again", "after", now.Sub(c.since).Round(time.Millisecond), "failures", c.failures)
	c.since, c.failures = time.Time{}, 0
	return true
}

// Note is Failed for an error and Worked without one.
func (c *Condition) Note(err error) {
	if err != nil {
		c.Failed(err)
	} else {
		c.Worked()
	}
}

// IsFailing reports whether an outage is under way.
func (c *Condition) IsFailing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.since.IsZero()
}
