package logs_test

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testmetric"
	"waxwing.im/waxwing/internal/testwait"
)

// hookedWorld is a world whose statements a test may watch, and stop at.
func hookedWorld(t *testing.T, url string, watch func(sql string, done bool)) *world {
	t.Helper()
	return openWorld(t, store.Options{URL: url, Hook: store.Watch(watch)}, func(o *setup) {
		o.pollInterval = time.Hour // nothing but the wake-up may say that there is more
	})
}

// readingsBegin is how the query begins that finds where readers start.
const readingsBegin = "SELECT w.n, w.home"

// TestAppendWhileAFollowBegins: what is appended between the snapshot that a follow
// begins with and its first page is not missed.
func TestAppendWhileAFollowBegins(t *testing.T) {
	begin := map[string]func(context.Context, *logs.Follower) error{
		"one": func(ctx context.Context, f *logs.Follower) error { return followFrom(ctx, f, "c1", 2) },
		"all": func(ctx context.Context, f *logs.Follower) error {
			_, err := f.Follow(ctx, logs.Start{Conversation: "c2", From: logs.FromSeq(1)}, logs.Start{Conversation: "c1", From: logs.FromSeq(2)})
			return err
		},
	}
	for name, begin := range begin {
		t.Run(name, func(t *testing.T) {
			url := pgtest.URL(t)
			other := newWorld(t, url)
			var once sync.Once
			var w *world
			w = hookedWorld(t, url, func(sql string, done bool) {
				if done && strings.HasPrefix(sql, readingsBegin) {
					once.Do(func() {
						if _, err := w.send("ann", "c1", "m2", "in between"); err != nil {
							t.Error(err)
						}
					})
				}
			})
			other.room("c1", "ann", "bob")
			other.room("c2", "ann", "bob")
			if _, err := other.send("ann", "c1", "m1", "before"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			f := w.logs.NewFollower(who("bob"))
			defer f.Close()
			if err := begin(ctx, f); err != nil {
				t.Fatal(err)
			}
			for seq := int64(0); seq != 2; {
				page, err := f.Next(ctx)
				if err != nil {
					t.Fatal("the message in between: ", err)
				}
				for _, r := range page.Records {
					seq = r.Seq
				}
			}
		})
	}
}

// TestFollowReadsOnce: whoever comes back and has everything costs one statement,
// for one conversation or for many.
func TestFollowReadsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var mu sync.Mutex
		var statements []string
		w := hookedWorld(t, url, func(sql string, done bool) {
			mu.Lock()
			defer mu.Unlock()
			if !done && strings.HasPrefix(sql, "SELECT") {
				statements = append(statements, sql)
			}
		})
		ids := []ds.ConversationID{"c1", "c2", "c3"}
		var starts []logs.Start
		for _, id := range ids {
			w.room(string(id), "ann", "bob")
			if _, err := w.send("ann", string(id), "m1", "text"); err != nil {
				t.Fatal(err)
			}
			starts = append(starts, logs.Start{Conversation: id, From: logs.FromSeq(2)})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		f := w.logs.NewFollower(who("bob"))
		defer f.Close()
		caughtUp := func() {
			t.Helper()
			for range ids {
				if page, err := f.Next(ctx); err != nil || !page.CaughtUp || page.Head != 1 || len(page.Records) != 0 {
					t.Fatalf("%+v, %v: want to have caught up to 1", page, err)
				}
			}
		}
		mu.Lock()
		statements = nil
		mu.Unlock()
		for _, id := range ids {
			if err := followFrom(ctx, f, id, 2); err != nil {
				t.Fatal(err)
			}
		}
		caughtUp()
		if _, err := f.Follow(ctx, starts...); err != nil {
			t.Fatal(err)
		}
		caughtUp()
		mu.Lock()
		if len(statements) != 4 {
			t.Errorf("%d statements, want one for each of three follows and one for all of them:\n%s", len(statements), strings.Join(statements, "\n"))
		}
		mu.Unlock()
		if _, err := w.send("ann", "c2", "m2", "text"); err != nil {
			t.Fatal(err)
		}
		if page, err := f.Next(ctx); err != nil || len(page.Records) != 1 || page.Records[0].Seq != 2 {
			t.Errorf("%+v, %v: want message 2", page, err)
		}
	})
}

// TestFollowsShareAQuery: those who begin to follow while a query is under way wait for
// it and share the next one, whoever they are; who goes away does not disturb the others.
func TestFollowsShareAQuery(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		const readers = 40
		var queries atomic.Int64
		gate, isAtGate := make(chan struct{}), make(chan struct{}, readers)
		w := hookedWorld(t, url, func(sql string, done bool) {
			if !done && strings.HasPrefix(sql, readingsBegin) {
				queries.Add(1)
				isAtGate <- struct{}{}
				<-gate
			}
		})
		names := make([]string, readers)
		for i := range names {
			names[i] = fmt.Sprint("reader-", i)
		}
		for i := range 4 {
			w.room(fmt.Sprint("c", i), append([]string{"ann"}, names...)...)
			for n := range i + 1 {
				if _, err := w.send("ann", fmt.Sprint("c", i), fmt.Sprint("m", n), "text"); err != nil {
					t.Fatal(err)
				}
			}
		}
		waiting := func(want int) {
			for {
				if w.logs.ReadingsWaiting() == want || t.Context().Err() != nil {
					return
				}
				runtime.Gosched()
			}
		}
		var running sync.WaitGroup
		follow := func(i int) {
			f := w.logs.NewFollower(who(names[i]))
			defer f.Close()
			id := ds.ConversationID(fmt.Sprint("c", i%4))
			if err := followFrom(t.Context(), f, id, int64(i%4)+2); err != nil { // behind the last message
				t.Error(err)
				return
			}
			if page, err := f.Next(t.Context()); err != nil || page.Log != ds.ConversationLog(id) || !page.CaughtUp || page.Head != int64(i%4)+1 {
				t.Errorf("reader %d: %+v, %v", i, page, err)
			}
		}
		running.Go(func() { follow(0) })
		<-isAtGate
		for i := 1; i < readers; i++ {
			running.Go(func() { follow(i) })
		}
		running.Go(func() {
			f := w.logs.NewFollower(who("eve"))
			defer f.Close()
			if err := followFrom(t.Context(), f, "c1", 1); ds.CodeOf(err) != ds.Forbidden {
				t.Error("a stranger follows: ", err)
			}
		})
		waiting(readers)
		gone, goAway := context.WithCancel(t.Context())
		running.Go(func() {
			f := w.logs.NewFollower(who(names[0]))
			defer f.Close()
			if err := followFrom(gone, f, "c1", 1); !ds.IsUnavailable(err) {
				t.Error("who goes away: ", err)
			}
		})
		waiting(readers + 1)
		goAway()
		waiting(readers)
		close(gate)
		running.Wait()
		if n := queries.Load(); n != 2 {
			t.Errorf("%d follows took %d queries, want 2", readers, n)
		}
		if left := w.logs.Followed(); len(left) != 0 {
			t.Errorf("still told of appends: %v", left)
		}
	})
}

// TestFailedFollowLeavesNothing: a follow that is refused, or comes after the end, is
// not told of appends any more.
func TestFailedFollowLeavesNothing(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	w.room("c1", "ann", "bob")
	ctx := t.Context()
	stranger, bob := w.logs.NewFollower(who("eve")), w.logs.NewFollower(who("bob"))
	defer stranger.Close()
	if err := followFrom(ctx, stranger, "c1", 1); ds.CodeOf(err) != ds.Forbidden {
		t.Error("a stranger follows: ", err)
	}
	if _, err := stranger.Follow(ctx, logs.Start{Conversation: "c1", MayBeLost: true}); err != nil {
		t.Error(err)
	}
	if err := followFrom(ctx, bob, "c1", 1); err != nil {
		t.Fatal(err)
	}
	if err := followFrom(ctx, bob, "c1", 1); err != nil { // again: the first one is over
		t.Fatal(err)
	}
	bob.Close()
	if err := followFrom(ctx, bob, "c1", 1); err != logs.ErrClosed {
		t.Errorf("%v, want ErrClosed", err)
	}
	if left := w.logs.Followed(); len(left) != 0 {
		t.Errorf("still told of appends: %v", left)
	}
}

// TestGapsAreCounted: a reader that finds records missing goes on, and the operator learns of it.
func TestGapsAreCounted(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "bob")
		for i := range 5 {
			_, err := w.send("ann", "c1", fmt.Sprint("m", i), "x")
			must(t, err)
		}
		gaps := func() float64 { return testmetric.Value(t, w.logs.Gaps()) }
		if _, ended := w.read("bob", "c1", 1); ended != nil || gaps() != 0 {
			t.Fatalf("%g gaps in a complete log, %v", gaps(), ended)
		}
		driver, name := databaseOf(url, "waxwing.db")
		db, err := sql.Open(driver, name)
		must(t, err)
		defer db.Close()
		drop := func(message string) {
			_, err := db.Exec("DELETE FROM records WHERE message_id = $1", message)
			must(t, err)
		}
		drop("m2")
		if list, _ := w.read("bob", "c1", 1); seqs(list) != "1:app 2:app 4:app 5:app" || gaps() != 1 {
			t.Errorf("%g gaps where one record is missing: %s", gaps(), seqs(list))
		}
		drop("m4")
		f := w.logs.NewFollower(who("bob"))
		defer f.Close()
		must(t, followFrom(t.Context(), f, "c1", 1))
		go func() {
			for err := error(nil); err == nil; {
				_, err = f.Next(t.Context())
			}
		}()
		testwait.Until(t, "the missing end is counted, too", func() bool { return gaps() > 2 })
	})
}

// TestTailCacheBesideTheStore: readers of both see one order while two nodes write.
func TestTailCacheBesideTheStore(t *testing.T) {
	url := pgtest.URL(t)
	a, b := newWorld(t, url), newWorld(t, url)
	a.room("c1", "ann", "bob")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	const each = 150
	done := make(chan string, 4)
	for _, node := range []*world{a, b, a, b} {
		go func() {
			f := node.logs.NewFollower(who("bob"))
			defer f.Close()
			if err := followFrom(ctx, f, "c1", 1); err != nil {
				t.Error(err)
			}
			all := ""
			for seq := int64(0); seq < 2*each; {
				page, err := f.Next(ctx)
				if err != nil {
					t.Error(err)
					break
				}
				for _, r := range page.Records {
					if r.Seq == 0 {
						continue
					}
					if seq++; r.Seq != seq {
						t.Errorf("seq %d where %d should come", r.Seq, seq)
					}
					all += string(r.MessageID) + " "
				}
			}
			done <- all
		}()
	}
	for i, node := range []*world{a, b} {
		go func() {
			for n := range each {
				if _, err := node.send("ann", "c1", fmt.Sprintf("n%d-%d", i, n), "x"); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	first := <-done
	for range 3 {
		if other := <-done; other != first {
			t.Error("two readers saw different logs")
		}
	}
}
