// Package core holds the rules of the delivery service: permissions, and the order of changes.
// There is one method per operation, for all doors.
//
// A request that changes a conversation goes through the conversation's flusher: it lists the
// data to be loaded and decides on that, as a pure function of values; the flusher locks,
// loads, runs the rule of each request in order, writes the results in one transaction, wakes
// the readers and answers. Everything that only reads is a Follower or a plain query. Core
// contains nothing about HTTP, JSON frames or tokens.
package core

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/condition"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Options holds the dependencies and settings of a Service.
type Options struct {
	Store  *store.DB
	Now    func() time.Time // nil: the system clock
	Logger *slog.Logger     // nil: discard
	// RecordSenders makes new conversations store the sending device with each
	// message (gateway decision 4).
	RecordSenders bool
	// Limits counts the calls of clients, here and at the doors; nil for one with the
	// published rates.
	Limits *limits.Limiter
	// MessageBytes bounds a message sent as bytes; 0 means MessageBytesDefault.
	MessageBytes int
	// Flushers is the number of group-commit flushers; 0 means 1 on SQLite and 3
	// on PostgreSQL.
	Flushers int
	// StrictKeyPackages refuses key packages that are not MLS ones.
	StrictKeyPackages bool
	// PollInterval is the interval at which the heads of followed logs are read, to detect
	// writes of other nodes; 0 means 1 s.
	PollInterval time.Duration
	// Revocations, if not nil, are polled together with the heads.
	Revocations Revocations
}

// Service runs the operations of the delivery service. It is safe for concurrent use.
type Service struct {
	store         *store.DB
	now           func() time.Time
	logger        *slog.Logger
	recordSenders bool
	messageBytes  int
	limits        *limits.Limiter
	seed          maphash.Seed
	flushers      []*flusher
	wakes         *wakes
	tails         *tailCache
	turns         *turns
	cursors       *cursorBuffer
	metrics       *Metrics
	positions     *shared[store.StreamRow, bool]
	streams       openStreams
	unchecked     uncheckedStreams
	follows       followCounts
	beginnings    *turns // of queries over many conversations
	pages         *turns // of pages that are read from the store
	readings      *shared[store.Start, store.Reading]
	revocations   Revocations
	attested      attestations
	directory     *directory.Service

	closeOnce sync.Once
	closing   chan struct{} // closed when no further request is accepted
	loops     sync.WaitGroup
	stopLoops context.CancelFunc
}

var errClosed = ds.Unavailable(errors.New("the service is shutting down"))

// New starts a Service over an open store. Close must be called, before the store's.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Limits == nil {
		o.Limits = limits.New(limits.Default(), o.Now)
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
	s := &Service{store: o.Store, now: o.Now, logger: o.Logger, recordSenders: o.RecordSenders, messageBytes: cmp.Or(o.MessageBytes, MessageBytesDefault),
		limits: o.Limits, seed: maphash.MakeSeed(), wakes: newWakes(), tails: newTailCache(), turns: newTurns(turnsBytes, turnPatience), cursors: newCursorBuffer(), unchecked: uncheckedStreams{}, beginnings: newTurns(1, noPatience), pages: newTurns(int64(max(1, runtime.GOMAXPROCS(0)/2)), noPatience), metrics: newMetrics(),
		revocations: o.Revocations, closing: make(chan struct{}), stopLoops: cancel}
	s.directory = directory.New(directory.Options{Store: o.Store, Now: o.Now, Limits: o.Limits, OnlyMLS: o.StrictKeyPackages,
		Wake:    func(account ds.AccountID) { s.wakes.wake(ds.AccountLog(account), unknownHead) },
		Claimed: func(packages int) { s.metrics.keyPackagesClaimed.Add(float64(packages)) }})
	for range o.Flushers {
		f := newFlusher(s)
		s.flushers = append(s.flushers, f)
		go f.run(s.closing)
	}
	s.positions = newShared(s.closing, positionsMax, func(r store.StreamRow) int {
		return len(r.Stream) + len(r.Device.Account) + len(r.Device.ID) + cap(r.Moves)
	}, s.writePositions)
	s.readings = newShared(s.closing, readingsMax, func(at store.Start) int {
		return len(at.Device.Account) + len(at.Device.ID) + len(at.Conversation)
	}, s.findReadings)
	s.loops.Go(func() { s.positions.run(ctx) })
	s.loops.Go(func() { s.readings.run(ctx) })
	s.loops.Go(func() { s.flushCursors(ctx) })
	s.loops.Go(func() { s.renewStreams(ctx) })
	s.loops.Go(func() { s.sweep(ctx) })
	if o.Store.IsShared() {
		s.loops.Go(func() { s.poll(ctx, o.PollInterval) })
	}
	return s
}

// Directory returns the service for devices and key packages, over the same store.
func (s *Service) Directory() *directory.Service { return s.directory }

// Close refuses new requests, finishes the accepted ones, writes the cursor buffer and ends
// every follower.
func (s *Service) Close() error {
	var err error
	s.closeOnce.Do(func() {
		close(s.closing)
		for _, f := range s.flushers {
			<-f.ended
		}
		s.stopLoops()
		s.loops.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		err = s.writeCursors(ctx, s.cursors.all())
	})
	return err
}

// sweep deletes expired data once an hour.
func (s *Service) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	sweeping := condition.New(s.logger, "the hourly sweep", 0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			if err := tx.Packages.Sweep(); err != nil {
				return err
			}
			if err := tx.Tickets.Sweep(); err != nil {
				return err
			}
			return tx.Welcomes.Sweep()
		})
		for more := err == nil; more && err == nil; {
			err = s.store.Update(ctx, func(tx *store.Tx) error {
				more, err = tx.Streams.Sweep(streamLifetime, sweepStreamsMax)
				return err
			})
		}
		if ctx.Err() == nil && !ds.IsUnavailable(err) { // an unavailable database is logged by the store
			sweeping.Note(err)
		}
	}
}
