package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is a way for a connection to end.
type Fault int

// The faults. The client itself does CleanClose; a FaultProxy does the others.
const (
	// ResetMidFrame forwards a part of the next data of one side and resets both.
	ResetMidFrame Fault = iota + 1
	// HalfOpen keeps both connections open and forwards nothing any more.
	HalfOpen
	// BeforeAck lets the server read and drops its answers, then closes.
	BeforeAck
	// LostReady resets, and drops the answer to the first frame of the next connection: a
	// session was resumed and the client does not know it.
	LostReady
	// ProxyRestart resets everything and refuses new connections for a while.
	ProxyRestart
	// CleanClose is a WebSocket that is closed with 1000.
	CleanClose
)

// Faults lists every fault.
var Faults = []Fault{ResetMidFrame, HalfOpen, BeforeAck, LostReady, ProxyRestart, CleanClose}

func (f Fault) String() string {
	switch f {
	case ResetMidFrame:
		return "reset mid-frame"
	case HalfOpen:
		return "half-open"
	case BeforeAck:
		return "closed before the ack"
	case LostReady:
		return "lost session.ready"
	case ProxyRestart:
		return "proxy restart"
	case CleanClose:
		return "clean close"
	}
	return fmt.Sprintf("fault %d", int(f))
}

// The time that a fault waits for the traffic that it targets before it ends the connection
// anyway.
const (
	resetPatience   = 300 * time.Millisecond
	ackPatience     = 500 * time.Millisecond
	ackDelayMax     = 50 * time.Millisecond
	readyPatience   = 2 * time.Second
	halfOpenMax     = 10 * time.Second // longer than a server needs to give up a silent peer
	proxyDialMax    = 2 * time.Second
	proxyDown       = 150 * time.Millisecond
	proxyChunkBytes = 32 << 10
)

// FaultProxy is the network between a client and its server: it forwards TCP connections and
// breaks them on request. Its methods are safe for concurrent use.
type FaultProxy struct {
	address string
	running sync.WaitGroup

	mu        sync.Mutex   // guards the rest
	listener  net.Listener // nil while a restart is under way
	target    string
	random    *rand.Rand
	links     map[*link]struct{}
	loseNext  bool          // the next connection loses its session.ready
	gate      chan struct{} // while answers are held: closed when they continue
	noUpgrade bool          // requests for a WebSocket are refused
	closed    bool

	did struct{ cut, swallowed, unacked, onSocket, overHTTP, restarts atomic.Int64 } // as FaultCounts
}

// FaultCounts counts the effects of faults on traffic.
type FaultCounts struct {
	Cut          int // connections reset in the middle of data
	Swallowed    int // half-open ones with data that never arrived
	Unacked      int // connections closed after a request without its answer
	LostOnSocket int // lost answers to the first frame of a session, of a WebSocket
	LostOverHTTP int // the same of a request
	Restarts     int // of the proxy, with the listener closed meanwhile
}

// NewFaultProxy listens on a free port of the loopback address and forwards to target,
// HOST:PORT. The seed determines where frames are cut. Close must be called.
func NewFaultProxy(target string, seed uint64) (*FaultProxy, error) {
	listener, err := listenFree()
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	p := &FaultProxy{address: listener.Addr().String(), listener: listener, target: target, links: map[*link]struct{}{}, random: rand.New(rand.NewPCG(seed, 1))}
	p.running.Go(func() { p.accept(listener) })
	return p, nil
}

// Address returns the address for clients, HOST:PORT.
func (p *FaultProxy) Address() string { return p.address }

// Dial connects to the proxy, whatever the address: as the Dial of a client that shall use it.
func (p *FaultProxy) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, p.Address())
}

// Redirect sends later connections to another server.
func (p *FaultProxy) Redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// RefuseUpgrades makes the proxy refuse WebSockets, as some proxies do.
func (p *FaultProxy) RefuseUpgrades() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noUpgrade = true
}

// Hold holds back the server's data, on existing and new connections, until Release or Break.
func (p *FaultProxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

// Release forwards the data that Hold held back.
func (p *FaultProxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release()
}

// release does the work of Release; the caller holds mu.
func (p *FaultProxy) release() {
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

// held returns the channel that answers wait for; nil if there is none.
func (p *FaultProxy) held() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate
}

// Break ends the existing connections in the way of fault. It does not wait.
func (p *FaultProxy) Break(fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loseNext = p.loseNext || fault == LostReady
	if fault == ProxyRestart && p.listener != nil {
		p.did.restarts.Add(1)
		_ = p.listener.Close()
		p.listener = nil
		time.AfterFunc(proxyDown, p.listenAgain)
	}
	for l := range p.links {
		l.breakAs(fault, p.random.Uint64())
	}
	p.release() // into the fault
}

// listenAgain ends a restart, as soon as the address is free.
func (p *FaultProxy) listenAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		time.AfterFunc(proxyDown, p.listenAgain)
		return
	}
	p.listener = listener
	p.running.Go(func() { p.accept(listener) })
}

// Counts returns the effects of the faults so far.
func (p *FaultProxy) Counts() FaultCounts {
	return FaultCounts{
		Cut: int(p.did.cut.Load()), Swallowed: int(p.did.swallowed.Load()), Unacked: int(p.did.unacked.Load()),
		LostOnSocket: int(p.did.onSocket.Load()), LostOverHTTP: int(p.did.overHTTP.Load()),
		Restarts: int(p.did.restarts.Load()),
	}
}

// Close ends the proxy and every connection through it.
func (p *FaultProxy) Close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		_ = p.listener.Close()
	}
	for l := range p.links {
		l.reset()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *FaultProxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *FaultProxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, proxyDialMax)
	if err != nil {
		_ = client.SetLinger(0) // refused there, reset here
		_ = client.Close()
		return
	}
	l := &link{proxy: p, ends: [2]*net.TCPConn{client, server.(*net.TCPConn)}, over: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = struct{}{}
	l.noUpgrade = p.noUpgrade
	if p.loseNext {
		l.fault, p.loseNext = LostReady, false
		time.AfterFunc(readyPatience, l.reset)
	}
	if p.closed {
		l.reset()
	}
	p.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { l.pump(up) })
	pumps.Go(func() { l.pump(down) })
	pumps.Wait()
	l.reset()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// The directions of a link; each is also the index of the end that it reads.
const (
	up   = 0 // client to server
	down = 1
)

// link is one connection through the proxy: a TCP connection at each end.
type link struct {
	proxy     *FaultProxy
	ends      [2]*net.TCPConn // client, server
	over      chan struct{}   // closed with the connections
	once      sync.Once
	noUpgrade bool

	mu        sync.Mutex // guards the rest
	fault     Fault      // 0 without a fault
	random    uint64     // where and how to break
	isEnding  bool       // BeforeAck: a request has passed; HalfOpen: data was dropped
	isUpgrade bool       // LostReady: the answer to the upgrade has passed
}

func (l *link) breakAs(fault Fault, random uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != 0 {
		return // one is enough
	}
	l.fault, l.random = fault, random
	switch fault {
	case ResetMidFrame:
		time.AfterFunc(resetPatience, l.reset)
	case HalfOpen:
		time.AfterFunc(halfOpenMax, l.reset)
	case BeforeAck:
		time.AfterFunc(ackPatience, l.close)
	default:
		l.reset()
	}
}

// reset ends both connections with RST, which also discards data in transit.
func (l *link) reset() {
	_ = l.ends[up].SetLinger(0)
	_ = l.ends[down].SetLinger(0)
	l.close()
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.over)
		_ = l.ends[up].Close()
		_ = l.ends[down].Close()
	})
}

// pump moves bytes in one direction until the link is over.
func (l *link) pump(direction int) {
	buffer := make([]byte, proxyChunkBytes)
	from, to := l.ends[direction], l.ends[1-direction]
	for {
		n, err := from.Read(buffer)
		if direction == up && l.refuse(buffer[:n]) {
			return
		}
		if gate := l.proxy.held(); direction == down && gate != nil {
			select {
			case <-gate:
			case <-l.over:
			}
		}
		forward, isLast := l.pass(direction, buffer[:n])
		if len(forward) > 0 {
			if _, err := to.Write(forward); err != nil {
				l.reset()
				return
			}
		}
		switch {
		case l.isSilent():
			<-l.over // neither side is notified
			return
		case isLast:
			l.reset()
			return
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		case err != nil:
			l.reset()
			return
		}
	}
}

// refuse answers the request for a WebSocket if upgrades are refused.
func (l *link) refuse(request []byte) bool {
	if !l.noUpgrade || !bytes.Contains(request, []byte("Upgrade: websocket")) {
		return false
	}
	_, _ = io.WriteString(l.ends[up], "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	l.close()
	return true
}

func (l *link) isSilent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault == HalfOpen
}

// pass returns the part of a chunk to forward, and whether to reset the link after it.
func (l *link) pass(direction int, chunk []byte) (forward []byte, isLast bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(chunk) == 0 {
		return nil, false
	}
	switch l.fault {
	case ResetMidFrame:
		if direction == int(l.random%2) {
			l.proxy.did.cut.Add(1)
			return chunk[:(l.random>>1)%uint64(len(chunk))], true
		}
	case HalfOpen:
		if !l.isEnding {
			l.isEnding = true
			l.proxy.did.swallowed.Add(1)
		}
		return nil, false
	case BeforeAck:
		if direction == down {
			return nil, false
		}
		if !l.isEnding {
			l.isEnding = true
			l.proxy.did.unacked.Add(1)
			end := l.close
			if l.random%2 == 0 {
				end = l.reset
			}
			time.AfterFunc(time.Duration(l.random>>1%uint64(ackDelayMax)), end)
		}
	case LostReady:
		if direction == down && l.isUpgrade {
			l.proxy.did.onSocket.Add(1)
			return nil, true
		}
		if i := bytes.Index(chunk, []byte("\r\n\r\n")); direction == down && i >= 0 {
			l.isUpgrade = true
			if len(chunk) > i+4 { // the answer to a plain request is in the chunk
				l.proxy.did.overHTTP.Add(1)
				return chunk[:i+4], true
			}
			return chunk, false
		}
	}
	return chunk, false
}
