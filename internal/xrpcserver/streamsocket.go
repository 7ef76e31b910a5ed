package xrpcserver

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

const (
	// typingsAtOnce bounds the typing frames and pings of a socket at once; then one more in
	// each typingInterval. Further ones are ignored.
	typingsAtOnce  = 10
	typingInterval = time.Second
	// bytesAtOnce bounds the bytes that one socket may send at once; then as much again each
	// minute. A client that sends more is read from more slowly.
	bytesAtOnce = 1 << 20
	// readBufferBytes is the size of the incoming buffer: frames of clients are short.
	readBufferBytes = 512
)

// socket is a subscription over a WebSocket: one goroutine reads frames and one sends events.
type socket struct {
	*stream
	network  *doors.Socket
	isJSON   bool
	buffer   []byte
	opened   time.Time
	spoken   limits.Bucket // of the client's frames, since opened; the reader's
	nextBeat int64         // when the next ping is due; the watchdog's
}

// serveSocket upgrades the request and returns, so that net/http can release the memory of the
// request.
func (s *subscriptions) serveSocket(w http.ResponseWriter, r *http.Request, c *stream) {
	network, err := doors.Accept(w, r, doors.SocketOptions{Clock: s.clock, Intake: s.server.intake, BytesMax: xrpc.ClientFrameMax,
		Rate: limits.Rate{Count: bytesAtOnce, Period: time.Minute}, ReadBufferBytes: readBufferBytes,
		Preferred: []string{jsonProtocol}}) // a client that offers JSON gets it, at any place in its list
	if err != nil { // answered
		c.close()
		s.streams.Leave(c.who.Account)
		return
	}
	k := &socket{stream: c, network: network, isJSON: strings.EqualFold(network.Subprotocol(), jsonProtocol),
		opened: time.Now(), nextBeat: s.clock.Now() + s.silenceMax}
	c.out = k
	if !s.admit(c) {
		c.close()
		s.streams.Leave(c.who.Account)
		k.network.Close(doors.CloseGoingAway, "shutting down")
		return
	}
	go k.serve()
}

// serve runs the socket until it is closed.
func (k *socket) serve() {
	defer k.subscriptions.streams.Forget(k.stream)
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		k.listen()
	}()
	k.run()
	k.stream.close()
	k.subscriptions.ended(k.stream)
	switch *k.cause.Load() {
	case causeShutdown:
		k.network.Close(doors.CloseGoingAway, "shutting down")
	case causeLost:
		k.network.Close(doors.ClosePolicy, "not a member")
	case causeProtocol:
		k.network.Close(doors.ClosePolicy, "not a frame")
	case causeFault:
		k.network.Close(doors.CloseFault, "internal error")
	case causePeer:
		k.network.Close(doors.CloseNormal, "")
	default: // writes do not get through
		k.abort()
	}
	<-listened
}

func (k *socket) abort() { k.network.Abort() }

func (k *socket) event(e *sharedEvent, seq int64, cursor []byte) error {
	if k.isJSON {
		k.buffer = appendJSON(k.buffer[:0], e, seq, cursor)
	} else {
		k.buffer = e.frame.AppendAt(k.buffer[:0], seq, string(cursor))
	}
	return lostUnless(k.network.Add(k.isJSON, k.buffer))
}

func (k *socket) fail(name, message string) error {
	text := xrpc.ErrorFrame(name, message)
	if k.isJSON {
		text = errorJSON(name, message)
	}
	return lostUnless(k.network.Add(k.isJSON, text))
}

func (k *socket) flush() error {
	if cap(k.buffer) > 4*doors.WriteBytesMax { // one long message must not stay in memory
		k.buffer = nil
	}
	return lostUnless(k.network.Flush())
}

// lostUnless returns an error of the network as one that ends the stream with errWrite.
func lostUnless(err error) error {
	if err != nil {
		return errors.Join(errWrite, err)
	}
	return nil
}

// appendJSON appends an event in JSON, with the counter and the cursor of its reader.
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

// listen reads frames until the client closes the socket or sends an invalid one.
func (k *socket) listen() {
	defer k.cancel()
	defer func() {
		if reason := recover(); reason != nil {
			k.subscriptions.logger.Error("panic on a subscription", "reason", reason, "stack", string(debug.Stack()))
			k.end(causeFault)
		}
	}()
	for {
		isText, message, err := k.network.Next()
		var data []byte
		if err == nil {
			data, err = io.ReadAll(message)
		}
		if err != nil {
			if errors.Is(err, doors.ErrTooLong) {
				k.end(causeProtocol)
			}
			k.end(causePeer)
			return
		}
		if k.ctx.Err() != nil {
			return
		}
		if err := k.hear(isText, data); err != nil {
			k.end(causeProtocol)
			_ = k.write(func() error { return k.fail(xrpc.ErrorInvalidRequest, err.Error()) })
			return
		}
	}
}

// hear handles a frame of the client. It returns an error for an invalid one.
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
			_ = k.write(func() error { return k.info("", &xrpc.InfoEvent{Info: "alive", InfoType: "heartbeat"}) }) // run sees an error too
		}
	case xrpc.ClientAck:
		// A client resumes with its cursor, so the server need not store it.
	}
	return nil
}

// typing announces that the caller types. For a conversation that the stream does not follow
// the frame is ignored, without an answer.
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
	if err := k.subscriptions.core.Announce(k.ctx, k.who, id, logs.Announcement{Kind: logs.Typing, IsTyping: isTyping}); err != nil && ds.CodeOf(err) == "" {
		k.subscriptions.logger.Debug("typing", "err", err) // state: the client repeats it
	}
}

// mayPass counts a frame of the client and reports whether it is within the rate.
func (k *socket) mayPass() bool {
	rate, now := limits.Rate{Count: typingsAtOnce, Period: typingsAtOnce * typingInterval}, time.Since(k.opened)
	if k.spoken.Wait(rate, 1, now) > 0 {
		return false
	}
	k.spoken.Take(rate, 1, now)
	return true
}
