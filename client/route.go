package client

import (
	"errors"
	"math/rand/v2"
	"time"
)

// earlyEndsMax is how many sockets in a row may end before session.ready until they
// are held to be kept from working.
const earlyEndsMax = 2

// probeSlowest is how many times Options.SocketProbe the wait between two tries grows to.
const probeSlowest = 8

// route remembers how the server can be reached. It belongs to whoever runs the
// connection: run, and the probe while that waits for nothing else.
type route struct {
	streaming bool      // the last session needed no WebSocket
	probeAt   time.Time // when to try one again
	probes    int       // tries in vain since one worked
	early     int       // sockets in a row that ended before session.ready
}

// blames says whether err shows that no WebSocket comes through.
func (r *route) blames(err error) bool {
	var upgrade *upgradeError
	var early *earlyEnd
	switch {
	case errors.As(err, &upgrade):
		return true
	case errors.As(err, &early):
		r.early++
		return r.early >= earlyEndsMax || r.streaming
	}
	return false
}

// failed notes a try of a WebSocket in vain, and when to make the next.
func (r *route) failed(interval time.Duration) {
	wait := min(interval<<min(r.probes, 10), probeSlowest*interval)
	r.probeAt = time.Now().Add(wait*3/4 + rand.N(wait/4+1))
	r.probes++
}

// earlyEnd is the end of a socket before session.ready.
type earlyEnd struct{ why error }

// Error is why it ended.
func (e *earlyEnd) Error() string { return e.why.Error() }
func (e *earlyEnd) Unwrap() error { return e.why }

// errSocketAgain ends a session on streams when a WebSocket comes through again.
var errSocketAgain = errors.New("a WebSocket comes through again")

// pace spaces attempts to connect.
type pace struct {
	failed int // attempts in a row that led to no session
	short  int // sessions in a row that were soon over
}

// next is how long to wait after a connection that ended like that.
func (p *pace) next(s served, err error) time.Duration {
	wait := backoff(p.failed, reconnectMin, reconnectMax)
	p.failed++
	if s.lasted > 0 {
		p.failed = 0
		switch {
		case s.lasted > steadyAfter:
			p.short = 0
		case s.worked:
			p.short = min(p.short, 1) // it was good for something: no reason to wait longer and longer
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
