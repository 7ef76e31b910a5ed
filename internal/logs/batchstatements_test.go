package logs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// TestStatementsOfABatch: in steady state a batch of 250 messages into 64 conversations
// costs four statements, on either database, besides BEGIN and COMMIT.
func TestStatementsOfABatch(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var mu sync.Mutex // guards statements and isCounting
		var statements []string
		isCounting := false
		w := openWorld(t, store.Options{URL: url, Hook: store.Watch(func(sql string, done bool) {
			mu.Lock()
			defer mu.Unlock()
			if isCounting && !done {
				statements = append(statements, strings.Join(strings.Fields(sql[:min(len(sql), 200)]), " "))
			}
		})}, oneFlusher, func(o *setup) { o.pollInterval = 0 })
		const conversations, messages = 64, 250
		for i := range conversations {
			w.room(fmt.Sprint("c", i), "ann")
		}
		send := func(n int, tell func(core.Result, error)) {
			w.service.Begin(context.Background(), who("ann"), core.Send{ConversationID: ds.ConversationID(fmt.Sprint("c", n%conversations)), ID: ds.MessageID(fmt.Sprint("m", n)),
				Body: []byte("x"), Encoding: ds.Binary, StatesEpoch: true, RequireCurrent: true, Application: true}, tell)
		}
		n := 0
		for round := range logs.KnownTrust + 3 { // until the conversations are known
			gate, entered := make(chan struct{}), make(chan struct{})
			blocker := &logs.Request{Conversation: "blocker", Rule: ruleFunc(func(*logs.Conversation, time.Time) error {
				close(entered)
				<-gate
				return nil
			})}
			if err := w.logs.Begin(blocker, func(error) {}); err != nil {
				t.Fatal(err)
			}
			<-entered
			told := make(chan error, messages)
			for range messages {
				send(n, func(_ core.Result, err error) { told <- err })
				n++
			}
			// What the blocker's own batch still says comes before the messages'.
			mu.Lock()
			isCounting = round == logs.KnownTrust+2
			mu.Unlock()
			close(gate)
			for range messages {
				if err := <-told; err != nil {
					t.Fatal(err)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		begin := slices.Index(statements, "BEGIN")
		if begin < 0 {
			t.Fatalf("no batch among %q", statements)
		}
		var counted []string
		for _, s := range statements[begin:] {
			if s != "BEGIN" && s != "COMMIT" {
				counted = append(counted, s)
			}
		}
		if len(counted) > 4 || slices.Index(statements[begin+1:], "BEGIN") >= 0 {
			t.Errorf("a batch of %d messages cost %d statements:\n%s", messages, len(counted), strings.Join(statements, "\n"))
		}
	})
}

// TestBatchRefusesAMovedHead: where many heads move in one statement, one that is
// elsewhere refuses them all.
func TestBatchRefusesAMovedHead(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann")
		w.room("c2", "ann")
		heads := map[ds.ConversationID]ds.Conversation{}
		err := w.store.View(context.Background(), func(tx *store.Tx) error {
			for _, id := range []ds.ConversationID{"c1", "c2"} {
				head, err := tx.Logs.Head(id)
				if err != nil {
					return err
				}
				heads[id] = head
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		move := func(change func(b *ds.Conversation)) error {
			var b store.Batch
			for _, id := range []ds.ConversationID{"c1", "c2"} {
				before, after := heads[id], heads[id]
				after.Pos++
				after.Hash = []byte("next")
				if id == "c2" {
					change(&before)
				}
				b.Changed = append(b.Changed, store.Change{Before: before, After: after})
			}
			return w.store.Append(context.Background(), func(tx *store.Tx) error { return tx.Logs.Write(b) })
		}
		if err := move(func(b *ds.Conversation) { b.Pos = 7 }); err != store.ErrMoved {
			t.Errorf("another pos: %v", err)
		}
		if err := move(func(b *ds.Conversation) { b.Hash = []byte("other") }); err != store.ErrMoved {
			t.Errorf("another hash: %v", err)
		}
		if err := move(func(b *ds.Conversation) { b.Term = 7 }); err != store.ErrMoved {
			t.Errorf("another term: %v", err)
		}
		if err := move(func(b *ds.Conversation) { b.Home = "did:web:elsewhere" }); err != store.ErrMoved {
			t.Errorf("another home: %v", err)
		}
		if err := move(func(b *ds.Conversation) { b.ID = "nowhere" }); err != nil {
			t.Errorf("the id of what was before is not looked at: %v", err)
		}
		if err := move(func(*ds.Conversation) {}); err != store.ErrMoved {
			t.Errorf("a second time: %v", err)
		}
	})
}
