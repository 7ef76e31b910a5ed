package store

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// unreadyFor is how long a database counts as one that takes no writes after it
// refused a batch, unless it takes one before. It ends by itself: who sends no more
// traffic for it would never see it write again.
const unreadyFor = 5 * time.Second

// TakesWrites says whether the database writes what it is given, as far as is known:
// one with a full disk still answers Ping.
func (db *DB) TakesWrites() bool {
	refused := db.refusedMS.Load()
	return refused == 0 || db.nowMS() >= refused+unreadyFor.Milliseconds()
}

// noteAppend remembers how the last batch ended. One that lost a race says nothing
// about the database, nor does one that wrote nothing.
func (db *DB) noteAppend(hasWritten bool, err error) {
	switch {
	case err == nil && hasWritten:
		db.refusedMS.Store(0)
	case ds.IsUnavailable(err) && !IsLockLost(err):
		db.refusedMS.Store(db.nowMS())
	}
}

// upkeepInterval is how often the engine's maintenance runs, and a database that fails
// is asked to write.
const upkeepInterval = time.Second

// Collectors returns the metrics of the database for a registry.
func (db *DB) Collectors() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "waxwing", Name: name, Help: help}, value)
	}
	return []prometheus.Collector{db.errors,
		gauge("store_up", "1 while the database answers and writes, 0 from its first failure until it works again.", func() float64 {
			if db.condition.IsFailing() {
				return 0
			}
			return 1
		}),
		gauge("store_wal_bytes", "Size of the write-ahead log of the embedded database; 0 with PostgreSQL.", func() float64 {
			return float64(db.engine.walBytes())
		}),
	}
}

func newErrors() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: "store_errors_total",
		Help: "Transactions and reads that the database failed."})
}

// note counts a fault of the database and logs the first one of an outage. A lost race
// says nothing about the database, nor does a caller that went away.
func (db *DB) note(ctx context.Context, err error) {
	if err == nil || !ds.IsUnavailable(err) || IsLockLost(err) || db.closing.Err() != nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	db.errors.Inc()
	db.condition.Failed(err)
}

// maintain keeps the database in order until Close, and finds out when one that failed
// works again: where nothing is written nothing else would.
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
		}
	}
}

// probe makes the database write, as little as it can.
func (tx *Tx) probe() error {
	if tx.dialect.name == "postgres" {
		var transaction string // having a number, its COMMIT is written
		return tx.row("SELECT pg_current_xact_id()::text").Scan(&transaction)
	}
	_, err := tx.exec("PRAGMA user_version = 1") // it is used for nothing else
	return err
}
