package xrpcserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/intake"
)

const (
	// A socket may say typingsAtOnce times that somebody types, or ask for a sign of life,
	// then once more in each typingInterval. What is beyond that is passed over.
	typingsAtOnce  = 10
	typingInterval = time.Second
)

// socket is a subscription over a WebSocket: one goroutine reads what the client says and
// one sends events.
type socket struct {
	*stream
	ws       *websocket.Conn
	link     *link
	isJSON   bool
	buffer   []byte
	spoken   time.Time // when the client's frames would be paid for; the reader's
	nextBeat int64     // when the client is asked for a sign of life; the watchdog's
}

// serveSocket upgrades the request and returns, so that net/http can forget what it holds
// for it.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request, c *stream) {
	h := &hijacker{ResponseWriter: w, timeout: s.writeTimeout(), clock: &s.clock}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // any Origin: subscriptions are held by tickets, not cookies
		CompressionMode:    websocket.CompressionDisabled,
		// A client that offers JSON gets it, wherever it stands in the list.
		Subprotocols: append([]string{jsonProtocol}, intake.FirstSubprotocol(r)...),
	})
	if err != nil { // answered
		c.close()
		s.streams.leave(c.who.Account)
		return
	}
	ws.SetReadLimit(xrpc.ClientFrameMax)
	k := &socket{stream: c, ws: ws, link: h.link, isJSON: strings.EqualFold(ws.Subprotocol(), jsonProtocol),
		nextBeat: s.clock.Load() + s.silenceMax}
	c.out = k
	if !s.admit(c) {
		c.close()
		s.streams.leave(c.who.Account)
		k.bye(websocket.StatusGoingAway, "shutting down")
		return
	}
	go k.serve()
}

// serve is the whole life of the socket.
func (k *socket) serve() {
	defer k.server.forget(k.stream)
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		k.listen()
	}()
	k.run()
	k.stream.close()
	k.server.ended(k.stream)
	switch *k.cause.Load() {
	case causeShutdown:
		k.bye(websocket.StatusGoingAway, "shutting down")
	case causeLost:
		k.bye(websocket.StatusPolicyViolation, "not a member")
	case causeProtocol:
		k.bye(websocket.StatusPolicyViolation, "not a frame")
	case causeFault:
		k.bye(websocket.StatusInternalError, "internal error")
	case causePeer:
		k.bye(websocket.StatusNormalClosure, "")
	default: // the network takes nothing
		k.abort()
	}
	<-listened
}

// bye says goodbye, waits a moment for the client to do the same, and ends every call.
func (k *socket) bye(code websocket.StatusCode, reason string) {
	// The library waits without limit for the rest of a message that never comes.
	_ = k.link.SetReadDeadline(time.Now().Add(closeTimeout))
	timer := time.AfterFunc(2*closeTimeout, k.abort)
	defer timer.Stop()
	k.link.leave()
	_ = k.ws.Close(code, reason)
	k.abort()
	_ = k.ws.CloseNow()
}

func (k *socket) abort() { _ = k.link.Close() }

func (k *socket) event(e *sharedEvent, seq int64, cursor []byte) error {
	kind := websocket.MessageBinary
	if k.isJSON {
		kind, k.buffer = websocket.MessageText, appendJSON(k.buffer[:0], e, seq, cursor)
	} else {
		k.buffer = e.frame.AppendAt(k.buffer[:0], seq, string(cursor))
	}
	return k.put(kind, k.buffer)
}

func (k *socket) fail(name, message string) error {
	if k.isJSON {
		return k.put(websocket.MessageText, errorJSON(name, message))
	}
	return k.put(websocket.MessageBinary, xrpc.ErrorFrame(name, message))
}

func (k *socket) put(kind websocket.MessageType, data []byte) error {
	k.link.hold()
	err := k.ws.Write(context.Background(), kind, data)
	if err == nil {
		err = k.link.flushIfFull()
	}
	if err != nil {
		return errors.Join(errWrite, err)
	}
	return nil
}

func (k *socket) flush() error {
	if cap(k.buffer) > 4*writeBytesMax { // one long message must not stay in memory
		k.buffer = nil
	}
	if err := k.link.release(); err != nil {
		return errors.Join(errWrite, err)
	}
	return nil
}

// appendJSON is an event in JSON, with the counter and the cursor of its reader.
func appendJSON(dst []byte, e *sharedEvent, seq int64, cursor []byte) []byte {
	text := e.text()
	dst = append(dst, text[0]...)
	dst = strconv.AppendInt(append(dst, `"seq":`...), seq, 10)
	dst = append(append(dst, `,"cursor":"`...), cursor...)
	return append(append(dst, '"'), text[1]...)
}

func errorJSON(name, message string) []byte {
	text, err := json.Marshal(xrpc.ErrorBody{Error: name, Message: message})
	if err != nil {
		panic(err) // strings always marshal
	}
	return text
}

// listen reads what the client says, until it says goodbye or what is no frame.
func (k *socket) listen() {
	defer k.cancel()
	defer func() {
		if reason := recover(); reason != nil {
			k.server.logger.Error("panic on a subscription", "reason", reason, "stack", string(debug.Stack()))
			k.end(causeFault)
		}
	}()
	for {
		kind, data, err := k.ws.Read(context.Background())
		if err != nil {
			if errors.Is(err, websocket.ErrMessageTooBig) {
				k.end(causeProtocol)
			}
			k.end(causePeer)
			return
		}
		if k.ctx.Err() != nil {
			return
		}
		if err := k.hear(kind == websocket.MessageText, data); err != nil {
			k.end(causeProtocol)
			_ = k.write(func() error { return k.fail(xrpc.ErrorInvalidRequest, err.Error()) })
			return
		}
	}
}

// hear handles a frame of the client. It returns an error for what is none.
func (k *socket) hear(isText bool, data []byte) error {
	frame, err := xrpc.DecodeClientFrame(data, isText)
	switch {
	case errors.Is(err, xrpc.ErrUnknownType):
		return nil // of a newer client
	case err != nil:
		return err
	}
	switch frame.Kind() {
	case xrpc.ClientTyping:
		k.typing(ds.ConversationID(frame.ConvoID), *frame.IsTyping)
	case xrpc.ClientPing:
		if k.mayPass() {
			_ = k.write(func() error { return k.info("", &xrpc.InfoEvent{Info: "alive", InfoType: "heartbeat"}) }) // else run finds out
		}
	case xrpc.ClientAck:
		// Where a client has read up to is in the cursor that it comes back with.
	}
	return nil
}

// typing tells the other members that somebody types. Whoever is no member, or has no
// ticket for the conversation, is not heard; nor is it told so.
func (k *socket) typing(id ds.ConversationID, isTyping bool) {
	if !k.mayPass() {
		return
	}
	k.mu.Lock()
	isFollowed := k.following[id]
	k.mu.Unlock()
	if !isFollowed {
		return
	}
	if err := k.server.core.Announce(k.ctx, k.who, id, core.Announcement{Kind: core.Typing, IsTyping: isTyping}); err != nil && ds.CodeOf(err) == "" {
		k.server.logger.Debug("typing", "err", err) // state: it is said again
	}
}

// mayPass counts what a client says against what it may.
func (k *socket) mayPass() bool {
	now := time.Now()
	if k.spoken.Before(now) {
		k.spoken = now
	}
	if k.spoken.Sub(now) > (typingsAtOnce-1)*typingInterval {
		return false
	}
	k.spoken = k.spoken.Add(typingInterval)
	return true
}
