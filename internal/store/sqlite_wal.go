package store

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// walBytesKept is the size to which SQLite truncates the write-ahead log when it restarts,
	// and walBytesMax the size above which it is forced to restart. Both are above the 8 000
	// pages (33 MB) after which SQLite copies it into the database.
	walBytesKept = 34 << 20
	walBytesMax  = 40 << 20
	// walPatience bounds how long an attempt waits for readers. New reads meanwhile use the
	// remaining connections.
	walPatience = 2 * time.Second
)

// walBytes returns the size of the write-ahead log; 0 if there is none.
func (e *sqliteEngine) walBytes() int64 {
	info, err := os.Stat(e.file + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// maintain truncates the write-ahead log when it is above its bound. SQLite itself restarts it
// only in a moment without any reader, which may never come if several overlap. As much as
// possible is copied beside readers and writers; then the few reading connections are taken,
// one after the other, and at last the writing one, for the time that copying the rest takes.
func (e *sqliteEngine) maintain(ctx context.Context) error {
	if e.walBytes() <= walBytesMax {
		return nil
	}
	if err := e.checkpoint(ctx, "PASSIVE"); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, walPatience)
	defer cancel()
	for _, pool := range []chan *sqliteConn{e.readers, e.writer} {
		for range cap(pool) {
			c, err := e.take(waiting, pool)
			if err != nil {
				return nil // the next attempt may have more luck
			}
			defer func() { pool <- c }()
		}
	}
	return e.checkpoint(ctx, "TRUNCATE")
}

// checkpoint copies the write-ahead log into the database, as far as no other process prevents
// it. It is not interrupted.
func (e *sqliteEngine) checkpoint(ctx context.Context, mode string) error {
	var isBusy, pages, copied int64
	rs, err := e.copier.query(context.WithoutCancel(ctx), "PRAGMA wal_checkpoint("+mode+")", nil)
	if err == nil {
		err = row{rows: rs}.Scan(&isBusy, &pages, &copied)
	}
	if err != nil {
		return sqliteFault(fmt.Errorf("sqlite: checkpoint: %w", err))
	}
	return nil
}
