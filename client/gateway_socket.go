package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
)

const (
	// frameBytesMax bounds one frame from the server. A longer one is fetched, see
	// gateway_omitted.go.
	frameBytesMax = gateway.FrameBytesMax
	// framesAhead bounds the frames that are read before the link translates them.
	framesAhead = 64
	// dialTimeout bounds connecting, with the answer to session.start.
	dialTimeout  = 20 * time.Second
	writeTimeout = 20 * time.Second
)

// socket is one WebSocket. A goroutine reads it and another writes it, so a session never waits
// for the network and a server that does not read cannot keep it from reading.
type socket struct {
	conn   *websocket.Conn
	frames chan gateway.Frame
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	lastRead atomic.Int64 // UnixNano by the machine's clock

	mu     sync.Mutex
	queue  [][]byte // guarded by mu; short: requests are answered one by one
	err    error    // why the socket ended; guarded by mu
	queued chan struct{}
}

// upgradeError is the failure of a handshake that was answered with something other than a
// WebSocket, or was cut, or not answered.
type upgradeError struct{ why error }

// Error returns the message with the cause.
func (e *upgradeError) Error() string { return "connect: no WebSocket: " + e.why.Error() }
func (e *upgradeError) Unwrap() error { return e.why }

// openSocket connects to the gateway at base.
func openSocket(ctx context.Context, base *url.URL, client *http.Client) (*socket, error) {
	dialCtx, cancelDial := context.WithTimeout(ctx, dialTimeout)
	defer cancelDial()
	conn, err := dialWebSocket(dialCtx, base.JoinPath("/v1/ws").String(), client)
	if err != nil {
		var op *net.OpError
		if ctx.Err() != nil || errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("connect: %w", err) // the server cannot be reached at all
		}
		return nil, &upgradeError{err}
	}
	conn.SetReadLimit(frameBytesMax)
	ctx, cancel := context.WithCancel(ctx)
	s := &socket{conn: conn, frames: make(chan gateway.Frame), cancel: cancel, queued: make(chan struct{}, 1)}
	s.lastRead.Store(time.Now().UnixNano())
	s.tasks.Add(2)
	go s.read(ctx)
	go s.write(ctx)
	return s, nil
}

func (s *socket) kind() Transport { return WebSocket }

// begin does nothing: the answer to the start of the session came through here.
func (s *socket) begin(string) error { return nil }

func (s *socket) incoming() <-chan gateway.Frame { return s.frames }

// close ends the socket and waits for its goroutines.
func (s *socket) close() {
	s.cancel()
	s.conn.CloseNow()
	s.tasks.Wait()
}

func (s *socket) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.cancel()
}

// failure returns the reason why frames was closed.
func (s *socket) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *socket) read(ctx context.Context) {
	defer s.tasks.Done()
	defer close(s.frames)
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			s.fail(fmt.Errorf("read: %w", err))
			return
		}
		s.lastRead.Store(time.Now().UnixNano())
		if kind != websocket.MessageText {
			s.fail(errors.New("read: a binary frame"))
			return
		}
		frame, err := gateway.DecodeFrame(data)
		if err != nil {
			s.fail(fmt.Errorf("read: %w", err))
			return
		}
		if frame.Type == gateway.TypePing {
			s.send(gateway.TypePong, "", nil)
			continue
		}
		select {
		case s.frames <- frame:
		case <-ctx.Done():
			s.fail(ctx.Err())
			return
		}
	}
}

// send queues a frame. id is repeated in the answer; "" for none.
func (s *socket) send(frameType, id string, body any) {
	var raw []byte
	if id != "" {
		raw = gateway.StringID(id)
	}
	data, err := gateway.EncodeFrame(frameType, raw, body)
	if err != nil {
		s.fail(err)
		return
	}
	s.sendRaw(data)
}

func (s *socket) sendRaw(data []byte) {
	s.mu.Lock()
	s.queue = append(s.queue, data)
	s.mu.Unlock()
	select {
	case s.queued <- struct{}{}:
	default:
	}
}

func (s *socket) write(ctx context.Context) {
	defer s.tasks.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.queued:
		}
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, data := range queue {
			writeCtx, cancel := context.WithTimeout(ctx, writeTimeout)
			err := s.conn.Write(writeCtx, websocket.MessageText, data)
			cancel()
			if err != nil {
				s.fail(fmt.Errorf("write: %w", err))
				s.conn.CloseNow() // the reader ends with it
				return
			}
		}
	}
}

func (s *socket) isSilent(pingInterval time.Duration) bool {
	return time.Since(time.Unix(0, s.lastRead.Load())) > pingInterval*silentAfter/2
}
