package xrpcserver

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/lexicons"
)

// read returns a person's read mark in a conversation.
func (w *world) read(name, convo string) int64 {
	w.t.Helper()
	cursors, err := w.logs.Cursors(context.Background(), w.caller(name))
	must(w.t, err)
	for _, c := range cursors {
		if c.Log == ds.ConversationLog(ds.ConversationID(convo)) {
			return c.Next - 1
		}
	}
	return 0
}

func TestUpdateCursor(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		w.talk("c2", "ann")
		for i := range 9 {
			w.send("ann", message("c1", uuid(i), 0, 512))
		}
		// Message i+1 stands at pos i+2, behind the record that opened the conversation.
		for _, step := range []struct {
			name string
			in   object
			read int64
			want string
		}{
			{"a ULID of nobody", object{"cursor": ulid}, 0, ""}, // black-box check 8
			{"one in small letters", object{"cursor": "01arz3ndektsv4rrffq69g5fav"}, 0, ""},
			{"a seq", object{"cursor": "2"}, 2, ""},
			{"a number", object{"cursor": 3}, 3, ""},
			{"a lower one", object{"cursor": "1"}, 3, ""},
			{"one of ours", object{"cursor": formatCursor("c1", 5, 0)}, 4, ""},
			{"one of ours with more behind it", object{"cursor": formatCursor("c1", 6, 99)}, 5, ""},
			{"an older one of ours", object{"cursor": formatCursor("c1", 1, 0)}, 5, ""},
			{"one of ours of another conversation", object{"cursor": formatCursor("c2", 9, 0)}, 5, ""},
			{"one of ours beyond the end", object{"cursor": formatCursor("c1", 99, 0)}, 5, ""},
			{"a message", object{"messageId": uuid(5)}, 6, ""},
			{"a message and a cursor", object{"messageId": uuid(6), "cursor": ulid}, 7, ""},
			{"a message that is not there", object{"messageId": uuid(55)}, 7, "404 MessageNotFound"},
			{"everything", object{"markRead": true}, 9, ""},
			{"a seq beyond the end", object{"cursor": "1000000"}, 9, ""},
			{"nothing", object{}, 9, "400 InvalidRequest"},
			{"not read", object{"markRead": false}, 9, "400 InvalidRequest"},
			{"words", object{"cursor": "yesterday"}, 9, "400 InvalidCursor"},
			{"too much", object{"cursor": fmt.Sprintf("%065d", 1)}, 9, "400 InvalidCursor"},
			{"no ULID", object{"cursor": "81ARZ3NDEKTSV4RRFFQ69G5FAV"}, 9, "400 InvalidCursor"},
			{"a seq beyond 64 bits", object{"cursor": "99999999999999999999"}, 9, "400 InvalidCursor"},
		} {
			step.in["convoId"] = "c1"
			a := w.callAs(lexicons.A, "bob", xrpc.UpdateCursor, step.in)
			if step.want != "" {
				a.refused(step.want)
			} else {
				var out xrpc.UpdateCursorOutput
				a.into(&out)
				isReceipt := step.in["messageId"] != nil || step.in["markRead"] == true
				if out.UpdatedAt.IsZero() || out.ReadAt.IsZero() == isReceipt {
					t.Errorf("%s: %s", step.name, a.body)
				}
			}
			if got := w.read("bob", "c1"); got != step.read {
				t.Errorf("%s: read up to %d, want %d", step.name, got, step.read)
			}
		}
		for _, who := range []string{"eve", "bob"} {
			w.call(who, xrpc.UpdateCursor, object{"convoId": map[string]string{"eve": "c1", "bob": "c2"}[who], "cursor": "1"}).refused("403 NotMember")
		}
	})
}

// TestReadersWriteNothing is black-box check 30's other half: reading leaves no trace, and
// many marks at once end at the highest.
func TestReadersWriteNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		var wait sync.WaitGroup
		for i := range 20 {
			wait.Go(func() { w.send("ann", message("c1", uuid(i), 0, 512)) })
			wait.Go(func() { w.messages("bob", "c1") })
		}
		wait.Wait()
		if got := w.read("bob", "c1"); got != 0 {
			t.Errorf("reading moved the cursor to %d", got)
		}
		for i := range 20 {
			wait.Go(func() {
				w.call("bob", xrpc.UpdateCursor, object{"convoId": "c1", "cursor": strconv.Itoa(i + 1)}).fields()
			})
		}
		wait.Wait()
		if got := w.read("bob", "c1"); got != 20 {
			t.Errorf("marks up to 20 at once ended at %d", got)
		}
	})
}
