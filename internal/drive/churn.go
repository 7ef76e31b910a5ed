package drive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

// Churn is a run of clients that keep losing their connections, with a server that is killed
// and restarted, while all clients send.
type Churn struct {
	Seed          uint64
	Clients       int
	Conversations int
	PerClient     int // conversations of each client
	Backlog       int // messages of the first conversation that are there before the clients
	Disconnects   int // over all clients, in turns of all Faults
	KillEvery     int // disconnects from one kill of the server to the next
	Calm          int // further disconnects, at the end, of a server that is not killed
	Pace          time.Duration
	Silence       time.Duration // of each client; 0 is DefaultSilence
	// Serve starts the server: each time on the same data, at the same address.
	Serve func(ctx context.Context) (*Process, error)
	// Progress is called often with the disconnects so far; nil if not wanted.
	Progress func(disconnects int) error
}

const (
	healMax       = 60 * time.Second // for outboxes and histories to become complete
	reconnectWait = 60 * time.Second // for one client to reconnect, restarts of the server included
	faultPause    = 200 * time.Millisecond
	killPause     = 300 * time.Millisecond
)

// ChurnReport describes a run.
type ChurnReport struct {
	Clients ClientCounts // of all clients together
	// ByTransport counts the disconnects that the run caused.
	ByTransport map[Transport]int
	Faults      FaultCounts // of all their networks
	Kills       int
	Messages    int64         // in the logs
	Twice       int           // messages that a log has more than once
	StartMax    time.Duration // the slowest restart
	Took        time.Duration
}

// Run breaks things until all disconnects and kills are done, lets them heal, and checks the
// records of all clients. The error lists every violation. The last server is left running.
func (c Churn) Run(ctx context.Context) (ChurnReport, error) {
	began := time.Now()
	r := &churnRun{Churn: c}
	defer r.close()
	err := r.run(ctx)
	report := ChurnReport{Clients: sumCounts(r.clients), Kills: r.kills, StartMax: r.startMax, Twice: r.twice, Took: time.Since(began)}
	report.ByTransport = map[Transport]int{}
	for _, client := range r.clients {
		for fault, times := range client.Counts().Ends {
			if fault != 0 {
				report.ByTransport[client.transport()] += times
			}
		}
	}
	for _, network := range r.networks {
		did := network.Counts()
		report.Faults.Cut += did.Cut
		report.Faults.Swallowed += did.Swallowed
		report.Faults.Unacked += did.Unacked
		report.Faults.LostOnSocket += did.LostOnSocket
		report.Faults.LostOverHTTP += did.LostOverHTTP
		report.Faults.Restarts += did.Restarts
	}
	for _, head := range r.heads {
		report.Messages += head
	}
	errs := []error{err}
	for _, client := range r.clients {
		errs = append(errs, client.Violations())
	}
	if err == nil {
		errs = append(errs, c.checkReport(report))
	}
	return report, errors.Join(errs...)
}

// churnRun is the state of a run.
type churnRun struct {
	Churn
	clients     []*Client
	networks    []*FaultProxy
	names       []string // of the conversations
	owner       *identity.AccountKey
	early       *Client // wrote the backlog; nil before
	caller      *Caller
	running     sync.WaitGroup
	stop        context.CancelFunc // of the clients
	disconnects atomic.Int64
	kills       int
	startMax    time.Duration
	heads       map[string]int64
	twice       int

	process *Process // used by the killer alone while it runs
}

func (r *churnRun) run(ctx context.Context) error {
	var err error
	if r.process, err = r.Serve(ctx); err != nil {
		return err
	}
	if err := r.populate(ctx); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	chattering, hush := context.WithCancel(ctx)
	defer hush()
	r.stop = stop
	for _, client := range r.clients {
		r.running.Go(func() { client.Run(running) })
		r.running.Go(func() { client.Chatter(chattering, r.Pace) })
	}
	if err := r.breakThings(ctx); err != nil {
		return err
	}
	hush()
	if err := r.heal(ctx); err != nil {
		return err
	}
	stop()
	r.running.Wait()
	serving, cancel := r.whileServed(ctx)
	log, err := readLog(serving, r.process, r.owner, r.heads, r.names)
	cancel()
	if err != nil {
		return err
	}
	for _, client := range r.clients {
		client.compare(log)
	}
	r.twice, err = allAcked(log, append(slices.Clone(r.clients), r.early))
	return errors.Join(r.process.Check(), err)
}

// close ends everything that still runs.
func (r *churnRun) close() {
	if r.stop != nil {
		r.stop()
	}
	for _, network := range r.networks {
		network.Close()
	}
	r.running.Wait()
}

// populate makes the clients, a third each with WebSockets, with streams and inboxes, and with the
// AT Protocol's door. They share the conversations, each with other neighbours.
func (r *churnRun) populate(ctx context.Context) error {
	algorithms := []string{identity.ES256, identity.ES256K, identity.EdDSA}
	seed := fmt.Append(nil, "churn ", r.Seed)
	members := map[string][]string{}
	for i := range r.Conversations {
		r.names = append(r.names, fmt.Sprintf("conversation-%d", i))
	}
	for i := range r.Clients {
		name := fmt.Sprintf("client-%d", i)
		key, err := identity.DeriveAccountKey(seed, name, algorithms[(i+i/3)%len(algorithms)])
		if err != nil {
			return err
		}
		network, err := NewFaultProxy(r.process.Address(), r.Seed+uint64(i))
		if err != nil {
			return err
		}
		r.networks = append(r.networks, network)
		o := ClientOptions{Name: name, Key: key, Device: "device", Audience: r.process.DID, Network: network, Seed: r.Seed + uint64(i), Silence: r.Silence}
		perClient := r.PerClient
		switch i % 3 {
		case 1:
			// Every second one has an exact cursor of one conversation, every third one no WebSocket.
			if o.XRPC, o.Streams = true, i/3%3 == 0; i/3%2 == 1 {
				perClient = 1
			}
		case 2:
			network.RefuseUpgrades()
		}
		if i%2 == 1 {
			o.Features = []gateway.Feature{gateway.FeatureMarker}
		}
		var mine []string
		for j := range perClient {
			id := r.names[(i+j*(1+i%3))%r.Conversations]
			if !slices.Contains(mine, id) {
				mine = append(mine, id)
				members[id] = append(members[id], key.DID())
			}
		}
		r.clients = append(r.clients, NewClient(o, mine...))
	}
	var err error
	if r.owner, err = identity.DeriveAccountKey(seed, "owner", identity.ES256); err != nil {
		return err
	}
	if r.caller, err = SignIn(ctx, r.process.URL, r.process.DID, r.owner, "caller"); err != nil {
		return err
	}
	for _, id := range r.names {
		if err := r.caller.CreateRoom(ctx, id, members[id]); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the backlog: clients that start behind it catch up in many pages.
func (r *churnRun) fill(ctx context.Context) error {
	network, err := NewFaultProxy(r.process.Address(), r.Seed)
	if err != nil {
		return err
	}
	defer network.Close()
	r.early = NewClient(ClientOptions{Name: "early", Key: r.owner, Device: "early", Audience: r.process.DID, Network: network, Seed: r.Seed}, r.names[0])
	for range r.Backlog {
		r.early.Say()
	}
	ctx, cancel := r.whileServed(ctx)
	defer cancel()
	writing, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { r.early.Run(writing) })
	err = r.early.AwaitEmpty(ctx)
	stop()
	running.Wait()
	return errors.Join(err, r.early.Violations())
}

// breakThings disconnects the clients and kills the server, concurrently.
func (r *churnRun) breakThings(ctx context.Context) error {
	group, breaking := errgroup.WithContext(ctx)
	for i, client := range r.clients {
		group.Go(func() error { return r.disconnect(breaking, i, client) })
	}
	group.Go(func() error { return r.killServer(ctx, breaking) })
	return group.Wait()
}

// disconnect breaks one client's connections, its share of them, each once it is ready, after a
// moment in which messages are sent.
func (r *churnRun) disconnect(ctx context.Context, i int, client *Client) error {
	random := rand.New(rand.NewPCG(r.Seed, uint64(i)))
	comeBack := func(after int) error {
		waiting, cancel := context.WithTimeout(ctx, reconnectWait)
		defer cancel()
		_, err := client.AwaitReady(waiting, after)
		return err
	}
	broken := 0 // number of the last connection
	for turn := i; turn < r.Disconnects+r.Calm; turn += r.Clients {
		fault := Faults[(turn/r.Clients+i)%len(Faults)]
		for number := 0; number == 0; {
			if err := comeBack(broken); err != nil {
				return err
			}
			pause(ctx, time.Duration(random.Int64N(int64(2*faultPause))))
			client.Provoke(ctx)
			if number = client.Break(fault); number != 0 { // 0: it ended with the server
				broken = number
			}
		}
		if fault == BeforeAck {
			client.Say() // to provoke an ack
		}
		r.disconnects.Add(1)
	}
	return comeBack(broken) // the last one counts only once it has happened
}

// killServer kills the server each time the next share of the disconnects is done, and restarts
// it. It ends with the last disconnect; the last server runs beyond that, until serving ends.
func (r *churnRun) killServer(serving, breaking context.Context) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for done := 0; done < r.Disconnects+r.Calm || r.kills < r.killsMax(); {
		select {
		case <-breaking.Done():
			return context.Cause(breaking)
		case <-r.process.Exited():
			return r.process.Check()
		case <-ticker.C:
		}
		for _, client := range r.clients {
			if err := client.Violations(); err != nil {
				return errors.New("stopped at the first violation")
			}
		}
		done = int(r.disconnects.Load())
		if r.Progress != nil {
			if err := r.Progress(done); err != nil {
				return err
			}
		}
		if r.kills == r.killsMax() || done < r.KillEvery*(r.kills+1) {
			continue
		}
		if err := r.process.Check(); err != nil {
			return err
		}
		r.process.Kill()
		r.kills++
		pause(breaking, killPause) // for clients to find no server
		began := time.Now()
		process, err := r.Serve(serving)
		if err != nil {
			return err
		}
		r.process, r.startMax = process, max(r.startMax, time.Since(began))
	}
	return nil
}

// killsMax returns the number of kills of a whole run.
func (c Churn) killsMax() int { return c.Disconnects / c.KillEvery }

// whileServed returns a context that ends with the time to heal, or with the server.
func (r *churnRun) whileServed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	ctx, cancel := context.WithTimeout(ctx, healMax)
	process := r.process
	go func() {
		select {
		case <-process.Exited():
			end(process.Check())
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// heal waits until every message is acked and every client has every message.
func (r *churnRun) heal(ctx context.Context) error {
	ctx, cancel := r.whileServed(ctx)
	defer cancel()
	for _, client := range r.clients {
		if err := client.AwaitEmpty(ctx); err != nil {
			return err
		}
	}
	var err error
	if r.heads, err = r.caller.Heads(ctx); err != nil {
		return err
	}
	for _, client := range r.clients {
		for _, id := range client.conversations {
			if err := client.AwaitSeq(ctx, id, r.heads[id]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLog reads conversations up to their heads from the beginning, over a network without faults.
func readLog(ctx context.Context, process *Process, owner *identity.AccountKey, heads map[string]int64, names []string) (map[string][]gateway.Event, error) {
	network, err := NewFaultProxy(process.Address(), 0)
	if err != nil {
		return nil, err
	}
	defer network.Close()
	reader := NewClient(ClientOptions{Name: "reader", Key: owner, Device: "reader", Audience: process.DID, Network: network, KeepsText: true}, names...)
	reading, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { reader.Run(reading) })
	log := map[string][]gateway.Event{}
	for _, id := range names {
		if err = reader.AwaitSeq(ctx, id, heads[id]); err != nil {
			break
		}
		log[id] = reader.Events(id)
	}
	stop()
	running.Wait()
	return log, errors.Join(err, reader.Violations())
}

// compare checks the client's received and acked messages against the log. A client must have
// received all of it, since it was a member throughout. Each difference is a violation.
func (c *Client) compare(log map[string][]gateway.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, h := range c.histories {
		if len(h.digests) != len(log[id]) {
			c.counts.Different++
			c.violate("%s: received %d messages, the log has %d", id, len(h.digests), len(log[id]))
			continue
		}
		for i, event := range log[id] {
			text := event.Env
			if c.o.XRPC {
				text = bodyOf(event)
			}
			if h.digests[i] != digestOf(event.Seq, event.MsgID, text) {
				c.counts.Different++
				c.violate("%s: received another message as seq %d than the log has (%s)", id, event.Seq, event.MsgID)
				break
			}
		}
	}
	for key, at := range c.acked {
		events := log[key.Conversation]
		if at.seq < 1 || at.seq > int64(len(events)) {
			c.counts.Lost++
			c.violate("%s: %s was acked at seq %d, the log ends at %d", key.Conversation, key.ID, at.seq, len(events))
			continue
		}
		event := events[at.seq-1]
		if at.digest != digestOf(event.Seq, event.MsgID, event.Env) {
			c.counts.Lost++
			c.violate("%s: %s was acked at seq %d, where the log has %s or other text", key.Conversation, key.ID, at.seq, event.MsgID)
		}
	}
}

// allAcked checks that the log contains each message once, and no message that was not sent. It
// also returns how many it contains again.
func allAcked(log map[string][]gateway.Event, clients []*Client) (twice int, err error) {
	var errs []error
	acked := map[messageKey]int{}
	for _, c := range clients {
		c.mu.Lock()
		for key := range c.acked {
			acked[key]++
		}
		if n := len(c.outbox); n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d messages were never acked", c.o.Name, n))
		}
		c.mu.Unlock()
	}
	stored := map[messageKey]int64{}
	for id, events := range log {
		for _, event := range events {
			key := messageKey{id, event.MsgID}
			if before, ok := stored[key]; ok {
				twice++
				errs = append(errs, fmt.Errorf("%s: %s is at seq %d and at %d", id, event.MsgID, before, event.Seq))
			}
			stored[key] = event.Seq
			if acked[key] == 0 {
				errs = append(errs, fmt.Errorf("%s: %s at seq %d was not acked to any client", id, event.MsgID, event.Seq))
			}
		}
	}
	for key := range acked {
		if stored[key] == 0 {
			errs = append(errs, fmt.Errorf("%s: %s was acked and is not in the log", key.Conversation, key.ID))
		}
	}
	return twice, errors.Join(errs[:min(len(errs), violationsMax)]...)
}

// checkReport checks that the run was as planned: that as many faults hit traffic as required.
func (c Churn) checkReport(r ChurnReport) error {
	var errs []error
	if forced, _ := r.Forced(); forced != c.Disconnects+c.Calm || r.Kills != c.killsMax() {
		errs = append(errs, fmt.Errorf("%d disconnects and %d kills, want %d and %d", forced, r.Kills, c.Disconnects+c.Calm, c.killsMax()))
	}
	for _, fault := range Faults {
		if r.Clients.Ends[fault] == 0 {
			errs = append(errs, fmt.Errorf("no disconnect was a %s", fault))
		}
	}
	// Most faults hit what they target, but not all: others interfere.
	each := (c.Disconnects + c.Calm) / len(Faults)
	for _, did := range []struct {
		what         string
		times, atMin int
	}{
		{"frames cut", r.Faults.Cut, each / 4}, // those of one direction
		{"half-open connections that swallowed something", r.Faults.Swallowed, each / 2},
		{"connections closed before an ack", r.Faults.Unacked, each / 4},
		{"answers lost to session.resume on WebSockets", r.Faults.LostOnSocket, each / 8},
		{"answers lost to session/resume and getSubscriptionTicket over HTTP", r.Faults.LostOverHTTP, each / 8},
		{"restarts of proxies", r.Faults.Restarts, each / 2},
	} {
		if did.times < max(1, did.atMin) {
			errs = append(errs, fmt.Errorf("%d %s, want at least %d", did.times, did.what, max(1, did.atMin)))
		}
	}
	if 5*r.Clients.Streams < r.Clients.Connections {
		errs = append(errs, fmt.Errorf("%d of %d connections were streams: a third of the clients should have only them", r.Clients.Streams, r.Clients.Connections))
	}
	if r.Clients.Starts != c.Clients {
		errs = append(errs, fmt.Errorf("%d sessions started by %d clients: no session should get lost", r.Clients.Starts, c.Clients))
	}
	return errors.Join(errs...)
}

// Forced counts the disconnects that the run caused, and those that hit unacked messages.
func (r ChurnReport) Forced() (disconnects, hits int) {
	for _, fault := range Faults {
		disconnects += r.Clients.Ends[fault]
		hits += r.Clients.Hits[fault]
	}
	return disconnects, hits
}

// String returns a summary of a few lines.
func (r ChurnReport) String() string {
	var b strings.Builder
	forced, hits := r.Forced()
	fmt.Fprintf(&b, "%d forced disconnects, %d%% hit unacked messages (", forced, 100*hits/max(forced, 1))
	for i, fault := range Faults {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d: %d", fault, r.Clients.Ends[fault], r.Clients.Hits[fault])
	}
	fmt.Fprintf(&b, ")\nof these: %d frames cut, %d half-open connections swallowed something, %d were closed before an ack, %d answers to a resume lost on WebSockets and %d over HTTP, %d restarts of proxies\n",
		r.Faults.Cut, r.Faults.Swallowed, r.Faults.Unacked, r.Faults.LostOnSocket, r.Faults.LostOverHTTP, r.Faults.Restarts)
	fmt.Fprintf(&b, "disconnects by transport %v\n", r.ByTransport)
	fmt.Fprintf(&b, "%d kills of the server, started again within %s; %d other disconnects %v\n", r.Kills, r.StartMax.Round(time.Millisecond), r.Clients.Ends[0], r.Clients.Reasons)
	fmt.Fprintf(&b, "%d connections, %d of them streams: %d sessions started, %d resumed, %d resumes refused\n",
		r.Clients.Connections, r.Clients.Streams, r.Clients.Starts, r.Clients.Resumes, r.Clients.ResumesFailed)
	fmt.Fprintf(&b, "%d messages, sent %d times, %d unavailable, %d acked (%d at once, in %s each); %d events received, %d repeated by cursors of many conversations; %s",
		r.Messages, r.Clients.Sends, r.Clients.Unavailable, r.Clients.Acked, r.Clients.AckedAtOnce,
		(r.Clients.AckTime / time.Duration(max(r.Clients.AckedAtOnce, 1))).Round(time.Millisecond),
		r.Clients.Events, r.Clients.Repeated, r.Took.Round(time.Millisecond))
	return b.String()
}

func sumCounts(clients []*Client) ClientCounts {
	sum := ClientCounts{Ends: map[Fault]int{}, Hits: map[Fault]int{}, Reasons: map[string]int{}}
	for _, client := range clients {
		n := client.Counts()
		sum.Connections += n.Connections
		sum.Streams += n.Streams
		sum.Starts += n.Starts
		sum.Resumes += n.Resumes
		sum.ResumesFailed += n.ResumesFailed
		sum.Sends += n.Sends
		sum.Acked += n.Acked
		sum.AckedAtOnce += n.AckedAtOnce
		sum.AckTime += n.AckTime
		sum.Unavailable += n.Unavailable
		sum.Refused += n.Refused
		sum.Events += n.Events
		sum.Repeated += n.Repeated
		sum.Duplicates += n.Duplicates
		sum.Gaps += n.Gaps
		sum.Lost += n.Lost
		sum.Different += n.Different
		for fault, times := range n.Ends {
			sum.Ends[fault] += times
		}
		for fault, times := range n.Hits {
			sum.Hits[fault] += times
		}
		for reason, times := range n.Reasons {
			sum.Reasons[reason] += times
		}
	}
	return sum
}
