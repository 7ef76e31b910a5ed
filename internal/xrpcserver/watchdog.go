package xrpcserver

import "time"

const (
	// heartbeatDefault bounds the time in which nothing is written to a socket: proxies
	// cut connections that are silent for a minute.
	heartbeatDefault = 25 * time.Second
	keepAliveDefault = 15 * time.Second
	pongTimeout      = 20 * time.Second
	writeTimeout     = 20 * time.Second // of doors.WriteBytesMax
)

// Check runs the checks of the stream's connection.
func (c *stream) Check(now int64) {
	if c.subscriptions.server.identity.IsExpelled(c.who.Account) {
		c.end(causeExpelled)
		c.cancel()
		c.out.abort()
		return
	}
	c.out.check(now)
}

// Abort cuts the connection of a stream.
func (c *stream) Abort() { c.out.abort() }

// isStalled reports whether a write has made no progress for too long, and cuts the stream off
// then.
func (c *stream) isStalled(now, since int64) bool {
	if since == 0 || now-since <= c.subscriptions.writeTimeout.Load() {
		return false
	}
	c.end(causeStalled)
	c.cancel()
	c.out.abort()
	return true
}

// check cuts off a socket with a stalled write, sends a ping when one is due, and cuts off a
// socket that has sent no bytes since the ping.
func (k *socket) check(now int64) {
	asked := k.network.PingedAt()
	switch {
	case k.isStalled(now, k.network.WritingSince()):
	case asked > k.network.HeardAt():
		if now-asked > k.subscriptions.pongTimeout.Milliseconds() {
			k.end(causeDead)
			k.cancel()
			k.abort() // ends a write that is under way, too
		}
	case now >= k.nextBeat:
		k.nextBeat = now + k.subscriptions.silenceMax
		k.subscriptions.streams.Running.Go(k.network.Ping) // it may have to wait for the network
	}
}

// check writes a comment to a stream when one is due, unless events are being written. This
// also detects that the client has disconnected.
func (e *eventSource) check(now int64) {
	since := e.network.WritingSince()
	if e.isStalled(now, since) || now < e.nextBeat {
		return
	}
	e.nextBeat = now + min(keepAliveDefault.Milliseconds(), e.subscriptions.silenceMax)
	if since == 0 {
		e.subscriptions.streams.Running.Go(e.beat)
	}
}
