// Package memnet is a network in memory with one server, for tests in bubbles of
// testing/synctest: unlike a socket of the system, a connection of memory on which all
// wait lets the time of the bubble pass.
package memnet

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network has at most one listener at a time. The zero value is ready for use; its methods
// are safe for concurrent use.
type Network struct {
	mu       sync.Mutex
	listener *listener // guarded by mu
}

// Address is the address of the server.
var Address = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8420}

// Listen makes a listener, in place of an earlier one.
func (n *Network) Listen() net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = &listener{made: make(chan net.Conn), closed: make(chan struct{})}
	return n.listener
}

// Dial connects to the listener, whatever the address. Without one the connection is refused.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listener
	n.mu.Unlock()
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	a, b := newHalf(), newHalf()
	select {
	case l.made <- &conn{a, b}:
		return &conn{b, a}, nil
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	made    chan net.Conn
	closed  chan struct{}
	closing sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.made:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.closing.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return Address }

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

// conn is one end of a connection in memory.
type conn struct{ in, out *half }

func (c *conn) Read(p []byte) (int, error)         { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error)        { return c.out.write(p) }
func (c *conn) Close() error                       { c.in.close(); c.out.close(); return nil }
func (c *conn) LocalAddr() net.Addr                { return Address }
func (c *conn) RemoteAddr() net.Addr               { return Address }
func (c *conn) SetDeadline(at time.Time) error     { c.in.setDeadline(at); return nil }
func (c *conn) SetReadDeadline(at time.Time) error { c.in.setDeadline(at); return nil }
func (c *conn) SetWriteDeadline(time.Time) error   { return nil }
