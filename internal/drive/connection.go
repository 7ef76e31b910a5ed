package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

const (
	tokenLifetime    = 60 * time.Second
	subscribedPing   = "subscribed" // id of the ping after the subscriptions
	aliveID          = "alive"      // id of the other pings
	ackInterval      = 100 * time.Millisecond
	frameBytesMax    = 2 << 20 // an env of the largest size, every character escaped
	closeGoodbyeCode = websocket.StatusNormalClosure
)

// The reasons for which the client itself ends a connection.
var (
	errSilent        = errors.New("no sign of life")
	errResumeRefused = errors.New("the resume token was refused")
	errLeft          = errors.New("left")
	errNoUpgrade     = errors.New("the network refuses WebSockets")
)

// connection is one WebSocket of a client, from the dial to its end.
type connection struct {
	client *Client
	ws     *websocket.Conn
	number int // counts connections that got a session
	end    context.CancelCauseFunc
}

// connect runs one connection. wasReady reports whether it was subscribed; err is the reason of
// its end. If the network refuses an upgrade the client streams from then on.
func (c *Client) connect(ctx context.Context) (wasReady bool, err error) {
	if c.o.XRPC {
		return c.connectSubscription(ctx)
	}
	c.mu.Lock()
	streams := c.streams
	c.mu.Unlock()
	if !streams {
		wasReady, err = c.connectSocket(ctx)
		if !errors.Is(err, errNoUpgrade) {
			return wasReady, err
		}
		c.mu.Lock()
		c.streams = true
		c.mu.Unlock()
	}
	return c.connectStream(ctx)
}

func (c *Client) connectSocket(ctx context.Context) (wasReady bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	silence := time.AfterFunc(c.o.Silence, func() { end(errSilent) })
	defer silence.Stop()
	// A transport without idle connections: each connection is new to the network.
	transport := c.o.Route.transport()
	transport.DisableKeepAlives = true
	defer transport.CloseIdleConnections()
	ws, answer, err := websocket.Dial(ctx, c.o.Route.URL+"/v1/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if answer != nil && answer.StatusCode == http.StatusForbidden {
		return false, errNoUpgrade
	}
	if err != nil {
		return false, err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(frameBytesMax)
	s := &connection{client: c, ws: ws, end: end}
	err = s.converse(ctx, silence)
	if cause := context.Cause(ctx); cause != nil && websocket.CloseStatus(err) == -1 {
		err = cause // the resulting error has less information
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isReady, err
}

// converse opens a session and the subscriptions, and then reads until the end, while a
// goroutine of its own writes.
func (s *connection) converse(ctx context.Context, silence *time.Timer) (err error) {
	if err := s.open(ctx); err != nil {
		return err
	}
	writer := make(chan error, 1)
	isWriting := false
	defer func() {
		s.end(err)
		if isWriting {
			<-writer
		}
	}()
	for {
		frame, err := s.read(ctx)
		if err != nil {
			return err
		}
		silence.Reset(s.client.o.Silence)
		if frame.Type == gateway.TypePong && textOf(frame.ID) == subscribedPing {
			s.number = s.client.ready(func() {
				_ = s.ws.Close(closeGoodbyeCode, "") // an error: it ended in another way
				s.end(errLeft)
			})
			isWriting = true
			go func() { writer <- s.write(ctx) }()
			continue
		}
		if err := s.client.handle(frame); err != nil {
			return err
		}
	}
}

// open starts or resumes the session and subscribes.
func (s *connection) open(ctx context.Context) error {
	c := s.client
	frameType, body, err := c.opening()
	if err != nil {
		return err
	}
	if err := s.send(ctx, frameType, "open", body); err != nil {
		return err
	}
	frame, err := s.read(ctx)
	for err == nil && frame.Type == gateway.TypePing { // heartbeats begin before the session
		frame, err = s.read(ctx)
	}
	if err != nil {
		return err
	}
	if err := c.opened(frame, frameType == gateway.TypeSessionResume); err != nil {
		return err
	}
	for _, subscribe := range c.subscriptions() {
		if err := s.send(ctx, gateway.TypeSubscribe, "subscribe "+subscribe.ConvID, &subscribe); err != nil {
			return err
		}
	}
	return s.send(ctx, gateway.TypePing, subscribedPing, nil)
}

// opening returns the frame that resumes the client's session, or starts one.
func (c *Client) opening() (frameType string, body any, err error) {
	c.mu.Lock()
	resume := c.resume
	c.mu.Unlock()
	if resume != "" {
		return gateway.TypeSessionResume, &gateway.Resume{ResumeToken: resume}, nil
	}
	token, err := authToken(c.o.Key, c.o.Audience)
	return gateway.TypeSessionStart, &gateway.Start{AuthToken: token, DeviceID: c.o.Device, Features: c.o.Features}, err
}

// authToken makes a service token that starts a session.
func authToken(key *identity.AccountKey, audience string) (string, error) {
	now := time.Now()
	return identity.SignToken(key, identity.Claims{
		Issuer: key.DID(), Audience: audience, Method: gateway.AuthMethod, IssuedAt: now, ExpiresAt: now.Add(tokenLifetime),
	})
}

// opened handles the answer to the first frame.
func (c *Client) opened(frame gateway.Frame, isResume bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch frame.Type {
	case gateway.TypeReady:
		var ready gateway.Ready
		if err := frame.Decode(&ready); err != nil {
			c.violate("session.ready: %v", err)
			return err
		}
		c.isOpen(ready, isResume)
		return nil
	case gateway.TypeError:
		var e gateway.Error
		if err := frame.Decode(&e); err != nil {
			c.violate("error: %v", err)
			return err
		}
		return c.notOpened(e)
	}
	c.violate("the first frame was answered with %q", frame.Type)
	return fmt.Errorf("answered with %q", frame.Type)
}

// isOpen records that there is a session. The caller holds mu.
func (c *Client) isOpen(ready gateway.Ready, isResume bool) {
	c.number++
	c.resume = ready.ResumeToken
	if isResume {
		c.counts.Resumes++
	} else {
		c.counts.Starts++
	}
	c.checkReady(ready)
}

// notOpened handles the refusal of one. The caller holds mu.
func (c *Client) notOpened(e gateway.Error) error {
	if e.Code == gateway.CodeResumeFailed {
		c.counts.ResumesFailed++
		c.resume = ""
		return errResumeRefused
	}
	if e.Code != gateway.CodeUnavailable {
		c.violate("no session: %v", &e)
	}
	return &e
}

// checkReady checks the server's cursors against the client's: a cursor may be behind the acked
// position, never ahead of it. The caller holds mu.
func (c *Client) checkReady(ready gateway.Ready) {
	if ready.UserID != c.Account() {
		c.violate("the session is that of %q", ready.UserID)
	}
	for _, cursor := range ready.Cursors {
		h := c.histories[cursor.ConvID]
		if h == nil {
			c.violate("a cursor in %q, where it never acked anything", cursor.ConvID)
		} else if cursor.NextSeq > h.ackedTo+1 {
			c.violate("%s: the server's cursor is %d, acked is %d", cursor.ConvID, cursor.NextSeq, h.ackedTo)
		}
	}
}

// subscriptions returns subscriptions from the last received messages on.
func (c *Client) subscriptions() []gateway.Subscribe {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.WritesOnly {
		return nil
	}
	list := make([]gateway.Subscribe, 0, len(c.histories))
	for id, h := range c.histories {
		from := h.last() + 1
		list = append(list, gateway.Subscribe{ConvID: id, FromSeq: &from})
	}
	return list
}

// ready records that the session and the subscriptions are open, and returns the number of the
// connection; leave ends it cleanly.
func (c *Client) ready(leave func()) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isReady, c.leave = true, leave
	c.counts.Connections++
	if c.streams {
		c.counts.Streams++
	}
	c.touch()
	return c.number
}

// handle handles a frame of a session.
func (c *Client) handle(frame gateway.Frame) error {
	var err error
	switch frame.Type {
	case gateway.TypeEvent:
		var event gateway.Event
		if err = frame.Decode(&event); err == nil {
			c.received(event)
		}
	case gateway.TypeAcked:
		var acked gateway.Acked
		if err = frame.Decode(&acked); err == nil {
			c.settled(acked)
		}
	case gateway.TypeError:
		var e gateway.Error
		if err = frame.Decode(&e); err == nil {
			c.refused(textOf(frame.ID), e)
		}
	case gateway.TypeCaughtUp:
		var at gateway.CaughtUp
		if err = frame.Decode(&at); err == nil {
			c.caughtUp(at)
		}
	case gateway.TypeStreamStarted: // again, from the beginning
		c.mu.Lock()
		c.counts.ResumesFailed++
		c.mu.Unlock()
		err = errors.New("the stream could not be resumed")
	case gateway.TypePing, gateway.TypePong: // the writer pings often enough
	default:
		err = fmt.Errorf("unexpected frame %q", frame.Type)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.violate("%v", err)
	}
	return err
}

// caughtUp checks the end of a replay: everything up to its head must have been received.
func (c *Client) caughtUp(at gateway.CaughtUp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.histories[at.ConvID]; h == nil || h.last() < at.Seq {
		c.violate("%s: caught up to %d before that came", at.ConvID, at.Seq)
	}
}

// write sends messages and acks until the connection ends.
func (s *connection) write(ctx context.Context) error {
	c := s.client
	acks := time.NewTicker(ackInterval)
	defer acks.Stop()
	pings := time.NewTicker(c.o.Silence / 4)
	defer pings.Stop()
	for {
		if err := s.sendOutbox(ctx); err != nil {
			return s.broken(err)
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-c.work:
		case <-pings.C:
			err = s.send(ctx, gateway.TypePing, aliveID, nil)
		case <-acks.C:
			err = s.sendAcks(ctx)
		}
		if err != nil {
			return s.broken(err)
		}
	}
}

// broken signals the reader that writing failed.
func (s *connection) broken(err error) error {
	s.end(err)
	return err
}

// sendOutbox sends every message that this connection has not carried yet.
func (s *connection) sendOutbox(ctx context.Context) error {
	for _, m := range s.client.due(s.number) {
		if err := s.send(ctx, gateway.TypeSend, frameID(messageKey{m.ConvID, m.MsgID}), m); err != nil {
			return err
		}
	}
	return nil
}

// due returns every message that a connection has not carried yet. It is marked as sent before
// it is, since a write that fails may have arrived.
func (c *Client) due(number int) []*gateway.Send {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []*gateway.Send
	for _, m := range c.outbox {
		if m.sentOn != number && !now.Before(m.retryAt) {
			m.sentOn, m.sentAt = number, now
			m.sends++
			c.counts.Sends++
			due = append(due, &gateway.Send{ConvID: m.Conversation, MsgID: m.ID, Env: m.env})
		}
	}
	if len(due) > 0 {
		c.touch()
	}
	return due
}

// sendAcks acks the client's position in each conversation.
func (s *connection) sendAcks(ctx context.Context) error {
	for _, ack := range s.client.dueAcks() {
		if err := s.send(ctx, gateway.TypeAck, "ack "+ack.ConvID, ack); err != nil {
			return err
		}
	}
	return nil
}

// dueAcks returns the acks that are due, and marks them as sent.
func (c *Client) dueAcks() []*gateway.Ack {
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []*gateway.Ack
	for id, h := range c.histories {
		if h.last() > h.ackedTo {
			h.ackedTo = h.last()
			due = append(due, &gateway.Ack{ConvID: id, Seq: h.ackedTo})
		}
	}
	return due
}

func (s *connection) send(ctx context.Context, frameType, id string, body any) error {
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID(id), body)
	if err != nil {
		return err
	}
	return s.ws.Write(ctx, websocket.MessageText, frame)
}

func (s *connection) read(ctx context.Context) (gateway.Frame, error) {
	_, data, err := s.ws.Read(ctx)
	if err != nil {
		return gateway.Frame{}, err
	}
	frame, err := gateway.DecodeFrame(data)
	if err == nil {
		return frame, nil
	}
	// The library takes a connection that ends inside a message for the end of the message. An
	// incomplete message is always the last one.
	if _, _, end := s.ws.Read(ctx); end != nil {
		return gateway.Frame{}, end
	}
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.violate("not a frame: %v", err)
	return gateway.Frame{}, err
}

func textOf(id json.RawMessage) string {
	var text string
	_ = json.Unmarshal(id, &text) // an id that is not a string is not ours
	return text
}
