package store

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// clockEvery is the interval between queries of the database's time: clocks of machines
	// drift apart by less than a millisecond in between, except on a suspended machine.
	clockEvery = 10 * time.Second
	// clockWarn is the difference above which the operator is warned at start.
	clockWarn = 5 * time.Second
)

// reckoning estimates the time of the database between two queries.
type reckoning struct {
	local    func() time.Time // this machine's clock
	last     atomic.Pointer[moment]
	stop     context.CancelFunc
	finished chan struct{}
}

// moment is one instant by both clocks.
type moment struct{ local, database time.Time }

// Now returns the time that rows are written with and compared to: on PostgreSQL that of the
// database, whatever the clock of this machine says, so that nodes agree about expiry. It is
// within half a round trip of the database's own, and continues while the database is away;
// steps of this machine's clock do not affect it.
func (db *DB) Now() time.Time { return db.now() }

func (r *reckoning) now() time.Time {
	last, local := r.last.Load(), r.local()
	return last.database.Add(local.Sub(last.local))
}

// look queries the database's time, and adopts it if it contradicts the estimate: if it differs
// by more than the duration of the query.
func (r *reckoning) look(ctx context.Context, ask func(context.Context) (time.Time, error)) error {
	asked := r.local()
	database, err := ask(ctx)
	if err != nil {
		return err
	}
	answered := r.local()
	half := answered.Sub(asked) / 2
	seen := &moment{asked.Add(half), database}
	if r.last.Load() != nil {
		off := database.Sub(r.last.Load().database) - seen.local.Sub(r.last.Load().local)
		if off.Abs() <= half+time.Millisecond {
			return nil
		}
	}
	r.last.Store(seen)
	return nil
}

// reckon makes the database's clock that of db.
func (db *DB) reckon(ctx context.Context, e *postgresEngine, local func() time.Time) error {
	r := &reckoning{local: local, finished: make(chan struct{})}
	if err := r.look(ctx, e.time); err != nil {
		return err
	}
	if off := local().Sub(r.now()); off.Abs() >= clockWarn {
		db.logger.Warn("the clock of this machine is not the database's, which counts", "difference", off.Round(time.Millisecond))
	}
	var running context.Context
	running, r.stop = context.WithCancel(context.Background())
	go func() {
		defer close(r.finished)
		ticker := time.NewTicker(clockEvery)
		defer ticker.Stop()
		for {
			select {
			case <-running.Done():
				return
			case <-ticker.C:
				// The estimate continues without an answer. A server without requests learns
				// here that its database is away.
				db.note(running, r.look(running, e.time))
			}
		}
	}()
	db.reckoning, db.now = r, r.now
	return nil
}

// time queries the database's time.
func (e *postgresEngine) time(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	var micros int64
	err := e.connections.QueryRow(ctx, `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`).Scan(&micros)
	return time.UnixMicro(micros), postgresFault(err)
}
