package xrpcserver

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const keepAliveInterval = 15 * time.Second

// eventSource is a subscription over text/event-stream, for those whose network lets no
// WebSocket through: an event in JSON for each, whose id is its cursor.
type eventSource struct {
	*stream
	w       http.ResponseWriter
	control *http.ResponseController
	items   []byte
}

// serveEvents answers with events until the stream ends.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request, c *stream) {
	defer context.AfterFunc(r.Context(), c.cancel)()
	e := &eventSource{stream: c, w: w, control: http.NewResponseController(w)}
	c.out = e
	defer c.close()
	if !s.admit(c) {
		s.streams.leave(c.who.Account)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer s.forget(c)
	// What the server allows a request and its answer in time does not hold here.
	_ = e.control.SetReadDeadline(time.Time{}) // fails where there is none
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events before it passes them on
	w.WriteHeader(http.StatusOK)
	beaten := make(chan struct{})
	go func() {
		defer close(beaten)
		e.beat()
	}()
	_ = e.write(func() error { e.items = append(e.items, ": open\n\n"...); return nil })
	e.run()
	c.cancel()
	<-beaten
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

// beat keeps what is between here and the client from closing a silent connection, and
// finds out that the client has gone.
func (e *eventSource) beat() {
	ticker := time.NewTicker(e.server.keepAlive())
	defer ticker.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-ticker.C:
			if e.write(func() error { e.items = append(e.items, ": alive\n\n"...); return nil }) != nil {
				e.end(causePeer)
				e.cancel()
				return
			}
		}
	}
}
