package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
)

const (
	// frameBytesMax bounds one frame. A longer one from the server is fetched, see
	// gateway_omitted.go; a longer request is made by a call.
	frameBytesMax = gateway.FrameBytesMax
	// dialTimeout bounds connecting, and the answer to session.start.
	dialTimeout  = 20 * time.Second
	writeTimeout = 20 * time.Second
)

// socket is the transport by one WebSocket. A goroutine reads it and another writes it, so a
// session never waits for the network and a server that does not read cannot keep it from
// reading.
type socket struct {
	conn     *websocket.Conn
	link     *gatewayLink  // set by begin
	frames   queue[[]byte] // to be written; short, since requests are answered one by one
	lastRead signOfLife
}

// socketError reports a handshake that was answered with something other than a WebSocket, or
// was cut, or not answered; or that the socket ended before session.ready.
type socketError struct {
	why       error
	hasOpened bool
}

// Error returns the message with the cause.
func (e *socketError) Error() string { return "connect by WebSocket: " + e.why.Error() }
func (e *socketError) Unwrap() error { return e.why }

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
		return nil, &socketError{err, false}
	}
	conn.SetReadLimit(frameBytesMax)
	s := &socket{conn: conn, frames: newQueue[[]byte]()}
	s.lastRead.now()
	return s, nil
}

// handshake sends the frame that starts or resumes a session, and returns the answer.
func (s *socket) handshake(ctx context.Context, frameType string, body any) (*gateway.Ready, error) {
	data, err := gateway.EncodeFrame(frameType, gateway.StringID("start"), body)
	if err != nil {
		return nil, err
	}
	answerCtx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errors.New("no answer to the start of a session"))
	defer cancel()
	var frame gateway.Frame
	if err = s.writeFrame(answerCtx, data); err == nil {
		frame, err = s.next(answerCtx)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, &socketError{errors.Join(context.Cause(answerCtx), err), true}
	}
	switch frame.Type {
	case gateway.TypeReady:
		ready, err := decode[gateway.Ready](frame)
		return &ready, err
	case gateway.TypeError:
		e, err := decode[gateway.Error](frame)
		if err == nil {
			err = refusalOf(&e)
		}
		return nil, err
	}
	return nil, fmt.Errorf("unexpected answer to the start of a session: %q", frame.Type)
}

func (s *socket) kind() Transport { return WebSocket }

func (s *socket) begin(l *gatewayLink) error {
	s.link = l
	l.tasks.Go(s.read)
	l.tasks.Go(s.write)
	return nil
}

func (s *socket) close() { s.conn.CloseNow() }

func (s *socket) read() {
	for {
		frame, err := s.next(s.link.ctx)
		if err != nil {
			s.link.fail(err)
			return
		}
		if !s.link.handle(s.link.ctx, frame) {
			return
		}
	}
}

// next reads the next frame. It answers pings.
func (s *socket) next(ctx context.Context) (gateway.Frame, error) {
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			return gateway.Frame{}, fmt.Errorf("read: %w", err)
		}
		s.lastRead.now()
		if kind != websocket.MessageText {
			return gateway.Frame{}, errors.New("read: unexpected binary frame")
		}
		frame, err := gateway.DecodeFrame(data)
		if err != nil {
			return gateway.Frame{}, fmt.Errorf("read: %w", err)
		}
		if frame.Type != gateway.TypePing {
			return frame, nil
		}
		s.send(gateway.TypePong, "", nil)
	}
}

func (s *socket) write() {
	s.link.each(s.frames.bell, func() {
		for _, data := range s.frames.takeAll() {
			if err := s.writeFrame(s.link.ctx, data); err != nil {
				s.link.fail(err)
				return
			}
		}
	})
}

func (s *socket) writeFrame(ctx context.Context, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, data); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// send queues a frame. The answer repeats id; "" for none.
func (s *socket) send(frameType, id string, body any) {
	if data := s.encode(frameType, id, body); data != nil {
		s.frames.add(data)
	}
}

// encode encodes a frame; if that fails, it ends the link and returns nil.
func (s *socket) encode(frameType, id string, body any) []byte {
	var raw []byte
	if id != "" {
		raw = gateway.StringID(id)
	}
	data, err := gateway.EncodeFrame(frameType, raw, body)
	if err != nil {
		s.link.fail(err)
		return nil
	}
	return data
}

func (s *socket) request(number int, frameType string, body any) {
	data := s.encode(frameType, strconv.Itoa(number), body)
	switch {
	case data == nil:
	case len(data) > frameBytesMax:
		s.link.calls.add(func() { s.post(number, frameType, body) })
	default:
		s.link.expect(number, frameType)
		s.frames.add(data)
	}
}

// post makes the call for a request that is too long for a frame. One that is not answered ends
// no connection: the line may be too slow for the request, and the session waits longer each
// time.
func (s *socket) post(number int, frameType string, body any) {
	seq, err := s.link.gateway.post(s.link.ctx, frameType, body)
	if err != nil && asRefusal(err) == nil {
		err = &Refusal{Code: codeUnavailable, Message: err.Error(), Index: -1}
	}
	s.link.answer(number, seq, err)
}

func (s *socket) subscribe(id string, from int64) {
	s.send(gateway.TypeSubscribe, subscribePrefix+id, gateway.Subscribe{ConvID: id, FromSeq: &from})
}

func (s *socket) acknowledge(log string, pos int64) {
	frameType, body := ackFrame(log, pos)
	s.send(frameType, "", body)
}

func (s *socket) report(id string, body gateway.Report) { s.send(gateway.TypeReport, id, body) }

func (s *socket) ping() { s.send(gateway.TypePing, "", nil) }

func (s *socket) isSilent(pingInterval time.Duration) bool { return s.lastRead.isMissing(pingInterval) }
