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
	kept, err := read(ctx, d.c.db, func(tx *tx) (tokens, error) { return setting[tokens](tx, "tokens") })
	if err != nil {
		return nil, nil, err
	}
	wire, ready, err := d.openSession(ctx, kept.Resume)
	if r := asRefusal(err); r != nil && kept.Resume != "" && (r.Code == codeResumeFailed || r.Code == codeUnauthorized) {
		wire, ready, err = d.openSession(ctx, "")
	}
	if err != nil {
		return nil, nil, err
	}
	calls := d.c.gateway(ready.SessionToken)
	var link *gatewayLink
	if err = d.admit(ctx, ready); err == nil {
		link, err = newGatewayLink(ctx, d, wire, calls)
	}
	if err != nil {
		wire.close()
		return nil, nil, err
	}
	return link, calls, nil
}

// admit checks a session, and stores its tokens.
func (d *gatewayDoor) admit(ctx context.Context, ready *gateway.Ready) error {
	if ready.UserID != d.c.account.DID() {
		return errors.New("session is for another account")
	}
	for _, f := range []gateway.Feature{gateway.FeatureBundle, gateway.FeatureDevice, gateway.FeatureMarker} {
		if !slices.Contains(ready.Features, f) {
			return fmt.Errorf("server lacks the feature %q", f)
		}
	}
	// On disk before it is used: the next request shows the server that this token has arrived,
	// and the previous one becomes invalid.
	return d.c.db.update(ctx, func(tx *tx) error {
		return tx.Settings.Set("tokens", tokens{Session: ready.SessionToken, Resume: ready.ResumeToken})
	})
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
	return newStream(d.c), ready, nil
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
	ready, err := sock.handshake(ctx, frameType, body)
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
	if err := d.c.gateway("").call(ctx, path, body, &ready); err != nil {
		return nil, err
	}
	return &ready, nil
}

// features are the server's features that this package uses: all but frames that are longer
// than it reads.
var features = slices.DeleteFunc(slices.Clone(gateway.Features), func(f gateway.Feature) bool { return f == gateway.FeatureLarge })

// clientLabel names this package in an account's list of sessions.
const clientLabel = "waxwing go sdk"

// earlyEndsMax is the number of consecutive sockets that end before session.ready after which
// WebSockets are considered blocked.
const earlyEndsMax = 2

// probeSlowest bounds the wait between two probes, as a multiple of Options.SocketProbe.
const probeSlowest = 8

// route remembers how the server can be reached. It has one user at a time: the goroutine of
// run, or the probe of its session.
type route struct {
	streaming bool      // the last session needed no WebSocket
	probeAt   time.Time // when to try one again
	probes    int       // failures since one worked
	early     int       // sockets in a row that ended before session.ready
}

// blames reports whether err shows that WebSockets are blocked.
func (r *route) blames(err error) bool {
	var socket *socketError
	switch {
	case !errors.As(err, &socket):
		return false
	case socket.hasOpened:
		r.early++
		return r.early >= earlyEndsMax || r.streaming
	}
	return true
}

// failed records a failed WebSocket, and the time of the next attempt.
func (r *route) failed(interval time.Duration) {
	wait := min(interval<<min(r.probes, 10), probeSlowest*interval)
	r.probeAt = time.Now().Add(wait*3/4 + rand.N(wait/4+1))
	r.probes++
}

// errSocketAgain ends a session on streams when a WebSocket opens again.
var errSocketAgain = errors.New("switching back to a WebSocket")
