package xrpcserver

import "time"

const (
	// heartbeatDefault bounds the time in which nothing is written to a socket: proxies
	// cut connections that are silent for a minute (gateway decision 15).
	heartbeatDefault = 25 * time.Second
	keepAliveDefault = 15 * time.Second
	pongTimeout      = 20 * time.Second
	writeTimeout     = 20 * time.Second // of doors.WriteBytesMax
	tickMin          = 5 * time.Millisecond
	tickMax          = 250 * time.Millisecond
)

// watch looks after the silent sockets and streams of all subscriptions from one
// goroutine, until the server stops.
func (s *Server) watch() {
	ticker := time.NewTicker(min(max(min(s.heartbeat, s.pongTimeout)/4, tickMin), tickMax))
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		now := s.clock.Tick()
		s.streams.mu.Lock()
		for c := range s.streams.open {
			c.out.check(now)
		}
		s.streams.mu.Unlock()
	}
}

// isStalled reports whether the network has taken nothing of a write for too long, and cuts
// the stream off then.
func (c *stream) isStalled(now, since int64) bool {
	if since == 0 || now-since <= c.server.writeTimeout.Load() {
		return false
	}
	c.end(causeStalled)
	c.cancel()
	c.out.abort()
	return true
}

// check cuts off a socket whose network takes nothing, asks it for a sign of life when that is due, and cuts off one that has
// given none since it was asked. Anything that arrives is one.
func (k *socket) check(now int64) {
	asked := k.network.PingedAt()
	switch {
	case k.isStalled(now, k.network.WritingSince()):
	case asked > k.network.HeardAt():
		if now-asked > k.server.pongTimeout.Milliseconds() {
			k.end(causeDead)
			k.cancel()
			k.abort() // ends a write that is under way, too
		}
	case now >= k.nextBeat:
		k.nextBeat = now + k.server.silenceMax
		k.server.open.Go(k.network.Ping) // it may have to wait for the network
	}
}

// check writes a comment to a stream when that is due, unless events are being written.
// This also finds out that the client has gone.
func (e *eventSource) check(now int64) {
	since := e.network.WritingSince()
	if e.isStalled(now, since) || now < e.nextBeat {
		return
	}
	e.nextBeat = now + min(keepAliveDefault.Milliseconds(), e.server.silenceMax)
	if since == 0 {
		e.server.open.Go(e.beat)
	}
}
