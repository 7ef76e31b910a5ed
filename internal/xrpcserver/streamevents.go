package xrpcserver

import (
	"context"
	"net/http"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/doors"
)

// eventSource is a subscription over text/event-stream, for clients behind a network that
// blocks WebSockets. Each event is JSON, with its cursor as id.
type eventSource struct {
	*stream
	network  *doors.EventWriter
	items    []byte
	nextBeat int64 // when a comment is due; the watchdog's
}

// serveEvents answers with events until the stream ends.
func (s *subscriptions) serveEvents(w http.ResponseWriter, r *http.Request, c *stream) {
	defer context.AfterFunc(r.Context(), c.cancel)()
	e := &eventSource{stream: c, network: doors.NewEventWriter(w, s.clock), nextBeat: s.clock.Now() + min(keepAliveDefault.Milliseconds(), s.silenceMax)}
	c.out = e
	defer c.close()
	if !s.admit(c) {
		s.streams.Leave(c.who.Account)
		s.server.answer(w, r, xrpc.SubscribeEvents, nil, errShuttingDown)
		return
	}
	defer s.streams.Forget(c)
	if e.network.Begin() {
		_ = e.write(func() error { e.items = append(e.items, ": open\n\n"...); return nil })
	}
	e.run()
	c.cancel()
	e.network.Close() // may wait for a write, which the watchdog bounds until Forget
	s.ended(c)
}

func (e *eventSource) event(event *sharedEvent, seq int64, cursor []byte) error {
	e.items = append(append(e.items, "id: "...), cursor...)
	e.items = appendJSON(append(e.items, "\ndata: "...), event, seq, cursor)
	e.items = append(e.items, "\n\n"...)
	if len(e.items) >= doors.WriteBytesMax {
		return e.flush()
	}
	return nil
}

func (e *eventSource) fail(name, message string) error {
	e.items = append(append(e.items, "event: error\ndata: "...), errorJSON(name, message)...)
	e.items = append(e.items, "\n\n"...)
	return nil
}

func (e *eventSource) flush() error {
	ok := len(e.items) == 0 || e.network.Write(e.items)
	if e.items = e.items[:0]; cap(e.items) > 4*doors.WriteBytesMax { // one long message must not stay in memory
		e.items = nil
	}
	if !ok {
		return errWrite
	}
	return nil
}

func (e *eventSource) abort() { e.network.Abort() }

// beat writes a comment, so that proxies do not close a silent connection.
func (e *eventSource) beat() {
	if !e.network.Write(aliveComment) {
		e.end(causePeer)
		e.cancel()
	}
}

var aliveComment = []byte(": alive\n\n")
