// Package logs is the engine of the delivery service: it appends to logs and reads them.
//
// A change of a conversation is a Request to the conversation's flusher. It lists the data to
// be loaded, and a Rule that decides on that as a pure function of values; the flusher locks,
// loads, runs the rule of each request in order, writes the results in one transaction, wakes
// the readers and answers. Every stream is a Follower: a cursor for each log, which is woken
// and reads the log after it.
//
// The package knows no rule, apart from the stays within which an account may read, and no
// protocol.
package logs

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/condition"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Options holds the dependencies and settings of an Engine.
type Options struct {
	Store  *store.DB
	Now    func() time.Time // nil: the system clock
	Logger *slog.Logger     // nil: discard
	// Flushers is the number of group-commit flushers; 0 means 1 on SQLite and 3
	// on PostgreSQL.
	Flushers int
	// PollInterval is the interval at which the heads of followed logs are read, to detect
	// writes of other nodes; 0 means 1 s.
	PollInterval time.Duration
}

// Engine writes and reads the logs of one store. It is safe for concurrent use.
type Engine struct {
	Streams *Streams // the stored positions of its streams

	store      *store.DB
	now        func() time.Time
	logger     *slog.Logger
	seed       maphash.Seed
	flushers   []*flusher
	wakes      *wakes
	tails      *tailCache
	turns      *turns
	beginnings *turns // of queries over many conversations
	pages      *turns // of pages that are read from the store
	cursors    *cursorBuffer
	flushes    *shared[ds.Device, struct{}] // of cursors
	metrics    *metrics
	gapLogged  sync.Once
	follows    followCounts
	readings   *shared[store.Start, store.Reading]

	closeOnce sync.Once
	closing   chan struct{} // closed when no further request is accepted
	loops     sync.WaitGroup
	stopLoops context.CancelFunc
}

var errClosed = ds.Unavailable(errors.New("the service is shutting down"))

// New starts an Engine over an open store. Close must be called, before the store's.
func New(o Options) *Engine {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Flushers == 0 {
		o.Flushers = 1
		if o.Store.IsShared() {
			o.Flushers = 3
		}
	}
	if o.PollInterval == 0 {
		o.PollInterval = time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{store: o.Store, now: o.Now, logger: o.Logger, seed: maphash.MakeSeed(),
		wakes: newWakes(), tails: newTailCache(), cursors: newCursorBuffer(), metrics: newMetrics(),
		turns: newTurns(turnsBytes, turnPatience), beginnings: newTurns(1, noPatience), pages: newTurns(int64(max(1, runtime.GOMAXPROCS(0)/2)), noPatience),
		closing: make(chan struct{}), stopLoops: cancel}
	for range o.Flushers {
		f := newFlusher(e)
		e.flushers = append(e.flushers, f)
		go f.run(e.closing)
	}
	e.Streams = newStreams(e.store, e.closing)
	e.readings = newShared(e.closing, readingsMax, func(at store.Start) int {
		return len(at.Device.Account) + len(at.Device.ID) + len(at.Conversation)
	}, e.findReadings)
	e.flushes = newShared(e.closing, flushesMax, func(d ds.Device) int { return len(d.Account) + len(d.ID) }, e.writeDevices)
	e.loops.Go(func() { e.flushes.run(ctx) })
	e.loops.Go(func() { e.Streams.rows.run(ctx) })
	e.loops.Go(func() { e.readings.run(ctx) })
	e.every(ctx, cursorInterval, "the writing of cursors, which stay in the buffer,", func(ctx context.Context) error {
		err := e.writeCursors(ctx, e.cursors.all())
		e.metrics.storeFailed(err)
		return err
	})
	e.every(ctx, streamRenewal, "the renewal of open streams", e.Streams.Renew)
	if o.Store.IsShared() {
		e.every(ctx, o.PollInterval, "the poll of heads", e.poll)
	}
	return e
}

// every starts a loop that calls do at intervals until ctx ends, and logs its faults under a
// name. An unavailable database is logged by the store.
func (e *Engine) every(ctx context.Context, interval time.Duration, name string, do func(context.Context) error) {
	e.loops.Go(func() { condition.New(e.logger, name, 0).Every(ctx, interval, do) })
}

// Close refuses new requests, finishes the accepted ones, writes the cursor buffer and ends
// every follower.
func (e *Engine) Close() error {
	var err error
	e.closeOnce.Do(func() {
		close(e.closing)
		for _, f := range e.flushers {
			<-f.ended
		}
		e.stopLoops()
		e.loops.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		err = e.writeCursors(ctx, e.cursors.all())
	})
	return err
}

// WakeAccount wakes the readers of an account's log.
func (e *Engine) WakeAccount(account ds.AccountID) { e.wakes.wake(ds.AccountLog(account), unknownHead) }

// metrics holds the metrics of an Engine. They have no label that a client can invent.
type metrics struct {
	appendSeconds   prometheus.Histogram
	batchRequests   prometheus.Histogram
	lockWaitsLost   prometheus.Counter
	recordsRead     prometheus.Counter
	recordsReplayed prometheus.Counter
	gaps            prometheus.Counter

	announcementsDropped prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: name, Help: help})
	}
	return &metrics{
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "waxwing", Name: "append_seconds",
			Help: "Time from the start of a batch to its commit.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}),
		batchRequests: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "waxwing", Name: "append_batch_requests",
			Help: "Requests that shared one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		lockWaitsLost:   counter("store_lock_waits_lost_total", "Transactions that gave up waiting for what another one holds, and ran again or later. Nothing is wrong with the database."),
		recordsRead:     counter("records_read_total", "Records read from logs for followers."),
		recordsReplayed: counter("records_replayed_total", "Those of the records read that were there before their follower came: what it had missed."),
		gaps:            counter("log_gap_detected_total", "Places where a reader found records of a conversation missing, or fewer than its head says."),

		announcementsDropped: counter("announcements_dropped_total", "Typing, read and ephemeral messages that a listener was too slow for."),
	}
}

// storeFailed counts a transaction that gave up waiting for a lock. Faults of the
// database are counted by the store.
func (m *metrics) storeFailed(err error) {
	if store.IsLockLost(err) {
		m.lockWaitsLost.Inc()
	}
}

// Collectors lists the metrics for a registry.
func (e *Engine) Collectors() []prometheus.Collector {
	m := e.metrics
	return []prometheus.Collector{m.appendSeconds, m.batchRequests, m.lockWaitsLost, m.recordsRead, m.recordsReplayed, m.gaps, m.announcementsDropped}
}
