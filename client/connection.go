package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// How reconnecting is spread: the first try comes at once, the next ones after a
// random part of a time that doubles. A server that answers and then loses the
// connection again is tried more often than one that does not answer.
const (
	reconnectMin = 200 * time.Millisecond
	reconnectMax = 15 * time.Second
	resumeMin    = 25 * time.Millisecond
	resumeMax    = time.Second
	// steadyAfter is how long a session must last for the counts to start anew.
	steadyAfter = 2 * time.Second
)

// backoff is the wait before the attempt after so many failed ones, with full jitter.
func backoff(failed int, least, most time.Duration) time.Duration {
	if failed <= 0 {
		return 0
	}
	d := least << min(failed-1, 20)
	if d > most || d <= 0 {
		d = most
	}
	return d/4 + rand.N(d*3/4+1)
}

// tokens is the setting "tokens": the session that the next connection resumes.
type tokens struct {
	Session string `json:"session"`
	Resume  string `json:"resume"`
}

// endSession is how a session says that the next one is to begin after a while.
type endSession struct{ after time.Duration }

func (e *endSession) Error() string { return "the server is about to restart" }

// run keeps the client connected until ctx ends or the home fails.
func (c *Client) run(ctx context.Context) {
	defer close(c.closed)
	failed, short := 0, 0
	for {
		c.setState(Connecting, nil)
		served, err := c.connect(ctx)
		if ctx.Err() != nil {
			err = ErrClosed
		} else if dead := c.db.failure(); dead != nil {
			err = dead
		}
		c.setState(Offline, err)
		if errors.Is(err, ErrClosed) || c.db.failure() != nil {
			c.end(err)
			return
		}
		c.log.DebugContext(ctx, "connection ended", "err", err)
		wait := backoff(failed, reconnectMin, reconnectMax)
		failed++
		if served > 0 {
			if failed = 0; served > steadyAfter {
				short = 0
			}
			wait = backoff(short, resumeMin, resumeMax)
			short++
		}
		var planned *endSession
		if errors.As(err, &planned) {
			wait, failed = planned.after, 1
		}
		if r := asRefusal(err); r != nil && r.RetryAfter > wait {
			wait = r.RetryAfter
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.db.died:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// connect makes one connection and serves it to its end. served is for how long
// there was a session, 0 if there was none.
func (c *Client) connect(ctx context.Context) (served time.Duration, err error) {
	var kept tokens
	if err := c.db.update(ctx, func(tx *tx) error {
		_, err := tx.setting("tokens", &kept)
		return err
	}); err != nil {
		return 0, err
	}
	sock, ready, err := c.openSession(ctx, kept.Resume)
	if r := asRefusal(err); r != nil && kept.Resume != "" && (r.Code == codeResumeFailed || r.Code == codeUnauthorized) {
		sock, ready, err = c.openSession(ctx, "")
	}
	if err != nil {
		return 0, err
	}
	defer sock.close()
	if ready.UserID != c.account.DID() {
		return 0, errors.New("the server takes us for another account")
	}
	for _, f := range []gateway.Feature{gateway.FeatureBundle, gateway.FeatureDevice, gateway.FeatureMarker} {
		if !slices.Contains(ready.Features, f) {
			return 0, fmt.Errorf("the server does not have the feature %q", f)
		}
	}
	// On disk before it is used: whatever is sent next tells the server that this
	// token has arrived, and the one before dies.
	if err := c.db.update(ctx, func(tx *tx) error {
		return tx.setSetting("tokens", tokens{Session: ready.SessionToken, Resume: ready.ResumeToken})
	}); err != nil {
		return 0, err
	}
	c.stats.connects.Add(1)
	c.setState(Online, nil)
	began := time.Now()
	err = newSession(c, sock, ready.SessionToken).serve(ctx)
	return max(time.Since(began), 1), err
}

// openSession connects and resumes a session, or starts one when resume is "".
func (c *Client) openSession(ctx context.Context, resume string) (*socket, *gateway.Ready, error) {
	frameType, body := gateway.TypeSessionResume, any(gateway.Resume{ResumeToken: resume})
	if resume == "" {
		audience, err := c.audience(ctx)
		if err != nil {
			return nil, nil, err
		}
		token, err := c.account.serviceToken(audience, gateway.AuthMethod, c.now())
		if err != nil {
			return nil, nil, err
		}
		label := clientLabel
		frameType, body = gateway.TypeSessionStart, gateway.Start{AuthToken: token, DeviceID: c.options.DeviceID,
			ClientLabel: &label, Features: gateway.Features}
	}
	sock, err := openSocket(ctx, c.base, c.http)
	if err != nil {
		return nil, nil, err
	}
	ready, err := handshake(ctx, sock, frameType, body)
	if err != nil {
		sock.close()
		return nil, nil, err
	}
	return sock, ready, nil
}

// clientLabel names this package in an account's list of sessions.
const clientLabel = "waxwing go sdk"

func handshake(ctx context.Context, sock *socket, frameType string, body any) (*gateway.Ready, error) {
	sock.send(frameType, "start", body)
	timer := time.NewTimer(dialTimeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, errors.New("the server does not answer the start of a session")
	case frame, ok := <-sock.frames:
		if !ok {
			return nil, sock.failure()
		}
		switch frame.Type {
		case gateway.TypeReady:
			var ready gateway.Ready
			if err := frame.Decode(&ready); err != nil {
				return nil, fmt.Errorf("session.ready: %w", err)
			}
			return &ready, nil
		case gateway.TypeError:
			return nil, refusalIn(frame)
		}
		return nil, fmt.Errorf("the server answers the start of a session with %q", frame.Type)
	}
}

// refusalIn is the refusal that an error frame carries.
func refusalIn(frame gateway.Frame) error {
	var e gateway.Error
	if err := frame.Decode(&e); err != nil {
		return fmt.Errorf("error frame: %w", err)
	}
	return refusalOf(&e)
}
