package logs_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// TestRefusedInvitesAreForgotten: an invitation that is refused leaves none of its names
// in memory, whether the caller may not invite or the names enter nothing.
func TestRefusedInvitesAreForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		const rooms, names = 24, 1900
		for i := range rooms {
			w.room(fmt.Sprint("c", i), "ann", "bob")
		}
		before := logs.HeapInUse()
		for i := range rooms {
			id := ds.ConversationID(fmt.Sprint("c", i))
			if err := w.apply(who("bob"), core.Invite{ConversationID: id, Accounts: logs.LongNames(string(id), names)}); ds.CodeOf(err) != ds.Forbidden {
				t.Fatal(err)
			}
			if err := w.apply(who("ann"), core.Remove{ConversationID: id, Accounts: logs.LongNames(string(id), names)}); err != nil {
				t.Fatal(err)
			}
		}
		if grown := logs.HeapInUse() - before; grown > 8<<20 {
			t.Errorf("%d bytes are kept of %d names", grown, rooms*names)
		}
	})
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
	for i := range 2 * logs.KnownTrust {
		if _, err := w.send("bob", "d", fmt.Sprint("m", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	duplicates := valueOf(t, w.service.Collectors()[0])
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
	if n := valueOf(t, w.service.Collectors()[0]) - duplicates; n != 1 {
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
	for i := range 2 * logs.KnownTrust {
		if _, err := a.send("bob", "d", fmt.Sprint("m", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.apply(who("ann"), core.Invite{ConversationID: "c", Accounts: []ds.AccountID{"eve"}}); err != nil {
		t.Fatal(err)
	}
	for i, err := range a.together(3, func(i int) (err error) {
		switch i {
		case 0: // decided from memory, eve is a stranger
			_, err = a.service.Apply(context.Background(), who("eve"), core.GroupInfoUpdate{ConversationID: "c", GroupInfo: groupInfo("g", 1)})
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
	if n := valueOf(t, a.service.Collectors()[0]); n != 1 {
		t.Errorf("%g repeats are counted", n)
	}
	_, _, knowsC := a.logs.Known("c")
	if _, streak, knowsD := a.logs.Known("d"); knowsC || !knowsD || streak < logs.KnownTrust {
		t.Errorf("remembered is c: %v, d: %v for %d batches", knowsC, knowsD, streak)
	}
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
