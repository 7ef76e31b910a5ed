package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/pgtest"
)

// TestDatabaseClock: on PostgreSQL the time of the database counts, by whatever this
// machine's clock is ahead or behind.
func TestDatabaseClock(t *testing.T) {
	url := pgtest.URL(t)
	for _, off := range []time.Duration{-2 * time.Minute, 0, 2 * time.Minute} {
		db, err := Open(context.Background(), Options{URL: url, Local: func() time.Time { return time.Now().Add(off) }})
		if err != nil {
			t.Fatal(err)
		}
		before := read(t, db, databaseMS)
		now := db.Now().UnixMilli()
		if after := read(t, db, databaseMS); now < before-100 || now > after+100 {
			t.Errorf("a clock that is %s off: %d ms too late, %d ms too early", off, before-now, now-after)
		}
		mustUpdate(t, db, func(tx *Tx) error {
			if got := tx.NowMS(); got < before-100 {
				t.Errorf("a transaction has another time: %d, not %d", got, before)
			}
			return nil
		})
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func databaseMS(tx *Tx) (ms int64, err error) {
	err = tx.row(`SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint`).Scan(&ms)
	return ms, err
}

// TestReckoning: a look that took longer than it found to be wrong changes nothing.
func TestReckoning(t *testing.T) {
	local, database := time.UnixMilli(1000), time.UnixMilli(500_000)
	r := &reckoning{local: func() time.Time { return local }}
	look := func(there, back time.Duration) {
		t.Helper()
		err := r.look(context.Background(), func(context.Context) (time.Time, error) {
			local, database = local.Add(there), database.Add(there)
			defer func() { local, database = local.Add(back), database.Add(back) }()
			return database, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	near := func(within time.Duration) {
		t.Helper()
		if off := r.now().Sub(database); off.Abs() > within {
			t.Errorf("off by %s", off)
		}
	}
	look(10*time.Millisecond, 10*time.Millisecond)
	near(0)
	local, database = local.Add(time.Hour), database.Add(time.Hour)
	near(0)
	look(time.Second, 0) // as bad as can be, and no news
	near(0)
	database = database.Add(30 * time.Millisecond) // it drifts
	look(10*time.Millisecond, 20*time.Millisecond)
	near(5 * time.Millisecond)
	database = database.Add(-time.Hour) // it was set
	look(0, 0)
	near(0)
	lost := errors.New("away")
	if err := r.look(context.Background(), func(context.Context) (time.Time, error) { return time.Time{}, lost }); !errors.Is(err, lost) {
		t.Error(err)
	}
	near(0)
}
