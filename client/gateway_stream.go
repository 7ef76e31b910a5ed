package client

import (
	"io"
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

// stream is the transport by HTTP alone: frames come over GET /v1/sse, requests go to POST
// /v1/inbox. Any fault of the network ends all of it, as it ends a socket; the next one
// requests each conversation from the state in the home, so it needs no Last-Event-ID.
type stream struct {
	c      *Client
	link   *gatewayLink // set by begin
	wanted queue[feedRequest]
	read   latest // to be acknowledged

	mu    sync.Mutex
	feeds map[*feed]bool // running feeds; guarded by mu
}

// feedRequest asks for conversations, each from the event with that number on.
type feedRequest struct {
	from map[string]int64
	// isApart asks for a separate feed: the server refuses one of these conversations.
	isApart bool
}

func newStream(c *Client) *stream {
	return &stream{c: c, wanted: newQueue[feedRequest](), read: newLatest(), feeds: map[*feed]bool{}}
}

func (s *stream) kind() Transport { return EventStream }

// begin opens the stream of the device's own events, which shows that the network lets streams
// through.
func (s *stream) begin(l *gatewayLink) error {
	s.link = l
	device := s.newFeed(nil)
	device.arm()
	body, err := device.open()
	if err != nil {
		return err
	}
	s.start(device, body)
	l.tasks.Go(s.follow)
	l.tasks.Go(s.postAcks)
	return nil
}

// close does nothing: all requests end with the link.
func (s *stream) close() {}

// isSilent checks the quietest feed, by the server's interval.
func (s *stream) isSilent(pingInterval time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.feeds {
		if f.lastRead.isMissing(max(pingInterval, streamPing)) {
			return true
		}
	}
	return false
}

// ping does nothing: streams have their own signs of life.
func (s *stream) ping() {}

func (s *stream) subscribe(id string, from int64) {
	s.wanted.add(feedRequest{from: map[string]int64{id: from}})
}

func (s *stream) acknowledge(log string, pos int64) { s.read.set(log, pos) }

func (s *stream) request(number int, frameType string, body any) {
	s.link.calls.add(func() {
		seq, err := s.link.gateway.post(s.link.ctx, frameType, body)
		s.link.answer(number, seq, err)
	})
}

func (s *stream) report(id string, body gateway.Report) {
	s.link.calls.add(func() {
		_, err := s.link.gateway.post(s.link.ctx, gateway.TypeReport, body)
		if refusal := asRefusal(err); refusal != nil {
			var e event
			if e, err = s.link.refusedBy(id, "", refusal); e != nil {
				s.link.deliver(e)
			}
		}
		if err != nil {
			s.link.fail(err)
		}
	})
}

// postAcks acknowledges one log at a time, so that positions arrive in order.
func (s *stream) postAcks() {
	var again retry
	s.link.each(s.read.bell, func() {
		for log, pos := range s.read.takeAll() {
			frameType, body := ackFrame(log, pos)
			_, err := s.link.gateway.post(s.link.ctx, frameType, body)
			refusal := asRefusal(err)
			switch {
			case err == nil:
				again.ok()
			case refusal == nil || refusal.Code == codeUnauthorized:
				s.link.fail(err)
				return
			case !refusal.mayPass():
				s.c.log.Debug("refused by the server", "err", refusal)
			default:
				s.read.set(log, pos) // later, unless a newer one takes its place
				if !pause(s.link.ctx, again.wait(refusal)) {
					return
				}
			}
		}
	})
}

// follow keeps feeds open for the subscriptions, as few as possible. A feed cannot be extended:
// it is closed, and another is opened from its position.
func (s *stream) follow() {
	at := map[string]*feed{} // the feed of each conversation
	s.link.each(s.wanted.bell, func() {
		if !pause(s.link.ctx, gatherTime) {
			return
		}
		maps.DeleteFunc(at, func(_ string, f *feed) bool { return f.hasEnded() })
		changed := map[*feed]map[string]int64{}
		for _, r := range s.wanted.takeAll() {
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
			opened.arm()
			s.start(opened, nil)
		}
	})
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

// start runs a feed; body is its stream if it is open already.
func (s *stream) start(f *feed, body io.ReadCloser) {
	s.mu.Lock()
	s.feeds[f] = true
	s.mu.Unlock()
	s.link.tasks.Go(func() {
		defer close(f.done)
		defer func() {
			s.mu.Lock()
			delete(s.feeds, f)
			s.mu.Unlock()
		}()
		if body == nil {
			var err error
			if body, err = f.open(); err != nil {
				f.refused(err)
				return
			}
		}
		f.pass(body)
	})
}
