package logs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testwait"
)

// begin is Begin as a channel of one answer.
func (w *world) begin(account, id, message string) <-chan answered {
	told := make(chan answered, 2)
	w.service.Begin(context.Background(), who(account), core.Send{ConversationID: ds.ConversationID(id), ID: ds.MessageID(message), Body: []byte("x")},
		func(r core.Result, err error) { told <- answered{r.Record, err} })
	return told
}

type answered struct {
	record ds.Record
	err    error
}

func (w *world) messages(account, id string) string {
	list, _ := w.read(account, id, 1)
	var names []string
	for _, r := range list {
		if r.Seq > 0 {
			names = append(names, string(r.MessageID))
		}
	}
	return strings.Join(names, " ")
}

// TestBegin: what is begun one after the other stands in that order, in each
// conversation, refusals and repeats in between, and each is told once.
func TestBegin(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		for i := range 3 {
			w.room(fmt.Sprint("c", i), "ann")
		}
		w.room("other", "bob")
		const each = 200
		var sends, repeats [3][each]<-chan answered
		var refused [each]<-chan answered
		for n := range each {
			for i := range sends {
				sends[i][n] = w.begin("ann", fmt.Sprint("c", i), fmt.Sprint("m", n))
				repeats[i][n] = w.begin("ann", fmt.Sprint("c", i), fmt.Sprint("m", n))
			}
			refused[n] = w.begin("ann", []string{"other", "nowhere", "", "c0"}[n%4], []string{"m", "\x00"}[n%4/3])
		}
		for n := range each {
			for i := range sends {
				if got := <-sends[i][n]; got.err != nil || got.record.Seq != int64(n+1) {
					t.Fatalf("c%d, message %d: %+v", i, n, got)
				}
				if got := <-repeats[i][n]; got.err != nil || got.record.Seq != int64(n+1) {
					t.Fatalf("c%d, repeat of %d: %+v", i, n, got)
				}
			}
			if got := <-refused[n]; ds.CodeOf(got.err) == "" || got.record.Seq != 0 {
				t.Fatalf("refusal %d: %+v", n, got)
			}
		}
		for n := range each {
			if len(refused[n]) > 0 || len(sends[0][n]) > 0 {
				t.Error("told twice")
			}
		}
	})
}

// TestHeldKeepsOrder: what comes while an earlier request waits for a lock that
// somebody else has stands behind it, whenever the lock is let go.
func TestHeldKeepsOrder(t *testing.T) {
	url := pgtest.URL(t)
	w := newWorld(t, url, oneFlusher)
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	// Up to holdTries short waits, and then one where the first request waits alone.
	for round, held := range []time.Duration{0, logs.HoldDelay, 4 * logs.HoldDelay, 2 * logs.HoldAloneDelay} {
		room := fmt.Sprint("c", round)
		w.room(room, "ann")
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, `SELECT pos FROM logs WHERE log_id = $1 FOR UPDATE`, "c/"+room); err != nil {
			t.Fatal(err)
		}
		var told []<-chan answered
		var want []string
		begin := func() {
			want = append(want, fmt.Sprint("m", len(want)))
			told = append(told, w.begin("ann", room, want[len(want)-1]))
		}
		begin()
		for start := time.Now(); time.Since(start) < held; time.Sleep(logs.HoldDelay) {
			begin()
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			begin()
			time.Sleep(logs.HoldDelay / 5)
		}
		for i, answer := range told {
			if got := <-answer; got.err != nil || got.record.Seq != int64(i+1) {
				t.Errorf("held for %s: message %d: %+v", held, i, got)
			}
		}
		if got := w.messages("ann", room); got != strings.Join(want, " ") {
			t.Errorf("held for %s: stored %s", held, got)
		}
	}
}

// TestBeginWhileItCloses: whatever is begun while the service closes is told once,
// and stands if and only if it was told so.
func TestBeginWhileItCloses(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c", "ann")
		var begun, told atomic.Int64
		var mu sync.Mutex
		var acked []string // mu guards it
		var callers sync.WaitGroup
		isClosed := make(chan struct{})
		for i := range 8 {
			callers.Go(func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("m%d-%d", i, n)
					var isOver bool
					select {
					case <-isClosed:
						isOver = true
					default:
					}
					begun.Add(1)
					w.service.Begin(context.Background(), who("ann"), core.Send{ConversationID: "c", ID: ds.MessageID(id)}, func(_ core.Result, err error) {
						told.Add(1)
						if err == nil {
							mu.Lock()
							acked = append(acked, id)
							mu.Unlock()
						} else if !ds.IsUnavailable(err) {
							t.Error(err)
						}
					})
					if isOver {
						return
					}
					if n%32 == 31 {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		testwait.Until(t, "some are answered", func() bool { return told.Load() >= 100 })
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		close(isClosed)
		callers.Wait()
		testwait.Until(t, "all are answered", func() bool { return told.Load() >= begun.Load() })
		if told.Load() != begun.Load() {
			t.Errorf("%d begun, %d told", begun.Load(), told.Load())
		}
		again := startWorld(t, w.store)
		defer again.stop()
		stored := strings.Fields(again.messages("ann", "c"))
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(stored)
		slices.Sort(acked)
		if !slices.Equal(stored, acked) {
			t.Errorf("%d stand, %d were acknowledged", len(stored), len(acked))
		}
	})
}

// The largest that core takes: the body of a message, and the names in a list.
const (
	bodyBytesMax   = 1 << 18
	accountsListed = 4096
)

// TestQueueIsBoundedInBytes: what waits for a slow database costs bounded memory, and
// is refused as a fault that may pass.
func TestQueueIsBoundedInBytes(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir(), oneFlusher)
	w.room("c", "ann")
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	blocker := &logs.Request{Conversation: "blocker", Rule: ruleFunc(func(*logs.Conversation, time.Time) error {
		entered <- struct{}{}
		<-gate
		return nil
	})}
	if err := w.logs.Begin(blocker, func(error) {}); err != nil {
		t.Fatal(err)
	}
	<-entered
	body := make([]byte, bodyBytesMax)
	const n = logs.QueueBytesMax/bodyBytesMax + 10
	told := make(chan error, n)
	for i := range n {
		w.service.Begin(context.Background(), who("ann"), core.Send{ConversationID: "c", ID: ds.MessageID(fmt.Sprint("m", i)), Body: body},
			func(_ core.Result, err error) { told <- err })
	}
	each := bodyBytesMax + logs.RequestBytes + len("c") + len("m000") + len("ann") + len("ann-phone")
	if got := len(told); got < n-logs.QueueBytesMax/(each-2) || got > n-logs.QueueBytesMax/each+1 {
		t.Errorf("%d of %d were refused at once", got, n)
	}
	close(gate)
	refused := 0
	for range n {
		if err := <-told; ds.IsUnavailable(err) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	// On a slow disk some of the others come too late.
	if _, bytes := w.logs.Queued(); refused < 10 || bytes != 0 {
		t.Errorf("%d refused, %d bytes are still counted", refused, bytes)
	}
}

// TestRequestsCountAllTheyKeep: with the largest lists and names there may be, what waits
// keeps no more alive than is counted of it.
func TestRequestsCountAllTheyKeep(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir(), oneFlusher)
	w.room("c", "ann")
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	blocker := &logs.Request{Conversation: "blocker", Rule: ruleFunc(func(*logs.Conversation, time.Time) error {
		entered <- struct{}{}
		<-gate
		return nil
	})}
	if err := w.logs.Begin(blocker, func(error) {}); err != nil {
		t.Fatal(err)
	}
	<-entered
	before := logs.HeapInUse()
	_, counted := w.logs.Queued()
	var calls sync.WaitGroup
	var refused atomic.Int64
	const n = 40
	for i := range n {
		calls.Go(func() {
			err := w.apply(who("ann"), core.Invite{ConversationID: "c", Accounts: logs.LongNames(fmt.Sprint(i), accountsListed)})
			if ds.IsUnavailable(err) {
				refused.Add(1)
			} else if ds.CodeOf(err) != ds.LimitExceeded {
				t.Error(err)
			}
		})
	}
	testwait.Until(t, "all wait or are refused", func() bool { return int64(w.queued())+refused.Load() >= n })
	_, bytes := w.logs.Queued()
	kept, counts := logs.HeapInUse()-before, bytes-counted
	if kept > counts+counts/10 || counts > logs.QueueBytesMax || refused.Load() == 0 {
		t.Errorf("%d bytes are kept, %d are counted, %d were refused", kept, counts, refused.Load())
	}
	close(gate)
	calls.Wait()
	if _, n := w.logs.Queued(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

// TestNamesAreCheckedFirst: what is no name is refused before anything is queued.
func TestNamesAreCheckedFirst(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir(), oneFlusher)
	w.room("c", "ann")
	long := strings.Repeat("x", 1<<20)
	for name, err := range map[string]error{
		"msg_id":  func() error { _, err := w.send("ann", "c", long, "x"); return err }(),
		"conv_id": func() error { _, err := w.send("ann", long, "m", "x"); return err }(),
		"account": func() error { _, err := w.send(long, "c", "m", "x"); return err }(),
		"tag": func() error {
			_, err := w.bundle("ann", core.Bundle{ConversationID: "c", ID: "b", Commit: commit("g", 0), ConfirmationTag: []byte(long)})
			return err
		}(),
		"suite": func() error {
			_, err := w.service.Apply(t.Context(), who("ann"), core.Create{ConversationID: "aa", GroupID: []byte{0xaa}, Suite: long})
			return err
		}(),
	} {
		if ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}
