package prove

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/drive"
)

var rr007 = Proof{
	ID: "RR-007", Title: "any proxy",
	Attack: "nginx, HAProxy, Varnish, Caddy and Apache, configured as deploy/proxies has it, and a program that cuts, buffers, splits and rewrites as CDNs do, " +
		"stand before a server: requests of all kinds, idle sockets and streams of both APIs for longer than two of their timeouts, bodies of 5 MiB, " +
		"connections that break while messages are sent, restarts of the proxy; over HTTP/1.1 and HTTP/2, at a host of its own and below a path prefix. " +
		"In a quick run the timeouts of proxies and the heartbeat are divided by 20.",
	Mitigation: "The protocols are plain HTTP, WebSocket and server-sent events: no trailers, interim answers, unusual methods or headers. " +
		"Each open connection is written to within the heartbeat, streams forbid buffering, and whoever is cut resumes without a loss.",
	Detection: []string{"waxwing_transport_closes_total", "waxwing_xrpc_subscription_closes_total", "waxwing_gateway_reconnects_total"},
	Needs: func() error {
		var missing []error
		for _, kind := range drive.ProxyKinds() {
			missing = append(missing, kind.Missing())
		}
		return errors.Join(missing...)
	},
	Run: throughProxies,
}

func throughProxies(ctx context.Context, r *Run) error {
	kinds := drive.ProxyKinds()
	suite := drive.PassageSuite{Scale: Size(r, 20, 1), Size: Size(r, 1, 10), Seed: r.Seed, Beside: func(ctx context.Context, name string, routes []drive.Route) error {
		return talkThrough(ctx, r, name, routes)
	}}
	s, err := r.Serve(ctx, suite.Serve()...)
	if err != nil {
		return err
	}
	before, err := s.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		version, err := kind.Version(ctx)
		if err != nil {
			return err
		}
		r.Did("%s %s", kind.Name, version)
	}
	r.Step("driving a server through %d proxies and a CDN", len(kinds))
	reports, err := suite.Run(ctx, s.Process, kinds)
	if err != nil {
		return err
	}
	after, err := s.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	var sum drive.PassageReport
	idle := map[string]float64{}
	for _, report := range reports {
		r.Did("%s", report)
		for _, problem := range report.Problems[:min(len(report.Problems), problemsMax)] {
			r.Did("%.300s", problem)
		}
		idle[report.Name] = float64(report.Idle - report.Cut)
		sum.Add(report)
	}
	r.Exactly("idle sockets and streams that were cut, or brought a message late", float64(sum.Cut), 0, "")
	r.Exactly("answers that differ from those without a proxy", float64(sum.Different), 0, "")
	r.Exactly("transfers of long bodies that failed", float64(sum.Changed), 0, "")
	r.Exactly("proxies behind which messages got lost, doubled or reordered, or clients did not return", float64(sum.Wrong), 0, "")
	r.AtLeast("idle sockets and streams", float64(sum.Idle), float64(4+16*(len(kinds)+1)), "")
	r.AtLeast("answers compared", float64(sum.Answers), 1, "")
	r.AtLeast("long bodies", float64(sum.Bodies), 1, "")
	r.AtLeast("connections broken", float64(sum.Disconnects), 1, "")
	r.AtLeast("restarts of proxies", float64(sum.Restarts), float64(len(kinds)+1), "")
	r.Figure("messages sent meanwhile", float64(sum.Messages), "")
	r.Bars("idle sockets and streams that got their message at once", idle)
	r.Moved(before, after, `transport_closes_total{cause="peer"}`, `xrpc_subscription_closes_total{cause="peer"}`, "gateway_reconnects_total")
	was, _ := before.Sum("waxwing_transport_closes_total", `cause="fault"`)
	is, _ := after.Sum("waxwing_transport_closes_total", `cause="fault"`)
	r.Exactly("connections that the server closed by a fault of its own", is-was, 0, "")
	return s.Check()
}

const problemsMax = 5 // of a proxy, that are shown

const talkMax = 30 * time.Second

// talkThrough lets three clients of the SDK talk in a group: by WebSocket, by streams, and by the
// AT Protocol. Those that a proxy serves below a prefix may request nothing else of the host.
func talkThrough(ctx context.Context, r *Run, name string, routes []drive.Route) error {
	ctx, cancel := context.WithTimeout(ctx, talkMax)
	defer cancel()
	first, last := routes[0], routes[len(routes)-1]
	people := []*client.Client{}
	for i, route := range []drive.Route{last, routes[len(routes)/2], first} {
		folder, err := r.Folder()
		if err != nil {
			return err
		}
		account, err := client.AccountFromSeed(fmt.Append(nil, r.Seed), fmt.Sprint(name, i))
		if err != nil {
			return err
		}
		var options []client.Option
		if i == 2 {
			options = append(options, client.WithXRPC())
		}
		c, err := client.Open(ctx, client.Options{Dir: folder, StorageKey: []byte(strings.Repeat("k", client.StorageKeyBytes)), Server: route.URL, Account: account, KeyPackages: 2,
			HTTPClient: route.Client(i == 1)}, options...)
		if err != nil {
			return err
		}
		defer c.Close()
		people = append(people, c)
	}
	room, err := people[0].CreateRoom(ctx, people[1].DID(), people[2].DID())
	if err != nil {
		return err
	}
	for i, c := range people {
		if i > 0 {
			err = await(ctx, c, room, client.EventJoined, 1)
		}
		if err != nil {
			return fmt.Errorf("client %d of the SDK does not join: %w", i, err)
		}
	}
	for i, c := range people {
		if _, err := c.Send(ctx, room, fmt.Append(nil, i)); err != nil {
			return err
		}
	}
	for i, c := range people {
		if err := await(ctx, c, room, client.EventMessage, len(people)); err != nil {
			return fmt.Errorf("client %d of the SDK: %w", i, err)
		}
		if state, _ := c.State(); state.Transport != transports[i] {
			return fmt.Errorf("client %d of the SDK uses %q, want %q", i, state.Transport, transports[i])
		}
	}
	return nil
}

// transports are those of the clients of talkThrough.
var transports = []client.Transport{client.WebSocket, client.EventStream, client.XRPC}

// await reads events until so many of a type have come in a room.
func await(ctx context.Context, c *client.Client, room string, kind client.EventType, count int) error {
	for count > 0 {
		e, err := c.Next(ctx)
		if err == nil {
			err = c.Ack(ctx, e.ID)
		}
		if err != nil {
			state, _ := c.State()
			return fmt.Errorf("%d more events %q: %w (the connection: %w)", count, kind, err, state.Err)
		}
		if e.Type == kind && e.Conversation == room {
			count--
		}
	}
	return nil
}
