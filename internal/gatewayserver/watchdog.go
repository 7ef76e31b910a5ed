package gatewayserver

import (
	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
)

// beat holds the watchdog's state of a socket. Only the watchdog uses it.
type beat struct {
	next   int64 // when the next heartbeat is due
	misses int
	over   int64 // when the watchdog began to close the socket, or 0
}

// Check closes c when it exceeds a bound, and sends a ping when one is due. It does not block:
// writes have goroutines of their own.
func (c *socket) Check(now int64) {
	s := c.server
	since := c.conn.WritingSince()
	if since != 0 && now-since > s.writeTimeout.Milliseconds() {
		c.end(causeStalled)
		c.conn.Abort()
		return
	}
	if c.beat.over != 0 {
		if now-c.beat.over > 2*doors.CloseTimeout.Milliseconds() {
			c.conn.Abort()
		}
		return
	}
	if c.hasEnded() {
		c.leave(causeSession, doors.ClosePolicy, "session ended", c.lastFrame())
		return
	}
	if !c.isReady.Load() && now-c.opened > s.handshakeTimeout.Milliseconds() {
		c.leave(causeHandshake, doors.ClosePolicy, "no session in time", nil)
		return
	}
	if now < c.beat.next {
		c.breakSilence(now, since)
		return
	}
	c.beat.next = now + s.pingInterval.Milliseconds()
	if c.heard.Swap(false) {
		c.beat.misses = 0
		c.breakSilence(now, since)
		return
	}
	if since != 0 {
		return // it is still receiving, and could not see the ping
	}
	if c.beat.misses++; c.beat.misses > s.pingMisses {
		c.leave(causeHeartbeat, doors.CloseGoingAway, "no sign of life", pingFrame)
		return
	}
	s.connections.Running.Go(func() { _ = c.conn.Write(pingFrame) }) // an error ends the reader too
}

// breakSilence writes a ping to a socket to which nothing was written for nearly the
// heartbeat: proxies cut connections that are silent for a minute. A client that answers
// the pings of Check would otherwise be sent nothing for two intervals.
func (c *socket) breakSilence(now, since int64) {
	if since == 0 && now-c.conn.WrittenAt() >= c.server.silenceMax {
		c.server.connections.Running.Go(c.conn.Ping) // it may block
	}
}

// leave closes c from outside, after one last frame.
func (c *socket) leave(cause string, code int, reason string, last []byte) {
	c.beat.over = c.server.clock.Now()
	c.end(cause)
	c.server.connections.Running.Go(func() {
		if last != nil {
			_ = c.conn.Write(last)
		}
		c.conn.Close(code, reason)
	})
}

var pingFrame = frameOf(gateway.TypePing, nil, nil)

// Check ends a stream when its session has ended or a write is stalled, and writes a comment to
// a silent one. It does not block.
func (c *stream) Check(now int64) {
	since := c.out.WritingSince()
	if since != 0 && now-since > c.server.writeTimeout.Milliseconds() {
		c.end(causeStalled)
		c.Abort()
		return
	}
	if c.hasEnded() {
		c.end(causeSession)
		if c.cancel(); since != 0 {
			c.out.Abort() // no more may be written
		}
		return
	}
	if now < c.nextPing {
		return
	}
	c.nextPing = now + c.server.streamPing.Milliseconds()
	if since == 0 { // else a write is in progress
		c.server.connections.Running.Go(func() { c.out.Write(pingComment) })
	}
}

// Abort cuts off a stream whatever it does.
func (c *stream) Abort() {
	c.cancel()
	c.out.Abort()
}

// drain ends a stream because the server stops.
func (c *stream) drain(d gateway.Drain) {
	c.end(causeDrain)
	if c.session.Has(gateway.FeatureDrain) {
		item := append([]byte("event: "+gateway.TypeDrain+"\ndata: "), frameOf(gateway.TypeDrain, nil, d)...)
		c.out.Write(append(item, "\n\n"...))
	}
	c.cancel()
}

// openComment begins a stream: nginx keeps the head of an answer over HTTP/2 until its first byte,
// and a client would wait for an event or a ping.
var openComment = []byte(": open\n\n")

var pingComment = []byte(": ping\n\n")
