package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// How reconnecting is spread: the first try comes at once, the next ones after a
// random part of a time that doubles. A server that answers and then loses the
// connection again is tried more often than one that does not answer.
const (
	reconnectMin = 200 * time.Millisecond
	reconnectMax = 15 * time.Second
	resumeMin    = 25 * time.Millisecond
	resumeMax    = time.Second
	// steadyAfter is how long a session must last for the counts to start anew.
	steadyAfter = 2 * time.Second
)

// backoff is the wait before the attempt after so many failed ones, with full jitter.
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

// endSession is how a session says that the next one is to begin after a while.
type endSession struct{ after time.Duration }

// Error says so for logs.
func (e *endSession) Error() string { return "the server is about to restart" }

// run keeps the client connected until ctx ends or the home fails.
func (c *Client) run(ctx context.Context) {
	defer close(c.closed)
	var pace pace
	for {
		var served served
		err := ctx.Err()
		if err == nil { // who has been closed while it waited does not connect again
			c.setState(Connecting, nil)
			served, err = c.connect(ctx)
		}
		if ctx.Err() != nil {
			err = ErrClosed
		} else if dead := c.db.home.Failure(); dead != nil {
			err = dead
		}
		c.setState(Offline, err)
		if errors.Is(err, ErrClosed) || c.db.home.Failure() != nil {
			c.end(err)
			return
		}
		c.log.DebugContext(ctx, "connection ended", "err", err)
		timer := time.NewTimer(pace.next(served, err))
		select {
		case <-timer.C:
		case <-c.db.home.Died():
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// served is what a connection was good for.
type served struct {
	lasted time.Duration // how long there was a session; 0 if there was none
	worked bool          // it took something in, or had a request answered
}

// connect makes one connection and serves it to its end.
func (c *Client) connect(ctx context.Context) (served, error) {
	wire, calls, err := c.door.open(ctx)
	if err != nil {
		return served{}, err
	}
	defer wire.close()
	s := newSession(c, wire, calls)
	c.stats.connects.Add(1)
	c.setOnline(wire.kind())
	began := time.Now()
	err = s.serve(ctx)
	return served{lasted: max(time.Since(began), 1), worked: s.worked}, err
}
