package gatewayserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// socket is one WebSocket, from the upgrade to the end of its session.
type socket struct {
	server    *Server
	conn      conn
	userAgent string
	address   string // the key of limits, see doors.Proxies
	arrival   *doors.Arrival
	opened    int64 // by the server's clock
	isReady   atomic.Bool
	heard     atomic.Bool            // a well-formed frame arrived since the last heartbeat
	ended     atomic.Pointer[ending] // of the session
	cause     atomic.Pointer[string] // why the socket ended; the first counts
	isOver    atomic.Bool            // the error of an ended session was written
	beat      beat
	answers   answers

	// The rest belongs to the reading goroutine and is set by the handshake.
	ctx         context.Context
	cancel      context.CancelFunc
	frame       countedFrame  // the message that is read or handled
	buffer      *bytes.Buffer // its bytes; nil once nothing points into them
	session     identity.Session
	unnoted     *identity.Ready // written, but this has not been noted yet
	detach      func()
	follower    *logs.Follower
	isFollowing bool           // the goroutine of follow runs
	following   sync.WaitGroup // that goroutine and the one of answers
}

// ending holds a channel that is closed with the session.
type ending struct{ over <-chan struct{} }

// farewell holds the cause and the close frame of a socket's end. The zero value means that the
// socket goes on.
type farewell struct {
	cause, reason string
	code          int
}

// serveSocket upgrades the request and returns, so that net/http can release the memory of the
// request: an idle socket costs its goroutine and small buffers.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	if s.connections.IsClosed() {
		s.answer(w, r, nil, nil, ds.Unavailable(errDraining))
		return
	}
	address := s.proxies.AddressOf(r)
	arrival, err := s.addresses.Begin(address)
	if err != nil {
		s.answer(w, r, nil, nil, err)
		return
	}
	network, err := s.upgrade(w, r)
	if err != nil {
		arrival.Leave()
		return // answered
	}
	c := newSocket(s, network, r.UserAgent(), address)
	c.arrival = arrival
	if !s.admit(c) {
		arrival.Leave()
		c.cancel()
		network.Close(doors.CloseGoingAway, "shutting down")
		return
	}
	go c.run()
}

func newSocket(s *Server, network conn, userAgent, address string) *socket {
	now := s.clock.Now()
	c := &socket{server: s, conn: network, userAgent: userAgent, address: address, opened: now}
	c.beat.next = now + s.pingInterval.Milliseconds()
	c.ended.Store(&ending{})
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.answers = answers{c: c, progress: make(chan struct{}, 1), settled: make(chan struct{}, 1)}
	return c
}

var errDraining = errors.New("the server is shutting down")

// run handles the socket until it is closed. A panic ends the socket, not the server.
func (c *socket) run() {
	defer c.server.forget(c)
	defer c.arrival.Leave()
	bye := c.converse()
	c.cancel()
	if c.isReady.Load() {
		c.follower.Close()
		c.detach()
		flushed, stop := context.WithTimeout(context.WithoutCancel(c.ctx), doors.CloseTimeout)
		if err := c.server.logs.FlushCursors(flushed, c.session.AsDevice()); err != nil {
			c.server.logger.Debug("flush cursors", "err", err) // a hint: the client sees some messages again
		}
		stop()
	}
	c.end(bye.cause)
	c.server.ended(c)
	c.conn.Close(bye.code, bye.reason)
	c.following.Wait()
}

// end notes why the socket ends.
func (c *socket) end(cause string) { c.cause.CompareAndSwap(nil, &cause) }

func (c *socket) Abort()            { c.conn.Abort() }
func (c *socket) transport() string { return transportWS }
func (c *socket) ending() string    { return *c.cause.Load() }

func (c *socket) converse() (bye farewell) {
	defer func() {
		c.letGo()
		if reason := recover(); reason != nil {
			bye = c.panicked(reason)
		}
	}()
	for {
		isText, message, err := c.conn.Next()
		if err != nil {
			return c.lost(err)
		}
		c.buffer = frameBuffers.Get().(*bytes.Buffer)
		c.frame = countedFrame{Reader: message, Message: c.server.intake.Begin(doors.Owner{Address: c.address, Account: c.session.Account})}
		_, err = c.buffer.ReadFrom(&c.frame)
		if refused := c.frame.refused; refused != nil {
			id := bytes.Clone(gateway.FrameID(c.buffer.Bytes()))
			c.letGo()
			if _, err = io.Copy(io.Discard, message); err == nil { // none of it is kept, and the socket stays
				_ = c.refuse(gateway.Frame{ID: id}, refused)
				continue
			}
		}
		if err == nil {
			bye = c.receive(isText, c.buffer.Bytes())
		}
		c.letGo()
		switch {
		case errors.Is(err, doors.ErrTooLong):
			return farewell{cause: causeProtocol, code: doors.CloseTooLong, reason: "message too big"}
		case errors.Is(err, doors.ErrSlow):
			return farewell{cause: causeStalled, code: doors.ClosePolicy, reason: "too slow"}
		case err != nil:
			return c.lost(err)
		case bye != (farewell{}):
			if bye.cause != causeSession {
				c.answers.awaitWritten() // the frames before it are answered
			}
			return bye
		}
	}
}

// letGo forgets the bytes of the message that is handled, so that none are held while
// the socket waits for something else. It may be called again.
func (c *socket) letGo() {
	c.frame.Release()
	if c.buffer != nil && c.buffer.Cap() <= frameBufferBytesMax {
		c.buffer.Reset()
		frameBuffers.Put(c.buffer)
	}
	c.buffer = nil
}

// lost returns the farewell of a socket after a failed read. The close frame has no effect
// where the peer closed or the connection broke; it is for peers that violate RFC 6455.
func (c *socket) lost(err error) farewell {
	c.server.logger.Debug("socket ends", "err", err)
	return farewell{cause: causePeer, code: doors.CloseProtocol, reason: "protocol error"}
}

func (c *socket) panicked(reason any) farewell {
	c.server.logger.Error("panic on a socket", "reason", reason, "stack", string(debug.Stack()))
	return farewell{cause: causeFault, code: doors.CloseFault, reason: "internal error"}
}

// frameBuffers hold a frame while it is handled, so that an idle socket holds none.
var frameBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const frameBufferBytesMax = 64 << 10

// receive handles one message. A farewell other than zero ends the socket.
func (c *socket) receive(isText bool, data []byte) farewell {
	if !c.isReady.Load() {
		return c.handshake(isText, data)
	}
	if c.hasEnded() {
		if last := c.lastFrame(); last != nil {
			_ = c.conn.Write(last)
		}
		return farewell{cause: causeSession, code: doors.ClosePolicy, reason: "session ended"}
	}
	if !isText {
		return farewell{cause: causeProtocol, code: doors.CloseBinary, reason: "text frames only"}
	}
	frame, err := gateway.DecodeFrame(data)
	if errors.Is(err, gateway.ErrNotUTF8) {
		return farewell{cause: causeProtocol, code: doors.CloseNotUTF8, reason: "not UTF-8"}
	}
	c.noteAnswered()
	if err != nil {
		return c.refuse(frame, invalid(err))
	}
	c.heard.Store(true)
	kind, ok := frameKinds[frame.Type]
	if !ok || kind.feature != "" && !c.session.Has(kind.feature) {
		return c.refuse(frame, errUnknownFrame)
	}
	if kind.begin != nil {
		kind.begin(c, frame)
		return farewell{}
	}
	if !kind.isFree && !c.answers.awaitSettled() {
		return farewell{} // the socket ends
	}
	answer, err := kind.handle(c, frame)
	c.server.metrics.request(frame.Type, err)
	return c.reply(frame, answer, err)
}

// hasEnded reports whether the session of the socket was revoked.
func (c *socket) hasEnded() bool {
	select {
	case <-c.ended.Load().over:
		return true
	default:
		return false
	}
}

// lastFrame returns the error frame for an ended session on its first call, then nil.
func (c *socket) lastFrame() []byte {
	if !c.isOver.CompareAndSwap(false, true) {
		return nil
	}
	return frameOf(gateway.TypeError, nil, &gateway.Error{Code: gateway.CodeUnauthorized, Message: "invalid session_token"})
}

var errUnknownFrame = ds.Refuse(ds.InvalidRequest, "unknown frame type")

// noteAnswered limits the life of the resume token that the session was resumed with, now
// that its successor was written. If that cannot be noted, the next frame tries again.
func (c *socket) noteAnswered() {
	if c.unnoted == nil {
		return
	}
	if err := c.server.identity.Answered(c.ctx, *c.unnoted); err != nil {
		c.server.logFault(c.ctx, "answered", err)
		return
	}
	c.unnoted = nil
}

// reply is the answer to a frame; the zero value means none.
type reply struct {
	frameType string
	body      any
}

// reply writes an answer, or the wire form of err, with the id of the request.
func (c *socket) reply(request gateway.Frame, answer reply, err error) farewell {
	if err != nil {
		c.server.logFault(c.ctx, request.Type, err)
		_, body := answerTo(err)
		answer = reply{gateway.TypeError, body}
	}
	if answer.frameType == "" {
		return farewell{}
	}
	frame := frameOf(answer.frameType, request.ID, answer.body)
	switch {
	case !c.answers.isFree(): // it is queued behind the others
		o := &owed{frame: frame, isSettled: true}
		o.bytes = o.cost()
		c.answers.push(o)
	case c.conn.Write(frame) != nil:
		c.conn.Abort()
	}
	return farewell{}
}

// refuse answers an invalid or unknown frame, without counting its type: that is the client's.
func (c *socket) refuse(request gateway.Frame, err error) farewell {
	c.server.metrics.request(operationNone, err)
	return c.reply(request, reply{}, err)
}

// handshake handles the first frame, which must start or resume a session.
func (c *socket) handshake(isText bool, data []byte) farewell {
	if !isText {
		return farewell{cause: causeHandshake, code: doors.CloseProtocol, reason: "text frames only"}
	}
	frame, err := gateway.DecodeFrame(data)
	switch {
	case errors.Is(err, gateway.ErrNotUTF8):
		return farewell{cause: causeProtocol, code: doors.CloseNotUTF8, reason: "not UTF-8"}
	case errors.Is(err, gateway.ErrMalformed), errors.Is(err, gateway.ErrNotObject):
		return farewell{cause: causeHandshake, code: doors.CloseProtocol, reason: "not a frame"}
	case err != nil:
		err = invalid(err)
		c.server.metrics.request(operationNone, err)
	default:
		c.heard.Store(true)
		err = c.begin(frame)
		if _, ok := sessionKinds[frame.Type]; ok {
			c.server.metrics.request(frame.Type, err)
			break
		}
		c.server.metrics.request(operationNone, err)
	}
	if err != nil {
		_ = c.reply(frame, reply{}, err)
		return farewell{cause: causeHandshake, code: doors.CloseNormal}
	}
	return farewell{}
}

// begin starts or resumes the session that frame asks for, and answers it.
func (c *socket) begin(frame gateway.Frame) error {
	open, ok := sessionKinds[frame.Type]
	if !ok {
		return ds.Refuse(ds.InvalidRequest, "first frame must start session")
	}
	ready, err := open(c, frame)
	if err != nil {
		return err
	}
	body, err := c.server.sessions.ready(c.ctx, ready)
	if err != nil {
		return err
	}
	fitReady(body)
	connections, account := c.server.connections, ready.Account
	if err := connections.Enter(account); err != nil {
		return err
	}
	follower := c.server.logs.NewFollower(ready.Caller)
	follower.Former = ready.Has(gateway.FeatureDevice) // others expect the reference's refusal
	follower.BodyMax, follower.Cut = bodyBytesMax(ready.Session), c.cutOff
	if ready.Has(gateway.FeatureDevice) {
		if _, err := follower.Follow(c.ctx, logs.Start{}); err != nil { // the account log, from the cursor
			follower.Close()
			connections.Leave(account)
			return endOfFollow(err)
		}
	}
	c.session, c.follower = ready.Session, follower
	detach := c.server.identity.Attach(ready.Session)
	c.detach = func() { detach(); connections.Leave(account) }
	c.ended.Store(&ending{c.server.identity.Ended(ready.Session)})
	c.isReady.Store(true)
	c.arrival.Known()
	if c.conn.Write(frameOf(gateway.TypeReady, frame.ID, body)) != nil {
		c.conn.Abort() // the reader finds out
	} else {
		c.unnoted = &ready
		c.noteAnswered()
	}
	if ready.Has(gateway.FeatureDevice) {
		c.follow() // behind session.ready
	}
	return nil
}

// cutOff ends a socket that takes too long over a page while others wait for the room. The
// client reconnects and resumes.
func (c *socket) cutOff() {
	c.end(causeStalled)
	c.conn.Abort()
}

// drain closes the socket because the server stops.
func (c *socket) drain(d gateway.Drain) {
	c.end(causeDrain)
	if c.isReady.Load() && c.session.Has(gateway.FeatureDrain) {
		_ = c.conn.Write(frameOf(gateway.TypeDrain, nil, d))
	}
	c.conn.Close(doors.CloseGoingAway, "shutting down")
}
