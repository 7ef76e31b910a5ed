package doors

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/internal/limits"
)

const (
	// WriteBytesMax bounds one write to the network, and so the bytes that a slow reader
	// retains and the time that a write may take.
	WriteBytesMax = 64 << 10
	// directBytesMin is the size from which on messages are written directly; shorter ones
	// are collected.
	directBytesMin = 16 << 10
	// frameBytesMin is added for every read and every frame to the bytes that a client is
	// charged for, since handling them costs something too.
	frameBytesMin = 64
	// The library's outgoing buffer has to hold a control frame only: whole messages pass
	// through it.
	writeBufferBytes = 256
)

// hijacker takes the connection out of net/http with small buffers, over a link.
type hijacker struct {
	http.ResponseWriter
	options *SocketOptions
	link    *link
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	network, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = network.SetDeadline(time.Time{})                         // those of net/http; a broken network shows later
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // frames sent without waiting for the upgrade
	h.link = newLink(network, h.options.Clock, h.options.Rate)
	h.link.early = append([]byte(nil), early...)
	return h.link, bufio.NewReadWriter(
		bufio.NewReaderSize(h.link, h.options.ReadBufferBytes), bufio.NewWriterSize(h.link, writeBufferBytes)), nil
}

// link is the network below a WebSocket. The library writes each message by itself; while
// the link is held, written bytes are collected, and leave together.
type link struct {
	net.Conn
	clock  *Clock
	rate   limits.Rate // of bytes read
	opened time.Time
	early  []byte // read before the network is
	frames Frames
	bad    int // the close code of a frame that is refused, or 0
	ended  sync.Once
	over   chan struct{} // closed by Close

	// By the clock:
	heard   atomic.Int64 // when the last bytes arrived
	since   atomic.Int64 // when the write under way began, or 0
	written atomic.Int64 // when the last write ended
	pinged  atomic.Int64 // when the last ping was written

	spending sync.Mutex // guards spent: a Close reads too, from any goroutine
	spent    limits.Bucket

	mu        sync.Mutex // guards the rest, and is held during a write
	isHeld    bool
	held      *[]byte
	isLeaving bool // a close frame is the last frame
	isClosed  bool // it was written: nothing follows
}

var heldBuffers = sync.Pool{New: func() any { return new([]byte) }}

func newLink(network net.Conn, clock *Clock, rate limits.Rate) *link {
	l := &link{Conn: network, clock: clock, rate: rate, opened: time.Now(), over: make(chan struct{})}
	l.written.Store(clock.Now())
	return l
}

// Read charges the client for all bytes that it reads: pings, empty fragments and messages
// that never end are paid for like others.
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
	return good, nil // the frames before it are handled
}

func (l *link) read(p []byte) (int, error) {
	if len(l.early) > 0 {
		n := copy(p, l.early)
		l.early = l.early[n:]
		return n, nil
	}
	n, err := l.Conn.Read(p)
	l.heard.Store(l.clock.Now())
	l.slow(n + frameBytesMin)
	return n, err
}

// refuse ends the connection with a close frame of its own as the last frame: the library
// would close with another code.
func (l *link) refuse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isClosed {
		l.isLeaving = true
		_, _ = l.send(CloseFrame(l.bad)) // the connection ends in any case
		l.isClosed = true
	}
	return ErrFrames
}

// slow charges bytes and waits until they are paid for, or the link is closed.
func (l *link) slow(bytes int) {
	now := time.Since(l.opened)
	l.spending.Lock()
	l.spent.Take(l.rate, int64(bytes), now)
	wait := l.spent.Wait(l.rate, 0, now)
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
	if l.isHeld { // a copy of a long message would take as much memory again
		if _, err := l.send(*l.held); err != nil {
			return 0, err
		}
		*l.held = (*l.held)[:0]
	}
	return l.send(p)
}

// pingFrame is a ping without a payload as a server sends it (RFC 6455, section 5.5.2).
var pingFrame = []byte{0x89, 0}

// ping writes a ping between two frames: the library's writes end where a frame ends, and
// held bytes leave in any case. During another write it does nothing.
func (l *link) ping() {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if l.isHeld || l.isLeaving {
		return
	}
	asked := l.clock.Now()
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

// hold begins to collect writes. It may be called again.
func (l *link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isHeld {
		l.isHeld, l.held = true, heldBuffers.Get().(*[]byte)
	}
}

// flushIfFull sends the held bytes if they are many, and keeps holding.
func (l *link) flushIfFull() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isHeld || len(*l.held) < WriteBytesMax {
		return nil
	}
	_, err := l.send(*l.held)
	*l.held = (*l.held)[:0]
	return err
}

// release sends the held bytes and stops holding.
func (l *link) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isHeld {
		return nil
	}
	_, err := l.send(*l.held)
	if cap(*l.held) <= 4*WriteBytesMax { // one long message must not stay in memory
		*l.held = (*l.held)[:0]
		heldBuffers.Put(l.held)
	}
	l.isHeld, l.held = false, nil
	return err
}

// send writes to the network, at most WriteBytesMax at a time, so that since shows whether
// any bytes get through. The caller holds mu.
func (l *link) send(p []byte) (sent int, err error) {
	if l.isClosed {
		return len(p), nil
	}
	for len(p) > 0 && err == nil {
		var n int
		l.since.Store(l.clock.Now())
		n, err = l.Conn.Write(p[:min(len(p), WriteBytesMax)])
		l.since.Store(0)
		l.written.Store(l.clock.Now())
		sent, p = sent+n, p[n:]
	}
	return sent, err
}
