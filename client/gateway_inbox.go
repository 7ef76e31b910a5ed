package client

import (
	"errors"
	"maps"
	"sync"

	"waxwing.im/waxwing/api/gateway"
)

// postersMax bounds concurrent calls of /v1/inbox, beside one with acks.
const postersMax = 4

// posting is a frame on its way to /v1/inbox.
type posting struct {
	frameType, id string
	body          any
	data          []byte // the whole frame
}

// inbox holds the frames that a stream is still to post.
type inbox struct {
	mu     sync.Mutex
	queue  []posting        // short: requests are answered one by one; guarded by mu
	acks   map[string]int64 // the latest of each conversation suffices; guarded by mu
	device int64            // the position to acknowledge, or 0; guarded by mu
	queued chan struct{}
	acking chan struct{}
}

func newInbox() *inbox {
	return &inbox{acks: map[string]int64{}, queued: make(chan struct{}, 1), acking: make(chan struct{}, 1)}
}

func (b *inbox) add(p posting) {
	b.mu.Lock()
	b.queue = append(b.queue, p)
	b.mu.Unlock()
	ring(b.queued)
}

// take returns the next posting; if there are more, it wakes another poster.
func (b *inbox) take() (p posting, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return p, false
	}
	p, b.queue = b.queue[0], b.queue[1:]
	if len(b.queue) > 0 {
		ring(b.queued)
	}
	return p, true
}

func (b *inbox) ack(conversation string, seq int64) {
	b.mu.Lock()
	b.acks[conversation] = max(b.acks[conversation], seq)
	b.mu.Unlock()
	ring(b.acking)
}

func (b *inbox) ackDevice(pos int64) {
	b.mu.Lock()
	b.device = max(b.device, pos)
	b.mu.Unlock()
	ring(b.acking)
}

// takeAcks returns the frames that acknowledge all events so far.
func (b *inbox) takeAcks() []posting {
	b.mu.Lock()
	acks, device := maps.Clone(b.acks), b.device
	clear(b.acks)
	b.device = 0
	b.mu.Unlock()
	var out []posting
	if device > 0 {
		out = append(out, posting{frameType: gateway.TypeDeviceAck, body: gateway.DeviceAck{Pos: device}})
	}
	for id, seq := range acks {
		out = append(out, posting{frameType: gateway.TypeAck, body: gateway.Ack{ConvID: id, Seq: seq}})
	}
	return out
}

// post is a worker: it posts the session's frames. It converts the answer to the frame that a
// socket would have received; without an answer the outcome is unknown, and the next transport
// asks again with the same msg_id.
func (s *stream) post() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.outgoing.queued:
		}
		p, ok := s.outgoing.take()
		if !ok {
			continue
		}
		var done gateway.InboxAnswer
		err := s.c.caller().exchangeFrame(s.ctx, s.token, p.data, &done)
		var e *gateway.Error
		switch {
		case errors.As(err, &e) && e.Code == gateway.CodeUnauthorized:
			s.fail(refusalOf(e)) // of the session, not of this frame
		case err != nil && e == nil:
			s.fail(err)
		case p.id == "": // a report: the session does not wait for the answer
		case e != nil:
			s.answer(gateway.TypeError, p.id, e)
		default:
			acked := gateway.Acked{Seq: done.Seq, ConvHome: done.ConvHome, OriginGateway: done.OriginGateway, Epoch: done.Epoch}
			switch body := p.body.(type) {
			case gateway.Send:
				acked.ConvID, acked.MsgID = body.ConvID, body.MsgID
			case gateway.Commit:
				acked.ConvID, acked.MsgID = body.ConvID, body.MsgID
			}
			s.answer(gateway.TypeAcked, p.id, acked)
		}
	}
}

// acknowledge posts acks one at a time, so that they arrive in order.
func (s *stream) acknowledge() {
	var again retry
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.outgoing.acking:
		}
		for _, p := range s.outgoing.takeAcks() {
			data, err := gateway.EncodeFrame(p.frameType, nil, p.body)
			if err == nil {
				err = s.c.caller().exchangeFrame(s.ctx, s.token, data, &gateway.InboxAnswer{})
			}
			if err == nil {
				again.ok()
				continue
			}
			refusal := asRefusal(asAnswer(err))
			switch {
			case refusal == nil:
				s.fail(err)
				return
			case refusal.Code == codeUnauthorized:
				s.fail(refusal)
				return
			case !refusal.mayPass():
				s.c.log.Debug("the server complains", "err", refusal)
				continue
			}
			s.send(p.frameType, "", p.body) // later, unless a newer one takes its place
			if !pause(s.ctx, again.wait(refusal)) {
				return
			}
		}
	}
}
