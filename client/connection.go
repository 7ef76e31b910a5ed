package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// The bounds of the waits between connections: the first attempt is immediate, the next ones
// follow after a random part of a time that doubles. A server that answers and then loses the
// connection again is tried more often than one that does not answer.
const (
	reconnectMin = 200 * time.Millisecond
	reconnectMax = 15 * time.Second
	resumeMin    = 25 * time.Millisecond
	resumeMax    = time.Second
	// steadyAfter is the duration after which a session resets the counts.
	steadyAfter = 2 * time.Second
)

// backoff returns the wait after so many failed attempts, with full jitter.
func backoff(failed int, least, most time.Duration) time.Duration {
	if failed <= 0 {
		return 0
	}
	d := least << min(failed-1, 20)
	if d > most || d <= 0 {
		d = most
	}
	return d/4 + rand.N(d*3/4+1)
}

// endSession is the error of a session that ends so that the next one begins after a wait.
type endSession struct{ after time.Duration }

// Error describes it for logs.
func (e *endSession) Error() string { return "server is about to restart" }

// run keeps the client connected until it is closed or the home fails.
func (c *Client) run() {
	defer close(c.closed)
	var pace pace
	for c.ctx.Err() == nil {
		c.setState(State{Link: Connecting})
		c.log.Debug("connecting", "server", c.options.Server)
		served, err := c.connect(c.ctx)
		if c.ctx.Err() != nil {
			break
		}
		wait := pace.next(served, err)
		if reasonOf(err) == ReasonExpelled {
			err = errors.Join(err, c.errands.forgetPool(c.ctx))
		}
		c.setState(State{Link: Offline, Err: err, Next: time.Now().Add(wait)})
		c.log.Info("offline", "reason", reasonOf(err), "err", err, "wait", wait)
		pause(c.ctx, wait)
	}
	c.setState(State{Link: Offline, Err: context.Cause(c.ctx)})
}

// served describes the outcome of a connection.
type served struct {
	lasted time.Duration // the duration of the session; 0 if there was none
	worked bool          // it applied an event, or had a request answered
}

// connect makes one connection and serves it to its end.
func (c *Client) connect(ctx context.Context) (served, error) {
	wire, calls, err := c.door.open(ctx)
	if err != nil {
		return served{}, err
	}
	defer wire.close()
	s := newSession(c, wire, calls)
	c.count(Stats{Connects: 1})
	c.log.Info("online", "transport", wire.kind())
	c.setState(State{Link: Online, Transport: wire.kind()})
	began := time.Now()
	err = s.serve(ctx)
	return served{lasted: max(time.Since(began), 1), worked: s.worked}, err
}

// pace spaces attempts to connect.
type pace struct {
	failed int // attempts in a row that led to no session
	short  int // sessions in a row that were soon over
}

// next returns the wait after a connection that ended in this way.
func (p *pace) next(s served, err error) time.Duration {
	wait := backoff(p.failed, reconnectMin, reconnectMax)
	p.failed++
	if s.lasted > 0 {
		p.failed = 0
		switch {
		case s.lasted > steadyAfter:
			p.short = 0
		case s.worked:
			p.short = min(p.short, 1) // it was useful: the wait need not grow
		}
		wait = backoff(p.short, resumeMin, resumeMax)
		p.short++
	}
	var planned *endSession
	if errors.As(err, &planned) {
		wait, p.failed = planned.after, 1
	}
	if errors.Is(err, errSocketAgain) {
		wait = 0
	}
	if r := asRefusal(err); r != nil && r.RetryAfter > wait {
		wait = r.RetryAfter
	}
	return wait
}
