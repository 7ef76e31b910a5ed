package store

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"waxwing.im/waxwing/internal/ds"
)

func TestReadings(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			var created []ds.Conversation
			for _, id := range []string{"c1", "c2", "c3", "c4"} {
				created = append(created, head(id))
			}
			created[1].Home = "did:web:home.example"
			db.write(t, Batch{Created: created, Stays: []Stay{
				{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Owner}}, {Conversation: "c2", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Plain}},
				{Conversation: "c3", Account: "bob", Interval: ds.Interval{From: 1, Role: ds.Owner}}, {Conversation: "c4", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Plain}},
			}})
			// Of c1 the records 1 to 6 are messages but for the second, and the first is pruned.
			moved := created[0]
			moved.Pos, moved.Seq, moved.Hash = 6, 5, []byte{9}
			var records []ds.Record
			for pos := int64(1); pos <= 6; pos++ {
				r := message("c1", pos)
				if pos == 2 {
					r = ds.Record{Log: r.Log, Pos: pos, Kind: ds.Membership, Term: 1, Encoding: ds.JSON, Body: []byte("{}")}
				} else if pos > 2 {
					r.Seq = pos - 1
				}
				records = append(records, r)
			}
			db.write(t, Batch{Changed: []Change{{created[0], moved}}, Records: records})
			// Ann left c2 and came back, and left c4 for good.
			db.write(t, Batch{Stays: []Stay{{Conversation: "c2", Account: "ann", Interval: ds.Interval{Until: 4}}, {Conversation: "c4", Account: "ann", Interval: ds.Interval{Until: 2}}}})
			db.write(t, Batch{Stays: []Stay{{Conversation: "c2", Account: "ann", Interval: ds.Interval{From: 6, Role: ds.Admin}}}})
			phone, tablet := ds.Device{Account: "ann", ID: "phone"}, ds.Device{Account: "ann", ID: "tablet"}
			bob := ds.Device{Account: "bob", ID: "phone"}
			db.must(t, func(tx *Tx) error {
				if _, err := tx.exec(`UPDATE logs SET earliest_seq = 2 WHERE log_id = 'c/c1'`); err != nil {
					return err
				}
				return tx.Cursors.Advance([]DeviceCursor{{Device: phone, Cursor: ds.Cursor{Log: "c/c1", Next: 3}}})
			})
			c1 := func(from, before int64) Reading {
				return Reading{Pos: 6, Seq: 5, EarliestSeq: 2, Stay: ds.Interval{From: 1, Role: ds.Owner}, FromSeq: from, Before: before}
			}
			steps := []struct {
				name  string
				start Start
				want  Reading
			}{
				{"cursor", Start{phone, "c1", 0, 0}, c1(3, 3)},
				{"older cursor", Start{phone, "c1", 0, 2}, c1(3, 3)},
				{"newer cursor", Start{phone, "c1", 0, 5}, c1(5, 5)},
				{"another device's cursor", Start{tablet, "c1", 0, 0}, c1(1, 2)}, // before the earliest
				{"only a new cursor", Start{tablet, "c1", 0, 4}, c1(4, 4)},
				{"from a message", Start{phone, "c1", 2, 5}, c1(2, 2)},
				{"pruned", Start{phone, "c1", 1, 0}, c1(1, 2)},
				{"the last", Start{phone, "c1", 5, 0}, c1(5, 5)},
				{"behind the last", Start{phone, "c1", 6, 0}, c1(6, 6)},
				{"far beyond", Start{phone, "c1", math.MaxInt64, 0}, c1(math.MaxInt64, 6)},
				{"back again", Start{phone, "c2", 0, 0}, Reading{Home: "did:web:home.example", EarliestSeq: 1, Stay: ds.Interval{From: 6, Role: ds.Admin}, FromSeq: 1}},
				{"never in", Start{phone, "c3", 0, 0}, Reading{}},
				{"another account", Start{bob, "c3", 0, 0}, Reading{EarliestSeq: 1, Stay: ds.Interval{From: 1, Role: ds.Owner}, FromSeq: 1}},
				{"has left", Start{phone, "c4", 0, 0}, Reading{EarliestSeq: 1, Stay: ds.Interval{From: 1, Until: 2, Role: ds.Plain}, FromSeq: 1}},
				{"none", Start{phone, "none", 0, 0}, Reading{}},
				{"twice", Start{phone, "c1", 0, 0}, c1(3, 3)},
			}
			var starts []Start
			for _, step := range steps {
				starts = append(starts, step.start)
				db.mustRead(t, func(tx *Tx) error {
					got, err := tx.Logs.Readings([]Start{step.start})
					same(t, step.name, got, []Reading{step.want})
					return err
				})
			}
			db.mustRead(t, func(tx *Tx) error {
				got, err := tx.Logs.Readings(starts)
				for i, step := range steps {
					same(t, step.name+" with the others", got[i], step.want)
				}
				return err
			})
			db.mustRead(t, func(tx *Tx) error {
				nothing, err := tx.Logs.Readings(nil)
				same(t, "none", len(nothing), 0)
				return err
			})
		})
	}
}

func TestDeviceReading(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			phone := ds.Device{Account: "ann", ID: "phone"}
			reading := func() [2]int64 {
				var head, cursor int64
				db.mustRead(t, func(tx *Tx) (err error) {
					head, cursor, err = tx.Logs.DeviceReading(phone)
					return err
				})
				return [2]int64{head, cursor}
			}
			same(t, "nothing", reading(), [2]int64{0, 1})
			db.must(t, func(tx *Tx) error {
				if _, err := tx.exec(`INSERT INTO logs (log_id, pos, seq, hash, term, created_ms, latest_ms) VALUES ('a/ann', 7, 0, $1, 1, 1, 1)`, []byte{1}); err != nil {
					return err
				}
				return tx.Cursors.Advance([]DeviceCursor{{Device: phone, Cursor: ds.Cursor{Log: "a/ann", Next: 5}}})
			})
			same(t, "an account log", reading(), [2]int64{7, 5})
		})
	}
}

// mustRead is must for one statement that reads.
func (db *DB) mustRead(t *testing.T, fn func(*Tx) error) {
	t.Helper()
	if err := db.Read(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// TestReadIsSingle: nothing but one query goes through Read, and what goes wrong in it
// leaves no connection behind.
func TestReadIsSingle(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			ctx := context.Background()
			head := func(tx *Tx) error {
				_, err := tx.Logs.HeadPositions([]ds.LogID{"c/c1"})
				return err
			}
			for range 20 { // there are fewer connections
				for name, fn := range map[string]func(*Tx) error{
					"two": func(tx *Tx) error { return errors.Join(head(tx), head(tx)) },
					"a write": func(tx *Tx) error {
						_, err := tx.exec(`DELETE FROM logs`)
						return err
					},
				} {
					if err := db.Read(ctx, fn); !errors.Is(err, errNotSingle) {
						t.Fatalf("%s: %v", name, err)
					}
				}
				if err := db.Read(ctx, func(tx *Tx) error { return tx.row(`SELECT nothing FROM nowhere`).Scan() }); err == nil || ds.IsUnavailable(err) {
					t.Fatal("a bad statement: ", err)
				}
				canceled, cancel := context.WithCancel(ctx)
				cancel()
				if err := db.Read(canceled, head); !ds.IsUnavailable(err) {
					t.Fatal("canceled: ", err)
				}
			}
			db.mustRead(t, head)
		})
	}
}

// writes counts what goes out on a connection: with PostgreSQL's protocol each is a
// round trip.
type writes struct {
	net.Conn
	count *atomic.Int64
}

func (w writes) Write(data []byte) (int, error) {
	w.count.Add(1)
	return w.Conn.Write(data)
}

// TestReadTakesOneRoundTrip to PostgreSQL, where View takes three.
func TestReadTakesOneRoundTrip(t *testing.T) {
	db := open(t, "postgres")
	var count atomic.Int64
	config := db.engine.(*postgresEngine).connections.Config()
	config.MaxConns, config.MinIdleConns = 1, 0
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return writes{c, &count}, err
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	e := &postgresEngine{connections: pool}
	db = &DB{engine: e, now: db.now}
	begin := func(tx *Tx) error {
		_, err := tx.Logs.Readings([]Start{{Device: ds.Device{Account: "ann", ID: "phone"}, Conversation: "c1"}})
		return err
	}
	trips := func(run func(context.Context, func(*Tx) error) error) int64 {
		before := count.Load()
		if err := run(context.Background(), begin); err != nil {
			t.Fatal(err)
		}
		return count.Load() - before
	}
	trips(db.View) // prepares the statement
	for name, want := range map[string]int64{"view": 3, "read": 1} {
		run := map[string]func(context.Context, func(*Tx) error) error{"view": db.View, "read": db.Read}[name]
		// The pool asks a connection that was idle for a second whether it is still there.
		least := want + 1
		for range 10 {
			least = min(least, trips(run))
		}
		if least != want {
			t.Errorf("%s: %d round trips, want %d", name, least, want)
		}
	}
}

// TestLimitsAreBound: a bare argument behind LIMIT makes SQLite plan its statement
// again each time, which nothing but the time it takes would show.
func TestLimitsAreBound(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	bare := regexp.MustCompile(`LIMIT \$[0-9]`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := bare.Find(text); found != nil && !strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s: %s: write `LIMIT `+bound(n), which says why", file, found)
		}
	}
}

// TestUpdateOne: a statement that is a transaction by itself is durable when it returns,
// one of many who want the same has it, and a second one is refused where it would be
// another transaction.
func TestUpdateOne(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			nonces := []Nonce{{Hash: [32]byte{1}, ExpiresMS: 1}, {Hash: [32]byte{2}, ExpiresMS: 1}}
			var had atomic.Int64
			var racing sync.WaitGroup
			for range 16 {
				racing.Go(func() {
					var fresh []bool
					if err := db.UpdateOne(t.Context(), func(tx *Tx) (err error) {
						fresh, err = tx.Sessions.ConsumeNonces(nonces)
						return err
					}); err != nil {
						t.Error(err)
						return
					}
					for _, is := range fresh {
						if is {
							had.Add(1)
						}
					}
				})
			}
			racing.Wait()
			if got := had.Load(); got != int64(len(nonces)) {
				t.Errorf("%d nonces were fresh %d times", len(nonces), got)
			}
			db.must(t, func(tx *Tx) error {
				if fresh, err := tx.Sessions.ConsumeNonces(nonces); err != nil || fresh[0] || fresh[1] {
					t.Errorf("used nonces: %v %v", fresh, err)
				}
				return nil
			})
			if !db.IsShared() {
				return
			}
			err := db.UpdateOne(t.Context(), func(tx *Tx) error {
				if _, err := tx.Sessions.ConsumeNonces([]Nonce{{Hash: [32]byte{3}, ExpiresMS: 1}}); err != nil {
					return err
				}
				_, err := tx.Sessions.ConsumeNonces([]Nonce{{Hash: [32]byte{4}, ExpiresMS: 1}})
				return err
			})
			if !errors.Is(err, errNotSingle) {
				t.Errorf("a second statement: %v", err)
			}
		})
	}
}
