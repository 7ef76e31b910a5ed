package doors

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// EventWriter writes the items of an answer of text/event-stream. They come from the goroutine
// of the request and from the watchdog; it keeps each whole, and notes the time since which a
// write is in progress.
type EventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	clock   *Clock
	since   atomic.Int64 // when the write under way began, or 0
	isCut   atomic.Bool  // by Abort

	mu       sync.Mutex // guards w and isClosed, and is held during a write
	isClosed bool
}

// streamEndTimeout bounds the end of an answer.
const streamEndTimeout = 20 * time.Second

// NewEventWriter makes an EventWriter of an answer that has not begun.
func NewEventWriter(w http.ResponseWriter, clock *Clock) *EventWriter {
	return &EventWriter{w: w, control: http.NewResponseController(w), clock: clock}
}

// Begin sends the head of the answer and reports whether it was written. It removes the
// server's time limits of a request: the watchdog's bounds hold for a stream.
func (e *EventWriter) Begin() bool {
	_ = e.control.SetReadDeadline(time.Time{}) // fails without a connection, in tests
	_ = e.control.SetWriteDeadline(time.Time{})
	setStreamHeaders(e.w.Header())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.w.WriteHeader(http.StatusOK)
	return e.control.Flush() == nil
}

// Write sends whole items and returns when they are written; false means that the connection
// is broken.
func (e *EventWriter) Write(items []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.since.Store(0)
	for len(items) > 0 {
		if e.isClosed {
			return false
		}
		n := min(len(items), WriteBytesMax) // so that since shows whether any bytes get through
		e.since.Store(e.clock.Now())
		if _, err := e.w.Write(items[:n]); err != nil {
			return false
		}
		if e.control.Flush() != nil {
			return false
		}
		items = items[n:]
	}
	return true
}

// WritingSince returns the clock's time when the write under way began, or 0.
func (e *EventWriter) WritingSince() int64 { return e.since.Load() }

// Abort ends the write under way, and every later one. It does not block.
func (e *EventWriter) Abort() {
	e.isCut.Store(true)
	_ = e.control.SetWriteDeadline(time.Unix(1, 0))
}

// Close waits for the current write; after it only the end of the answer is written.
func (e *EventWriter) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isClosed = true; !e.isCut.Load() {
		_ = e.control.SetWriteDeadline(time.Now().Add(streamEndTimeout)) // fails without a connection, in tests
	}
}
