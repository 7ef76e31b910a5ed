package prove

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/identity"
)

var rr003 = Proof{
	ID: "RR-003", Title: "order and idempotency",
	Attack: "64 writers send each message three times at once, over two WebSockets and over HTTP, to two servers where the database can be shared; " +
		"some use the ids of others. Servers and PostgreSQL are killed at random moments, and requests without an answer are repeated. Readers read whole conversations meanwhile.",
	Mitigation: "Messages are appended in one transaction that holds the head of the conversation, moves it, and keeps the message's id; an answer comes after it is on the disk. " +
		"A repeated id is answered with the place that it has.",
	Detection: []string{"waxwing_append_duplicates_total", "waxwing_append_seconds", "waxwing_log_gap_detected_total"},
	Run:       proveOrder,
}

const (
	orderWriters  = 64
	orderReaders  = 4
	orderDoubles  = 8    // one message in so many has another's id
	orderCalmFrom = 0.85 // of the appends, after which nothing is killed
	orderHotMin   = 1001 // messages of the longest conversation: more than any page
	orderPause    = 150 * time.Millisecond
)

// order is a run of RR-003.
type order struct {
	*Run
	nodes   []*Server
	load    *drive.HistoryLoad
	clients []*drive.Client
	repeats atomic.Int64
	kills   map[string]float64

	mu    sync.Mutex // guards times
	times []time.Duration
}

func proveOrder(ctx context.Context, r *Run) error {
	p := &order{Run: r, kills: map[string]float64{}}
	var err error
	if p.nodes, err = r.ServeNodes(ctx, "--limit", "all=off", "--ping-interval", "2s"); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	if err := p.populate(ctx, &running); err != nil {
		return err
	}
	running.Go(func() { p.plot(ctx) })
	group, loading := errgroup.WithContext(ctx)
	group.Go(func() error { return p.load.Run(loading) })
	group.Go(func() error { return p.breakThings(loading, ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	if err := p.detection(ctx); err != nil {
		return err
	}
	logs, err := p.afterRestart(ctx)
	if err != nil {
		return err
	}
	r.Step("searching for an order of all operations")
	report, err := p.load.Check(logs, Size(r, 30*time.Second, 20*time.Minute))
	p.report(report, logs)
	for _, client := range p.clients {
		err = cmp.Or(err, client.Violations())
	}
	if err != nil {
		return err
	}
	for _, node := range p.nodes {
		if err := node.Stop(); err != nil {
			return err
		}
	}
	return nil
}

// populate makes the conversations, the writers and the readers.
func (p *order) populate(ctx context.Context, running *sync.WaitGroup) error {
	p.Step("making writers and conversations")
	seed := fmt.Append(nil, "order ", p.Seed)
	keys := make([]*identity.AccountKey, orderWriters)
	members := make([]string, orderWriters)
	for i := range keys {
		var err error
		if keys[i], err = identity.DeriveAccountKey(seed, fmt.Sprint(i), identity.ES256); err != nil {
			return err
		}
		members[i] = keys[i].DID()
	}
	p.load = &drive.HistoryLoad{Seed: p.Seed, PerWriter: Size(p.Run, 24, 500), Doubles: orderDoubles, Answered: p.answered}
	for i := range Size(p.Run, 1, 16) {
		p.load.Conversations = append(p.load.Conversations, fmt.Sprintf("conversation-%d", i))
	}
	owner, err := drive.SignIn(ctx, p.nodes[0].URL, p.nodes[0].DID, keys[0], "owner")
	if err != nil {
		return err
	}
	for _, id := range p.load.Conversations {
		if err := owner.CreateRoom(ctx, id, members[1:]); err != nil {
			return err
		}
	}
	for i, key := range keys {
		var appenders []drive.Appender
		for j := range 2 {
			client, err := p.client(key, fmt.Sprintf("writer-%d-%d", i, j), p.nodes[j%len(p.nodes)])
			if err != nil {
				return err
			}
			running.Go(func() { client.Run(ctx) })
			appenders = append(appenders, client)
		}
		inbox, err := p.signIn(ctx, key, i, "inbox")
		if err != nil {
			return err
		}
		p.load.Writers = append(p.load.Writers, append(appenders, drive.Inbox{Caller: inbox, Repeats: &p.repeats}))
	}
	for i := range orderReaders {
		caller, err := p.signIn(ctx, keys[i], i, "reader", gateway.FeatureMarker)
		if err != nil {
			return err
		}
		p.load.Readers = append(p.load.Readers, &drive.LogReader{Caller: caller, Repeats: &p.repeats})
	}
	return nil
}

func (p *order) client(key *identity.AccountKey, device string, node *Server) (*drive.Client, error) {
	network, err := drive.NewFaultProxy(node.Address(), p.Seed)
	if err != nil {
		return nil, err
	}
	p.Cleanup(network.Close)
	client := drive.NewClient(drive.ClientOptions{Name: device, Key: key, Device: device, Audience: node.DID, Network: network, WritesOnly: true, Seed: p.Seed}, p.load.Conversations...)
	p.clients = append(p.clients, client)
	return client, nil
}

// signIn starts a session of a device at one of the nodes.
func (p *order) signIn(ctx context.Context, key *identity.AccountKey, number int, device string, features ...gateway.Feature) (*drive.Caller, error) {
	node := p.nodes[number%len(p.nodes)]
	return drive.SignIn(ctx, node.URL, node.DID, key, device, features...)
}

// breakThings kills nodes in turns, and PostgreSQL where it is ours, each at a random moment of its
// share of the load. The servers that it starts run until serving ends.
func (p *order) breakThings(ctx, serving context.Context) error {
	random := p.Random(3)
	kills, appends := Size(p.Run, 8, 200), p.load.Appends()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for kill := range kills {
		at := int((float64(kill) + random.Float64()) / float64(kills) * orderCalmFrom * float64(appends))
		for p.load.Answers() < at {
			p.At(p.load.Answers(), appends, "appends; %d of %d kills", kill, kills)
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-ticker.C:
			}
		}
		if err := p.kill(ctx, serving, kill, random); err != nil {
			return err
		}
	}
	p.Step("the last appends")
	return nil
}

// kill kills and restarts one process.
func (p *order) kill(ctx, serving context.Context, number int, random *rand.Rand) error {
	wait := func(longest time.Duration) {
		timer := time.NewTimer(time.Duration(random.Int64N(int64(longest))))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	wait(orderPause / 4) // so that it is not the last answer that decides the moment
	if postgres := p.Database.Server; postgres != nil && number%3 == 2 {
		postgres.Kill()
		p.kills["PostgreSQL"]++
		wait(orderPause)
		return postgres.Restart()
	}
	node := p.nodes[number%len(p.nodes)]
	if err := node.Check(); err != nil {
		return err
	}
	node.Kill()
	p.kills["server"]++
	wait(orderPause)
	return node.Start(serving)
}

// detection checks the metrics of the nodes, since their last start.
func (p *order) detection(ctx context.Context) error {
	sum := drive.Metrics{}
	for _, node := range p.nodes {
		metrics, err := node.Ops.Metrics(ctx)
		if err != nil {
			return err
		}
		for name, value := range metrics {
			sum[name] += value
		}
	}
	p.Moved(drive.Metrics{}, sum, "append_duplicates_total", "append_seconds_count")
	p.Exactly("gaps that servers found in the log", sum["waxwing_log_gap_detected_total"], 0, "")
	return nil
}

// afterRestart kills and restarts everything and reads the conversations.
func (p *order) afterRestart(ctx context.Context) (logs map[string][]string, err error) {
	p.Step("reading all conversations after a restart of everything")
	for _, node := range p.nodes {
		if err := node.Check(); err != nil {
			return nil, err
		}
		node.Kill()
	}
	if p.Database.Server != nil {
		p.Database.Server.Kill()
		if err := p.Database.Server.Restart(); err != nil {
			return nil, err
		}
	}
	for _, node := range p.nodes {
		if err := node.Start(ctx); err != nil {
			return nil, err
		}
	}
	logs = map[string][]string{}
	for i, id := range p.load.Conversations {
		if logs[id], err = p.load.Read(ctx, p.load.Readers[i%len(p.load.Readers)], id); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

// report puts the outcome into figures.
func (p *order) report(report drive.HistoryReport, logs map[string][]string) {
	repeats, longest := p.repeats.Load(), 0
	for _, client := range p.clients {
		counts := client.Counts()
		repeats += int64(counts.Sends - counts.Acked)
	}
	for _, ids := range logs {
		longest = max(longest, len(ids))
	}
	p.Did("%d writers appended %d messages to %d conversations, each message three times; %d requests were repeated since they had no answer.",
		orderWriters, report.Messages, len(logs), repeats)
	for _, name := range slices.Sorted(maps.Keys(p.kills)) {
		p.Did("%s killed %.0f times while they wrote.", name, p.kills[name])
	}
	if p.Database.Kind == PostgreSQL && p.Database.Server == nil {
		p.Did("PostgreSQL was not killed: it is not this run's.")
	}
	p.Bars("kills", p.kills)
	p.Exactly("reads in which seqs were not 1, 2, 3 and so on", float64(report.Gaps), 0, "")
	p.Exactly("messages stored more than once", float64(report.Twice), 0, "")
	p.Exactly("acked messages that are not in the log at their place after a restart", float64(report.Lost), 0, "")
	p.Exactly("reads of messages that the log does not have there after a restart", float64(report.Vanished), 0, "")
	p.Exactly("reads without a message that was answered or read before", float64(report.Stale), 0, "")
	p.Exactly("copies of a message that were acked at another place", float64(report.Differ), 0, "")
	if report.IsSearched {
		p.Exactly("conversations in which no order explains all answers", float64(report.Impossible), 0, "")
	}
	p.Figure("operations in the history", float64(report.Operations), "")
	p.AtLeast("requests repeated for want of an answer", float64(repeats), Size[float64](p.Run, 10, 500), "")
	p.AtLeast("messages of the longest conversation", float64(longest), orderHotMin, "")
}

// answered notes the time of an append.
func (p *order) answered(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times = append(p.times, took)
}

// plot plots the times of appends.
func (p *order) plot(ctx context.Context) {
	const title, unit = "time from a message to its ack, with kills", "ms"
	median, p99 := p.Plot(title, unit, "p50"), p.Plot(title, unit, "p99")
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		times := p.times
		p.times = nil
		p.mu.Unlock()
		if n := len(times); n > 0 {
			slices.Sort(times)
			median.Add(float64(times[n/2]) / float64(time.Millisecond))
			p99.Add(float64(times[n*99/100]) / float64(time.Millisecond))
		}
	}
}
