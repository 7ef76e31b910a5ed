package gatewayserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/internal/intake"
)

// conn is a WebSocket as this package needs it.
type conn interface {
	// Next waits for a message and returns a reader of it, to be read to its end
	// before the next call. The reader returns errTooLong behind
	// gateway.FrameBytesMax, and intake.ErrSlow where the message comes too slowly.
	Next() (isText bool, message io.Reader, err error)
	// Write sends text messages in order, many of them in one write of the network,
	// and returns when the network has them. It may be called by several goroutines;
	// the messages of one call stay together.
	Write(messages ...[]byte) error
	// Slow counts bytes against the budget of the connection, beyond those that came
	// through the network, and waits where it is used up. Only the reading goroutine
	// calls it.
	Slow(bytes int)
	// WritingSince is the server's clock when the write under way began, or 0.
	WritingSince() int64
	// WrittenAt returns the server's clock when the network took the last bytes.
	WrittenAt() int64
	// Ping writes a WebSocket ping, which clients answer by themselves and applications
	// do not see. It does nothing while another write is under way or after Close.
	Ping()
	// Close says goodbye, waits a few seconds for the peer to do the same, and ends
	// every call. Only the first Close of a conn says anything.
	Close(code int, reason string)
	// Abort cuts the network, which ends every call. It does not block.
	Abort()
}

// The close codes of RFC 6455, section 7.4.1, that this door uses.
const (
	closeNormal    = int(websocket.StatusNormalClosure)
	closeGoingAway = int(websocket.StatusGoingAway)
	closeProtocol  = int(websocket.StatusProtocolError)
	closeBinary    = int(websocket.StatusUnsupportedData)
	closeNotUTF8   = int(websocket.StatusInvalidFramePayloadData)
	closePolicy    = int(websocket.StatusPolicyViolation)
	closeTooLong   = int(websocket.StatusMessageTooBig)
	closeFault     = int(websocket.StatusInternalError)
)

var errTooLong = errors.New("message is too long")

const (
	// writeBytesMax bounds one write of the network, and so what a slow reader holds
	// in memory and how long a write may take.
	writeBytesMax = 64 << 10
	// directBytesMin is from which size on messages are not collected, but written.
	directBytesMin = 16 << 10
	closeTimeout   = 5 * time.Second
	// The library's buffers. Whole messages pass through the outgoing one, so it only
	// has to hold a control frame; the incoming one costs memory on every idle socket.
	readBufferBytes  = 1 << 10
	writeBufferBytes = 256
)

// webSocket is a conn by github.com/coder/websocket. That library writes each
// message to the network by itself; the link below it collects what belongs together.
type webSocket struct {
	ws     *websocket.Conn
	link   *link
	intake *intake.Intake
	mu     sync.Mutex // keeps the messages of one Write together
}

// upgrade makes a WebSocket of a request. The answer to what is no such request has
// then been written.
func upgrade(w http.ResponseWriter, r *http.Request, clock *atomic.Int64, in *intake.Intake, bytesMax int64) (*webSocket, error) {
	h := &hijacker{ResponseWriter: w, clock: clock}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // any Origin: sessions are held by tokens, not cookies
		CompressionMode:    websocket.CompressionDisabled,
		Subprotocols:       intake.FirstSubprotocol(r),
		// Control frames never get to whoever reads messages, and cost work too.
		OnPingReceived: func(context.Context, []byte) bool { h.link.slow(frameBytesMin); return true },
		OnPongReceived: func(context.Context, []byte) { h.link.slow(frameBytesMin) },
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(bytesMax)
	return &webSocket{ws: ws, link: h.link, intake: in}, nil
}

func (c *webSocket) Next() (isText bool, message io.Reader, err error) {
	kind, message, err := c.ws.Reader(context.Background())
	if err != nil {
		return false, nil, err
	}
	return kind == websocket.MessageText, &pacedReader{Reader: boundedReader{message}, network: c.link, intake: c.intake}, nil
}

type boundedReader struct{ io.Reader }

func (r boundedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, websocket.ErrMessageTooBig) {
		err = errTooLong
	}
	return n, err
}

func (c *webSocket) Write(messages ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link.hold()
	for _, message := range messages {
		err := c.ws.Write(context.Background(), websocket.MessageText, message)
		if err == nil && c.link.heldBytes() >= writeBytesMax {
			err = c.link.flush()
		}
		if err != nil {
			return errors.Join(err, c.link.release())
		}
	}
	return c.link.release()
}

func (c *webSocket) Slow(bytes int) { c.link.slow(bytes) }

func (c *webSocket) WritingSince() int64 { return c.link.since.Load() }

func (c *webSocket) WrittenAt() int64 { return c.link.written.Load() }

func (c *webSocket) Ping() { c.link.ping() }

func (c *webSocket) Close(code int, reason string) {
	// The library waits without limit for the rest of a message that never comes.
	_ = c.link.SetDeadline(time.Now().Add(closeTimeout))
	c.link.leave()
	_ = c.ws.Close(websocket.StatusCode(code), reason)
	_ = c.link.Close()
	_ = c.ws.CloseNow()
}

func (c *webSocket) Abort() { _ = c.link.Close() }

// hijacker takes the connection out of net/http with small buffers, over a link.
type hijacker struct {
	http.ResponseWriter
	clock *atomic.Int64
	link  *link
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	network, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // frames sent without waiting for the upgrade
	h.link = &link{Conn: network, early: append([]byte(nil), early...), clock: h.clock, over: make(chan struct{})}
	h.link.written.Store(h.clock.Load())
	return h.link, bufio.NewReadWriter(
		bufio.NewReaderSize(h.link, readBufferBytes), bufio.NewWriterSize(h.link, writeBufferBytes)), nil
}

// link is the network below a WebSocket. While it is held, what is written waits
// until it is released, and then goes out at once.
type link struct {
	net.Conn
	early   []byte // read before the network is
	frames  intake.Frames
	bad     int // the close code of a frame that is refused, or 0
	clock   *atomic.Int64
	since   atomic.Int64 // when the write under way began, or 0
	written atomic.Int64 // when the last write ended
	ended   sync.Once
	over    chan struct{} // closed by Close

	spending sync.Mutex // guards spent: a Close reads too, from any goroutine
	spent    budget

	mu        sync.Mutex // guards the rest, and is held during a write
	isHeld    bool
	held      *[]byte
	isLeaving bool // a close frame is the last frame
	isClosed  bool // it was written: nothing follows
}

var heldBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Read counts what it reads, whatever it turns out to be: pings, empty fragments and
// messages that never end are paid for like others.
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
	l.slow(n)
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

// slow waits until what was read and bytes more are paid for, or the link is closed.
func (l *link) slow(bytes int) {
	l.spending.Lock()
	wait := l.spent.take(bytes, time.Now())
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

// pingFrameBytes is a ping without a payload as a server sends it (RFC 6455, section 5.5.2).
var pingFrameBytes = []byte{0x89, 0}

// ping writes a ping between two frames: the library's writes end where a frame ends,
// and what is held goes out in any case.
func (l *link) ping() {
	if !l.mu.TryLock() {
		return // another write is under way
	}
	defer l.mu.Unlock()
	if !l.isHeld && !l.isLeaving {
		_, _ = l.send(pingFrameBytes) // an error ends the reader too
	}
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
	l.isHeld, l.held = true, heldBuffers.Get().(*[]byte)
}

func (l *link) heldBytes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(*l.held)
}

// flush sends what is held and goes on holding.
func (l *link) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.send(*l.held)
	*l.held = (*l.held)[:0]
	return err
}

// release sends what is held and stops holding.
func (l *link) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.send(*l.held)
	if cap(*l.held) <= 4*writeBytesMax { // one long message must not stay in memory
		*l.held = (*l.held)[:0]
		heldBuffers.Put(l.held)
	}
	l.isHeld, l.held = false, nil
	return err
}

// send writes to the network, at most writeBytesMax at a time, so that since says
// whether anything gets through. The caller holds mu.
func (l *link) send(p []byte) (sent int, err error) {
	if l.isClosed {
		return len(p), nil
	}
	for len(p) > 0 && err == nil {
		var n int
		l.since.Store(l.clock.Load())
		n, err = l.Conn.Write(p[:min(len(p), writeBytesMax)])
		l.since.Store(0)
		l.written.Store(l.clock.Load())
		sent, p = sent+n, p[n:]
	}
	return sent, err
}
