package client

import (
	"errors"
	"math/rand/v2"
	"time"
)

// earlyEndsMax is the number of consecutive sockets that end before session.ready after which
// WebSockets are considered blocked.
const earlyEndsMax = 2

// probeSlowest bounds the wait between two probes, as a multiple of Options.SocketProbe.
const probeSlowest = 8

// route remembers how the server can be reached. It has one user at a time: the goroutine of
// run, or the probe of its session.
type route struct {
	streaming bool      // the last session needed no WebSocket
	probeAt   time.Time // when to try one again
	probes    int       // failures since one worked
	early     int       // sockets in a row that ended before session.ready
}

// blames reports whether err shows that WebSockets are blocked.
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

// failed records a failed WebSocket, and the time of the next attempt.
func (r *route) failed(interval time.Duration) {
	wait := min(interval<<min(r.probes, 10), probeSlowest*interval)
	r.probeAt = time.Now().Add(wait*3/4 + rand.N(wait/4+1))
	r.probes++
}

// earlyEnd is the end of a socket before session.ready.
type earlyEnd struct{ why error }

// Error returns the cause.
func (e *earlyEnd) Error() string { return e.why.Error() }
func (e *earlyEnd) Unwrap() error { return e.why }

// errSocketAgain ends a session on streams when a WebSocket opens again.
var errSocketAgain = errors.New("a WebSocket comes through again")

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
