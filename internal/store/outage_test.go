package store

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testwait"
)

// lineLog collects the lines of a log.
type lineLog struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *lineLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

// has reports whether there are so many lines, and the last one contains text.
func (l *lineLog) has(n int, text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines) == n && strings.Contains(l.lines[n-1], text)
}

func (l *lineLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

func openLogged(t *testing.T, url string) (*DB, *lineLog) {
	t.Helper()
	log := &lineLog{}
	db, err := Open(t.Context(), Options{URL: url, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return db, log
}

// useAll uses the database in every way.
func useAll(db *DB) []error {
	nothing := func(tx *Tx) error { return tx.row("SELECT 1").Scan(new(int)) }
	return []error{db.Ping(context.Background()), db.View(context.Background(), nothing), db.Read(context.Background(), nothing),
		db.Update(context.Background(), (*Tx).probe)}
}

// TestOutageOfSQLite: a database whose file is gone is one line of the log however often it is
// used, and it stays unready without any use. The time is virtual.
func TestOutageOfSQLite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		db, log := openLogged(t, "sqlite:"+folder)
		defer db.Close()
		move := func(from, to string) {
			if err := os.Rename(filepath.Join(folder, from), filepath.Join(folder, to)); err != nil {
				t.Fatal(err)
			}
		}
		move(sqliteFile, "elsewhere")
		for range 600 {
			useAll(db)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if !log.has(1, "the database fails") || db.TakesWrites() {
			t.Errorf("takes writes: %t, logged\n%s", db.TakesWrites(), log)
		}
		move("elsewhere", sqliteFile)
		time.Sleep(2 * unreadyFor)
		if !log.has(2, "the database works again") || !db.TakesWrites() || db.condition.Lost() < 2*time.Minute {
			t.Errorf("takes writes: %t, lost %s, logged\n%s", db.TakesWrites(), db.condition.Lost(), log)
		}
	})
}

// TestOutageOfPostgres: a PostgreSQL that is killed, or became a standby that takes no writes, is
// one line of the log, and one when it is back.
func TestOutageOfPostgres(t *testing.T) {
	t.Parallel() // it mostly waits
	check := func(t *testing.T, url string, begin, end func()) {
		t.Parallel()
		db, log := openLogged(t, url)
		defer db.Close()
		begin()
		for range 20 {
			if err := useAll(db)[3]; err != nil && !ds.IsUnavailable(err) {
				t.Error(err)
			}
		}
		testwait.Until(t, "the outage is logged and the database is unready", func() bool { return log.has(1, "the database fails") && !db.TakesWrites() })
		end()
		testwait.Until(t, "the end is logged", func() bool { return log.has(2, "the database works again") && db.TakesWrites() })
		if db.condition.Lost() == 0 {
			t.Error("no time is counted")
		}
	}
	t.Run("killed", func(t *testing.T) {
		server := pgtest.Start(t, pgtest.Options{})
		check(t, server.Database(t), server.Kill, func() {
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("takes no writes", func(t *testing.T) {
		url := pgtest.URL(t)
		set := func(isReadOnly string) {
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			for _, sql := range []string{
				"SET default_transaction_read_only = off",
				"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = " + isReadOnly + "', current_database()); END $$",
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
			} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
		}
		check(t, url, func() { set("on") }, func() { set("off") })
	})
}
