package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

const (
	// countMax is the number of rows up to which a table is counted.
	countMax = 100_000
	// eventsPage bounds the account logs of one query for the oldest event.
	eventsPage = 1000
	// eventSpan bounds the events of other devices that are skipped for one device.
	eventSpan = 1000
	// eventsTime is the time after which the search for the oldest event ends.
	eventsTime = 2 * time.Second
)

// Count is a number of rows. IsAbout marks an estimate.
type Count struct {
	Count   int64 `json:"count"`
	IsAbout bool  `json:"about,omitempty"`
}

// Size is the size of a file or, with its indexes, of a table.
type Size struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// Stats describes the content of the database and the space that it takes.
type Stats struct {
	Accounts      Count `json:"accounts"` // admitted
	Conversations Count `json:"conversations"`
	Records       Count `json:"records"`
	Sessions      Count `json:"sessions"` // that can be used
	// StoredBytes is the size of all rows with their indexes; DatabaseBytes that of the files.
	StoredBytes   int64  `json:"stored_bytes"`
	DatabaseBytes int64  `json:"database_bytes"`
	Sizes         []Size `json:"sizes"` // the largest first

	// OldestEventMS is the time of the oldest device event that a device has not acknowledged;
	// 0 if there is none. If IsOldestAbout, not all devices were looked at.
	OldestEventMS int64 `json:"oldest_event_ms,omitempty"`
	IsOldestAbout bool  `json:"oldest_event_about,omitempty"`
}

// Stats counts. Each query ends after countMax rows; beyond that a number is an estimate.
func (db *DB) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := db.View(ctx, func(tx *Tx) (err error) {
		s = Stats{}
		for _, c := range []struct {
			to    *Count
			table string
		}{{&s.Accounts, "accounts"}, {&s.Conversations, "conversation_details"}, {&s.Records, "records"}} {
			if *c.to, err = tx.countTable(c.table); err != nil {
				return err
			}
		}
		s.Sessions, err = tx.count(`sessions WHERE revoked_ms IS NULL AND expires_ms > $1`, tx.nowMS)
		if err != nil {
			return err
		}
		if tx.dialect.name == "postgres" {
			return tx.postgresSizes(&s)
		}
		var pages, free, size int64
		err = tx.row(`SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&pages, &free, &size)
		s.StoredBytes = (pages - free) * size
		s.Sizes = []Size{{sqliteFile, pages * size}, {sqliteFile + "-wal", db.engine.walBytes()}}
		s.DatabaseBytes = s.Sizes[0].Bytes + s.Sizes[1].Bytes
		return err
	})
	if err != nil {
		return Stats{}, err
	}
	slices.SortStableFunc(s.Sizes, func(a, b Size) int { return cmp.Compare(b.Bytes, a.Bytes) })
	s.OldestEventMS, s.IsOldestAbout, err = db.oldestEvent(ctx)
	return s, err
}

// count counts rows up to countMax.
func (tx *Tx) count(from string, args ...any) (c Count, err error) {
	err = tx.row(fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT 1 FROM %s LIMIT %d) AS few`, from, countMax+1), args...).Scan(&c.Count)
	if c.Count > countMax {
		c = Count{countMax, true}
	}
	return c, err
}

// countTable counts the rows of a table, and estimates them beyond countMax.
func (tx *Tx) countTable(table string) (Count, error) {
	c, err := tx.count(table)
	if err != nil || !c.IsAbout {
		return c, err
	}
	var about int64
	switch {
	case tx.dialect.name == "postgres":
		err = tx.row(`SELECT CAST(reltuples AS BIGINT) FROM pg_class WHERE oid = CAST($1 AS REGCLASS)`, table).Scan(&about)
	case table == "records": // rows are numbered
		err = tx.row(`SELECT MAX(rowid) FROM records`).Scan(&about)
	default: // of so small rows that all can be counted
		err = tx.row(`SELECT COUNT(*) FROM ` + table).Scan(&about)
		return Count{Count: about}, err
	}
	return Count{max(about, countMax), true}, err
}

func (tx *Tx) postgresSizes(s *Stats) error {
	err := tx.each(func(scan func(...any) error) error {
		var size Size
		err := scan(&size.Name, &size.Bytes)
		s.Sizes, s.StoredBytes = append(s.Sizes, size), s.StoredBytes+size.Bytes
		return err
	}, `SELECT relname::text, pg_total_relation_size(oid) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'`)
	if err != nil {
		return err
	}
	return tx.row(`SELECT pg_database_size(current_database())`).Scan(&s.DatabaseBytes)
}

// oldestEvent looks for the oldest unacknowledged device event for up to eventsTime. Devices
// that have never acknowledged any are left out: many of them never existed.
func (db *DB) oldestEvent(ctx context.Context) (oldestMS int64, isAbout bool, err error) {
	end := time.Now().Add(eventsTime)
	for after := ds.AccountLog(""); ; {
		var last ds.LogID
		var foundMS int64
		err := db.Read(ctx, func(tx *Tx) error {
			return tx.row(`SELECT COALESCE(MAX(l.log_id), ''), COALESCE(MIN(r.created_ms), 0)
				FROM (SELECT DISTINCT log_id FROM cursors WHERE log_id > $1 AND log_id < 'a0' ORDER BY log_id LIMIT `+bound(2)+`) AS l
				JOIN cursors c ON c.log_id = l.log_id
				LEFT JOIN records r ON r.log_id = c.log_id AND r.pos = (SELECT e.pos FROM records e
					WHERE e.log_id = c.log_id AND e.pos >= c.next AND e.pos < c.next + `+bound(3)+` AND (e.recipient IS NULL OR e.recipient = c.device)
					ORDER BY e.pos LIMIT 1)`, string(after), eventsPage, eventSpan).Scan(&last, &foundMS)
		})
		if err != nil {
			return 0, false, err
		}
		if foundMS > 0 && (oldestMS == 0 || foundMS < oldestMS) {
			oldestMS = foundMS
		}
		if last == "" {
			return oldestMS, false, nil
		}
		if time.Now().After(end) {
			return oldestMS, true, nil
		}
		after = last
	}
}
