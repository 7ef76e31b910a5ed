package gatewayserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// TestStreamWithoutPositions: when positions of streams cannot be stored, those that
// run go on, without an id where there can be none, and new ones are told to come back.
// Afterwards there are ids again, and who resumes from the last one misses nothing.
func TestStreamWithoutPositions(t *testing.T) {
	url := pgtest.URL(t)
	var isBroken atomic.Bool
	var failures atomic.Int64
	w := newHookedWorld(t, url, func(sql string, done bool) {
		if !done && isBroken.Load() && strings.HasPrefix(sql, "INSERT INTO stream_rows") {
			failures.Add(1)
			cutTransactions(t, url)
		}
	})
	const conversations = 90 // more than an id has room for
	w.start("ann")
	bob := w.start("bob")
	for i := range conversations {
		w.call2(t, "ann", "/v1/rooms/create", fmt.Sprintf(`{"conv_id":"c%d","members":["%s"]}`, i, bob.did))
	}
	send := func(conversation, n int) {
		t.Helper()
		_, err := w.core.Apply(context.Background(), ds.Caller{Account: ds.AccountID(w.person("ann").did), Device: "phone"}, core.Send{ID: ds.MessageID(fmt.Sprint(n)), ConversationID: ds.ConversationID(fmt.Sprint("c", conversation)), Body: []byte("e")})
		must(t, err)
	}
	const query = "?all=1&from_seq=1"
	running, _, answer := openEvents(t, w.http.URL, bob.session, query, "")
	must(t, refusedAs(answer, ""))
	take := func(e *events) (one item, event gateway.Event) {
		t.Helper()
		one, ok := e.next(t)
		if !ok {
			t.Fatal("the stream has ended")
		}
		frame, err := gateway.DecodeFrame([]byte(one.data))
		must(t, err)
		must(t, frame.Decode(&event))
		return one, event
	}

	isBroken.Store(true)
	lastID, without := "", map[string]bool{}
	for i := range conversations {
		send(i, 0)
		one, event := take(running)
		if event.ConvID != fmt.Sprint("c", i) || event.Seq != 1 {
			t.Fatalf("%s %d, want the first message of c%d", event.ConvID, event.Seq, i)
		}
		switch {
		case one.id != "":
			lastID = one.id
		case len(without) == 0 && i < 30:
			t.Fatal("no id, with room for it: ", i)
		}
		if one.id == "" {
			without[event.ConvID] = true
		}
	}
	if len(without) == 0 || failures.Load() == 0 {
		t.Fatalf("%d events without an id, %d failures", len(without), failures.Load())
	}
	if _, status, answer := openEvents(t, w.http.URL, bob.session, query, lastID); status != http.StatusServiceUnavailable ||
		!strings.Contains(answer, `"code":"unavailable"`) || !strings.Contains(answer, `"retry_after_s":1`) {
		t.Errorf("a new stream: %d %s", status, answer)
	}
	isBroken.Store(false)

	resumed, _, answer := openEvents(t, w.http.URL, bob.session, query, lastID)
	must(t, refusedAs(answer, ""))
	for range len(without) {
		one, event := take(resumed)
		if !without[event.ConvID] || event.Seq != 1 || one.id == "" {
			t.Errorf("resumed: %s %d, id %q", event.ConvID, event.Seq, one.id)
		}
		delete(without, event.ConvID)
	}
	for n := 1; ; n++ {
		send(0, n)
		one, event := take(running)
		if event.Seq != int64(n)+1 {
			t.Fatalf("message %d, want %d", event.Seq, n+1)
		}
		if one.id != "" {
			break
		}
	}
}

// cutTransactions breaks the connections that are in a transaction, as a database does
// that goes away.
func cutTransactions(t *testing.T, url string) {
	ctx := context.Background()
	admin, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return
	}
	_, err = admin.Exec(ctx, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'`)
	if err != nil {
		t.Error(err)
	}
	_ = admin.Close(ctx)
}
