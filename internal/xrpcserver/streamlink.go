package xrpcserver

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/internal/intake"
)

const (
	// writeBytesMax bounds one write of the network, and so what a slow reader holds in
	// memory and how long a write may take.
	writeBytesMax = 64 << 10
	// directBytesMin is from which size on frames are not collected, but written.
	directBytesMin = 16 << 10
	writeTimeout   = 20 * time.Second
	closeTimeout   = 5 * time.Second
	// The library's buffers. Frames pass through the outgoing one, and those of clients
	// are short.
	readBufferBytes  = 512
	writeBufferBytes = 256
	// What one socket may send: bytesAtOnce, then as much again each minute. A read counts
	// for readBytesMin more than it brings. Who sends more is read from more slowly.
	bytesAtOnce  = 1 << 20
	readBytesMin = 64
)

// hijacker takes the connection out of net/http with small buffers, over a link.
type hijacker struct {
	http.ResponseWriter
	timeout time.Duration // of a write
	clock   *atomic.Int64
	link    *link
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	network, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = network.SetDeadline(time.Time{})                         // what net/http has set; writes have their own
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // frames sent without waiting for the upgrade
	h.link = &link{Conn: network, early: append([]byte(nil), early...), timeout: h.timeout, clock: h.clock, over: make(chan struct{})}
	return h.link, bufio.NewReadWriter(
		bufio.NewReaderSize(h.link, readBufferBytes), bufio.NewWriterSize(h.link, writeBufferBytes)), nil
}

// link is the network below a WebSocket. The library writes each message by itself; while
// the link is held, what is written gathers, and goes out at once.
type link struct {
	net.Conn
	timeout time.Duration
	early   []byte // read before the network is
	frames  intake.Frames
	bad     int // the close code of a frame that is refused, or 0
	clock   *atomic.Int64
	heard   atomic.Int64 // when the last bytes arrived
	pinged  atomic.Int64 // when the last ping was written
	ended   sync.Once
	over    chan struct{} // closed by Close

	spending sync.Mutex // guards paid
	paid     time.Time  // when everything that was read would be paid for (GCRA)

	mu        sync.Mutex // guards the rest, and is held during a write
	isHeld    bool
	held      *[]byte
	isLeaving bool // a close frame is the last frame
	isClosed  bool // it was written: nothing follows
}

var heldBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Read counts what it reads, whatever that turns out to be.
func (l *link) Read(p []byte) (int, error) {
	if l.bad != 0 {
		return 0, l.refuse()
	}
	n, err := l.read(p)
	good, code := l.frames.Look(p[:n])
	if code == 0 {
		return n, err
	}
	if l.bad = code; good == 0 {
		return 0, l.refuse()
	}
	return good, nil // what came before it is handled
}

func (l *link) read(p []byte) (int, error) {
	if len(l.early) > 0 {
		n := copy(p, l.early)
		l.early = l.early[n:]
		return n, nil
	}
	n, err := l.Conn.Read(p)
	l.heard.Store(l.clock.Load())
	l.slow(n + readBytesMin)
	return n, err
}

// refuse ends the connection with a close frame of its own, behind which nothing is
// written: the library would close with another code.
func (l *link) refuse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isClosed {
		l.isLeaving = true
		_, _ = l.send(intake.CloseFrame(l.bad)) // the connection ends in any case
		l.isClosed = true
	}
	return intake.ErrFrames
}

// slow waits until bytes are paid for, or the link is closed.
func (l *link) slow(bytes int) {
	l.spending.Lock()
	now := time.Now()
	if l.paid.Before(now) {
		l.paid = now
	}
	l.paid = l.paid.Add(time.Minute * time.Duration(bytes) / bytesAtOnce)
	wait := l.paid.Sub(now) - time.Minute
	l.spending.Unlock()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.over:
	}
}

// Close ends every call.
func (l *link) Close() error {
	l.ended.Do(func() { close(l.over) })
	return l.Conn.Close()
}

func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isHeld && len(p) < directBytesMin {
		*l.held = append(*l.held, p...)
		return len(p), nil
	}
	if l.isHeld { // a copy of what is long would take as much memory again
		if _, err := l.send(*l.held); err != nil {
			return 0, err
		}
		*l.held = (*l.held)[:0]
	}
	return l.send(p)
}

// pingFrame is a ping without a payload as a server sends it (RFC 6455, section 5.5.2).
var pingFrame = []byte{0x89, 0}

// ping writes a ping between two frames: the library's writes end where a frame ends,
// and what is held goes out in any case. While another write is under way it does nothing.
func (l *link) ping() {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if l.isHeld || l.isLeaving {
		return
	}
	asked := l.clock.Load()
	if _, err := l.send(pingFrame); err != nil {
		_ = l.Close()
		return
	}
	l.pinged.Store(asked)
}

// leave marks that the next frame may be the close frame.
func (l *link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isLeaving = true
}

func (l *link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isHeld {
		l.isHeld, l.held = true, heldBuffers.Get().(*[]byte)
	}
}

// flushIfFull sends what is held once that is much, and goes on holding.
func (l *link) flushIfFull() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isHeld || len(*l.held) < writeBytesMax {
		return nil
	}
	_, err := l.send(*l.held)
	*l.held = (*l.held)[:0]
	return err
}

// release sends what is held and stops holding.
func (l *link) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isHeld {
		return nil
	}
	_, err := l.send(*l.held)
	if cap(*l.held) <= 4*writeBytesMax { // one long message must not stay in memory
		*l.held = (*l.held)[:0]
		heldBuffers.Put(l.held)
	}
	l.isHeld, l.held = false, nil
	return err
}

// send writes to the network, at most writeBytesMax within the timeout. The caller holds
// mu.
func (l *link) send(p []byte) (sent int, err error) {
	if l.isClosed {
		return len(p), nil
	}
	for len(p) > 0 && err == nil {
		var n int
		_ = l.Conn.SetWriteDeadline(time.Now().Add(l.timeout)) // fails as the write will
		n, err = l.Conn.Write(p[:min(len(p), writeBytesMax)])
		sent, p = sent+n, p[n:]
	}
	return sent, err
}
