package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// gatewayDoor is a client's access to the server's gateway.
type gatewayDoor struct {
	c     *Client
	route route // of the connections, one at a time
}

// tokens is the setting "tokens": the session that the next connection resumes.
type tokens struct {
	Session string `json:"session"`
	Resume  string `json:"resume"`
}

// open resumes the session stored in the home, or starts one.
func (d *gatewayDoor) open(ctx context.Context) (connection, service, error) {
	var kept tokens
	if err := d.c.db.update(ctx, func(tx *tx) error {
		_, err := tx.Settings.Get("tokens", &kept)
		return err
	}); err != nil {
		return nil, nil, err
	}
	wire, ready, err := d.openSession(ctx, kept.Resume)
	if r := asRefusal(err); r != nil && kept.Resume != "" && (r.Code == codeResumeFailed || r.Code == codeUnauthorized) {
		wire, ready, err = d.openSession(ctx, "")
	}
	if err != nil {
		return nil, nil, err
	}
	if err := d.begin(ctx, wire, ready); err != nil {
		wire.close()
		return nil, nil, err
	}
	d.settle(wire)
	calls := &gatewayCalls{d.c.caller(), ready.SessionToken}
	return newGatewayLink(ctx, d, wire, calls), calls, nil
}

// begin checks a session and starts its frames.
func (d *gatewayDoor) begin(ctx context.Context, wire transport, ready *gateway.Ready) error {
	if ready.UserID != d.c.account.DID() {
		return errors.New("the server takes us for another account")
	}
	for _, f := range []gateway.Feature{gateway.FeatureBundle, gateway.FeatureDevice, gateway.FeatureMarker} {
		if !slices.Contains(ready.Features, f) {
			return fmt.Errorf("the server does not have the feature %q", f)
		}
	}
	// On disk before it is used: the next request shows the server that this token has arrived,
	// and the previous one becomes invalid.
	if err := d.c.db.update(ctx, func(tx *tx) error {
		return tx.Settings.Set("tokens", tokens{Session: ready.SessionToken, Resume: ready.ResumeToken})
	}); err != nil {
		return err
	}
	return wire.begin(ready.SessionToken)
}

// openSession opens the working transport and resumes a session, or starts one when resume is
// "".
func (d *gatewayDoor) openSession(ctx context.Context, resume string) (transport, *gateway.Ready, error) {
	r := &d.route
	if !r.streaming || !time.Now().Before(r.probeAt) {
		sock, ready, err := d.openSocketSession(ctx, resume)
		if err == nil {
			r.streaming, r.early = false, 0
			return sock, ready, nil
		}
		if !r.blames(err) {
			return nil, nil, err
		}
		d.c.log.DebugContext(ctx, "trying without a WebSocket", "err", err)
		if r.streaming {
			r.failed(d.c.options.SocketProbe)
		}
	}
	ready, err := d.openStreamSession(ctx, resume)
	if err != nil {
		return nil, nil, err
	}
	return newStream(ctx, d.c), ready, nil
}

// settle records that the transport works.
func (d *gatewayDoor) settle(wire transport) {
	r := &d.route
	if wire.kind() == EventStream && !r.streaming {
		r.streaming = true
		r.failed(d.c.options.SocketProbe)
	}
}

// probe tries WebSockets while a session runs on streams, and calls found when one opens.
func (d *gatewayDoor) probe(ctx context.Context, found func()) {
	for pause(ctx, time.Until(d.route.probeAt)) {
		sock, err := openSocket(ctx, d.c.base, d.c.http)
		if err == nil {
			sock.close()
			d.route.probeAt = time.Now()
			found()
			return
		}
		d.c.log.DebugContext(ctx, "still no WebSocket", "err", err)
		d.route.failed(d.c.options.SocketProbe)
	}
}

// credentials returns the frame that resumes a session by its token, or starts one when resume
// is "".
func (d *gatewayDoor) credentials(ctx context.Context, resume string) (frameType string, body any, err error) {
	if resume != "" {
		return gateway.TypeSessionResume, gateway.Resume{ResumeToken: resume}, nil
	}
	audience, err := d.c.audience(ctx)
	if err != nil {
		return "", nil, err
	}
	token, err := d.c.account.serviceToken(audience, gateway.AuthMethod, d.c.now())
	if err != nil {
		return "", nil, err
	}
	label := clientLabel
	start := gateway.Start{AuthToken: token, DeviceID: d.c.options.DeviceID, ClientLabel: &label, Features: features}
	if d.c.options.InviteCode != "" {
		start.InviteCode = &d.c.options.InviteCode
	}
	return gateway.TypeSessionStart, start, nil
}

func (d *gatewayDoor) openSocketSession(ctx context.Context, resume string) (*socket, *gateway.Ready, error) {
	frameType, body, err := d.credentials(ctx, resume)
	if err != nil {
		return nil, nil, err
	}
	sock, err := openSocket(ctx, d.c.base, d.c.http)
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

// openStreamSession resumes or starts a session by HTTP. The answer may be lost: the server
// repeats it for the same token.
func (d *gatewayDoor) openStreamSession(ctx context.Context, resume string) (*gateway.Ready, error) {
	frameType, body, err := d.credentials(ctx, resume)
	if err != nil {
		return nil, err
	}
	path := "/v1/session/start"
	if frameType == gateway.TypeSessionResume {
		path = "/v1/session/resume"
	}
	var ready gateway.Ready
	if err := d.c.caller().call(ctx, "", path, body, &ready); err != nil {
		return nil, err
	}
	return &ready, nil
}

// features are the server's features that this package uses: all but frames that are longer
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

// refusalIn returns the refusal in an error frame.
func refusalIn(frame gateway.Frame) error {
	var e gateway.Error
	if err := frame.Decode(&e); err != nil {
		return fmt.Errorf("error frame: %w", err)
	}
	return refusalOf(&e)
}
