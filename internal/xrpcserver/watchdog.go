package xrpcserver

import "time"

const (
	// heartbeatDefault bounds the time in which nothing is written to a socket: proxies
	// cut connections that are silent for a minute (gateway decision 15).
	heartbeatDefault = 25 * time.Second
	keepAliveDefault = 15 * time.Second
	pongTimeout      = 20 * time.Second
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
		now := s.tick()
		s.streams.mu.Lock()
		for c := range s.streams.open {
			c.out.check(now)
		}
		s.streams.mu.Unlock()
	}
}

// tick moves the clock that sockets measure with: milliseconds, never 0.
func (s *Server) tick() int64 {
	now := time.Since(s.started).Milliseconds() + 1
	s.clock.Store(now)
	return now
}

// check asks a socket for a sign of life when that is due, and cuts off one that has
// given none since it was asked. Anything that arrives is one.
func (k *socket) check(now int64) {
	asked := k.link.pinged.Load()
	switch {
	case asked > k.link.heard.Load():
		if now-asked > k.server.pongTimeout.Milliseconds() {
			k.end(causeDead)
			k.cancel()
			k.abort() // ends a write that is under way, too
		}
	case now >= k.nextBeat:
		k.nextBeat = now + k.server.silenceMax
		k.server.open.Go(k.link.ping) // it may have to wait for the network
	}
}

// check writes a comment to a stream when that is due. This also finds out that the
// client has gone.
func (e *eventSource) check(now int64) {
	if now >= e.nextBeat {
		e.nextBeat = now + min(keepAliveDefault.Milliseconds(), e.server.silenceMax)
		e.server.open.Go(e.beat)
	}
}
