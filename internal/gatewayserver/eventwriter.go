package gatewayserver

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// eventWriter is the network below a stream. Its items come from the goroutine of the
// request and from the watchdog; it keeps each whole, and says since when a write has
// not got through.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	clock   *atomic.Int64
	since   atomic.Int64 // when the write under way began, or 0

	mu       sync.Mutex // guards w and isClosed, and is held during a write
	isClosed bool
}

func newEventWriter(w http.ResponseWriter, clock *atomic.Int64) *eventWriter {
	return &eventWriter{w: w, control: http.NewResponseController(w), clock: clock}
}

// begin sends the head of the answer. What the server allows a request and its answer
// in time does not hold for a stream: the watchdog's bounds do.
func (e *eventWriter) begin() bool {
	_ = e.control.SetReadDeadline(time.Time{}) // fails where there is none
	_ = e.control.SetWriteDeadline(time.Time{})
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.control.Flush() == nil
}

// write sends whole items and returns when the network has them; false means that it
// is gone.
func (e *eventWriter) write(items []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.since.Store(0)
	for len(items) > 0 {
		if e.isClosed {
			return false
		}
		n := min(len(items), writeBytesMax) // so that since says whether anything gets through
		e.since.Store(e.clock.Load())
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

// abort ends the write under way, and every later one. It does not block.
func (e *eventWriter) abort() { _ = e.control.SetWriteDeadline(time.Unix(1, 0)) }

// close waits for the write under way; nothing is written after it.
func (e *eventWriter) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.isClosed = true
}
