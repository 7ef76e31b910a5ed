package core

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// longNames makes accounts with the longest names there may be.
func longNames(prefix string, n int) []ds.AccountID {
	list, tail := make([]ds.AccountID, n), strings.Repeat("x", ds.AccountBytesMax)
	for i := range list {
		name := prefix + "-" + strconv.Itoa(i) + "-"
		list[i] = ds.AccountID(name + tail[len(name):])
	}
	return list
}

// TestRefusedInvitesAreForgotten: an invitation that is refused leaves none of its names
// in memory, whether the caller may not invite or the names enter nothing.
func TestRefusedInvitesAreForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		const rooms, names = 24, 1900
		for i := range rooms {
			w.room(fmt.Sprint("c", i), "ann", "bob")
		}
		before := heapInUse()
		for i := range rooms {
			id := ds.ConversationID(fmt.Sprint("c", i))
			if err := errOf(w.service.Apply(context.Background(), who("bob"), Invite{ConversationID: id, Accounts: longNames(string(id), names)})); ds.CodeOf(err) != ds.Forbidden {
				t.Fatal(err)
			}
			if err := errOf(w.service.Apply(context.Background(), who("ann"), Remove{ConversationID: id, Accounts: longNames(string(id), names)})); err != nil {
				t.Fatal(err)
			}
		}
		if grown := heapInUse() - before; grown > 8<<20 {
			t.Errorf("%d bytes are kept of %d names", grown, rooms*names)
		}
	})
}

// TestKnownIsBounded: what a flusher remembers stays within its bytes, as it estimates
// them and as the heap shows them; what was used last stays.
func TestKnownIsBounded(t *testing.T) {
	const members = 128
	before := heapInUse()
	k := newKnown()
	one := func(n int) *conversation {
		c := &conversation{exists: true, touched: true, head: ds.Conversation{ID: ds.ConversationID(fmt.Sprint("c", n)), Hash: make([]byte, 32)}}
		for _, account := range longNames(fmt.Sprint(n), members) {
			c.setStays(account, []ds.Interval{{From: 1, Role: ds.Plain}})
		}
		c.setStays("stranger", nil)
		c.setStays("former", []ds.Interval{{From: 1, Until: 2}})
		return c
	}
	for n := range knownBytesMax / (members * ds.AccountBytesMax) * 3 / 2 {
		for _, c := range []*conversation{one(0), one(n)} {
			k.remember(map[ds.ConversationID]*conversation{c.head.ID: c})
		}
	}
	if grown := heapInUse() - before; k.bytes > knownBytesMax || grown > knownBytesMax || grown < knownBytesMax/2 {
		t.Errorf("%d bytes are kept, by its own account %d", grown, k.bytes)
	}
	r := k.conversations["c0"]
	if r == nil || len(r.intervals) != members {
		t.Fatal("the one that is used all the time was forgotten, or strangers are remembered")
	}
	for id := range k.conversations {
		k.forget(id)
	}
	if k.bytes != 0 || k.recent.Len() != 0 {
		t.Errorf("empty, it has %d bytes and %d conversations", k.bytes, k.recent.Len())
	}
}

// TestRefusalsLeaveMemory: a stranger's refused send, beside which others write, makes
// nothing run twice and takes from nobody that its conversation is decided from memory.
func TestRefusalsLeaveMemory(t *testing.T) {
	var begun, locks, records atomic.Int64
	w := openWorld(t, store.Options{URL: pgtest.URL(t), Hook: store.Watch(func(sql string, done bool) {
		switch {
		case done:
		case sql == "BEGIN":
			begun.Add(1)
		case strings.Contains(sql, "FOR NO KEY UPDATE"):
			locks.Add(1)
		case strings.HasPrefix(sql, "INSERT INTO records"):
			records.Add(1)
		}
	})}, oneFlusher)
	trusted(t, w)
	w.room("d", "ann", "bob")
	for i := range 2 * knownTrust {
		if _, err := w.send("bob", "d", fmt.Sprint("m", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	duplicates := valueOf(t, w.service.metrics.duplicates)
	begun.Store(0)
	locks.Store(0)
	records.Store(0)
	for i, err := range w.together(4, func(i int) (err error) {
		switch i {
		case 0:
			_, err = w.send("eve", "c", "eve's", "x")
		case 1:
			_, err = w.send("ann", "d", "ann's", "x")
		case 2:
			_, err = w.send("bob", "d", "m0", "x") // a repeat
		case 3:
			_, err = w.send("eve", "d", "eve's", "x")
		}
		return err
	}) {
		if wantCode := []ds.Code{ds.Forbidden, "", "", ds.Forbidden}[i]; ds.CodeOf(err) != wantCode || wantCode == "" && err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if b, r := begun.Load(), records.Load(); b != 2 || r != 1 { // the blocker's is one
		t.Errorf("%d transactions and %d writes", b, r)
	}
	if n := valueOf(t, w.service.metrics.duplicates) - duplicates; n != 1 {
		t.Errorf("%g repeats are counted", n)
	}
	if _, err := w.send("eve", "c", "eve's", "x"); ds.CodeOf(err) != ds.Forbidden {
		t.Error(err)
	}
	for _, id := range []string{"c", "d"} {
		if _, err := w.send("bob", id, "afterwards", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := locks.Load(); n != 1 { // the blocker's
		t.Errorf("%d times conversations were locked that are decided from memory", n)
	}
}

// TestOnlyWhatMovedRunsAgain: where another node has changed one conversation of a batch,
// the requests for the others are written and counted once.
func TestOnlyWhatMovedRunsAgain(t *testing.T) {
	url := pgtest.URL(t)
	a, b := newWorld(t, url, oneFlusher), newWorld(t, url)
	trusted(t, a)
	a.room("d", "ann", "bob")
	for i := range 2 * knownTrust {
		if _, err := a.send("bob", "d", fmt.Sprint("m", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errOf(b.service.Apply(context.Background(), who("ann"), Invite{ConversationID: "c", Accounts: []ds.AccountID{"eve"}})); err != nil {
		t.Fatal(err)
	}
	f := a.service.flushers[0]
	for i, err := range a.together(3, func(i int) (err error) {
		switch i {
		case 0: // decided from memory, eve is a stranger
			_, err = a.service.Apply(context.Background(), who("eve"), GroupInfoUpdate{ConversationID: "c", GroupInfo: groupInfo("g", 1)})
		case 1:
			_, err = a.send("ann", "d", "ann's", "x")
		case 2:
			_, err = a.send("bob", "d", "m0", "x")
		}
		return err
	}) {
		if i == 0 && reasonOf(err) != ds.BadGroupInfo || i > 0 && err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if n := valueOf(t, a.service.metrics.duplicates); n != 1 {
		t.Errorf("%g repeats are counted", n)
	}
	if f.known.conversations["c"] != nil || f.known.conversations["d"] == nil || f.known.conversations["d"].streak < knownTrust {
		t.Errorf("remembered is %v", f.known.conversations)
	}
}

// TestRulesCountOnce: what a rule finds is counted with the answer, however often it ran.
func TestRulesCountOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		trusted(t, w)
		if _, err := w.bundle("ann", Bundle{ConversationID: "c", ID: "bind", Commit: commit("g", 0)}); err != nil {
			t.Fatal(err)
		}
		m := w.service.metrics
		rows := []struct {
			name     string
			do       func() error
			counter  prometheus.Counter
			wantCode ds.Code
		}{
			{"a repeat", func() error { _, err := w.send("bob", "c", "m0", "x"); return err }, m.duplicates, ""},
			{"a repeated commit", func() error {
				_, err := w.bundle("ann", Bundle{ConversationID: "c", ID: "bind", Commit: commit("g", 0)})
				return err
			}, m.duplicates, ""},
			{"a commit that lost", func() error {
				_, err := w.bundle("ann", Bundle{ConversationID: "c", ID: "late", Commit: commit("g", 0)})
				return err
			}, m.commitConflicts, ds.EpochConflict},
		}
		for _, row := range rows {
			before := valueOf(t, row.counter)
			if err := row.do(); ds.CodeOf(err) != row.wantCode || row.wantCode == "" && err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			if n := valueOf(t, row.counter) - before; n != 1 {
				t.Errorf("%s is counted %g times", row.name, n)
			}
		}
	})
}

// TestMovedUnderTheLock: where a record stands that no head knows of, the answer is one
// that may pass, not a fault of the request's.
func TestMovedUnderTheLock(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "bob")
		driver, name := databaseOf(url, "waxwing.db")
		db, err := sql.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(`INSERT INTO records (log_id, pos, kind, generation, epoch, term, created_ms, encoding, body) VALUES ('c/c1', 2, 1, 0, 0, 1, 0, 0, $1)`, []byte{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.send("ann", "c1", "m1", "x"); !ds.IsUnavailable(err) {
			t.Errorf("got %v", err)
		}
		if _, err := db.Exec(`DELETE FROM records WHERE log_id = 'c/c1' AND pos = 2`); err != nil {
			t.Fatal(err)
		}
		if r, err := w.send("ann", "c1", "m1", "x"); err != nil || r.Pos != 2 {
			t.Errorf("afterwards: %+v, %v", r, err)
		}
	})
}
