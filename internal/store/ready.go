package store

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// unreadyFor is the time for which a database counts as not writable after it refused a write,
// unless it accepts a batch before. It ends by itself: without traffic a balancer would never see
// it write again.
const unreadyFor = 5 * time.Second

// TakesWrites reports whether the database accepts writes, as far as is known: one with a full
// disk still answers Ping.
func (db *DB) TakesWrites() bool {
	refused := db.refusedMS.Load()
	return refused == 0 || db.nowMS() >= refused+unreadyFor.Milliseconds()
}

// noteWrite records the outcome of the last batch or test write. A lost race, or a batch without
// writes, says nothing about the database.
func (db *DB) noteWrite(hasWritten bool, err error) {
	switch {
	case err == nil && hasWritten:
		db.refusedMS.Store(0)
	case ds.IsUnavailable(err) && !IsLockLost(err):
		db.refusedMS.Store(db.nowMS())
	}
}

// upkeepInterval is the interval of the engine's maintenance, and of test writes to a database
// that fails.
const upkeepInterval = time.Second

// pool is the state of an engine's connections.
type pool struct {
	inUse, idle int64
	waits       int64         // transactions that had to wait for a connection
	waited      time.Duration // the time that they did, together
}

// Collectors returns the metrics of the database for a registry.
func (db *DB) Collectors() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "waxwing", Name: name, Help: help}, value)
	}
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "waxwing", Name: name, Help: help}, value)
	}
	return []prometheus.Collector{db.errors,
		gauge("store_up", "1 while the database answers and writes, 0 from its first failure until it works again.", func() float64 {
			if db.condition.IsFailing() {
				return 0
			}
			return 1
		}),
		counter("store_outage_seconds_total", "Time for which the database did not answer or write.", func() float64 { return db.condition.Lost().Seconds() }),
		gauge("store_connections_in_use", "Connections to the database that a transaction has.", func() float64 { return float64(db.engine.pool().inUse) }),
		gauge("store_connections_idle", "Connections to the database that no transaction has.", func() float64 { return float64(db.engine.pool().idle) }),
		counter("store_connection_waits_total", "Transactions that had to wait for a connection to the database.", func() float64 { return float64(db.engine.pool().waits) }),
		counter("store_connection_wait_seconds_total", "Time that transactions waited for a connection to the database.", func() float64 { return db.engine.pool().waited.Seconds() }),
		gauge("store_wal_bytes", "Size of the write-ahead log of the embedded database; 0 with PostgreSQL.", func() float64 {
			return float64(db.engine.walBytes())
		}),
	}
}

func newErrors() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: "store_errors_total",
		Help: "Transactions and reads that the database failed."})
}

// note counts a fault of the database and logs the first one of an outage. A lost race or a
// cancelled caller says nothing about the database.
func (db *DB) note(ctx context.Context, err error) {
	if err == nil || !ds.IsUnavailable(err) || IsLockLost(err) || db.closing.Err() != nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	db.errors.Inc()
	db.condition.Failed(err)
}

// maintain runs the engine's maintenance until Close, and detects when a failed database works
// again, which would otherwise need traffic.
func (db *DB) maintain() {
	ticker := time.NewTicker(upkeepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-db.closing.Done():
			return
		case <-ticker.C:
		}
		db.note(db.closing, db.engine.maintain(db.closing))
		if !db.condition.IsFailing() {
			continue
		}
		err := db.engine.update(db.closing, db.nowMS(), (*Tx).probe)
		db.note(db.closing, err)
		if err == nil {
			db.condition.Worked()
		} else {
			db.noteWrite(false, err)
		}
	}
}

// probe makes the database write, as little as possible.
func (tx *Tx) probe() error {
	if tx.dialect.name == "postgres" {
		_, err := tx.exec("UPDATE store_identity SET incarnation = incarnation")
		return err
	}
	_, err := tx.exec("PRAGMA user_version = 1") // not used for anything else
	return err
}
