package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
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

// Error says so for logs.
func (e *endSession) Error() string { return "the server is about to restart" }

// run keeps the client connected until ctx ends or the home fails.
func (c *Client) run(ctx context.Context) {
	defer close(c.closed)
	var pace pace
	for {
		var served served
		err := ctx.Err()
		if err == nil { // who has been closed while it waited does not connect again
			c.setState(Connecting, nil)
			served, err = c.connect(ctx)
		}
		if ctx.Err() != nil {
			err = ErrClosed
		} else if dead := c.db.home.Failure(); dead != nil {
			err = dead
		}
		c.setState(Offline, err)
		if errors.Is(err, ErrClosed) || c.db.home.Failure() != nil {
			c.end(err)
			return
		}
		c.log.DebugContext(ctx, "connection ended", "err", err)
		timer := time.NewTimer(pace.next(served, err))
		select {
		case <-timer.C:
		case <-c.db.home.Died():
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// served is what a connection was good for.
type served struct {
	lasted time.Duration // how long there was a session; 0 if there was none
	worked bool          // it took something in, or had a request answered
}

// connect makes one connection and serves it to its end.
func (c *Client) connect(ctx context.Context) (served, error) {
	if c.xrpc != nil {
		return c.connectXRPC(ctx)
	}
	var kept tokens
	if err := c.db.update(ctx, func(tx *tx) error {
		_, err := tx.Settings.Get("tokens", &kept)
		return err
	}); err != nil {
		return served{}, err
	}
	wire, ready, err := c.openSession(ctx, kept.Resume)
	if r := asRefusal(err); r != nil && kept.Resume != "" && (r.Code == codeResumeFailed || r.Code == codeUnauthorized) {
		wire, ready, err = c.openSession(ctx, "")
	}
	if err != nil {
		return served{}, err
	}
	defer wire.close()
	if ready.UserID != c.account.DID() {
		return served{}, errors.New("the server takes us for another account")
	}
	for _, f := range []gateway.Feature{gateway.FeatureBundle, gateway.FeatureDevice, gateway.FeatureMarker} {
		if !slices.Contains(ready.Features, f) {
			return served{}, fmt.Errorf("the server does not have the feature %q", f)
		}
	}
	// On disk before it is used: whatever is sent next tells the server that this
	// token has arrived, and the one before dies.
	if err := c.db.update(ctx, func(tx *tx) error {
		return tx.Settings.Set("tokens", tokens{Session: ready.SessionToken, Resume: ready.ResumeToken})
	}); err != nil {
		return served{}, err
	}
	if err := wire.begin(ready.SessionToken); err != nil {
		return served{}, err
	}
	c.settle(wire)
	return c.serve(ctx, newSession(c, wire, &gatewayCalls{c.caller(), ready.SessionToken}))
}

// serve runs a session to its end, and looks for a better transport meanwhile.
func (c *Client) serve(ctx context.Context, s *session) (served, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel(nil)
	if s.wire.kind() == EventStream {
		probing.Go(func() { c.probe(ctx, func() { cancel(errSocketAgain) }) })
	}
	c.stats.connects.Add(1)
	c.setOnline(s.wire.kind())
	began := time.Now()
	err := s.serve(ctx)
	if context.Cause(ctx) == errSocketAgain {
		err = errSocketAgain
	} else if s.wire.kind() == WebSocket && time.Since(began) > steadyAfter {
		c.route.probes = 0
	}
	return served{lasted: max(time.Since(began), 1), worked: s.worked}, err
}

// credentials are the token of a session to resume, or what starts one when resume is "".
func (c *Client) credentials(ctx context.Context, resume string) (frameType string, body any, err error) {
	if resume != "" {
		return gateway.TypeSessionResume, gateway.Resume{ResumeToken: resume}, nil
	}
	audience, err := c.audience(ctx)
	if err != nil {
		return "", nil, err
	}
	token, err := c.account.serviceToken(audience, gateway.AuthMethod, c.now())
	if err != nil {
		return "", nil, err
	}
	label := clientLabel
	start := gateway.Start{AuthToken: token, DeviceID: c.options.DeviceID, ClientLabel: &label, Features: features}
	if c.options.InviteCode != "" {
		start.InviteCode = &c.options.InviteCode
	}
	return gateway.TypeSessionStart, start, nil
}

func (c *Client) openSocketSession(ctx context.Context, resume string) (*socket, *gateway.Ready, error) {
	frameType, body, err := c.credentials(ctx, resume)
	if err != nil {
		return nil, nil, err
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

// openStreamSession resumes or starts a session by HTTP. The answer may be lost: the
// server gives the same one to whoever comes with the same token again.
func (c *Client) openStreamSession(ctx context.Context, resume string) (*gateway.Ready, error) {
	frameType, body, err := c.credentials(ctx, resume)
	if err != nil {
		return nil, err
	}
	path := "/v1/session/start"
	if frameType == gateway.TypeSessionResume {
		path = "/v1/session/resume"
	}
	var ready gateway.Ready
	if err := c.caller().call(ctx, "", path, body, &ready); err != nil {
		return nil, err
	}
	return &ready, nil
}

// features are those of the server that this package uses: all but frames that are longer
// than it reads.
var features = slices.DeleteFunc(slices.Clone(gateway.Features), func(f gateway.Feature) bool { return f == gateway.FeatureLarge })

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
		return nil, &earlyEnd{errors.New("the server does not answer the start of a session")}
	case frame, ok := <-sock.frames:
		if !ok {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &earlyEnd{sock.failure()}
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
