// Package core holds the rules of the delivery service: permissions, and the order of changes.
// There is one method per operation, for all doors.
//
// An operation that changes a conversation is an Op, a value. Its rule is a pure function of
// what package logs loaded for it, which also writes, wakes the readers and answers. What only
// reads is a plain query here, or a Follower of logs. Core contains nothing about HTTP, JSON
// frames or tokens.
package core

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/condition"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// Options holds the dependencies and settings of a Service.
type Options struct {
	Store     *store.DB
	Logs      *logs.Engine       // over the same store
	Directory *directory.Service // over the same store
	Now       func() time.Time   // nil: the system clock
	Logger    *slog.Logger       // nil: discard
	// RecordSenders makes new conversations store the sending device with each
	// message.
	RecordSenders bool
	// Limits counts the calls of clients, here and at the doors; nil for one with the
	// published rates.
	Limits *limits.Limiter
	// MessageBytes bounds a message sent as bytes; 0 means MessageBytesDefault.
	MessageBytes int
}

// Service runs the operations of the delivery service. It is safe for concurrent use.
type Service struct {
	store         *store.DB
	logs          *logs.Engine
	directory     *directory.Service
	now           func() time.Time
	logger        *slog.Logger
	recordSenders bool
	messageBytes  int
	limits        *limits.Limiter
	metrics       *metrics
	attested      attestations

	sweeps    sync.WaitGroup
	stopSweep context.CancelFunc
}

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
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{store: o.Store, logs: o.Logs, directory: o.Directory, now: o.Now, logger: o.Logger, recordSenders: o.RecordSenders,
		messageBytes: cmp.Or(o.MessageBytes, MessageBytesDefault), limits: o.Limits, metrics: newMetrics(), stopSweep: cancel}
	s.sweeps.Go(func() { condition.New(s.logger, "the hourly sweep", 0).Every(ctx, sweepInterval, s.sweep) })
	s.sweeps.Go(func() {
		condition.New(s.logger, "removing expelled accounts", 0).Every(ctx, expulsionInterval, s.finishExpulsions)
	})
	return s
}

// Close ends the sweeps of expired data.
func (s *Service) Close() {
	s.stopSweep()
	s.sweeps.Wait()
}

// sweep deletes expired data.
func (s *Service) sweep(ctx context.Context) error {
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Packages.Sweep(); err != nil {
			return err
		}
		if err := tx.Tickets.Sweep(); err != nil {
			return err
		}
		return tx.Welcomes.Sweep()
	})
	if err == nil {
		err = s.logs.Streams.Sweep(ctx)
	}
	return err
}
