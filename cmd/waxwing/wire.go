package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// wire is a bad network that records: a TCP relay before a server that can break its
// connections at any moment and keeps every byte that passed, so that they can be searched for
// leaks.
type wire struct {
	listener net.Listener
	target   string
	done     sync.WaitGroup

	mu       sync.Mutex // guards the rest
	links    map[*link]struct{}
	captured []*recording
	closed   bool
}

// link is one connection through the wire.
type link struct{ client, server *net.TCPConn }

// recording holds the bytes of one direction of a connection.
type recording struct {
	mu    sync.Mutex // guards bytes
	bytes []byte
}

func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes = append(r.bytes, p...)
	return len(p), nil
}

// newWire listens on a free port of the loopback address and relays to target, which need not
// accept connections yet.
func newWire() (*wire, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &wire{listener: listener, links: map[*link]struct{}{}}, nil
}

func (w *wire) url() string { return "http://" + w.listener.Addr().String() }

// relayTo starts relaying to the address target.
func (w *wire) relayTo(target string) {
	w.target = target
	w.done.Go(func() {
		for {
			conn, err := w.listener.Accept()
			if err != nil {
				return
			}
			w.done.Go(func() { w.relay(conn.(*net.TCPConn)) })
		}
	})
}

func (w *wire) relay(client *net.TCPConn) {
	dialled, err := net.DialTimeout("tcp", w.target, time.Second)
	if err != nil {
		client.Close() // the server is away, and the client sees it at once
		return
	}
	l := &link{client, dialled.(*net.TCPConn)}
	up, down := &recording{}, &recording{}
	if !w.admit(l, up, down) {
		l.cut()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pump(l.server, l.client, up) })
	both.Go(func() { pump(l.client, l.server, down) })
	both.Wait()
	w.mu.Lock()
	delete(w.links, l)
	w.mu.Unlock()
	l.client.Close()
	l.server.Close()
}

func (w *wire) admit(l *link, up, down *recording) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.links[l] = struct{}{}
	w.captured = append(w.captured, up, down)
	return true
}

// pump copies until either end is closed; the bytes are recorded first.
func pump(to, from *net.TCPConn, r *recording) {
	io.Copy(to, io.TeeReader(from, r))
	to.CloseWrite()
}

// cut resets both ends, like a lost network or a crashed peer.
func (l *link) cut() {
	for _, conn := range []*net.TCPConn{l.client, l.server} {
		conn.SetLinger(0)
		conn.Close()
	}
}

// cutAll breaks all connections and returns how many there were.
func (w *wire) cutAll() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.links)
	for l := range w.links {
		l.cut()
	}
	return n
}

func (w *wire) close() {
	w.listener.Close()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cutAll()
	w.done.Wait()
}

// carried returns all bytes that passed: each direction as on the network, and the payloads of
// its WebSocket frames, which clients mask (RFC 6455, section 5.3).
func (w *wire) carried() (raw, payloads [][]byte) {
	w.mu.Lock()
	recordings := append([]*recording(nil), w.captured...)
	w.mu.Unlock()
	for _, r := range recordings {
		r.mu.Lock()
		b := bytes.Clone(r.bytes)
		r.mu.Unlock()
		raw = append(raw, b)
		payloads = append(payloads, framesOf(b)...)
	}
	return raw, payloads
}

// framesOf returns the payloads of one direction of a connection. A direction that never became
// a WebSocket has none; an incomplete frame is left out.
func framesOf(stream []byte) [][]byte {
	head := stream[:min(len(stream), 16<<10)]
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 || !bytes.Contains(bytes.ToLower(head[:end]), []byte("upgrade: websocket")) {
		return nil
	}
	rest := stream[end+4:]
	var payloads [][]byte
	for {
		payload, after, err := cutFrame(rest)
		if err != nil {
			return payloads
		}
		payloads, rest = append(payloads, payload), after
	}
}

var errShortFrame = errors.New("frame is not complete")

// cutFrame reads one frame (RFC 6455, section 5.2).
func cutFrame(b []byte) (payload, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, errShortFrame
	}
	isMasked, length, at := b[1]&0x80 != 0, uint64(b[1]&0x7f), 2
	switch {
	case length == 126 && len(b) >= 4:
		length, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case length == 127 && len(b) >= 10:
		length, at = binary.BigEndian.Uint64(b[2:]), 10
	case length >= 126:
		return nil, nil, errShortFrame
	}
	var mask [4]byte
	if isMasked {
		at += copy(mask[:], b[min(at, len(b)):])
	}
	if at > len(b) || uint64(len(b)-at) < length {
		return nil, nil, errShortFrame
	}
	payload = bytes.Clone(b[at : at+int(length)])
	for i := range payload {
		payload[i] ^= mask[i%4] // zero if there is no mask
	}
	return payload, b[at+int(length):], nil
}
