package drive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
)

// xrpcDoor makes calls of the AT Protocol's door, each with a token of its own.
type xrpcDoor struct {
	url      string
	http     *http.Client
	key      *identity.AccountKey
	audience string
}

// xrpcRefusal is an answer with another status than 200.
type xrpcRefusal struct {
	status int
	xrpc.ErrorBody
}

func (r *xrpcRefusal) Error() string {
	return fmt.Sprintf("status %d: %s: %s", r.status, r.ErrorBody.Error, r.Message)
}

// isForNow reports whether a careful client tries again.
func (r *xrpcRefusal) isForNow() bool {
	return r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests
}

// call makes one call: a query if in is nil, else a procedure.
func (d xrpcDoor) call(ctx context.Context, method string, query url.Values, in, out any) error {
	now := time.Now()
	token, err := identity.SignToken(d.key, identity.Claims{Issuer: d.key.DID(), Audience: d.audience, Method: method, IssuedAt: now, ExpiresAt: now.Add(tokenLifetime)})
	if err != nil {
		return err
	}
	verb, body := http.MethodGet, []byte(nil)
	if in != nil {
		verb = http.MethodPost
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, verb, d.url+"/xrpc/"+method+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.GetBody = nil // a token is good once
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := d.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerMax))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		refusal := &xrpcRefusal{status: answer.StatusCode}
		if json.Unmarshal(text, &refusal.ErrorBody) != nil {
			refusal.Message = fmt.Sprintf("%.200s", text) // a proxy's
		}
		return fmt.Errorf("%s: %w", method, refusal)
	}
	return json.Unmarshal(text, out)
}

// xrpcCall makes one call over a connection of its own.
func xrpcCall(ctx context.Context, route Route, key *identity.AccountKey, audience, method string, query url.Values, in, out any) error {
	transport := route.transport()
	transport.DisableKeepAlives = true
	return xrpcDoor{route.URL, &http.Client{Timeout: callMax, Transport: transport}, key, audience}.call(ctx, method, query, in, out)
}

// Transport is the way in which a client reads and writes.
type Transport string

// The transports of clients.
const (
	OverWebSocket  Transport = "WebSocket"
	OverStream     Transport = "SSE and inbox"
	OverXRPC       Transport = "XRPC and WebSocket"
	OverXRPCStream Transport = "XRPC and SSE"
)

// transport returns that of the client's connections.
func (c *Client) transport() Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.o.XRPC && c.o.Streams:
		return OverXRPCStream
	case c.o.XRPC:
		return OverXRPC
	case c.streams:
		return OverStream
	}
	return OverWebSocket
}

// subscriptionPath returns the path of a subscription to a conversation, with a fresh ticket.
func subscriptionPath(ctx context.Context, route Route, key *identity.AccountKey, audience, room string) (string, error) {
	var out xrpc.GetSubscriptionTicketOutput
	err := xrpcCall(ctx, route, key, audience, xrpc.GetSubscriptionTicket, nil, &xrpc.GetSubscriptionTicketInput{ConvoIDs: []string{room}}, &out)
	return "/xrpc/" + xrpc.SubscribeEvents + "?" + url.Values{"ticket": {out.Ticket}}.Encode(), err
}

// subscription is the connection of a client that uses the AT Protocol's door: a subscription, by
// WebSocket or stream, and calls beside it. It ends as soon as either fails.
type subscription struct {
	client *Client
	door   xrpcDoor
	cursor string // where it goes on; "" for the first one
	number int
	events int64
	end    context.CancelCauseFunc

	silence *time.Timer
}

// connectSubscription does the work of connect by the AT Protocol's door.
func (c *Client) connectSubscription(ctx context.Context) (wasReady bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	transport := c.o.Route.transport()
	defer transport.CloseIdleConnections()
	s := &subscription{client: c, door: xrpcDoor{c.o.Route.URL, &http.Client{Transport: transport}, c.o.Key, c.o.Audience}, end: end}
	err = s.converse(ctx)
	var refusal *xrpcRefusal
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.As(err, &refusal) && !refusal.isForNow() {
		c.violate("refused: %v", err)
	}
	if cause := context.Cause(ctx); cause != nil && websocket.CloseStatus(err) == -1 {
		err = cause // the resulting error has less information
	}
	return c.isReady, err
}

// converse subscribes and reads until the end, while goroutines send messages and probe.
func (s *subscription) converse(ctx context.Context) error {
	c := s.client
	s.silence = time.AfterFunc(c.o.Silence, func() { s.end(errSilent) })
	defer s.silence.Stop()
	var ticket xrpc.GetSubscriptionTicketOutput
	in := &xrpc.GetSubscriptionTicketInput{}
	if !c.followsMany() {
		in.ConvoIDs = c.conversations
	}
	if err := s.door.call(ctx, xrpc.GetSubscriptionTicket, nil, in, &ticket); err != nil {
		return err
	}
	c.mu.Lock()
	s.cursor = c.lastEvent
	c.mu.Unlock()
	open := s.openSocket
	if c.o.Streams {
		open = s.openStream
	}
	feed, err := open(ctx, ticket.Ticket)
	if err != nil {
		return err
	}
	defer feed.close()
	c.subscribed(s.cursor)
	if s.cursor == "" { // a subscription without one begins with what happens next
		if err := s.catchUp(ctx); err != nil {
			return err
		}
	}
	s.number = c.ready(func() {
		feed.leave()
		s.end(errLeft)
	})
	s.alive()
	var writing sync.WaitGroup
	writing.Go(func() { s.write(ctx) })
	writing.Go(func() { s.probe(ctx, feed.probe) })
	for err == nil {
		var event []byte
		if event, err = feed.next(); err == nil {
			s.alive()
			err = s.take(event)
		}
	}
	s.end(err)
	writing.Wait()
	return err
}

// feed reads and probes a subscription, in either form.
type feed struct {
	next  func() (event []byte, err error) // in JSON; empty: a sign of life
	probe func(ctx context.Context) error  // provokes one
	leave func()
	close func()
}

func (s *subscription) openSocket(ctx context.Context, ticket string) (*feed, error) {
	query := url.Values{"ticket": {ticket}}
	if s.cursor != "" {
		query.Set("cursor", s.cursor)
	}
	ws, err := s.client.o.Route.dial(ctx, "/xrpc/"+xrpc.SubscribeEvents+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	ping, err := xrpc.EncodeClientFrame(xrpc.ClientPing, xrpc.ClientFrame{})
	return &feed{
		next: func() ([]byte, error) {
			_, data, err := ws.Read(ctx)
			if err != nil {
				return nil, err
			}
			event, seq, err := xrpc.DecodeFrame(data)
			if err == nil {
				return xrpc.EventJSON(event, seq)
			}
			// As in connection.read: an incomplete message is the last one.
			var refusal *xrpc.StreamError
			if _, _, end := ws.Read(ctx); end != nil && !errors.As(err, &refusal) {
				return nil, end
			}
			return nil, s.wrong(err)
		},
		probe: func(ctx context.Context) error { return ws.Write(ctx, websocket.MessageBinary, ping) },
		leave: func() { _ = ws.Close(closeGoodbyeCode, "") }, // an error: it ended in another way
		close: func() { _ = ws.CloseNow() },
	}, err
}

func (s *subscription) openStream(ctx context.Context, ticket string) (*feed, error) {
	body, err := s.client.o.Route.stream(ctx, "/xrpc/"+xrpc.SubscribeEvents+"?"+url.Values{"ticket": {ticket}}.Encode(), "", s.cursor)
	if err != nil {
		return nil, err
	}
	lines, data := bufio.NewReader(body), []byte(nil)
	return &feed{
		next: func() ([]byte, error) {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return nil, errors.Join(errStreamEnded, err)
			}
			if text, has := bytes.CutPrefix(line, []byte("data: ")); has {
				data = text
			}
			if len(line) > 1 {
				return nil, nil
			}
			event := data // an event without its empty line is incomplete
			data = nil
			return event, nil
		},
		probe: func(ctx context.Context) error {
			// The stream has no way back. An answer over an idle connection of the same network
			// shows that this one is not dead.
			if _, err := s.page(ctx, s.client.conversations[0], 0, 1); err != nil {
				return err
			}
			s.alive()
			return nil
		},
		leave: func() {},
		close: func() { _ = body.Close() },
	}, nil
}

// alive notes a sign of life.
func (s *subscription) alive() { s.silence.Reset(s.client.o.Silence) }

// wrong records an event that may not be.
func (s *subscription) wrong(err error) error {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.violate("not an event: %v", err)
	return fmt.Errorf("not an event: %w", err)
}

// followsMany reports whether the client's subscription is one to all conversations of its
// account. A cursor of many may be an older one, whose events come again; one of a single
// conversation is exact.
func (c *Client) followsMany() bool { return len(c.conversations) > 1 }

// subscribed records an open subscription.
func (c *Client) subscribed(cursor string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.number++; cursor != "" {
		c.counts.Resumes++
	} else if c.number == 1 {
		c.counts.Starts++
	}
	for _, h := range c.histories {
		h.fetchedTo, h.repeatsTo = 0, 0
		if cursor != "" && c.followsMany() {
			h.repeatsTo = h.last()
		}
	}
}

// catchUp reads what happened before the first subscription. The subscription may bring the last
// of it again.
func (s *subscription) catchUp(ctx context.Context) error {
	c := s.client
	for _, id := range c.conversations {
		for isMore := true; isMore; {
			c.mu.Lock()
			h := c.histories[id]
			since := h.last()
			h.fetchedTo = since
			c.mu.Unlock()
			page, err := s.page(ctx, id, since, pageMax)
			if err != nil {
				return err
			}
			s.alive()
			for _, m := range page {
				c.received(eventOf(&m))
			}
			isMore = len(page) > 0
		}
	}
	return nil
}

const pageMax = 100

// page reads messages of a conversation.
func (s *subscription) page(ctx context.Context, id string, since int64, limit int) ([]xrpc.MessageView, error) {
	var out xrpc.GetMessagesOutput
	query := url.Values{"convoId": {id}, "sinceSeq": {fmt.Sprint(since)}, "limit": {fmt.Sprint(limit)}}
	err := s.call(ctx, xrpc.GetMessages, query, nil, &out)
	return out.Messages, err
}

// call makes one call. One without an answer shows that the network is dead.
func (s *subscription) call(ctx context.Context, method string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.client.o.Silence, errSilent)
	defer cancel()
	return s.door.call(ctx, method, query, in, out)
}

// eventOf returns a message as the gateway's event, with bytes in place of the env.
func eventOf(m *xrpc.MessageView) gateway.Event {
	return gateway.Event{ConvID: m.ConvoID, MsgID: m.ID, Seq: m.Seq, Env: string(m.Ciphertext)}
}

// bodyOf returns what the AT Protocol's door shows of an env in the log: what was sent there is
// bytes, all else text.
func bodyOf(event gateway.Event) string {
	if len(event.MsgID) == uuidBytes {
		if data, err := base64.StdEncoding.DecodeString(event.Env); err == nil {
			return string(data)
		}
	}
	return event.Env
}

const uuidBytes = 36

// uuidOf returns a message id in the form of a UUID.
func uuidOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// someCiphertext returns random bytes of a length that messages are padded to, in base64.
func someCiphertext(random *rand.Rand) string {
	lengths := []int{512, 512, 512, 512, 1024, 1024, 2048, 4096, 8192, 16384}
	data := make([]byte, lengths[random.IntN(len(lengths))])
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	data[0] = 1 // an MLSMessage begins with 0
	return base64.StdEncoding.EncodeToString(data)
}

// take handles an event.
func (s *subscription) take(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var event struct {
		Seq                 int64
		Cursor, Error, Info string
		Message             json.RawMessage
	}
	var message xrpc.MessageView
	err := json.Unmarshal(data, &event)
	if err == nil && event.Error != "" {
		err = &xrpc.StreamError{Name: event.Error, Message: string(event.Message)}
	}
	if err == nil && event.Message != nil {
		err = json.Unmarshal(event.Message, &message)
	}
	if err != nil {
		return s.wrong(err)
	}
	if s.events++; event.Seq != s.events {
		return s.wrong(fmt.Errorf("event %d of the subscription has the number %d", s.events, event.Seq))
	}
	c := s.client
	if event.Info == "compacted" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts.ResumesFailed++
		c.lastEvent = ""
		return errors.New("the subscription could not be resumed")
	}
	if event.Message != nil {
		c.received(eventOf(&message))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastEvent = event.Cursor
	return nil
}

// probe looks for signs of life until the connection ends.
func (s *subscription) probe(ctx context.Context, once func(ctx context.Context) error) {
	ticker := time.NewTicker(s.client.o.Silence / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := once(ctx); err != nil {
			s.end(err)
			return
		}
	}
}

// write sends messages until the connection ends.
func (s *subscription) write(ctx context.Context) {
	if err := s.client.eachDue(ctx, s.number, s.sendMessage); err != nil {
		s.end(err)
	}
}

func (s *subscription) sendMessage(ctx context.Context, m *gateway.Send) error {
	c := s.client
	ciphertext, err := base64.StdEncoding.DecodeString(m.Env)
	if err != nil {
		return err
	}
	var out xrpc.SendMessageOutput
	in := &xrpc.SendMessageInput{ConvoID: m.ConvID, MsgID: m.MsgID, Ciphertext: ciphertext, PaddedSize: xrpc.Natural(len(ciphertext))}
	err = s.call(ctx, xrpc.SendMessage, nil, in, &out)
	var refusal *xrpcRefusal
	switch {
	case errors.As(err, &refusal) && refusal.isForNow():
		c.refused(frameID(messageKey{m.ConvID, m.MsgID}), gateway.Error{Code: gateway.CodeUnavailable})
	case errors.As(err, &refusal):
		c.refused(frameID(messageKey{m.ConvID, m.MsgID}), gateway.Error{Code: gateway.Code(refusal.ErrorBody.Error), Message: refusal.Message})
	case err != nil:
		return err
	default:
		c.settled(gateway.Acked{ConvID: m.ConvID, MsgID: out.MessageID, Seq: out.Seq})
	}
	return nil
}
