package client

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/server"
)

// newBubble is a world inside a synctest bubble: a whole server whose connections are
// made of channels of memory, so that hours pass in no time.
func newBubble(t *testing.T) *world {
	t.Helper()
	l := &pipeListener{made: make(chan net.Conn), closed: make(chan struct{})}
	w := &world{t: t, dial: l.dial, ctx: t.Context()}
	// Too long a path for the admin socket, which would be a real one.
	data := filepath.Join(t.TempDir(), strings.Repeat("x", 110))
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	w.config = server.DefaultConfig(data)
	w.config.Limit, w.config.Listener = []string{"all=off"}, l
	w.config.PingInterval, w.config.Heartbeat = 10*time.Minute, time.Hour // or days would take long
	w.startServer()
	t.Cleanup(func() { w.stopServer() })
	return w
}

// half is one direction of a connection in memory.
type half struct {
	mu       sync.Mutex
	changed  *sync.Cond
	buffer   []byte
	isClosed bool
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case len(h.buffer) > 0:
			n := copy(p, h.buffer)
			h.buffer = h.buffer[n:]
			return n, nil
		case h.isClosed:
			return 0, io.EOF
		case !h.deadline.IsZero() && !time.Now().Before(h.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isClosed {
		return 0, net.ErrClosed
	}
	h.buffer = append(h.buffer, p...)
	h.changed.Broadcast()
	return len(p), nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isClosed = true
	h.changed.Broadcast()
}

func (h *half) setDeadline(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = at
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	// A time that has passed needs no timer. net/http sets one with each request, and the race
	// detector has crashed in the making of such timers in a bubble.
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		h.timer = time.AfterFunc(wait, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

// pipeConn is one end of a connection in memory.
type pipeConn struct{ in, out *half }

func (c *pipeConn) Read(p []byte) (int, error)         { return c.in.read(p) }
func (c *pipeConn) Write(p []byte) (int, error)        { return c.out.write(p) }
func (c *pipeConn) Close() error                       { c.in.close(); c.out.close(); return nil }
func (c *pipeConn) LocalAddr() net.Addr                { return pipeAddress }
func (c *pipeConn) RemoteAddr() net.Addr               { return pipeAddress }
func (c *pipeConn) SetDeadline(at time.Time) error     { c.in.setDeadline(at); return nil }
func (c *pipeConn) SetReadDeadline(at time.Time) error { c.in.setDeadline(at); return nil }
func (c *pipeConn) SetWriteDeadline(time.Time) error   { return nil }

var pipeAddress = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8420}

type pipeListener struct {
	made    chan net.Conn
	closed  chan struct{}
	closing sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.made:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.closing.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return pipeAddress }

// away stops the server of a bubble for a time, in which every client is closed: days in
// which a server and its clients turn their clocks take minutes to go through.
func (w *world) away(d time.Duration) {
	w.t.Helper()
	w.stopServer()
	time.Sleep(d)
	l := w.config.Listener.(*pipeListener)
	l.closed, l.closing = make(chan struct{}), sync.Once{}
	w.startServer()
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := newHalf(), newHalf()
	select {
	case l.made <- &pipeConn{a, b}:
		return &pipeConn{b, a}, nil
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
