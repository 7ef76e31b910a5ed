package xrpcserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/intake"
)

// eventSource is a subscription over text/event-stream, for those whose network lets no
// WebSocket through: an event in JSON for each, whose id is its cursor.
type eventSource struct {
	*stream
	w       http.ResponseWriter
	control *http.ResponseController
	items   []byte

	nextBeat int64 // when a comment is due; the watchdog's
	isOver   bool  // the answer has ended, and w is not ours any more; the stream's mu guards it
}

// serveEvents answers with events until the stream ends.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request, c *stream) {
	defer context.AfterFunc(r.Context(), c.cancel)()
	e := &eventSource{stream: c, w: w, control: http.NewResponseController(w), nextBeat: s.clock.Load() + min(keepAliveDefault.Milliseconds(), s.silenceMax)}
	c.out = e
	defer c.close()
	if !s.admit(c) {
		s.streams.leave(c.who.Account)
		s.answer(w, r, xrpc.SubscribeEvents, nil, errShuttingDown)
		return
	}
	defer s.forget(c)
	// What the server allows a request and its answer in time does not hold here.
	_ = e.control.SetReadDeadline(time.Time{}) // fails where there is none
	intake.SetStreamHeaders(w.Header())
	w.WriteHeader(http.StatusOK)
	_ = e.write(func() error { e.items = append(e.items, ": open\n\n"...); return nil })
	e.run()
	c.cancel()
	e.mu.Lock()
	e.isOver = true
	e.mu.Unlock()
	s.ended(c)
	_ = e.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // for the end of the answer
}

func (e *eventSource) event(event *sharedEvent, seq int64, cursor []byte) error {
	e.items = append(append(e.items, "id: "...), cursor...)
	e.items = appendJSON(append(e.items, "\ndata: "...), event, seq, cursor)
	e.items = append(e.items, "\n\n"...)
	if len(e.items) >= writeBytesMax {
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
	for items := e.items; len(items) > 0; {
		n := min(len(items), writeBytesMax)
		_ = e.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails where there is none
		if _, err := e.w.Write(items[:n]); err != nil {
			return errors.Join(errWrite, err)
		}
		if err := e.control.Flush(); err != nil {
			return errors.Join(errWrite, err)
		}
		items = items[n:]
	}
	if e.items = e.items[:0]; cap(e.items) > 4*writeBytesMax {
		e.items = nil
	}
	return nil
}

func (e *eventSource) abort() { _ = e.control.SetWriteDeadline(time.Unix(1, 0)) }

// beat writes a comment, unless events are being written: it keeps what is between here
// and the client from closing a silent connection.
func (e *eventSource) beat() {
	if !e.mu.TryLock() {
		return
	}
	defer e.mu.Unlock()
	if e.isOver {
		return
	}
	e.items = append(e.items, ": alive\n\n"...)
	if e.flush() != nil {
		e.end(causePeer)
		e.cancel()
	}
}
