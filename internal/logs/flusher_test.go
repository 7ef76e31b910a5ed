package logs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testwait"
)

// together hands requests to one flusher as one batch, by holding the flusher busy
// until all of them wait.
func (w *world) together(n int, call func(i int) error) []error {
	w.t.Helper()
	gate, entered := make(chan struct{}), make(chan struct{})
	blocker := &logs.Request{Conversation: "together-blocker", Rule: ruleFunc(func(*logs.Conversation, time.Time) error {
		select {
		case <-entered:
		default:
			close(entered)
		}
		<-gate
		return nil
	})}
	var blocked sync.WaitGroup
	blocked.Go(func() { _ = w.logs.Submit(context.Background(), blocker) })
	<-entered
	errs := make([]error, n)
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() { errs[i] = call(i) })
	}
	testwait.Until(w.t, "all requests wait", func() bool { return w.queued() >= n })
	close(gate)
	calls.Wait()
	blocked.Wait()
	return errs
}

// queued returns the number of requests that wait.
func (w *world) queued() int {
	n, _ := w.logs.Queued()
	return n
}

func oneFlusher(o *setup) { o.flushers = 1 }

func TestOneBatchManyConversations(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, oneFlusher)
		for i := range 4 {
			w.room(fmt.Sprintf("c%d", i), "ann", "bob")
		}
		got := make([]ds.Record, 40)
		for _, err := range w.together(40, func(i int) (err error) {
			got[i], err = w.send("ann", fmt.Sprintf("c%d", i%4), fmt.Sprintf("m%d", i), "x")
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			list, _ := w.read("bob", fmt.Sprintf("c%d", i), 1)
			if seqs(list) != "1:app 2:app 3:app 4:app 5:app 6:app 7:app 8:app 9:app 10:app" {
				t.Errorf("c%d reads %s", i, seqs(list))
			}
			for _, r := range list {
				var n int
				if _, err := fmt.Sscanf(string(r.MessageID), "m%d", &n); err != nil || got[n].Seq != r.Seq || got[n].Pos != r.Pos {
					t.Errorf("%s was answered %d and stands at %d", r.MessageID, got[n].Seq, r.Seq)
				}
			}
		}
	})
}

func TestDuplicatesInsideOneBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, oneFlusher)
		w.room("c1", "ann", "bob")
		answers := make([]ds.Record, 9)
		for _, err := range w.together(9, func(i int) (err error) {
			answers[i], err = w.send([]string{"ann", "bob"}[i%2], "c1", fmt.Sprintf("m%d", i%3), fmt.Sprintf("body %d", i))
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for i, r := range answers {
			if r.Seq != answers[i%3].Seq || r.Pos != answers[i%3].Pos {
				t.Errorf("request %d was answered %d, its twin %d", i, r.Seq, answers[i%3].Seq)
			}
		}
		if list, _ := w.read("ann", "c1", 1); seqs(list) != "1:app 2:app 3:app" {
			t.Errorf("stored %s", seqs(list))
		}
	})
}

// TestCommitRaceInOneBatch: of many commits for one epoch, one wins.
func TestCommitRaceInOneBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, oneFlusher)
		w.room("c1", "ann", "bob")
		for epoch := range uint64(3) {
			won := 0
			for _, err := range w.together(8, func(i int) error {
				_, err := w.bundle("ann", core.Bundle{ConversationID: "c1", ID: ds.MessageID(fmt.Sprintf("e%d-%d", epoch, i)), Commit: commit("group", epoch)})
				return err
			}) {
				switch {
				case err == nil:
					won++
				case ds.CodeOf(err) != ds.EpochConflict:
					t.Errorf("epoch %d: %v", epoch, err)
				}
			}
			if won != 1 {
				t.Errorf("epoch %d had %d winners", epoch, won)
			}
		}
		if list, _ := w.read("bob", "c1", 1); seqs(list) != "1:commit 2:commit 3:commit" {
			t.Errorf("stored %s", seqs(list))
		}
	})
}

// TestPoisonInABatch: what the database refuses of one request fails that request
// and none of its neighbours.
func TestPoisonInABatch(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, oneFlusher)
		w.room("c1", "ann", "bob")
		w.room("c2", "ann", "bob")
		if _, err := w.sendMLS("ann", "c2", "bind", commit("group", 0)); err != nil {
			t.Fatal(err)
		}
		errs := w.together(11, func(i int) error {
			if i == 5 { // binds a second conversation to the same group, which only the database sees
				_, err := w.sendMLS("ann", "c1", "poison", commit("group", 4))
				return err
			}
			_, err := w.send("bob", []string{"c1", "c2"}[i%2], fmt.Sprintf("m%d", i), "x")
			return err
		})
		for i, err := range errs {
			if i == 5 && ds.CodeOf(err) != ds.InvalidRequest || i != 5 && err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}
		list, _ := w.read("ann", "c1", 1)
		if len(list) != 6 {
			t.Errorf("c1 has %s", seqs(list))
		}
	})
}

// TestCallerGoesAway: a caller that leaves before its request is taken withdraws it.
func TestCallerGoesAway(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir(), oneFlusher)
	w.room("c1", "ann", "bob")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // ends the wait for a queue that was too short
	errs := w.together(2, func(i int) error {
		if i == 1 {
			_, err := w.send("ann", "c1", "stays", "x")
			return err
		}
		go func() {
			for w.queued() < 2 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := w.service.Apply(ctx, who("ann"), core.Send{ConversationID: "c1", ID: "leaves", Body: []byte("x")})
		return err
	})
	if errs[1] != nil || errs[0] != nil && !ds.IsUnavailable(errs[0]) {
		t.Error(errs)
	}
}

// TestStoreAway: while the database is down everybody is told `unavailable`, never a
// refusal; afterwards the same message ids go through, once.
func TestStoreAway(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	w := newWorld(t, server.Database(t))
	w.room("c1", "ann", "bob")
	if _, err := w.send("ann", "c1", "before", "x"); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for i := range 3 {
		if _, err := w.send("ann", "c1", fmt.Sprintf("m%d", i), "x"); !ds.IsUnavailable(err) {
			t.Errorf("with the database away: %v", err)
		}
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for i := range 3 {
		for {
			_, err := w.send("ann", "c1", fmt.Sprintf("m%d", i), "x")
			if err == nil {
				break
			}
			if !ds.IsUnavailable(err) || time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	if list, _ := w.read("bob", "c1", 1); seqs(list) != "1:app 2:app 3:app 4:app" {
		t.Errorf("stored %s", seqs(list))
	}
}

// TestUnknownOutcome: the database dies at random moments under load. Whoever was
// acknowledged finds its record, and every retry finds one place.
func TestUnknownOutcome(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	w := newWorld(t, server.Database(t))
	w.room("c1", "ann", "bob")
	const writers, kills = 16, 5
	acked := make([]map[ds.MessageID]int64, writers)
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i := range writers {
		acked[i] = map[ds.MessageID]int64{}
		running.Go(func() { w.writeUntil(stop, i, acked[i]) })
	}
	for range kills {
		time.Sleep(150 * time.Millisecond)
		server.Kill()
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	close(stop)
	running.Wait()
	list, _ := w.read("bob", "c1", 1)
	place := map[ds.MessageID]int64{}
	for i, r := range list {
		if r.Seq != int64(i+1) {
			t.Fatalf("seq %d stands where %d should", r.Seq, i+1)
		}
		if place[r.MessageID] != 0 {
			t.Fatalf("%s is stored twice", r.MessageID)
		}
		place[r.MessageID] = r.Seq
	}
	n := 0
	for _, mine := range acked {
		for id, seq := range mine {
			if n++; place[id] != seq {
				t.Errorf("%s was acknowledged at %d and stands at %d", id, seq, place[id])
			}
		}
	}
	t.Logf("%d acknowledged, %d stored, %d kills", n, len(list), kills)
}

// writeUntil sends one message after the other, each until it is acknowledged.
func (w *world) writeUntil(stop chan struct{}, writer int, acked map[ds.MessageID]int64) {
	for n := 0; ; n++ {
		id := ds.MessageID(fmt.Sprintf("w%d-%d", writer, n))
		for {
			r, err := w.send("ann", "c1", string(id), "x")
			if err == nil {
				acked[id] = r.Seq
				break
			}
			if !ds.IsUnavailable(err) {
				w.t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// TestTwoNodes: two services on one PostgreSQL, a removal and retries racing appends.
func TestTwoNodes(t *testing.T) {
	url := pgtest.URL(t)
	a, b := newWorld(t, url), newWorld(t, url)
	nodes := []*world{a, b}
	const rounds = 12
	for round := range rounds {
		id := fmt.Sprintf("c%d", round)
		a.room(id, "ann", "bob", "sue")
		var calls sync.WaitGroup
		var mu sync.Mutex
		answered := map[ds.MessageID]map[int64]bool{}
		bobLast := int64(0)
		for writer := range 8 {
			account := []string{"ann", "bob"}[writer%2]
			calls.Go(func() {
				for n := range 10 {
					message := fmt.Sprintf("%s-%d-%d", account, writer/4, n) // two writers, one on each node, share each name
					r, err := nodes[writer/2%2].send(account, id, message, "x")
					mu.Lock()
					switch {
					case err == nil:
						if answered[ds.MessageID(message)] == nil {
							answered[ds.MessageID(message)] = map[int64]bool{}
						}
						answered[ds.MessageID(message)][r.Seq] = true
						if account == "bob" {
							bobLast = max(bobLast, r.Pos)
						}
					case account != "bob" || ds.CodeOf(err) != ds.Forbidden:
						t.Errorf("%s: %v", message, err)
					}
					mu.Unlock()
				}
			})
		}
		calls.Go(func() {
			if err := nodes[round%2].apply(who("ann"), core.Remove{ConversationID: ds.ConversationID(id), Accounts: []ds.AccountID{"bob"}}); err != nil {
				t.Error(err)
			}
		})
		calls.Wait()
		for message, places := range answered {
			if len(places) != 1 {
				t.Errorf("%s has places %v", message, places)
			}
		}
		for _, node := range nodes {
			checkLog(t, node, id, bobLast)
		}
	}
}

// checkLog reads a log as sue on one node: without gaps, chained, and with nothing of
// bob's behind his removal.
func checkLog(t *testing.T, w *world, id string, bobLast int64) {
	t.Helper()
	var list []ds.Record
	if err := w.store.View(context.Background(), func(tx *store.Tx) (err error) {
		list, err = tx.Logs.RecordsAfter(ds.ConversationLog(ds.ConversationID(id)), 0, 1000, 1<<30)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var hash []byte
	removal, seq := int64(0), int64(0)
	for i, r := range list {
		if r.Pos != int64(i+1) || string(logs.ChainHash(hash, &r)) != string(r.Hash) {
			t.Fatalf("pos %d stands where %d should, or the chain breaks", r.Pos, i+1)
		}
		hash = r.Hash
		if r.Seq != 0 {
			if seq++; r.Seq != seq {
				t.Fatalf("seq %d after %d", r.Seq, seq-1)
			}
		}
		if r.Kind == ds.Membership && i > 0 {
			removal = r.Pos
		}
	}
	if removal == 0 || bobLast > removal {
		t.Errorf("bob's last message stands at %d, his removal at %d", bobLast, removal)
	}
	got, _ := w.read("sue", id, 1)
	if len(got) == 0 || got[len(got)-1].Pos != int64(len(list)) {
		t.Errorf("sue reads up to %d of %d", len(got), len(list))
	}
}

// TestFollowAcrossNodes: what one node appends reaches a follower on the other.
func TestFollowAcrossNodes(t *testing.T) {
	url := pgtest.URL(t)
	a, b := newWorld(t, url), newWorld(t, url)
	a.room("c1", "ann", "bob")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	f := b.logs.NewFollower(who("bob"))
	defer f.Close()
	if err := followFrom(ctx, f, "c1", 1); err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := range 50 {
			if _, err := a.send("ann", "c1", fmt.Sprintf("m%d", n), "x"); err != nil {
				t.Error(err)
			}
		}
	}()
	for want := int64(1); want <= 50; {
		page, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			if r.Seq == 0 {
				continue
			}
			if r.Seq != want {
				t.Fatalf("seq %d where %d should come", r.Seq, want)
			}
			want++
		}
	}
}

func TestCloseAnswersWhatWasAccepted(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	w.room("c1", "ann", "bob")
	var calls sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 64 {
		calls.Go(func() {
			_, err := w.send("ann", "c1", fmt.Sprintf("m%d", i), "x")
			errs <- err
		})
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	close(errs)
	for err := range errs {
		if err != nil && !ds.IsUnavailable(err) {
			t.Error(err)
		}
	}
	if _, err := w.send("ann", "c1", "late", "x"); !errors.Is(err, logs.ErrClosing) {
		t.Error(err)
	}
}
