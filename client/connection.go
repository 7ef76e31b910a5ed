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
func (e *endSession) Error() string { return "the server is about to restart" }

// run keeps the client connected until ctx ends or the home fails.
func (c *Client) run(ctx context.Context) {
	defer close(c.closed)
	var pace pace
	for {
		var served served
		err := ctx.Err()
		if err == nil { // a client closed during the wait does not connect again
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
	c.stats.connects.Add(1)
	c.setOnline(wire.kind())
	began := time.Now()
	err = s.serve(ctx)
	return served{lasted: max(time.Since(began), 1), worked: s.worked}, err
}
