package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// A frame of more than gateway.FrameBytesMax comes without its env. The session then asks
// for the whole, and takes in nothing that came behind it before: one frame at a time, of
// up to answerBytesMax bytes, so that this is all that a server can make it hold.

// part is a frame that came without its env.
type part struct {
	event   *gateway.Event   // or
	welcome *gateway.Welcome // is not nil
	err     error            // why it cannot be had
}

// omittedOf returns what is left out of a frame; nil where that is nothing.
func omittedOf(frame gateway.Frame) *part {
	if !bytes.Contains(frame.Body, []byte(`"omitted"`)) {
		return nil
	}
	switch frame.Type {
	case gateway.TypeEvent:
		var e gateway.Event
		if frame.Decode(&e) == nil && e.Omitted != nil {
			return &part{event: &e}
		}
	case gateway.TypeWelcome:
		var w gateway.Welcome
		if frame.Decode(&w) == nil && w.Omitted != nil {
			return &part{welcome: &w}
		}
	}
	return nil // what is wrong with it is said by those who take it in
}

// incoming gives the next frames, and none while one is fetched.
func (s *session) incoming() <-chan gateway.Frame {
	if s.isFetching {
		return nil
	}
	return s.wire.incoming()
}

// fetch asks for what a frame has left out, again and again while the server says that it
// may have it later.
func (s *session) fetch(ctx context.Context, p *part) {
	s.isFetching = true
	s.tasks.Go(func() {
		var again retry
		for {
			p.err = s.complete(ctx, p)
			refusal := asRefusal(p.err)
			if refusal == nil || !refusal.mayPass() || !pause(ctx, again.wait(p.err)) {
				break
			}
		}
		select {
		case s.fetched <- p:
		case <-ctx.Done():
		}
	})
}

// complete asks once.
func (s *session) complete(ctx context.Context, p *part) error {
	calls, ok := s.service.(*gatewayCalls)
	if !ok {
		return errAnswerTooLong
	}
	if p.event == nil {
		if p.welcome.Omitted.Bytes > answerBytesMax {
			return errAnswerTooLong
		}
		var whole gateway.StoredWelcome
		err := calls.call(ctx, "/v1/records?welcome_id="+url.QueryEscape(p.welcome.WelcomeID), nil, &whole)
		p.welcome.Env = whole.Env
		return err
	}
	if p.event.Omitted.Bytes > answerBytesMax {
		return errAnswerTooLong
	}
	var whole gateway.Event
	err := calls.call(ctx, fmt.Sprintf("/v1/records?conv_id=%s&seq=%d", url.QueryEscape(p.event.ConvID), p.event.Seq), nil, &whole)
	if err == nil && (whole.ConvID != p.event.ConvID || whole.Seq != p.event.Seq || whole.MsgID != p.event.MsgID) {
		return &Refusal{Code: codeUnavailable, Message: "the server's answer is wrong: it is not the record that was asked for", RetryAfter: time.Second}
	}
	p.event.Env = whole.Env
	return err
}

// takeWhole takes in a frame that was completed. One that is longer than this client reads
// is taken in without its env, like any other that cannot be read: it must not keep what
// comes behind it away. A record that the server does not give is asked for in its place
// again, which says why. A server that does not answer, or no longer knows the session, ends
// that.
func (s *session) takeWhole(ctx context.Context, p *part) error {
	refusal := asRefusal(p.err)
	if p.err != nil && refusal == nil && !errors.Is(p.err, errAnswerTooLong) || refusal != nil && refusal.Code == codeUnauthorized {
		return p.err
	}
	frameType, body := gateway.TypeWelcome, any(p.welcome)
	if p.event != nil {
		frameType, body = gateway.TypeEvent, p.event
		p.event.Omitted = nil
		if refusal != nil {
			s.gap(p.event.ConvID)
			return nil
		}
	} else {
		p.welcome.Omitted = nil
	}
	if p.err != nil {
		s.c.log.Debug("a frame cannot be completed", "type", frameType, "err", p.err)
	}
	raw, err := gateway.Marshal(body)
	if err != nil {
		return err
	}
	return s.take(ctx, []gateway.Frame{{Type: frameType, Body: raw}})
}
