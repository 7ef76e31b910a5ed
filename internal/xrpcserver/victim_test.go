package xrpcserver

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// strangersRooms returns the number of rooms that a stranger makes around a victim: in the full
// suite more than a stream follows.
func strangersRooms() int {
	if os.Getenv("WAXWING_FULL") != "" {
		return logs.StreamConversationsMax + 4
	}
	return 100
}

// rooms makes conversations of which name is a member, by another account.
func (w *world) rooms(by, name string, count int, id func(i int) string) {
	w.t.Helper()
	var making sync.WaitGroup
	for part := range 64 {
		making.Go(func() {
			for i := part; i < count; i += 64 {
				if err := w.apply(w.as(by), core.Create{ConversationID: ds.ConversationID(id(i)), Accounts: w.accounts(name)}); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	making.Wait()
}

// TestVictimOfManyRooms: a stranger has made rooms around ann. Her subscription opens and
// brings what is said in a room of before; it goes on at its cursor; her token can be
// renewed, and her list comes whole.
func TestVictimOfManyRooms(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.room("friends", "bob", "ann")
		w.phone("ann").register(1, nil)
		w.later.Store(2)
		count := strangersRooms()
		w.rooms("eve", "ann", count, func(i int) string { return fmt.Sprintf("%0*d", ds.IDBytesMax, i) })
		w.later.Store(3)
		w.say("bob", "friends", "m1") // so it is active again
		begun := time.Now()
		ann := w.subscribe("ann", "")
		t.Logf("opened in %v", time.Since(begun))
		w.say("bob", "friends", "m2")
		ann.expect("app m2 2")
		cursor := ann.cursor
		ann.close()
		w.say("bob", "friends", "m3")
		w.subscribe("ann", cursor).expect("app m3 3")

		seen, query := map[any]bool{}, params()
		for {
			out := w.call("ann", xrpc.GetConvos, query).fields()
			for _, convo := range out["conversations"].([]any) {
				seen[convo.(object)["conversationId"]] = true
			}
			next, ok := out["cursor"].(string)
			if !ok {
				break
			}
			query.Set("cursor", next)
		}
		if len(seen) != count+1 {
			t.Errorf("the list has %d of %d conversations", len(seen), count+1)
		}
		w.call("ann", xrpc.RegisterDevice, object{"deviceName": "phone", "keyPackages": []any{}, "signaturePublicKey": blob(nil), "pushToken": "token"}).fields()
	})
}

// TestSubscriptionsWriteLittle: a subscription to 200 conversations in which 2 000 messages
// are sent stores where it stands at most once a second, and goes on at its last cursor
// without missing any.
func TestSubscriptionsWriteLittle(t *testing.T) {
	const conversations, messages = 200, 10
	var rows atomic.Int64
	hook := func(sql string, done bool) {
		if done && strings.HasPrefix(sql, "INSERT INTO stream") && !strings.HasPrefix(sql, "INSERT INTO streams") {
			rows.Add(1)
		}
	}
	onBoth(t, func(t *testing.T, w *world) {
		id := func(i int) string { return fmt.Sprintf("c%03d", i) }
		w.rooms("bob", "ann", conversations, id)
		rows.Store(0)
		begun := time.Now()
		ann := w.subscribe("ann", "")
		var sending sync.WaitGroup
		for part := range 20 {
			sending.Go(func() {
				for n := range messages {
					for i := part; i < conversations; i += 20 {
						_, err := w.core.Apply(context.Background(), w.as("bob"), core.Send{ConversationID: ds.ConversationID(id(i)), ID: ds.MessageID(fmt.Sprint(n)), Body: []byte("e")})
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		seen := map[string]int64{}
		take := func(s *subscriber) {
			m := s.next().(*xrpc.MessageEvent)
			seen[m.Message.ConvoID] = max(seen[m.Message.ConvoID], m.Message.Seq)
		}
		for range conversations * messages {
			take(ann)
		}
		sending.Wait()
		if most := int64(time.Since(begun)/time.Second) + 2; rows.Load() > most { // with the first, which is the whole
			t.Errorf("%d rows, want at most %d", rows.Load(), most)
		}
		cursor := ann.cursor
		ann.close()
		for i := range conversations {
			w.say("bob", id(i), "last")
		}
		again := w.subscribe("ann", cursor)
		for left := conversations; left > 0; {
			m := again.next().(*xrpc.MessageEvent)
			convo := m.Message.ConvoID
			if m.Message.Seq > seen[convo]+1 {
				t.Fatalf("%s goes on with %d behind %d", convo, m.Message.Seq, seen[convo])
			}
			if m.Message.ID == "last" {
				left--
			}
		}
	}, func(s *setup) { s.store.Hook = store.Watch(hook) })
}
