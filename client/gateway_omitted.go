package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// A frame of more than gateway.FrameBytesMax comes without its env. The link then fetches the
// whole record before it passes on later frames: one record at a time, of up to answerBytesMax
// bytes, which bounds the memory that a server can make it hold. A longer record is passed on
// without its message, like any other that cannot be read, so that it does not block later
// ones.

// messageOf converts an event frame. A record that the server does not return is a gap: the
// session asks for it again in its place, and gets the reason.
func (l *gatewayLink) messageOf(e *gateway.Event) (event, error) {
	if e.Omitted != nil {
		missing, err := l.complete(func(ctx context.Context) error { return l.fetchEvent(ctx, e) }, e.Omitted.Bytes)
		switch {
		case err != nil:
			return nil, err
		case asRefusal(missing) != nil:
			return logGap{e.ConvID}, nil
		}
	}
	return &logMessage{conversation: e.ConvID, id: e.MsgID, seq: e.Seq, message: decoded(e.Env), kind: e.Kind, epoch: e.Epoch}, nil
}

// welcomeOf converts a welcome frame.
func (l *gatewayLink) welcomeOf(w *gateway.Welcome) (event, error) {
	if w.Omitted != nil {
		if _, err := l.complete(func(ctx context.Context) error { return l.fetchWelcome(ctx, w) }, w.Omitted.Bytes); err != nil {
			return nil, err
		}
	}
	return &welcome{Pos: w.Pos, ID: w.WelcomeID, Conversation: w.ConvID, Message: decoded(w.Env), KeyPackageRef: w.KeyPackageRef,
		Epoch: w.Epoch, NextSeq: w.NextSeq, isLogged: true}, nil
}

// complete fetches the omitted part of a frame, repeatedly while the server reports that it may
// have it later. missing is the reason why it cannot be fetched. err ends the link: the server
// does not answer, or no longer knows the session.
func (l *gatewayLink) complete(fetch func(ctx context.Context) error, bytes int64) (missing, err error) {
	if bytes > answerBytesMax {
		return errAnswerTooLong, nil
	}
	l.setFetching(true)
	defer l.setFetching(false)
	var again retry
	for {
		err := fetch(l.ctx)
		refusal := asRefusal(err)
		switch {
		case err == nil:
			return nil, nil
		case refusal == nil && !errors.Is(err, errAnswerTooLong), refusal != nil && refusal.Code == codeUnauthorized:
			return nil, err
		case refusal == nil || !refusal.mayPass():
			l.door.c.log.Debug("a frame cannot be completed", "err", err)
			return err, nil
		case !pause(l.ctx, again.wait(err)):
			return nil, l.ctx.Err()
		}
	}
}

func (l *gatewayLink) setFetching(isFetching bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isFetching, l.fetchEnded = isFetching, time.Now()
}

func (l *gatewayLink) heldBack() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isFetching {
		return time.Now()
	}
	return l.fetchEnded
}

func (l *gatewayLink) fetchEvent(ctx context.Context, e *gateway.Event) error {
	var whole gateway.Event
	err := l.gateway.call(ctx, fmt.Sprintf("/v1/records?conv_id=%s&seq=%d", url.QueryEscape(e.ConvID), e.Seq), nil, &whole)
	if err == nil && (whole.ConvID != e.ConvID || whole.Seq != e.Seq || whole.MsgID != e.MsgID) {
		return &Refusal{Code: codeUnavailable, Message: "invalid answer: not the requested record", RetryAfter: time.Second, Index: -1}
	}
	e.Env = whole.Env
	return err
}

func (l *gatewayLink) fetchWelcome(ctx context.Context, w *gateway.Welcome) error {
	var whole gateway.StoredWelcome
	err := l.gateway.call(ctx, "/v1/records?welcome_id="+url.QueryEscape(w.WelcomeID), nil, &whole)
	w.Env = whole.Env
	return err
}
