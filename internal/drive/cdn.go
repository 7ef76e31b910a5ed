package drive

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"
)

// What a CDN does to requests, at scale 1.
const (
	cdnIdleMax     = 60 * time.Second  // a connection or answer without a byte for so long is cut
	cdnRequestMax  = 100 * time.Second // an answer that is not a WebSocket is cut after so long
	cdnBufferBytes = 64 << 10          // of an answer that does not forbid buffering are passed on together
	cdnFrameBytes  = 64 << 10          // of a WebSocket frame; a multiple of 4, so that masks continue
	cdnTinyReads   = 32                // of a body, which are of a few bytes
	cdnTinyBytes   = 16
	cdnReadBytes   = 16 << 10
	cdnPrefix      = "/waxwing" // which it strips
)

// cdnHeaders are the request headers that the CDN passes on, beside those of WebSockets.
var cdnHeaders = []string{"Accept", "Authorization", "Content-Type", "Last-Event-Id", "Origin", "User-Agent", "Connection", "Upgrade",
	"Access-Control-Request-Method", "Access-Control-Request-Headers"}

// CDN is a proxy that does together what content delivery networks do each: it cuts idle and
// long answers, buffers, splits bodies and WebSocket frames, speaks HTTP/1.1 to the server and
// sends it bodies in chunks, writes names of headers in lower case and adds some, and passes on
// common verbs and headers only.
type CDN struct {
	address string
	target  string
	config  *tls.Config
	scale   time.Duration
	proxy   *httputil.ReverseProxy

	mu     sync.Mutex // guards the rest
	server *http.Server
	over   context.Context // ends with it
	stop   context.CancelFunc
	random *rand.Rand
}

// NewCDN runs a CDN before a server at target, HOST:PORT, with its times divided by scale. The
// seed determines where it splits.
func NewCDN(target string, certificate *Certificate, scale int, seed uint64) (*CDN, error) {
	c := &CDN{target: target, scale: time.Duration(scale), random: rand.New(rand.NewPCG(seed, 3)),
		config: &tls.Config{Certificates: []tls.Certificate{certificate.pair}, NextProtos: []string{"h2", "http/1.1"}}}
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.target)
	}}
	c.proxy = &httputil.ReverseProxy{Rewrite: c.rewrite, ModifyResponse: c.modify, FlushInterval: -1,
		Transport: cdnTransport{transport}, ErrorLog: log.New(io.Discard, "", 0)}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	c.address = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
	return c, c.run()
}

// Address returns the address for clients, HOST:PORT.
func (c *CDN) Address() string { return c.address }

func (c *CDN) run() error {
	listener, err := tls.Listen("tcp", c.address, c.config)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: c, ErrorLog: log.New(io.Discard, "", 0)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = server
	c.over, c.stop = context.WithCancel(context.Background())
	go func() { _ = server.Serve(listener) }() // until Close
	return nil
}

// Restart cuts all connections and listens again.
func (c *CDN) Restart(context.Context) error {
	c.Close()
	return c.run()
}

// Close ends the CDN.
func (c *CDN) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.server.Close()
	c.stop()
}

func (c *CDN) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions}, r.Method) {
		http.Error(w, "unusual method", http.StatusMethodNotAllowed)
		return
	}
	if r.Header.Get("Upgrade") == "" {
		ctx, cancel := context.WithTimeout(r.Context(), cdnRequestMax/c.scale)
		defer cancel()
		r = r.WithContext(ctx)
	}
	if r.ContentLength != 0 {
		r.ContentLength = -1 // in chunks
		r.Body = &cutBody{ReadCloser: r.Body, next: c.split()}
	}
	c.proxy.ServeHTTP(loweredHeader{w}, r)
}

// rewrite changes a request.
func (c *CDN) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", c.target
	if rest, has := strings.CutPrefix(r.Out.URL.Path, cdnPrefix+"/"); has {
		r.Out.URL.Path, r.Out.URL.RawPath = "/"+rest, ""
	}
	maps.DeleteFunc(r.Out.Header, func(name string, _ []string) bool {
		return !slices.Contains(cdnHeaders, name) && !strings.HasPrefix(name, "Sec-Websocket-")
	})
	r.SetXForwarded()
	r.Out.Header.Set("Via", "1.1 cdn")
	r.Out.Header.Set("CDN-Loop", "cdn")
}

// cdnTransport writes the names of request headers in lower case, and hides what is not the
// answer itself from the proxy.
type cdnTransport struct{ http.RoundTripper }

func (t cdnTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.Background()) // without the trace that passes 103 on
	context.AfterFunc(r.Context(), cancel)
	sent := r.Clone(ctx)
	sent.Header = lowered(r.Header)
	return t.RoundTripper.RoundTrip(sent)
}

// keptNames are headers that package net/http looks at.
var keptNames = []string{"Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding", "Upgrade", "User-Agent"}

func lowered(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if !slices.Contains(keptNames, name) {
			name = strings.ToLower(name)
		}
		out[name] = values
	}
	return out
}

// loweredHeader writes the names of response headers in lower case.
type loweredHeader struct{ http.ResponseWriter }

func (w loweredHeader) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w loweredHeader) WriteHeader(status int) {
	h := w.Header()
	if status != http.StatusSwitchingProtocols { // which the proxy writes by itself
		small := lowered(h)
		clear(h)
		maps.Copy(h, small)
	}
	w.ResponseWriter.WriteHeader(status)
}

// modify changes an answer.
func (c *CDN) modify(r *http.Response) error {
	r.Trailer = nil
	r.Header.Set("Via", "1.1 cdn")
	idle := cdnIdleMax / c.scale
	if network, ok := r.Body.(io.ReadWriteCloser); ok {
		s := &splitSocket{ReadWriteCloser: network, idle: idle}
		s.timer = time.AfterFunc(idle, func() { _ = network.Close() })
		c.mu.Lock()
		context.AfterFunc(c.over, func() { _ = network.Close() }) // the server does not know of it
		c.mu.Unlock()
		r.Body = s
		return nil
	}
	body := &cutBody{ReadCloser: r.Body, next: c.split(), idle: idle}
	body.timer = time.AfterFunc(idle, func() { _ = body.Close() })
	r.Body = body
	if r.Header.Get("X-Accel-Buffering") != "no" {
		body.buffer = cdnBufferBytes
	}
	r.Header.Del("X-Accel-Buffering")
	return nil
}

// split returns a function that returns the sizes of pieces.
func (c *CDN) split() func() int {
	c.mu.Lock()
	random := rand.New(rand.NewPCG(c.random.Uint64(), 0))
	c.mu.Unlock()
	reads := 0
	return func() int {
		if reads++; reads <= cdnTinyReads {
			return 1 + random.IntN(cdnTinyBytes)
		}
		return 1 + random.IntN(cdnReadBytes)
	}
}

var errIdle = errors.New("idle")

// cutBody returns a body in pieces. With idle it ends if nothing comes for so long.
type cutBody struct {
	io.ReadCloser
	next   func() int
	idle   time.Duration
	timer  *time.Timer
	buffer int // bytes to wait for before any is returned
	kept   []byte
	err    error
}

func (b *cutBody) Read(p []byte) (int, error) {
	for len(b.kept) == 0 && b.err == nil {
		b.fill()
	}
	if len(b.kept) == 0 {
		return 0, b.err
	}
	n := copy(p[:min(len(p), b.next())], b.kept)
	b.kept = b.kept[n:]
	return n, nil
}

func (b *cutBody) fill() {
	b.kept = make([]byte, max(b.buffer, cdnReadBytes))
	n := 0
	for {
		got, err := b.ReadCloser.Read(b.kept[n:])
		n += got
		if b.timer != nil && !b.timer.Stop() {
			err = errors.Join(errIdle, err)
		} else if b.timer != nil && err == nil {
			b.timer.Reset(b.idle)
		}
		if b.err = err; err != nil || n >= b.buffer {
			b.kept = b.kept[:n]
			return
		}
	}
}

// splitSocket splits the frames of a WebSocket, both ways. It is closed if nothing comes for
// as long as idle.
type splitSocket struct {
	io.ReadWriteCloser
	idle     time.Duration
	timer    *time.Timer
	down, up splitter
	kept     []byte // read and not returned yet
}

func (s *splitSocket) Read(p []byte) (int, error) {
	for len(s.kept) == 0 {
		n, err := s.ReadWriteCloser.Read(p)
		s.timer.Reset(s.idle)
		if s.kept = s.down.feed(p[:n]); err != nil {
			n = copy(p, s.kept)
			return n, err
		}
	}
	n := copy(p, s.kept)
	s.kept = s.kept[n:]
	return n, nil
}

func (s *splitSocket) Write(p []byte) (int, error) {
	s.timer.Reset(s.idle)
	_, err := s.ReadWriteCloser.Write(s.up.feed(p))
	return len(p), err
}

// splitter splits the frames of one direction (RFC 6455, section 5.2).
type splitter struct {
	header []byte // of the frame, as far as it has come
	left   uint64 // bytes of its payload that are to come
	piece  uint64 // those of them that belong to the fragment
	mask   []byte
}

// feed returns the bytes to send for those that have come.
func (s *splitter) feed(in []byte) (out []byte) {
	for len(in) > 0 {
		if s.left == 0 {
			s.header = append(s.header, in[0])
			in = in[1:]
			if isWhole := s.parse(); isWhole && s.left == 0 {
				out = append(out, s.header...)
				s.header = s.header[:0]
			}
			continue
		}
		if s.piece == 0 {
			s.piece = min(s.left, cdnFrameBytes)
			out = s.begin(out)
		}
		n := min(uint64(len(in)), s.piece)
		out = append(out, in[:n]...)
		in, s.left, s.piece = in[n:], s.left-n, s.piece-n
		if s.left == 0 {
			s.header = s.header[:0]
		}
	}
	return out
}

// parse reads the header. isWhole reports whether it has come.
func (s *splitter) parse() (isWhole bool) {
	h := s.header
	if len(h) < 2 {
		return false
	}
	size, length := 2, uint64(h[1]&0x7f)
	switch length {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	masked := h[1]&0x80 != 0
	if masked {
		size += 4
	}
	if len(h) < size {
		return false
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		length = binary.BigEndian.Uint64(h[2:])
	}
	s.left, s.mask = length, nil
	if masked {
		s.mask = slices.Clone(h[size-4:])
	}
	return true
}

// begin appends the header of the next fragment. Only the first has the opcode, and only the
// last is final.
func (s *splitter) begin(out []byte) []byte {
	first := s.header[0]
	if s.piece < s.left {
		first &^= 0x80
	}
	s.header[0] &= 0x80 // what follows is a continuation
	masked := s.header[1] & 0x80
	switch {
	case s.piece < 126:
		out = append(out, first, masked|byte(s.piece))
	case s.piece < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, first, masked|126), uint16(s.piece))
	default:
		out = binary.BigEndian.AppendUint64(append(out, first, masked|127), s.piece)
	}
	return append(out, s.mask...)
}
