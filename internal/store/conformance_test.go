package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestConformance holds both databases to the same answers.
func TestConformance(t *testing.T) {
	suite := []struct {
		name string
		test func(*testing.T, *DB)
	}{
		{"batch", testBatch}, {"heads", testHeads}, {"intervals", testIntervals}, {"refusals of the database", testViolations},
		{"records", testRecords}, {"long records", testLongBehindEmpty}, {"account logs", testAccountLogs}, {"cursors", testCursors}, {"key packages", testKeyPackages},
		{"key packages are claimed once", testClaimRace}, {"conversations", testConversations}, {"text", testText}, {"migrations", testMigrations},
		{"welcomes", testWelcomes}, {"views", testViews}, {"settings", testSettings}, {"tag of a former epoch", testTagOfFormerEpoch},
		{"tags of commits", testTagsOfCommits},
		{"recipients are swept", testRecipientsSwept}, {"DID documents", testDIDDocuments}, {"rollback", testRollback},
		{"home", testHome}, {"services of stays", testServices},
	}
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			for _, part := range suite {
				t.Run(part.name, func(t *testing.T) { part.test(t, open(t, database)) })
			}
		})
	}
}

// clock is the store's time in these tests, which only they move.
var clock = struct {
	sync.Mutex
	now time.Time
}{now: time.UnixMilli(1_000_000)}

func open(t *testing.T, database string, watch ...func(sql string, done bool)) *DB {
	t.Helper()
	o := Options{URL: "sqlite:" + t.TempDir(), Now: func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return clock.now
	}}
	if database == "postgres" {
		o.URL = pgtest.URL(t)
	}
	for _, w := range watch {
		o.Hook = Watch(w)
	}
	db, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func pass(d time.Duration) {
	clock.Lock()
	defer clock.Unlock()
	clock.now = clock.now.Add(d)
}

func (db *DB) must(t *testing.T, fn func(tx *Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func (db *DB) write(t *testing.T, b Batch) {
	t.Helper()
	if err := db.Append(context.Background(), func(tx *Tx) error { return tx.Logs.Write(b) }); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func head(id string) ds.Conversation {
	return ds.Conversation{ID: ds.ConversationID(id), Term: 1, CreatedMS: 5}
}

func message(id string, pos int64) ds.Record {
	return ds.Record{Log: ds.ConversationLog(ds.ConversationID(id)), Pos: pos, Seq: pos, Kind: ds.App, Generation: 1, Epoch: 2, Term: 1,
		MessageID: ds.MessageID(fmt.Sprintf("m%d", pos)), CreatedMS: 7, Hash: []byte{1, 2}, Sender: ds.Device{Account: "ann", ID: "phone"},
		Encoding: ds.Base64, Body: []byte(fmt.Sprintf("body %d", pos))}
}

func testBatch(t *testing.T, db *DB) {
	bound := head("c2")
	bound.GroupID, bound.Generation, bound.Epoch, bound.Home, bound.RecordSenders, bound.RefuseOpaque = []byte("group"), 1, 4, "did:web:x", true, true
	db.write(t, Batch{Created: []ds.Conversation{head("c1"), bound}})
	moved := head("c1")
	moved.Pos, moved.Seq, moved.Hash, moved.GroupID, moved.Generation, moved.Epoch = 40, 40, []byte{9}, []byte("g1"), 1, 3
	moved.Members, moved.LatestMS, moved.Committer = 2, 8, ds.Device{Account: "ann", ID: "phone"}
	var records []ds.Record
	var keys []MessageKey
	for pos := int64(1); pos <= 40; pos++ {
		records = append(records, message("c1", pos))
		keys = append(keys, MessageKey{"c1", ds.MessageID(fmt.Sprintf("m%d", pos))})
	}
	keys = append(keys, MessageKey{"c1", "unknown"}, MessageKey{"c2", "m1"})
	db.write(t, Batch{Changed: []Change{{head("c1"), moved}}, Records: records,
		Infos: []GroupInfo{{"c1", 3, 3, []byte("info")}},
		Stays: []Stay{{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Owner}}, {Conversation: "c1", Account: "bob", Interval: ds.Interval{From: 1, Role: ds.Plain}}}})
	stale := moved
	stale.Pos, stale.Seq, stale.Hash = 41, 41, []byte{10}
	for name, before := range map[string]ds.Conversation{"pos": head("c1"), "hash": {ID: "c1", Pos: 40, Hash: []byte{8}}, "log": {ID: "none"}} {
		after := stale
		after.ID = before.ID
		err := db.Append(context.Background(), func(tx *Tx) error {
			return tx.Logs.Write(Batch{Changed: []Change{{before, after}}, Records: []ds.Record{message("c1", 41)}})
		})
		if !errors.Is(err, ErrMoved) {
			t.Errorf("a head that differs by its %s was moved: %v", name, err)
		}
	}
	if err := db.Append(context.Background(), func(tx *Tx) error {
		heads, err := tx.Logs.LockHeads([]ds.ConversationID{"c2", "c1", "none"}, false)
		if err != nil {
			return err
		}
		slices.SortFunc(heads, func(a, b ds.Conversation) int { return strings.Compare(string(a.ID), string(b.ID)) })
		same(t, "heads", heads, []ds.Conversation{moved, bound})
		intervals, err := tx.Conversations.Intervals([]MemberKey{{"c1", "ann"}, {"c1", "bob"}, {"c2", "ann"}})
		if err != nil {
			return err
		}
		answers, err := tx.Logs.Answers(keys)
		if err != nil {
			return err
		}
		same(t, "intervals", intervals, map[MemberKey][]ds.Interval{
			{"c1", "ann"}: {{From: 1, Role: ds.Owner}}, {"c1", "bob"}: {{From: 1, Role: ds.Plain}}})
		if len(answers) != 40 {
			t.Errorf("%d answers", len(answers))
		}
		same(t, "answer", answers[MessageKey{"c1", "m7"}], Answer{Pos: 7, Seq: 7, Kind: ds.App, Epoch: 2, CreatedMS: 7})
		held, err := tx.Logs.HeldHeads([]ds.ConversationID{"c1", "none"})
		same(t, "held", held, []ds.ConversationID{"c1"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	db.must(t, func(tx *Tx) error {
		list, err := tx.Logs.RecordsAfter(ds.ConversationLog("c1"), 0, 100, 1<<20)
		same(t, "records", list, records)
		return err
	})
}

func testHeads(t *testing.T, db *DB) {
	db.write(t, Batch{Created: []ds.Conversation{head("c1")}})
	db.must(t, func(tx *Tx) error {
		got, err := tx.Logs.Head("c1")
		if err != nil {
			return err
		}
		same(t, "head", got, head("c1"))
		if _, err := tx.Logs.Head("none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("unknown head: %v", err)
		}
		positions, err := tx.Logs.HeadPositions([]ds.LogID{"c/c1", "c/none"})
		same(t, "positions", positions, map[ds.LogID]int64{"c/c1": 0})
		return err
	})
}

func testIntervals(t *testing.T, db *DB) {
	in := func(from int64) Stay {
		return Stay{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: from, Role: ds.Plain}}
	}
	out := func(until int64) Stay {
		return Stay{Conversation: "c1", Account: "ann", Interval: ds.Interval{Until: until}}
	}
	db.write(t, Batch{Stays: []Stay{in(1), out(3), in(5)}}) // comes, goes and comes within one batch
	db.write(t, Batch{Stays: []Stay{out(8), in(9)}})
	db.must(t, func(tx *Tx) error {
		got, err := tx.Conversations.Intervals([]MemberKey{{"c1", "ann"}, {"c1", "bob"}})
		same(t, "intervals", got, map[MemberKey][]ds.Interval{{"c1", "ann"}: {
			{From: 1, Until: 3, Role: ds.Plain}, {From: 5, Until: 8, Role: ds.Plain}, {From: 9, Role: ds.Plain}}})
		return err
	})
	if err := db.Update(context.Background(), func(tx *Tx) error {
		return tx.Logs.Write(Batch{Stays: []Stay{{Conversation: "c1", Account: "bob", Interval: ds.Interval{Until: 4}}}})
	}); err == nil {
		t.Error("the end of a stay that never began was written")
	}
}

func testViolations(t *testing.T, db *DB) {
	a, b := head("c1"), head("c2")
	a.GroupID, b.GroupID = []byte("same"), []byte("same")
	db.write(t, Batch{Created: []ds.Conversation{a}})
	ctx := context.Background()
	err := db.Append(ctx, func(tx *Tx) error { return tx.Logs.Write(Batch{Created: []ds.Conversation{b}}) })
	if !IsGroupInUse(err) || IsHeadTaken(err) || ds.IsUnavailable(err) {
		t.Errorf("group in use: %v", err)
	}
	err = db.Append(ctx, func(tx *Tx) error { return tx.Logs.Write(Batch{Created: []ds.Conversation{head("c1")}}) })
	if !IsHeadTaken(err) || IsGroupInUse(err) {
		t.Errorf("head taken: %v", err)
	}
	db.write(t, Batch{Records: []ds.Record{message("c1", 1)}})
	for name, change := range map[string]func(*ds.Record){
		"pos": func(r *ds.Record) { r.Seq, r.MessageID = 2, "other" },
		"seq": func(r *ds.Record) { r.Pos, r.MessageID = 2, "other" },
		"id":  func(r *ds.Record) { r.Pos, r.Seq = 2, 2 },
	} {
		r := message("c1", 1)
		change(&r)
		if err := db.Append(ctx, func(tx *Tx) error { return tx.Logs.Write(Batch{Records: []ds.Record{r}}) }); err == nil || ds.IsUnavailable(err) {
			t.Errorf("a second record with the same %s: %v", name, err)
		}
	}
}

// testLongBehindEmpty: a long body is read in its place, also behind records without any.
func testLongBehindEmpty(t *testing.T, db *DB) {
	empty, long := message("c2", 1), message("c2", 2)
	empty.Body, long.Body = []byte{}, bytes.Repeat([]byte("x"), bodyInlineMax+1)
	db.write(t, Batch{Records: []ds.Record{empty, long}})
	db.must(t, func(tx *Tx) error {
		page, err := tx.Logs.RecordsAfter("c/c2", 0, 10, 1<<20)
		if err == nil && (len(page) != 2 || len(page[0].Body) != 0 || len(page[1].Body) != len(long.Body)) {
			t.Errorf("%d records", len(page))
			for _, r := range page {
				t.Errorf("record %d has %d bytes", r.Pos, len(r.Body))
			}
		}
		return err
	})
}

func testRecords(t *testing.T, db *DB) {
	var list []ds.Record
	for pos := int64(1); pos <= 30; pos++ {
		r := message("c1", pos)
		if r.Seq = pos - (pos+2)/3; pos%3 == 1 { // every third is a control record
			r = ds.Record{Log: r.Log, Pos: pos, Kind: ds.Membership, Term: 1, Encoding: ds.JSON, Body: []byte("{}")}
		}
		list = append(list, r)
	}
	db.write(t, Batch{Records: list})
	db.must(t, func(tx *Tx) error {
		page, err := tx.Logs.RecordsAfter("c/c1", 4, 3, 1<<20)
		if err != nil {
			return err
		}
		same(t, "page", page, list[4:7])
		if page, err = tx.Logs.RecordsAfter("c/c1", 0, 100, 10); err != nil {
			return err
		}
		if len(page) != 3 { // 2 + 6 bytes are within the bound, the next 6 exceed it
			t.Errorf("a page of 10 bytes has %d records", len(page))
		}
		return nil
	})
}

func testAccountLogs(t *testing.T, db *DB) {
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := range 5 {
				err := db.Update(context.Background(), func(tx *Tx) error {
					return tx.Logs.AppendEvents([]Event{
						{Account: []ds.AccountID{"bob", "ann"}[w%2], Kind: ds.KeyPackagesLow, Recipient: "phone", Event: ds.DeviceEvent{Available: int64(n)}},
						{Account: "ann", Kind: ds.MembersEvent, Event: ds.DeviceEvent{ConversationID: "c1", Add: []ds.AccountID{"ann"}}},
					})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	db.must(t, func(tx *Tx) error {
		list, err := tx.Logs.RecordsAfter(ds.AccountLog("ann"), 0, 1000, 1<<20)
		if err != nil {
			return err
		}
		for i, r := range list {
			if r.Pos != int64(i+1) || r.Seq != 0 || (r.Kind == ds.KeyPackagesLow) != (r.Recipient == "phone") {
				t.Errorf("event %d: %+v", i+1, r)
			}
		}
		if len(list) != 60 {
			t.Errorf("ann has %d events", len(list))
		}
		return nil
	})
}

func testCursors(t *testing.T, db *DB) {
	c := head("c1")
	c.Pos, c.Seq = 12, 10
	db.write(t, Batch{Created: []ds.Conversation{c}})
	phone := ds.Device{Account: "ann", ID: "phone"}
	advance := func(log ds.LogID, next int64) {
		t.Helper()
		db.must(t, func(tx *Tx) error {
			return tx.Cursors.Advance([]DeviceCursor{{phone, ds.Cursor{Log: log, Next: next}}})
		})
	}
	at := func(device ds.Device, want int64) {
		t.Helper()
		db.must(t, func(tx *Tx) error {
			next, err := tx.Cursors.Get(device, "c/c1")
			if next != want {
				t.Errorf("cursor at %d, want %d", next, want)
			}
			return err
		})
	}
	at(phone, 1)
	advance("c/c1", 5)
	at(phone, 5)
	advance("c/c1", 3) // never back
	at(phone, 5)
	advance("c/c1", 1000) // never beyond the head
	at(phone, 11)
	at(ds.Device{Account: "bob", ID: "phone"}, 1) // the same device id of another account
	advance("c/none", 4)                          // no log, no cursor
	var many []DeviceCursor
	for i := range 150 {
		many = append(many, DeviceCursor{ds.Device{Account: "ann", ID: ds.DeviceID(fmt.Sprintf("d%03d", 150-i))}, ds.Cursor{Log: "c/c1", Next: int64(i%10 + 1)}})
	}
	db.must(t, func(tx *Tx) error { return tx.Cursors.Advance(many) })
	db.must(t, func(tx *Tx) error {
		list, err := tx.Cursors.Of(phone, 10)
		same(t, "cursors", list, []ds.Cursor{{Log: "c/c1", Next: 11}})
		return err
	})
	at(ds.Device{Account: "ann", ID: "d150"}, 1)
	at(ds.Device{Account: "ann", ID: "d001"}, 10)
}

func pack(device, name string, last bool) ds.KeyPackage {
	return ds.KeyPackage{Device: ds.Device{Account: "ann", ID: ds.DeviceID(device)}, Ref: name, Suite: 1, Body: []byte(name), Encoding: ds.Base64,
		LastResort: last, ExpiresMS: clock.now.Add(time.Hour).UnixMilli()}
}

func publish(t *testing.T, db *DB, list ...ds.KeyPackage) {
	t.Helper()
	var ids []string
	for _, p := range list {
		ids = append(ids, string(p.Device.Account)+p.Ref)
	}
	db.must(t, func(tx *Tx) error { return publishIn(tx, list, ids) })
}

func publishIn(tx *Tx, list []ds.KeyPackage, ids []string) error {
	_, _, err := tx.Packages.Publish(list, ids)
	return err
}

// claim claims a one-time package, or returns "".
func claim(t *testing.T, db *DB, device string) string {
	t.Helper()
	var p ds.KeyPackage
	err := db.Update(context.Background(), func(tx *Tx) (err error) {
		p, err = tx.Packages.Claim(Pool{Account: "ann", Device: ds.DeviceID(device)}, "bob")
		return err
	})
	if p.LastResort {
		return ""
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return p.Ref
}

func testKeyPackages(t *testing.T, db *DB) {
	phone := ds.Device{Account: "ann", ID: "phone"}
	available := func(want int64) {
		t.Helper()
		db.must(t, func(tx *Tx) error {
			n, err := tx.Packages.Available(phone)
			if n != want {
				t.Errorf("%d available, want %d", n, want)
			}
			return err
		})
	}
	publish(t, db, pack("phone", "p1", false), pack("phone", "p2", false), pack("phone", "last1", true))
	pass(time.Second)
	publish(t, db, pack("laptop", "l1", false), pack("phone", "p3", false), pack("phone", "last2", true))
	publish(t, db, pack("phone", "p1", false)) // known: nothing happens
	available(3)
	for _, want := range []struct{ device, ref string }{{"", "p1"}, {"laptop", "l1"}, {"", "p2"}, {"laptop", ""}, {"phone", "p3"}, {"", ""}} {
		if got := claim(t, db, want.device); got != want.ref {
			t.Errorf("claim of %q: got %q, want %q", want.device, got, want.ref)
		}
	}
	publish(t, db, pack("phone", "p2", false)) // handed out before: it does not come back
	available(0)
	db.must(t, func(tx *Tx) error {
		if err := tx.Packages.Trim(phone, 1000); err != nil { // keeps the newest last-resort one
			return err
		}
		p, err := tx.Packages.Claim(Pool{Account: "ann"}, "bob")
		if p.Ref != "last2" || !p.LastResort {
			t.Errorf("last resort: %+v", p)
		}
		pools, _ := tx.Packages.DevicePools([]ds.AccountID{"ann"}, 0, false, 10)
		same(t, "pools", pools, []Pool{{Account: "ann", Device: "phone"}})
		return err
	})
	publish(t, db, pack("phone", "n1", false), pack("phone", "n2", false), pack("phone", "n3", false))
	db.must(t, func(tx *Tx) error { return tx.Packages.Trim(phone, 2) })
	available(2)
	if got := claim(t, db, "phone"); got != "n2" {
		t.Errorf("after trimming to two: %q", got)
	}
	pass(2 * time.Hour)
	available(0) // expired
	if got := claim(t, db, ""); got != "" {
		t.Errorf("an expired package was handed out: %q", got)
	}
	opaque := pack("phone", "", false)
	opaque.ExpiresMS = 0
	db.must(t, func(tx *Tx) error { return publishIn(tx, []ds.KeyPackage{opaque}, []string{"opaque"}) })
	db.must(t, func(tx *Tx) error { return tx.Packages.Sweep() })
	available(1)
	db.must(t, func(tx *Tx) error { return tx.Packages.Revoke(phone) })
	available(0)
}

func testClaimRace(t *testing.T, db *DB) {
	var list []ds.KeyPackage
	for i := range 100 {
		list = append(list, pack("phone", fmt.Sprintf("p%03d", i), false))
	}
	publish(t, db, list...)
	var mu sync.Mutex
	given := map[string]int{}
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for range 7 {
				if ref := claim(t, db, ""); ref != "" {
					mu.Lock()
					given[ref]++
					mu.Unlock()
				}
			}
		})
	}
	callers.Wait()
	for ref, n := range given {
		if n != 1 {
			t.Errorf("%s was handed out %d times", ref, n)
		}
	}
	if len(given) != 100 {
		t.Errorf("%d of 100 were handed out to 140 claims", len(given))
	}
}

func testConversations(t *testing.T, db *DB) {
	for i, id := range []string{"c2", "c1", "big"} {
		c := head(id)
		c.CreatedMS, c.Members = int64(i), int64(2+i*10)
		db.write(t, Batch{Created: []ds.Conversation{c}, Stays: []Stay{
			{Conversation: ds.ConversationID(id), Account: "zoe", Interval: ds.Interval{From: 1, Role: ds.Owner}}, {Conversation: ds.ConversationID(id), Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Plain}}}})
	}
	db.write(t, Batch{Stays: []Stay{{Conversation: "c1", Account: "bob", Interval: ds.Interval{From: 1, Role: ds.Admin}}, {Conversation: "c1", Account: "bob", Interval: ds.Interval{Until: 2}}}})
	db.must(t, func(tx *Tx) error {
		list, err := tx.Conversations.List("ann", ListPlace{}, 20)
		if err == nil {
			err = tx.Conversations.MemberLists(list, 20)
		}
		if err != nil {
			return err
		}
		var got []string
		for _, s := range list {
			got = append(got, fmt.Sprint(s.ID, s.Role, s.MemberList, s.EarliestSeq))
		}
		same(t, "conversations", got, []string{"c2member[ann zoe] 0", "c1member[ann zoe] 0", "bigmember[] 0"})
		if list, err = tx.Conversations.List("bob", ListPlace{}, 20); err != nil || len(list) != 0 {
			t.Errorf("bob left and sees %v, %v", list, err)
		}
		if list, err = tx.Conversations.List("ann", ListPlace{CreatedMS: 0, ID: "c2"}, 1); len(list) != 1 || list[0].ID != "c1" {
			t.Errorf("behind c2 comes %v", list)
		}
		members, _ := tx.Conversations.Members("c1")
		same(t, "members", members, []ds.Member{{Account: "zoe", Role: ds.Owner}, {Account: "ann", Role: ds.Plain}})
		return err
	})
}

// testText: identifiers compare bytewise and come back as they went in.
func testText(t *testing.T, db *DB) {
	ids := []string{"B", "a", "ä", "Z", "a b", "a'b", `a"b`, "日本", "a\u0301", "\u00e1", "%", "_", strings.Repeat("x", 128), strings.Repeat("日", 42)}
	for _, id := range ids {
		db.write(t, Batch{Created: []ds.Conversation{head(id)}, Stays: []Stay{{Conversation: ds.ConversationID(id), Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Plain}}}})
	}
	db.must(t, func(tx *Tx) error {
		list, err := tx.Conversations.List("ann", ListPlace{}, 20)
		var got []string
		for _, s := range list {
			got = append(got, string(s.ID))
		}
		slices.Sort(ids)
		same(t, "ids", got, ids)
		intervals, err2 := tx.Conversations.Intervals([]MemberKey{{`a"b`, "ann"}, {"日本", "ann"}})
		if len(intervals) != 2 {
			t.Errorf("intervals %v", intervals)
		}
		return errors.Join(err, err2)
	})
}

func testMigrations(t *testing.T, db *DB) {
	ctx := context.Background()
	if err := db.engine.migrate(ctx); err != nil {
		t.Errorf("a second run: %v", err)
	}
	db.must(t, func(tx *Tx) error {
		_, err := tx.exec(`UPDATE schema_versions SET checksum = 'other' WHERE version = 1`)
		return err
	})
	if err := db.engine.migrate(ctx); err == nil {
		t.Error("an edited migration went unnoticed")
	}
}

func testWelcomes(t *testing.T, db *DB) {
	soon := clock.now.Add(time.Minute).UnixMilli()
	db.write(t, Batch{Welcomes: []Welcome{{ID: "w1", Conversation: "c1", Pos: 1, Body: []byte("one"), ExpiresMS: soon}, {ID: "w2", Conversation: "c1", Pos: 2, Body: []byte("two"), ExpiresMS: soon + time.Hour.Milliseconds()}}})
	read := func(want map[string][]byte) {
		t.Helper()
		db.must(t, func(tx *Tx) error {
			got, err := tx.Welcomes.Bodies([]string{"w1", "w2", "none"})
			same(t, "welcomes", got, want)
			return err
		})
	}
	read(map[string][]byte{"w1": []byte("one"), "w2": []byte("two")})
	pass(2 * time.Minute)
	read(map[string][]byte{"w2": []byte("two")})
	db.must(t, func(tx *Tx) error { return tx.Welcomes.Sweep() })
	read(map[string][]byte{"w2": []byte("two")})
}

func testRollback(t *testing.T, db *DB) {
	boom := errors.New("boom")
	for name, run := range map[string]func(context.Context, func(*Tx) error) error{"update": db.Update, "append": db.Append} {
		err := run(context.Background(), func(tx *Tx) error {
			if err := tx.Logs.Write(Batch{Created: []ds.Conversation{head("c-" + name)}, Records: []ds.Record{message("c-"+name, 1)}}); err != nil {
				return err
			}
			if _, err := tx.Logs.Head("c1"); !errors.Is(err, ErrNotFound) { // sends what was queued
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
		db.must(t, func(tx *Tx) error {
			if _, err := tx.Logs.Head(ds.ConversationID("c-" + name)); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s left something behind: %v", name, err)
			}
			return nil
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := db.Update(ctx, func(tx *Tx) error { _, err := tx.Logs.Head("c1"); return err }); err == nil {
		t.Error("a cancelled context wrote")
	}
	db.write(t, Batch{Created: []ds.Conversation{head("still-works")}})
}
