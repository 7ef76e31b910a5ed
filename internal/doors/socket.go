package doors

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/internal/limits"
)

// The close codes of RFC 6455, section 7.4.1, that doors use.
const (
	CloseNormal    = int(websocket.StatusNormalClosure)
	CloseGoingAway = int(websocket.StatusGoingAway)
	CloseProtocol  = int(websocket.StatusProtocolError)
	CloseBinary    = int(websocket.StatusUnsupportedData)
	CloseNotUTF8   = int(websocket.StatusInvalidFramePayloadData)
	ClosePolicy    = int(websocket.StatusPolicyViolation)
	CloseTooLong   = int(websocket.StatusMessageTooBig)
	CloseFault     = int(websocket.StatusInternalError)
)

// CloseTimeout bounds the wait for a client's close frame.
const CloseTimeout = 5 * time.Second

// ErrTooLong ends a connection on which a message was longer than BytesMax.
var ErrTooLong = errors.New("message is too long")

// SocketOptions configure the sockets of a door.
type SocketOptions struct {
	Clock *Clock
	// Intake bounds the time of a message, by its Patience.
	Intake *Intake
	// Rate limits the bytes of a client; one that sends more is read from more slowly.
	Rate limits.Rate
	// BytesMax bounds a message of a client.
	BytesMax int64
	// ReadBufferBytes is the size of the incoming buffer, which each idle socket holds.
	ReadBufferBytes int
	// Preferred are subprotocols to take wherever the client lists them; otherwise its first
	// is taken.
	Preferred []string
}

// Socket is a WebSocket by github.com/coder/websocket. That library writes each message to
// the network by itself; the link below it collects messages that belong together.
type Socket struct {
	ws     *websocket.Conn
	link   *link
	intake *Intake
	mu     sync.Mutex // keeps the messages of one Write together
}

// Accept makes a Socket of a request. If it fails, the request has been answered.
func Accept(w http.ResponseWriter, r *http.Request, o SocketOptions) (*Socket, error) {
	h := &hijacker{ResponseWriter: w, options: &o}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // any Origin: no cookies authenticate
		CompressionMode:    websocket.CompressionDisabled,
		Subprotocols:       append(o.Preferred, firstSubprotocol(r)...),
		// Control frames never get to the reader of messages, and cost work too.
		OnPingReceived: func(context.Context, []byte) bool { h.link.slow(frameBytesMin); return true },
		OnPongReceived: func(context.Context, []byte) { h.link.slow(frameBytesMin) },
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(o.BytesMax)
	return &Socket{ws: ws, link: h.link, intake: o.Intake}, nil
}

// Subprotocol returns the subprotocol that was agreed on, or "".
func (s *Socket) Subprotocol() string { return s.ws.Subprotocol() }

// Next waits for a message and returns a reader of it, to be read to its end before the
// next call. The reader returns ErrTooLong for a message beyond the bound, and ErrSlow for
// one that arrives too slowly. Only one goroutine may call it.
func (s *Socket) Next() (isText bool, message io.Reader, err error) {
	kind, message, err := s.ws.Reader(context.Background())
	if err != nil {
		return false, nil, err
	}
	s.link.slow(frameBytesMin)
	return kind == websocket.MessageText, &pacedReader{Reader: boundedReader{message}, network: s.link, intake: s.intake}, nil
}

type boundedReader struct{ io.Reader }

func (r boundedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, websocket.ErrMessageTooBig) {
		err = ErrTooLong
	}
	return n, err
}

// pacedReader reads a message of a socket and ends it where it arrives too slowly. Small
// messages have mostly arrived at once and retain nothing: time is taken for the rest only.
type pacedReader struct {
	io.Reader
	network interface{ SetReadDeadline(time.Time) error }
	intake  *Intake
	pace    Pace
	seen    int
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if r.seen < FreeBytes {
		n, err := r.Reader.Read(p)
		r.seen += n
		return n, err
	}
	began := time.Now()
	_ = r.network.SetReadDeadline(began.Add(r.intake.Left(&r.pace)))
	n, err := r.Reader.Read(p)
	r.intake.Took(&r.pace, n, time.Since(began))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrSlow
	case err != nil:
		_ = r.network.SetReadDeadline(time.Time{}) // for the next message
	}
	return n, err
}

// Write sends text messages in order, many of them in one write to the network, and returns
// when the network has them. It may be called by several goroutines; the messages of one
// call stay together.
func (s *Socket) Write(messages ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, message := range messages {
		if err := s.Add(true, message); err != nil {
			return errors.Join(err, s.Flush())
		}
	}
	return s.Flush()
}

// Add writes a message that may wait for Flush. The calls of Add and Flush are in turn.
func (s *Socket) Add(isText bool, message []byte) error {
	kind := websocket.MessageBinary
	if isText {
		kind = websocket.MessageText
	}
	s.link.hold()
	if err := s.ws.Write(context.Background(), kind, message); err != nil {
		return err
	}
	return s.link.flushIfFull()
}

// Flush sends all that was added and returns when it is written.
func (s *Socket) Flush() error { return s.link.release() }

// WritingSince returns the clock's time when the current write began, or 0.
func (s *Socket) WritingSince() int64 { return s.link.since.Load() }

// WrittenAt returns the clock's time when the last write ended.
func (s *Socket) WrittenAt() int64 { return s.link.written.Load() }

// HeardAt returns the clock's time when the last bytes arrived.
func (s *Socket) HeardAt() int64 { return s.link.heard.Load() }

// PingedAt returns the clock's time when the last ping of Ping was written, or 0.
func (s *Socket) PingedAt() int64 { return s.link.pinged.Load() }

// Ping writes a WebSocket ping, which clients answer by themselves and applications do not
// see. It does nothing during another write or after Close.
func (s *Socket) Ping() { s.link.ping() }

// Close sends a close frame, waits CloseTimeout for the client's, and ends every call. Only the
// first Close of a socket sends one.
func (s *Socket) Close(code int, reason string) {
	// The library waits without limit for the rest of a message that never comes.
	_ = s.link.SetDeadline(time.Now().Add(CloseTimeout))
	s.link.leave()
	_ = s.ws.Close(websocket.StatusCode(code), reason)
	_ = s.link.Close()
	_ = s.ws.CloseNow()
}

// Abort cuts the connection, which ends every call. It does not block.
func (s *Socket) Abort() { _ = s.link.Close() }
