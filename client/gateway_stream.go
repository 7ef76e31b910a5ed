package client

import (
	"context"
	"maps"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

const (
	// feedConversationsMax bounds the conversations of one GET /v1/sse: its URL stays within
	// the limits of proxies.
	feedConversationsMax = 32
	// gatherTime is the time in which subscriptions are collected into one request: a session
	// subscribes to all of its conversations when it begins.
	gatherTime = 5 * time.Millisecond
	// streamPing is the server's interval of signs of life on each stream.
	streamPing = 15 * time.Second
)

// stream is the transport by HTTP alone: events come over GET /v1/sse, requests go to POST
// /v1/inbox. Any fault of the network ends all of it, as it ends a socket; the next one
// requests each conversation from the state in the home, so it needs no Last-Event-ID.
type stream struct {
	c      *Client
	token  string
	begun  bool
	out    chan gateway.Frame
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	ended  chan struct{} // closed when tasks are done

	mu         sync.Mutex
	err        error          // why the stream ended; guarded by mu
	wanted     []feedRequest  // guarded by mu
	feeds      map[*feed]bool // running feeds; guarded by mu
	subscribed chan struct{}

	outgoing *inbox
}

// feedRequest asks for conversations, each from the event with that number on.
type feedRequest struct {
	from map[string]int64
	// isApart asks for a separate feed: the server refuses one of these conversations.
	isApart bool
}

func newStream(ctx context.Context, c *Client) *stream {
	s := &stream{c: c, out: make(chan gateway.Frame), ended: make(chan struct{}),
		feeds: map[*feed]bool{}, subscribed: make(chan struct{}, 1), outgoing: newInbox()}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

func (s *stream) kind() Transport { return EventStream }

func (s *stream) incoming() <-chan gateway.Frame { return s.out }

// begin opens the stream of the device's own events, which shows that the network lets streams
// through.
func (s *stream) begin(token string) error {
	s.token, s.begun = token, true
	device := s.newFeed(nil)
	device.arm()
	body, err := device.open()
	if err != nil {
		s.cancel()
		close(s.ended)
		return asAnswer(err)
	}
	s.admit(device)
	s.tasks.Go(func() {
		defer s.dismiss(device)
		device.read(body)
	})
	s.tasks.Go(s.follow)
	s.tasks.Go(s.acknowledge)
	for range postersMax {
		s.tasks.Go(s.post)
	}
	go func() {
		<-s.ctx.Done()
		s.tasks.Wait()
		close(s.out)
		close(s.ended)
	}()
	return nil
}

// close may be called without begin.
func (s *stream) close() {
	s.cancel()
	if s.begun {
		<-s.ended
	}
}

func (s *stream) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.cancel()
}

func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return s.ctx.Err()
	}
	return s.err
}

// isSilent checks the quietest feed, by the server's interval.
func (s *stream) isSilent(pingInterval time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.feeds {
		if f.silence() > max(pingInterval, streamPing)*silentAfter/2 {
			return true
		}
	}
	return false
}

// deliver passes a frame to the session; it returns false if the stream or ctx ends first.
func (s *stream) deliver(ctx context.Context, frame gateway.Frame) bool {
	select {
	case s.out <- frame:
		return true
	case <-ctx.Done():
		return false
	}
}

// answer passes on the server's answer to the frame with that id.
func (s *stream) answer(frameType, id string, body any) {
	raw, err := gateway.Marshal(body)
	if err != nil {
		s.fail(err)
		return
	}
	s.deliver(s.ctx, gateway.Frame{Type: frameType, ID: gateway.StringID(id), Body: raw})
}

func (s *stream) send(frameType, id string, body any) {
	switch body := body.(type) {
	case nil: // ping and pong: streams have their own signs of life
	case gateway.Subscribe:
		s.want(feedRequest{from: map[string]int64{body.ConvID: *body.FromSeq}})
	case gateway.Ack:
		s.outgoing.ack(body.ConvID, body.Seq)
	case gateway.DeviceAck:
		s.outgoing.ackDevice(body.Pos)
	default:
		data, err := gateway.EncodeFrame(frameType, nil, body)
		if err != nil {
			s.fail(err)
			return
		}
		s.outgoing.add(posting{frameType: frameType, id: id, body: body, data: data})
	}
}

func (s *stream) want(r feedRequest) {
	s.mu.Lock()
	s.wanted = append(s.wanted, r)
	s.mu.Unlock()
	ring(s.subscribed)
}

func (s *stream) takeWanted() []feedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.wanted
	s.wanted = nil
	return wanted
}

func (s *stream) admit(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeds[f] = true
}

func (s *stream) dismiss(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.feeds, f)
}

// follow keeps feeds open for the subscriptions, as few as possible. A feed cannot be extended:
// it is closed, and another is opened from its position.
func (s *stream) follow() {
	at := map[string]*feed{} // the feed of each conversation
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.subscribed:
		}
		if !pause(s.ctx, gatherTime) {
			return
		}
		maps.DeleteFunc(at, func(_ string, f *feed) bool { return f.hasEnded() })
		changed := map[*feed]map[string]int64{}
		for _, r := range s.takeWanted() {
			fresh := s.newFeed(nil) // runs only if it gets a conversation
			for id, from := range r.from {
				f := at[id]
				switch {
				case f != nil && r.isApart:
					continue // it was subscribed to again since
				case f != nil:
				case r.isApart:
					f = fresh
				default:
					f = roomFor(at, fresh)
				}
				if changed[f] == nil {
					changed[f] = map[string]int64{}
				}
				at[id], changed[f][id] = f, from
			}
		}
		for f, from := range changed {
			next := f.stop()
			maps.Copy(next, from)
			opened := s.newFeed(next)
			for id := range next {
				at[id] = opened
			}
			s.start(opened)
		}
	}
}

// roomFor returns a feed that can take one more conversation, or fresh when all are full.
func roomFor(at map[string]*feed, fresh *feed) *feed {
	sizes := map[*feed]int{}
	for _, f := range at {
		sizes[f]++
	}
	best := fresh
	for f, n := range sizes {
		if n < feedConversationsMax && n > sizes[best] {
			best = f // the fullest, so that few feeds stay nearly empty
		}
	}
	return best
}

func (s *stream) start(f *feed) {
	s.admit(f)
	f.arm()
	s.tasks.Go(func() {
		defer close(f.done)
		defer s.dismiss(f)
		body, err := f.open()
		if err != nil {
			f.refused(err)
			return
		}
		f.read(body)
	})
}

// pause waits, and reports whether ctx is still active.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ring wakes the receiver of the bell, now or at its next receive.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
