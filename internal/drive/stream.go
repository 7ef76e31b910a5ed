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
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// streaming is the client's connection if WebSockets are blocked: a stream of events, and
// requests beside it. It ends as soon as either fails.
type streaming struct {
	client *Client
	http   *http.Client
	token  string
	number int
	end    context.CancelCauseFunc
}

// streamQuery is the same each time, as a browser repeats it; the id of the last event
// determines where the stream continues.
const streamQuery = "?all=1&from_seq=1"

var errStreamEnded = errors.New("the stream ended")

// connectStream does the work of connect without a WebSocket.
func (c *Client) connectStream(ctx context.Context) (wasReady bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	transport := c.o.Route.transport()
	defer transport.CloseIdleConnections()
	s := &streaming{client: c, http: &http.Client{Transport: transport}, end: end}
	err = s.converse(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isReady, err
}

func (s *streaming) converse(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	response, err := s.subscribe(ctx)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	s.number = s.client.ready(func() { s.end(errLeft) })
	var writing sync.WaitGroup
	writing.Go(func() { s.write(ctx) })
	err = s.read(response.Body)
	s.end(err)
	writing.Wait()
	return err
}

// open starts or resumes the session.
func (s *streaming) open(ctx context.Context) error {
	c := s.client
	frameType, body, err := c.opening()
	if err != nil {
		return err
	}
	path := sessionStart
	if frameType == gateway.TypeSessionResume {
		path = "/v1/session/resume"
	}
	data, err := gateway.Marshal(body)
	if err != nil {
		return err
	}
	var ready gateway.Ready
	err = s.post(ctx, path, data, &ready)
	var refusal *gateway.Error
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.As(err, &refusal):
		return c.notOpened(*refusal)
	case err != nil:
		return err
	}
	s.token = ready.SessionToken
	c.isOpen(ready, frameType == gateway.TypeSessionResume)
	return nil
}

// subscribe requests everything after the last event.
func (s *streaming) subscribe(ctx context.Context) (*http.Response, error) {
	c := s.client
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.o.Route.URL+"/v1/sse"+streamQuery, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	c.mu.Lock()
	if c.lastEvent != "" {
		request.Header.Set("Last-Event-ID", c.lastEvent)
	}
	c.mu.Unlock()
	waiting := time.AfterFunc(c.o.Silence, func() { s.end(errSilent) })
	defer waiting.Stop()
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	refusal, err := refusalOf(response)
	if err != nil {
		return nil, err
	}
	if refusal.Code != gateway.CodeUnavailable {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.violate("the stream was refused: %v", refusal)
	}
	return nil, refusal
}

// read handles events until the stream ends. Incomplete ones are ignored.
func (s *streaming) read(body io.Reader) error {
	lines := bufio.NewReader(body)
	var data, id []byte
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return errors.Join(errStreamEnded, err)
		}
		name, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(": "))
		switch string(name) {
		case "data":
			data = bytes.Clone(value)
		case "id":
			id = bytes.Clone(value)
		case "":
			if len(line) == 1 && data != nil {
				if err := s.take(data, string(id)); err != nil {
					return err
				}
				data, id = nil, nil
			}
		}
	}
}

func (s *streaming) take(data []byte, id string) error {
	c := s.client
	frame, err := gateway.DecodeFrame(data)
	if err != nil || id == "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.violate("not an event with an id: %v", err)
		return fmt.Errorf("not an event: %w", err)
	}
	if err := c.handle(frame); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastEvent = id
	return nil
}

// write posts messages and, concurrently, acks until the connection ends, so that neither waits
// for the other. A request without an answer shows that the network is dead.
func (s *streaming) write(ctx context.Context) {
	c := s.client
	var acking sync.WaitGroup
	defer acking.Wait()
	acking.Go(func() {
		acks := time.NewTicker(ackInterval)
		defer acks.Stop()
		probes := time.NewTicker(c.o.Silence / 4)
		defer probes.Stop()
		for err := error(nil); err == nil; {
			select {
			case <-ctx.Done():
				return
			case <-probes.C:
				err = s.probe(ctx)
			case <-acks.C:
				err = s.postAcks(ctx)
			}
			if err != nil {
				s.end(err)
			}
		}
	})
	if err := c.eachDue(ctx, s.number, s.postMessage); err != nil {
		s.end(err)
	}
}

// eachDue sends each message that a connection has not carried, until ctx ends or send fails.
func (c *Client) eachDue(ctx context.Context, number int, send func(context.Context, *gateway.Send) error) error {
	again := time.NewTicker(ackInterval) // for messages that the server could not accept
	defer again.Stop()
	for {
		for _, m := range c.due(number) {
			if err := send(ctx, m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.work:
		case <-again.C:
		}
	}
}

func (s *streaming) postMessage(ctx context.Context, m *gateway.Send) error {
	id := frameID(messageKey{m.ConvID, m.MsgID})
	var answer gateway.InboxAnswer
	err := s.postFrame(ctx, gateway.TypeSend, id, m, &answer)
	var refusal *gateway.Error
	switch {
	case errors.As(err, &refusal):
		s.client.refused(id, *refusal)
	case err != nil:
		return err
	default:
		s.client.settled(gateway.Acked{ConvID: m.ConvID, MsgID: m.MsgID, Seq: answer.Seq})
	}
	return nil
}

func (s *streaming) postAcks(ctx context.Context) error {
	for _, ack := range s.client.dueAcks() {
		if err := s.postAck(ctx, ack); err != nil {
			return err
		}
	}
	return nil
}

// probe acks again what has been acked.
func (s *streaming) probe(ctx context.Context) error {
	c := s.client
	id := c.conversations[0]
	c.mu.Lock()
	seq := c.histories[id].ackedTo
	c.mu.Unlock()
	return s.postAck(ctx, &gateway.Ack{ConvID: id, Seq: seq})
}

func (s *streaming) postAck(ctx context.Context, ack *gateway.Ack) error {
	var answer gateway.InboxAnswer
	err := s.postFrame(ctx, gateway.TypeAck, "ack "+ack.ConvID, ack, &answer)
	var refusal *gateway.Error
	if errors.As(err, &refusal) {
		if refusal.Code != gateway.CodeUnavailable {
			s.client.mu.Lock()
			defer s.client.mu.Unlock()
			s.client.violate("an ack was refused: %v", refusal)
		}
		return nil // the next one repeats it
	}
	return err
}

func (s *streaming) postFrame(ctx context.Context, frameType, id string, body, answer any) error {
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID(id), body)
	if err != nil {
		return err
	}
	return s.post(ctx, "/v1/inbox", frame, answer)
}

// post makes one request. A refusal is a *gateway.Error.
func (s *streaming) post(ctx context.Context, path string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.client.o.Silence, errSilent)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.client.o.Route.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.GetBody = nil // requests are repeated by us, who count them, or not at all
	request.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := s.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		refusal, err := refusalOf(response)
		if err != nil {
			return err
		}
		return refusal
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, answerMax))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, answer)
}

// refusalOf parses an answer of the server with a status other than 200.
func refusalOf(response *http.Response) (*gateway.Error, error) {
	data, err := io.ReadAll(io.LimitReader(response.Body, answerMax))
	if err != nil {
		return nil, err
	}
	refusal := &gateway.Error{}
	if err := json.Unmarshal(data, refusal); err != nil || refusal.Code == "" {
		return nil, fmt.Errorf("status %d: %s", response.StatusCode, strings.TrimSpace(string(data)))
	}
	return refusal, nil
}
