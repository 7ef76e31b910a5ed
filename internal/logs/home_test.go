package logs_test

import (
	"context"
	"database/sql"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// TestTermIsChangedBehindAFlusher: a flusher decides from memory over a head whose term, or
// home, another writer has changed and nothing else. What it writes is refused as moved, and
// decided again over the head that is there.
func TestTermIsChangedBehindAFlusher(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, oneFlusher, func(o *setup) { o.pollInterval = 0 })
		trusted(t, w)
		driver, name := databaseOf(url, "waxwing.db")
		db, err := sql.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		change := func(statement string) {
			t.Helper()
			if _, err := db.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
		records := func() []ds.Record {
			t.Helper()
			list, err := w.store.RecordsAfter(context.Background(), "c/c", 0, 1000, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		before, _, _ := w.logs.Known("c")

		change(`UPDATE logs SET term = 7 WHERE log_id = 'c/c'`)
		// A write over the head that the flusher remembers leaves nothing.
		after := before
		after.Pos, after.Hash = before.Pos+1, []byte("next")
		record := ds.Record{Log: "c/c", Pos: after.Pos, Kind: ds.RequestEvent, Term: before.Term, Hash: after.Hash}
		err = w.store.Append(context.Background(), func(tx *store.Tx) error {
			return tx.Logs.Write(store.Batch{Changed: []store.Change{{Before: before, After: after}}, Records: []ds.Record{record}})
		})
		if n := len(records()); err != store.ErrMoved || n != int(before.Pos) {
			t.Errorf("a write of the term before: %v, and %d records of %d", err, n, before.Pos)
		}
		r, err := w.send("bob", "c", "another term", "x")
		if err != nil || r.Term != 7 || r.Pos != before.Pos+1 {
			t.Errorf("in another term: %+v, %v", r, err)
		}
		if list := records(); len(list) != int(before.Pos)+1 || list[before.Pos].Term != 7 {
			t.Errorf("in another term there are %d records", len(list))
		}
		w.checkChain("c")
		for range 2 * logs.KnownTrust {
			if _, err := w.send("bob", "c", "another term", "x"); err != nil {
				t.Fatal(err)
			}
		}

		change(`UPDATE logs SET home = 'did:web:elsewhere' WHERE log_id = 'c/c'`)
		if w.store.IsShared() { // alone with its store a node writes nothing after such an answer
			if _, err := w.send("eve", "c", "a stranger's", "x"); ds.CodeOf(err) != ds.Forbidden {
				t.Errorf("a stranger: %v", err)
			}
			if head, _, isKnown := w.logs.Known("c"); isKnown && head.Home == "" {
				t.Error("a refusal is answered from memory over another home")
			}
		}
		if _, err := w.send("bob", "c", "another home", "x"); !ds.IsUnavailable(err) {
			t.Errorf("at another home: %v", err)
		}
		if n := len(records()); n != int(before.Pos)+1 {
			t.Errorf("at another home there are %d records", n)
		}
		change(`UPDATE logs SET home = NULL WHERE log_id = 'c/c'`)
		if r, err := w.send("bob", "c", "another home", "x"); err != nil || r.Pos != before.Pos+2 {
			t.Errorf("at home again: %+v, %v", r, err)
		}
		w.checkChain("c")
	})
}
