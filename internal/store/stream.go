package store

import (
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// StreamRow is a part of the position of one stream: its first row holds all of it, later ones
// the changes since the row Since. The content is opaque to the store.
type StreamRow struct {
	Stream   string
	N, Since int64
	Moves    []byte

	// Opens starts a new stream of Device with this row, which is number 0. Size bounds all
	// rows of the stream.
	Opens  bool
	Device ds.Device
	Size   int64
}

// StreamBounds bounds the stored streams: of one account, Streams of them and Bytes by their
// sizes, the most recently used; of one stream, the last Rows, and of those with a number that
// is a multiple of CheckEvery the last Checks.
type StreamBounds struct {
	Streams, Bytes           int64
	Rows, CheckEvery, Checks int64
}

// Write writes rows in order. It reports of each whether it was written: a row of
// a stream that is gone is not. A row takes the place of one with its number, which was
// written without its writer's knowing.
func (s Streams) Write(list []StreamRow, bounds StreamBounds) ([]bool, error) {
	written := make([]bool, len(list))
	lock := "" // SQLite has one writer
	if s.tx.dialect.name == "postgres" {
		lock = " FOR KEY SHARE" // a concurrent deletion of the stream deletes this row as well
	}
	for i, r := range list {
		if r.Opens {
			if _, err := s.tx.exec(`INSERT INTO streams (stream_id, account, device, size, used_ms) VALUES ($1, $2, $3, $4, $5)`,
				r.Stream, string(r.Device.Account), string(r.Device.ID), r.Size, s.tx.nowMS); err != nil {
				return nil, err
			}
		}
		n, err := s.tx.exec(`INSERT INTO stream_rows (stream_id, n, since, moves) SELECT stream_id, CAST($2 AS BIGINT), CAST($3 AS BIGINT), $4 FROM streams WHERE stream_id = $1`+lock+`
			ON CONFLICT (stream_id, n) DO UPDATE SET since = excluded.since, moves = excluded.moves`,
			r.Stream, r.N, r.Since, notNil(r.Moves))
		if err != nil {
			return nil, err
		}
		if written[i] = n > 0; !written[i] {
			continue
		}
		if err := s.thin(r, bounds); err != nil {
			return nil, err
		}
	}
	return written, nil
}

// thin deletes the rows that a new one makes superfluous.
func (s Streams) thin(r StreamRow, bounds StreamBounds) error {
	old, check := r.N-bounds.Rows, r.N-bounds.Checks*bounds.CheckEvery
	if old%bounds.CheckEvery == 0 {
		old = -1
	}
	if check%bounds.CheckEvery != 0 {
		check = -1
	}
	if old <= 0 && check <= 0 {
		return nil
	}
	_, err := s.tx.exec(`DELETE FROM stream_rows WHERE stream_id = $1 AND n IN ($2, $3) AND n > 0`, r.Stream, old, check)
	return err
}

// Excess finds the streams of an account that exceed its bounds, the least recently
// used. It looks at all of them.
func (s Streams) Excess(account ds.AccountID, bounds StreamBounds) (names []string, err error) {
	return s.streamNames(`SELECT stream_id FROM (SELECT stream_id, ROW_NUMBER() OVER w AS place, SUM(size) OVER w AS total FROM streams WHERE account = $1
			WINDOW w AS (ORDER BY used_ms DESC, stream_id)) AS ranked
		WHERE place > $2 OR total > $3`, string(account), bounds.Streams, bounds.Bytes)
}

func (s Streams) streamNames(sql string, args ...any) (names []string, err error) {
	err = s.tx.each(func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	}, sql, args...)
	return names, err
}

// Delete deletes streams, with their rows.
func (s Streams) Delete(names []string) error {
	if len(names) == 0 {
		return nil
	}
	for _, table := range []string{"streams", "stream_rows"} { // see Streams.Write: a stream that is gone gets no row
		if _, err := s.tx.exec(`DELETE FROM `+table+` WHERE stream_id `+s.tx.in(1), s.tx.setOf(names)); err != nil {
			return err
		}
	}
	return nil
}

// Renew records that streams are in use.
func (s Streams) Renew(names []string) error {
	_, err := s.tx.exec(`UPDATE streams SET used_ms = $2 WHERE stream_id `+s.tx.in(1), s.tx.setOf(names), s.tx.nowMS)
	return err
}

// StreamRows holds the rows of a state of a stream: the first, the one that the last builds
// upon, if there is one between, and the last, which is number N.
type StreamRows struct {
	First, Check, Last []byte
	N                  int64
}

// Rows reads the state of a stream of a device as of row n or, if that is not stored, as
// of the latest one before it; nothing for a stream that is unknown or was not used for
// lifetime.
func (s Streams) Rows(stream string, device ds.Device, n int64, lifetime time.Duration) (StreamRows, error) {
	var r StreamRows
	err := s.tx.row(`SELECT f.moves, COALESCE(m.n, 0), m.moves, c.moves
		FROM streams s JOIN stream_rows f ON f.stream_id = s.stream_id AND f.n = 0
			LEFT JOIN stream_rows m ON m.stream_id = s.stream_id AND m.n = (SELECT MAX(x.n) FROM stream_rows x
				WHERE x.stream_id = s.stream_id AND x.n <= $4 AND x.n > 0
					AND (x.since = 0 OR EXISTS (SELECT 1 FROM stream_rows y WHERE y.stream_id = x.stream_id AND y.n = x.since)))
			LEFT JOIN stream_rows c ON c.stream_id = s.stream_id AND c.n = m.since AND m.since > 0
		WHERE s.stream_id = $1 AND s.account = $2 AND s.device = $3 AND s.used_ms > $5`,
		stream, string(device.Account), string(device.ID), n, s.tx.nowMS-lifetime.Milliseconds()).Scan(&r.First, &r.N, &r.Last, &r.Check)
	if notFound(err) == ErrNotFound {
		return StreamRows{}, nil
	}
	return r, err
}

// Sweep deletes up to max streams that were not used for lifetime, and the positions
// that earlier versions left, and reports whether there may be more of the former.
func (s Streams) Sweep(lifetime time.Duration, max int) (bool, error) {
	until := s.tx.nowMS - lifetime.Milliseconds()
	if _, err := s.tx.exec(`DELETE FROM stream_positions WHERE created_ms <= $1`, until); err != nil {
		return false, err
	}
	names, err := s.streamNames(`SELECT stream_id FROM streams WHERE used_ms <= $1 LIMIT `+bound(2), until, int64(max))
	if err != nil {
		return false, err
	}
	return len(names) == max, s.Delete(names)
}
