package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// bounds are small enough for a test to exceed.
var bounds = StreamBounds{Streams: 3, Bytes: 1000, Rows: 8, CheckEvery: 4, Checks: 3}

func opening(name, account string, size int64) StreamRow {
	return StreamRow{Stream: name, Opens: true, Device: ds.Device{Account: ds.AccountID(account), ID: "phone"}, Size: size, Moves: []byte("all of " + name)}
}

// TestStreamRows keeps the rows of a stream that its latest states need, and finds them for
// its own device for as long as it is in use.
func TestStreamRows(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			write := func(want bool, rows ...StreamRow) {
				t.Helper()
				db.must(t, func(tx *Tx) error {
					written, err := tx.Streams.Write(rows, bounds)
					same(t, "written", slices.Contains(written, !want), false)
					return err
				})
			}
			ann := ds.Device{Account: "ann", ID: "phone"}
			state := func(name string, device ds.Device, n int64) string {
				t.Helper()
				r := read(t, db, func(tx *Tx) (StreamRows, error) { return tx.Streams.Rows(name, device, n, time.Hour) })
				return fmt.Sprintf("%s|%s|%s|%d", r.First, r.Check, r.Last, r.N)
			}
			write(true, opening("s1", "ann", 10), StreamRow{Stream: "s1", N: 1, Moves: []byte("one")})
			same(t, "the first row", state("s1", ann, 0), "all of s1|||0")
			same(t, "a row", state("s1", ann, 1), "all of s1||one|1")
			same(t, "a row to come", state("s1", ann, 9), "all of s1||one|1")
			for n := int64(2); n <= 30; n++ {
				since := n / 4 * 4
				if since == n {
					since = 0
				}
				write(true, StreamRow{Stream: "s1", N: n, Since: since, Moves: []byte(fmt.Sprint(n))})
			}
			var left []int64
			db.must(t, func(tx *Tx) error {
				return tx.each(func(scan func(...any) error) error {
					var n int64
					err := scan(&n)
					left = append(left, n)
					return err
				}, `SELECT n FROM stream_rows WHERE stream_id = 's1' ORDER BY n`)
			})
			same(t, "rows", left, []int64{0, 20, 23, 24, 25, 26, 27, 28, 29, 30})
			same(t, "the last", state("s1", ann, 30), "all of s1|28|30|30")
			same(t, "a check", state("s1", ann, 24), "all of s1||24|24")
			same(t, "one that is gone", state("s1", ann, 22), "all of s1||20|20")
			same(t, "one before all that are kept", state("s1", ann, 7), "all of s1|||0")
			for name, got := range map[string]string{"another account": state("s1", ds.Device{Account: "eve", ID: "phone"}, 1),
				"another device": state("s1", ds.Device{Account: "ann", ID: "x"}, 1), "unknown": state("s9", ann, 1)} {
				same(t, name, got, "|||0")
			}
			write(false, StreamRow{Stream: "s9", N: 1})
			write(true, StreamRow{Stream: "s1", N: 30, Since: 24, Moves: []byte("30 again")})
			same(t, "one whose writer did not learn that it was written", state("s1", ann, 30), "all of s1|24|30 again|30")

			pass(40 * time.Minute)
			db.must(t, func(tx *Tx) error { return tx.Streams.Renew([]string{"s1", "s9"}) })
			pass(40 * time.Minute)
			same(t, "renewed", state("s1", ann, 24), "all of s1||24|24")
			pass(20 * time.Minute)
			same(t, "unused", state("s1", ann, 24), "|||0")
			write(true, opening("s2", "ann", 10))
			for _, more := range []bool{true, false} {
				db.must(t, func(tx *Tx) error {
					got, err := tx.Streams.Sweep(time.Hour, 1)
					same(t, "more to sweep", got, more)
					return err
				})
			}
			for table, want := range map[string]int64{"streams": 1, "stream_rows": 1} {
				same(t, table, read(t, db, func(tx *Tx) (n int64, err error) {
					err = tx.row(`SELECT COUNT(*) FROM ` + table).Scan(&n)
					return n, err
				}), want)
			}
		})
	}
}

// TestRowsOfDeletedStreams: a row that is written while its stream is deleted goes with it.
func TestRowsOfDeletedStreams(t *testing.T) {
	db := open(t, "postgres")
	db.must(t, func(tx *Tx) error {
		_, err := tx.Streams.Write([]StreamRow{opening("s1", "ann", 10)}, bounds)
		return err
	})
	deleted := make(chan error)
	db.must(t, func(tx *Tx) error {
		if _, err := tx.Streams.Write([]StreamRow{{Stream: "s1", N: 1}}, bounds); err != nil {
			return err
		}
		go func() {
			deleted <- db.Update(t.Context(), func(tx *Tx) error { return tx.Streams.Delete([]string{"s1"}) })
		}()
		select {
		case err := <-deleted: // it did not wait
			go func() { deleted <- err }()
		case <-time.After(200 * time.Millisecond):
		}
		return nil
	})
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	same(t, "rows", read(t, db, func(tx *Tx) (n int64, err error) {
		err = tx.row(`SELECT COUNT(*) FROM stream_rows`).Scan(&n)
		return n, err
	}), int64(0))
}

// TestStreamsAreEvicted: an account's streams take the place of its own older ones, by
// number and by size, and of no other account's.
func TestStreamsAreEvicted(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			write := func(rows ...StreamRow) {
				pass(time.Second)
				db.must(t, func(tx *Tx) error {
					if _, err := tx.Streams.Write(rows, bounds); err != nil {
						return err
					}
					names, err := tx.Streams.Excess(rows[0].Device.Account, bounds)
					if err != nil {
						return err
					}
					return tx.Streams.Delete(names)
				})
			}
			kept := func(want string) {
				t.Helper()
				var names []string
				db.must(t, func(tx *Tx) (err error) {
					names, err = tx.Streams.streamNames(`SELECT s.stream_id FROM streams s JOIN stream_rows r ON r.stream_id = s.stream_id ORDER BY s.stream_id`)
					return err
				})
				same(t, "kept", strings.Join(names, " "), want)
			}
			write(opening("e1", "eve", 900))
			write(opening("s1", "ann", 10), opening("s2", "ann", 10))
			write(opening("s3", "ann", 10))
			pass(time.Second)
			db.must(t, func(tx *Tx) error { return tx.Streams.Renew([]string{"s1"}) })
			write(opening("s4", "ann", 10))
			kept("e1 s1 s3 s4")
			write(opening("s5", "ann", 985))
			kept("e1 s4 s5")
			for i := range 10 {
				write(opening(fmt.Sprint("x", i), "ann", 10))
			}
			kept("e1 x7 x8 x9")
		})
	}
}

// TestActiveConversations: of many conversations those that were active last are found,
// whatever came since; the oldest stays cannot be driven out.
func TestActiveConversations(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			var b Batch
			for i := range 20 {
				c := head(fmt.Sprintf("c%02d", i))
				c.CreatedMS, c.LatestMS, c.Pos = int64(100+i), 0, 9
				if i%5 == 0 {
					c.LatestMS = int64(1000 - i)
				}
				b.Created = append(b.Created, c)
				b.Stays = append(b.Stays, Stay{Conversation: c.ID, Account: "ann", AtMS: int64(500 + i), Interval: ds.Interval{From: 1, Role: ds.Plain}})
			}
			b.Stays = append(b.Stays, Stay{Conversation: "c10", Account: "ann", Interval: ds.Interval{Until: 3}}, Stay{Conversation: "c03", Account: "ann", Interval: ds.Interval{Until: 3}},
				Stay{Conversation: "c03", Account: "ann", AtMS: 900, Interval: ds.Interval{From: 4, Role: ds.Plain}})
			db.write(t, b)
			find := func(max int, oldest, latest int64) string {
				return fmt.Sprint(read(t, db, func(tx *Tx) ([]ds.ConversationID, error) {
					return tx.Conversations.Active("ann", max, ActiveBounds{Oldest: oldest, Latest: latest})
				}))
			}
			same(t, "the most active", find(6, 100, 100), "[c00 c05 c15 c19 c18 c17]")
			same(t, "within bounds", find(100, 2, 3), "[c00 c19 c18 c03 c01]")
			same(t, "former", fmt.Sprint(read(t, db, func(tx *Tx) ([]ds.ConversationID, error) { return tx.Conversations.Former("ann", 10) })), "[c10]")
		})
	}
}

func TestConversationIDs(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			var stays []Stay
			for i := range 5 {
				stays = append(stays, Stay{Conversation: ds.ConversationID(fmt.Sprint("c", i)), Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Plain}})
			}
			stays = append(stays, Stay{Conversation: "c2", Account: "ann", Interval: ds.Interval{Until: 3}}, Stay{Conversation: "other", Account: "eve", Interval: ds.Interval{From: 1, Role: ds.Plain}})
			db.write(t, Batch{Stays: stays, Roles: []Stay{{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Admin}}, {Conversation: "c3", Account: "ann", Interval: ds.Interval{From: 9, Role: ds.Admin}}}})
			db.must(t, func(tx *Tx) error {
				got, err := tx.Conversations.IDs("ann", 10)
				same(t, "all", got, []ds.ConversationID{"c0", "c1", "c3", "c4"})
				if err != nil {
					return err
				}
				got, err = tx.Conversations.IDs("ann", 2)
				same(t, "two", got, []ds.ConversationID{"c0", "c1"})
				if err != nil {
					return err
				}
				stays, err := tx.Conversations.Intervals([]MemberKey{{"c1", "ann"}, {"c3", "ann"}})
				same(t, "roles", stays, map[MemberKey][]ds.Interval{
					{"c1", "ann"}: {{From: 1, Role: ds.Admin}}, {"c3", "ann"}: {{From: 1, Role: ds.Plain}}})
				return err
			})
		})
	}
}
