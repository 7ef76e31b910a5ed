package drive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

// PassageHost is the host in the configurations of deploy/proxies. A server behind one of them
// has --public-url https://chat.example.
const PassageHost = "chat.example"

const (
	passageStepMax = 20 * time.Second // one step of a passage that waits for nothing but the server
	passageLateMax = 10 * time.Second // the time in which a message passes a proxy
	passageSilence = 3 * time.Second
	idleMax        = 130 * time.Second // of idle connections: twice what any proxy waits for, and more
	passageBytes   = 5 << 20
	passagePace    = 500 * time.Millisecond
	passageSeed    = "passage"
)

// Front is a proxy before a server.
type Front interface {
	Address() string // for clients, HOST:PORT
	// Restart cuts all connections and accepts new ones at the same address.
	Restart(ctx context.Context) error
}

// Passage drives a server through a proxy in all the ways in which clients use it: requests of
// many kinds, idle connections, long bodies, connections that break while messages are sent, and
// a restart of the proxy. What is true for a server must be true behind every proxy.
//
// Half of it calls https://chat.example, the other half https://chat.example/waxwing, which the
// proxy strips; over HTTP/1.1 and HTTP/2.
type Passage struct {
	Name        string
	Server      *Process
	Front       Front        // nil: no proxy, and no TLS
	Certificate *Certificate // of Front
	// Hasty is the same proxy with shorter times for Idle connections: only waiting is faster in
	// a short run, and not work. It may be Front.
	Hasty Front
	Idle  time.Duration
	// StreamMax is the time after which Hasty may end an answer, a stream too; 0: never.
	StreamMax   time.Duration
	Silence     time.Duration // after which clients give up a connection
	Disconnects int
	Restarts    int
	Bytes       int // of long bodies, about
	Seed        uint64
	// Beside is called with the ways to the server while everything else goes on; nil: no call.
	Beside func(ctx context.Context, name string, routes []Route) error

	turns  chan struct{} // has an item for each that sends long bodies
	number int           // in the suite
}

// PassageSuite are passages through every proxy that is there, at the same time.
type PassageSuite struct {
	Scale int // divides the times of the server, and of proxies before idle connections
	Size  int // multiplies what is done
	Bytes int // of long bodies; 0 is 5 MiB
	Seed  uint64
	// Beside is that of each Passage.
	Beside func(ctx context.Context, name string, routes []Route) error
}

// Serve returns the options of serve that a passage needs.
func (s PassageSuite) Serve() []string {
	scale := time.Duration(s.Scale)
	return []string{"--public-url", "https://" + PassageHost, "--admission", "open", "--trusted-proxies", "127.0.0.0/8", "--limit", "all=off",
		"--heartbeat", (25 * time.Second / scale).String(), "--ping-interval", (30 * time.Second / scale).String()}
}

// Run drives a server without a proxy, through a CDN, and through proxies of the kinds. The error
// is for what kept it from running.
func (s PassageSuite) Run(ctx context.Context, server *Process, kinds []ProxyKind) (reports []PassageReport, err error) {
	certificate, err := NewCertificate(PassageHost)
	if err != nil {
		return nil, err
	}
	base := Passage{turns: make(chan struct{}, 1), Server: server, Certificate: certificate, Idle: idleMax / time.Duration(s.Scale), Silence: passageSilence,
		Disconnects: 6 * s.Size, Restarts: s.Size, Bytes: cmp.Or(s.Bytes, passageBytes), Seed: s.Seed, Beside: s.Beside}
	direct, cdn := base, base
	direct.Name, cdn.Name = "direct", "CDN"
	network, err := NewCDN(server.Address(), certificate, 1, s.Seed)
	if err != nil {
		return nil, err
	}
	defer network.Close()
	hasty, err := NewCDN(server.Address(), certificate, s.Scale, s.Seed)
	if err != nil {
		return nil, err
	}
	defer hasty.Close()
	cdn.Front, cdn.Hasty, cdn.StreamMax = network, hasty, cdnRequestMax/time.Duration(s.Scale)
	passages := []Passage{direct, cdn}
	reports = make([]PassageReport, len(passages)+len(kinds))
	errs := make([]error, len(reports))
	var running sync.WaitGroup
	for i, p := range passages {
		p.number = i
		running.Go(func() { reports[i], errs[i] = p.Run(ctx) })
	}
	for i, kind := range kinds {
		i += len(passages)
		running.Go(func() {
			p, err := kind.Start(ctx, server.Address(), certificate, 1)
			if err != nil {
				errs[i] = err
				return
			}
			defer p.Close()
			hasty, err := kind.Start(ctx, server.Address(), certificate, s.Scale)
			if err != nil {
				errs[i] = err
				return
			}
			defer hasty.Close()
			passage := base
			passage.Name, passage.Front, passage.Hasty, passage.number = kind.Name, p, hasty, i
			reports[i], errs[i] = passage.Run(ctx)
		})
	}
	running.Wait()
	return reports, errors.Join(errs...)
}

// PassageReport counts what a passage did, and what was not as without a proxy. Problems says
// what that was.
type PassageReport struct {
	Name                  string
	Answers, Different    int // requests, and answers that differ
	Idle, Cut             int // idle connections, and those that were cut or brought a message late
	Bodies, Changed       int // bodies as long as they may be, and those that did not arrive as sent
	Disconnects, Restarts int
	Messages, Wrong       int // messages sent meanwhile, and errors in what clients received
	Took                  time.Duration
	Problems              []string
}

// Add adds the counts of another report.
func (r *PassageReport) Add(more PassageReport) {
	r.Answers, r.Different = r.Answers+more.Answers, r.Different+more.Different
	r.Idle, r.Cut = r.Idle+more.Idle, r.Cut+more.Cut
	r.Bodies, r.Changed = r.Bodies+more.Bodies, r.Changed+more.Changed
	r.Disconnects, r.Restarts = r.Disconnects+more.Disconnects, r.Restarts+more.Restarts
	r.Messages, r.Wrong = r.Messages+more.Messages, r.Wrong+more.Wrong
}

// String returns a line.
func (r PassageReport) String() string {
	return fmt.Sprintf("%s: %d answers, %d different; %d idle, %d cut; %d long bodies, %d changed; %d disconnects, %d restarts, %d messages, %d wrong; %s",
		r.Name, r.Answers, r.Different, r.Idle, r.Cut, r.Bodies, r.Changed, r.Disconnects, r.Restarts, r.Messages, r.Wrong, r.Took.Round(time.Millisecond))
}

// passage is a running Passage.
type passage struct {
	Passage
	room  string
	owner *Caller // not through the front

	mu     sync.Mutex // guards report
	report PassageReport
}

// Run returns when everything was tried. Its error is a context's, or one that left no proxy to
// try: what a proxy does wrong is in the report.
func (p Passage) Run(ctx context.Context) (PassageReport, error) {
	began := time.Now()
	// An id that a proxy may want to write in another way.
	r := &passage{Passage: p, room: p.Name + " ä/%2F?&+;", report: PassageReport{Name: p.Name}}
	err := r.run(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Took = time.Since(began)
	if err != nil {
		err = fmt.Errorf("%s: %w", p.Name, err)
	}
	return r.report, err
}

func (r *passage) run(ctx context.Context) (err error) {
	owner, err := r.key("owner")
	if err != nil {
		return err
	}
	if r.owner, err = SignIn(ctx, r.Server.URL, r.Server.DID, owner, "owner"); err != nil {
		return err
	}
	visitors, members, err := r.visitors()
	if err != nil {
		return err
	}
	if err := r.owner.CreateRoom(ctx, r.room, members); err != nil {
		return err
	}
	c, err := r.newCuts(visitors, owner)
	if err != nil {
		return err
	}
	defer c.close()
	var tasks sync.WaitGroup
	for i, v := range visitors {
		tasks.Go(func() { r.note(ctx, &r.report.Different, v.route.Name, r.answers(ctx, v)) })
		tasks.Go(func() { r.idle(ctx, v) })
		// One over HTTP/1.1 and one over HTTP/2, or one of them where time is short.
		if last := len(visitors) - 1; (i == 0 || i == last) && (r.Restarts > 1 || i == last*(r.number%2)) {
			tasks.Go(func() { r.note(ctx, &r.report.Changed, v.route.Name+", long bodies", r.bodies(ctx, v)) })
		}
	}
	tasks.Go(func() { err = c.disconnect(ctx) })
	if r.Beside != nil {
		tasks.Go(func() { r.note(ctx, &r.report.Wrong, "beside", r.Beside(ctx, r.Name, r.routes())) })
	}
	tasks.Wait()
	for range r.Restarts {
		if r.Front == nil || err != nil {
			break
		}
		err = c.restart(ctx)
	}
	if err == nil {
		err = c.finish(ctx)
	}
	r.note(ctx, &r.report.Wrong, "clients", err)
	return ctx.Err()
}

// note counts a problem, unless it is that the run was interrupted.
func (r *passage) note(ctx context.Context, count *int, what string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	*count++
	r.report.Problems = append(r.report.Problems, fmt.Sprintf("%s, %s: %v", r.Name, what, err))
}

// count adds to a count of the report.
func (r *passage) count(n *int, more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n += more
}

func (r *passage) key(name string) (*identity.AccountKey, error) {
	return identity.DeriveAccountKey([]byte(passageSeed), r.Name+" "+name, identity.ES256)
}

// routes lists the ways through the front.
func (r *passage) routes() []Route {
	if r.Front == nil {
		return []Route{{Name: "HTTP/1.1", URL: r.Server.URL}}
	}
	var routes []Route
	for _, prefix := range []string{"", cdnPrefix} {
		for _, isNew := range []bool{false, true} {
			name := "HTTP/1.1"
			if isNew {
				name = "HTTP/2"
			}
			routes = append(routes, Route{Name: strings.TrimSpace(name + " " + prefix), URL: "https://" + PassageHost + prefix,
				Address: r.Front.Address(), TLS: r.Certificate.client(), HTTP2: isNew})
		}
	}
	return routes
}

// visitor is an account that uses one route.
type visitor struct {
	route Route
	key   *identity.AccountKey
}

func (r *passage) visitors() (list []visitor, members []string, err error) {
	for _, route := range r.routes() {
		key, err := r.key(route.Name)
		if err != nil {
			return nil, nil, err
		}
		list, members = append(list, visitor{route, key}), append(members, key.DID())
	}
	return list, members, nil
}

// cuts holds clients with connections that break on their way to the front.
type cuts struct {
	*passage
	key      *identity.AccountKey
	clients  []*Client
	readers  []*Client // by the AT Protocol's door
	networks []*FaultProxy
	random   *rand.Rand
	stop     context.CancelFunc
	running  sync.WaitGroup
	talking  sync.WaitGroup
	quiet    context.CancelFunc
}

// newCuts prepares clients with WebSockets on routes of HTTP/1.1, and clients with streams and
// subscribers, with and without a WebSocket, on those of HTTP/2.
func (r *passage) newCuts(visitors []visitor, owner *identity.AccountKey) (*cuts, error) {
	c := &cuts{passage: r, key: owner, random: rand.New(rand.NewPCG(r.Seed, 4)), stop: func() {}, quiet: func() {}}
	for i, v := range visitors {
		network, err := c.network(v.route)
		if err != nil {
			return nil, err
		}
		c.clients = append(c.clients, NewClient(ClientOptions{Name: fmt.Sprint("cut", i), Key: v.key, Device: "cut", Audience: r.Server.DID,
			Network: network, Route: v.route, Streams: v.route.HTTP2, Silence: r.Silence, Seed: r.Seed + uint64(i)}, r.room))
		if v.route.HTTP2 || r.Front == nil {
			if network, err = c.network(v.route); err != nil {
				return nil, err
			}
			c.readers = append(c.readers, NewClient(ClientOptions{Name: fmt.Sprint("subscriber", i), Key: v.key, Audience: r.Server.DID, Network: network,
				Route: v.route, XRPC: true, Streams: len(c.readers)%2 == 1, Silence: r.Silence, Seed: r.Seed + uint64(i)}, r.room))
		}
	}
	return c, nil
}

// network returns the network between a client and the front.
func (c *cuts) network(route Route) (*FaultProxy, error) {
	target := route.Address
	if target == "" {
		target = c.Server.Address()
	}
	network, err := NewFaultProxy(target, c.Seed+uint64(len(c.networks)))
	if err != nil {
		c.close()
		return nil, err
	}
	c.networks = append(c.networks, network)
	return network, nil
}

func (c *cuts) close() {
	c.stop()
	for _, network := range c.networks {
		network.Close()
	}
	c.running.Wait()
}

// disconnect runs the clients and breaks their connections, one after the other, while they
// send.
func (c *cuts) disconnect(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	for i := range c.Disconnects {
		if err := c.breakOne(ctx, c.clients[i%len(c.clients)]); err != nil {
			return err
		}
		for _, reader := range c.readers {
			reader.Break(ResetMidFrame)
		}
		c.count(&c.report.Disconnects, 1+len(c.readers))
	}
	return nil
}

// begin runs the clients and waits until each subscriber has a message, and thus a cursor.
func (c *cuts) begin(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	c.stop = stop
	ctx, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	for _, reader := range c.readers {
		c.running.Go(func() { reader.Run(running) })
		if _, err := reader.AwaitReady(ctx, 0); err != nil {
			return err
		}
	}
	talking, quiet := context.WithCancel(running)
	c.quiet = quiet
	for _, client := range c.clients {
		c.running.Go(func() { client.Run(running) })
		c.talking.Go(func() { client.Chatter(talking, passagePace) })
	}
	for _, reader := range c.readers {
		if err := reader.AwaitSeq(ctx, c.room, 1); err != nil {
			return err
		}
	}
	return nil
}

// breakOne breaks the connection of a client that waits for an ack, and waits for the next one.
func (c *cuts) breakOne(ctx context.Context, client *Client) error {
	ctx, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	number, err := client.AwaitReady(ctx, 0)
	if err != nil {
		return err
	}
	client.Provoke(ctx)
	client.Break(passageFaults[c.random.IntN(len(passageFaults))])
	_, err = client.AwaitReady(ctx, number)
	return err
}

// passageFaults are the faults of connections to a proxy; it speaks TLS, in which answers cannot
// be told apart.
var passageFaults = []Fault{ResetMidFrame, ResetMidFrame, BeforeAck, CleanClose, HalfOpen}

// restart restarts the front: everyone returns, and what they send arrives.
func (c *cuts) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	if err := c.Front.Restart(ctx); err != nil {
		return err
	}
	c.count(&c.report.Restarts, 1)
	for _, client := range c.clients {
		client.Say()
		if err := client.AwaitEmpty(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finish waits until everyone has everything, and compares it with the log.
func (c *cuts) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	c.quiet()
	c.talking.Wait()
	for _, client := range c.clients {
		if err := client.AwaitEmpty(ctx); err != nil {
			return err
		}
	}
	heads, err := c.owner.Heads(ctx)
	if err != nil {
		return err
	}
	c.count(&c.report.Messages, int(heads[c.room]))
	everyone := slices.Concat(c.clients, c.readers)
	for _, client := range everyone {
		if err := client.AwaitSeq(ctx, c.room, heads[c.room]); err != nil {
			return err
		}
	}
	c.stop()
	c.running.Wait()
	log, err := readLog(ctx, c.Server, c.key, heads, []string{c.room})
	if err != nil {
		return err
	}
	var errs []error
	for _, client := range everyone {
		client.compare(log)
		if counts := client.Counts(); counts.Starts != 1 {
			errs = append(errs, fmt.Errorf("%s started %d sessions: it could not resume", client.o.Name, counts.Starts))
		}
		errs = append(errs, client.Violations())
	}
	return errors.Join(errs...)
}

// passageFeatures are those of sessions with long bodies.
var passageFeatures = []gateway.Feature{gateway.FeatureBundle, gateway.FeatureLarge}
