package drive

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
)

// eventsOfJSON is the subprotocol of subscriptions in JSON.
const eventsOfJSON = "waxwing.events.json"

// xrpcCall makes one call of the AT Protocol's door: a query if in is nil, else a procedure.
func xrpcCall(ctx context.Context, route Route, key *identity.AccountKey, audience, method, query string, in, out any) error {
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: audience, Method: method, IssuedAt: now, ExpiresAt: now.Add(tokenLifetime)})
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
	request, err := http.NewRequestWithContext(ctx, verb, route.URL+"/xrpc/"+method+"?"+query, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	transport := route.transport()
	transport.DisableKeepAlives = true
	answer, err := (&http.Client{Timeout: callMax, Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerMax))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %.200s", method, answer.StatusCode, text)
	}
	return json.Unmarshal(text, out)
}

// subscriptionPath returns the path of a subscription to a conversation, with a fresh ticket.
func subscriptionPath(ctx context.Context, route Route, key *identity.AccountKey, audience, room, cursor string) (string, error) {
	var out xrpc.GetSubscriptionTicketOutput
	in := &xrpc.GetSubscriptionTicketInput{ConvoIDs: []string{room}}
	if err := xrpcCall(ctx, route, key, audience, xrpc.GetSubscriptionTicket, "", in, &out); err != nil {
		return "", err
	}
	query := url.Values{"ticket": {out.Ticket}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	return "/xrpc/" + xrpc.SubscribeEvents + "?" + query.Encode(), nil
}

// subscriber follows a new conversation by a subscription of the AT Protocol's door, by WebSocket
// or stream, and subscribes again with its cursor whenever that ends.
type subscriber struct {
	route    Route
	key      *identity.AccountKey
	audience string
	room     string
	isStream bool
	silence  time.Duration

	mu      sync.Mutex // guards the rest
	changed chan struct{}
	end     context.CancelFunc // of the open subscription; nil: none
	cursor  string
	ids     []string // of the messages from seq 1 on
	errs    []error
	last    error // why it is not subscribed
}

func newSubscriber(route Route, key *identity.AccountKey, audience, room string, isStream bool, silence time.Duration) *subscriber {
	return &subscriber{route: route, key: key, audience: audience, room: room, isStream: isStream, silence: silence, changed: make(chan struct{})}
}

// run subscribes until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.follow(ctx)
		s.mu.Lock()
		s.end, s.last = nil, err
		s.mu.Unlock()
		pause(ctx, reconnectMin)
	}
}

// follow subscribes once.
func (s *subscriber) follow(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	silent := time.AfterFunc(s.silence, end)
	defer silent.Stop()
	s.mu.Lock()
	cursor := s.cursor
	s.mu.Unlock()
	path, err := subscriptionPath(ctx, s.route, s.key, s.audience, s.room, cursor)
	if err != nil {
		return err
	}
	var next func() ([]byte, error)
	if s.isStream {
		body, err := s.route.stream(ctx, path, "", "")
		if err != nil {
			return err
		}
		defer body.Close()
		lines := bufio.NewReader(body)
		next = func() ([]byte, error) { return lines.ReadBytes('\n') }
	} else {
		ws, err := s.route.dial(ctx, path, eventsOfJSON)
		if err != nil {
			return err
		}
		defer ws.CloseNow()
		next = func() ([]byte, error) {
			_, frame, err := ws.Read(ctx)
			return frame, err
		}
	}
	s.mu.Lock()
	s.end = end
	s.touch()
	s.mu.Unlock()
	silent.Stop() // the network tells of its end
	for {
		data, err := next()
		if err != nil {
			return err
		}
		if s.isStream {
			var has bool
			if data, has = bytes.CutPrefix(data, []byte("data:")); !has {
				continue
			}
		}
		if err := s.take(data); err != nil {
			return err
		}
	}
}

// take handles an event.
func (s *subscriber) take(data []byte) error {
	var event struct {
		Cursor, Error string
		Message       struct {
			ID  string
			Seq int64
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := json.Unmarshal(data, &event); err != nil || event.Error != "" {
		err = fmt.Errorf("not an event: %.200s: %w", data, err)
		s.errs = append(s.errs, err)
		return err
	}
	s.cursor = event.Cursor
	if event.Message.Seq == 0 {
		return nil // of another kind
	}
	if want := int64(len(s.ids) + 1); event.Message.Seq != want {
		s.errs = append(s.errs, fmt.Errorf("a subscription brings message %d, want %d", event.Message.Seq, want))
	}
	s.ids = append(s.ids, event.Message.ID)
	s.touch()
	return nil
}

// touch wakes those that wait for a change. The caller holds mu.
func (s *subscriber) touch() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// cut ends the open subscription without a goodbye.
func (s *subscriber) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end()
	}
}

// until waits for a state.
func (s *subscriber) until(ctx context.Context, what string, holds func() bool) error {
	for {
		s.mu.Lock()
		is, changed, last := holds(), s.changed, s.last
		s.mu.Unlock()
		if is {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("a subscriber (stream: %t) waits for %s: %w (%w)", s.isStream, what, ctx.Err(), last)
		}
	}
}

func (s *subscriber) awaitOpen(ctx context.Context) error {
	return s.until(ctx, "its subscription", func() bool { return s.end != nil })
}

func (s *subscriber) await(ctx context.Context, seq int64) error {
	return s.until(ctx, fmt.Sprintf("message %d", seq), func() bool { return int64(len(s.ids)) >= seq })
}

// compare checks that the messages are those of the log.
func (s *subscriber) compare(log []gateway.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := s.errs
	if len(s.ids) != len(log) {
		errs = append(errs, fmt.Errorf("a subscriber got %d messages, the log has %d", len(s.ids), len(log)))
	}
	for i := range min(len(s.ids), len(log)) {
		if s.ids[i] != log[i].MsgID {
			errs = append(errs, fmt.Errorf("a subscriber got %q as message %d, the log has %q", s.ids[i], i+1, log[i].MsgID))
			break
		}
	}
	return errors.Join(errs...)
}
