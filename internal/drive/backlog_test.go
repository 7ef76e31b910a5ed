package drive

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/gatewayserver"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testsize"
)

const (
	backlogDID     = "did:web:ds.example"
	backlogRoom    = ds.ConversationID("room")
	backlogBatch   = 2000
	backlogHeapMax = 4 << 20 // bytes that one reader may cost, however far behind it is
	backlogStops   = 4       // where it is measured, while the reader has stopped reading
)

// backlog is a whole server in this process, whose statements are counted.
type backlog struct {
	t    *testing.T
	ctx  context.Context
	db   *store.DB
	http *httptest.Server
	key  *identity.AccountKey

	mu         sync.Mutex // guards statements
	statements map[string]int
}

func newBacklog(t *testing.T, url string) *backlog {
	b := &backlog{t: t, ctx: within(t, 3*time.Minute), key: accountKey(t, "ann"), statements: map[string]int{}}
	var err error
	b.db, err = store.Open(b.ctx, store.Options{URL: url, Hook: store.Watch(func(sql string, done bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !done {
			b.statements[sql]++
		}
	})})
	b.must(err)
	t.Cleanup(func() { b.must(b.db.Close()) })
	auth, err := identity.New(identity.Options{Store: b.db, Audience: func() []string { return []string{backlogDID} }})
	b.must(err)
	t.Cleanup(auth.Close)
	free := limits.New(nil, time.Now)
	engine := logs.New(logs.Options{Store: b.db})
	t.Cleanup(func() { b.must(engine.Close()) })
	devices := directory.New(directory.Options{Store: b.db, Now: time.Now, Limits: free, Wake: engine.WakeAccount})
	service := core.New(core.Options{Store: b.db, Logs: engine, Directory: devices, Limits: free})
	t.Cleanup(service.Close)
	door := gatewayserver.New(gatewayserver.Options{Core: service, Logs: engine, Directory: devices, Limits: free, Identity: auth, PingMisses: 2,
		ServiceDID: func() string { return backlogDID }, PublicURL: func() string { return "https://ds.example" }})
	b.http = httptest.NewServer(door)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		b.must(door.Shutdown(ctx))
		b.http.Close()
	})
	_, err = service.Apply(b.ctx, ds.Caller{Account: ds.AccountID(b.key.DID()), Device: "device"}, core.Create{ConversationID: backlogRoom, Accounts: nil})
	b.must(err)
	return b
}

func (b *backlog) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// fill appends n messages to the log, before any reader starts.
func (b *backlog) fill(n int) {
	body := []byte(strings.Repeat("x", 400))
	for done := 0; done < n; {
		b.must(b.db.Append(b.ctx, func(tx *store.Tx) error {
			heads, err := tx.Logs.LockHeads([]ds.ConversationID{backlogRoom}, true)
			if err != nil {
				return err
			}
			before, after := heads[0], heads[0]
			var list []ds.Record
			for range min(backlogBatch, n-done) {
				after.Pos, after.Seq = after.Pos+1, after.Seq+1
				r := ds.Record{Log: ds.ConversationLog(backlogRoom), Pos: after.Pos, Seq: after.Seq, Kind: ds.App, Term: after.Term,
					MessageID: ds.MessageID(fmt.Sprint("m", after.Seq)), CreatedMS: tx.NowMS(), Body: body}
				r.Hash = logs.ChainHash(after.Hash, &r)
				after.Hash = r.Hash
				list = append(list, r)
			}
			done += len(list)
			return tx.Logs.Write(store.Batch{Records: list, Changed: []store.Change{{Before: before, After: after}}})
		}))
	}
}

// heap returns the size of the reachable heap.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// catchUp reads n messages with next, which returns one frame, and holds the heap at
// several places against what it was before.
func (b *backlog) catchUp(n int, before int64, next func() ([]byte, error)) {
	b.t.Helper()
	most := int64(0)
	for seq := int64(1); seq <= int64(n); {
		data, err := next()
		b.must(err)
		frame, err := gateway.DecodeFrame(data)
		b.must(err)
		if frame.Type != gateway.TypeEvent {
			continue
		}
		var event gateway.Event
		b.must(frame.Decode(&event))
		if event.Seq != seq || event.MsgID != fmt.Sprint("m", seq) {
			b.t.Fatalf("seq %d (%s) where %d should be", event.Seq, event.MsgID, seq)
		}
		if seq%int64(n/backlogStops) == int64(n/backlogStops/2) {
			time.Sleep(200 * time.Millisecond) // the server has run into what the network holds
			most = max(most, heap()-before)
		}
		seq++
	}
	b.t.Logf("%d messages, at most %d KiB of heap", n, most>>10)
	if most > backlogHeapMax {
		b.t.Errorf("%d bytes of heap for one reader, at most %d", most, backlogHeapMax)
	}
}

// socket follows the room over a WebSocket.
func (b *backlog) socket() (next func() ([]byte, error), end func()) {
	ws, _, err := websocket.Dial(b.ctx, "ws"+strings.TrimPrefix(b.http.URL, "http")+"/v1/ws", nil)
	b.must(err)
	ws.SetReadLimit(frameBytesMax)
	token, err := authToken(b.key, backlogDID)
	b.must(err)
	first := int64(1)
	for _, frame := range []struct {
		name string
		body any
	}{
		{gateway.TypeSessionStart, &gateway.Start{AuthToken: token, DeviceID: "socket"}},
		{gateway.TypeSubscribe, &gateway.Subscribe{ConvID: string(backlogRoom), FromSeq: &first}},
	} {
		data, err := gateway.EncodeFrame(frame.name, gateway.StringID("1"), frame.body)
		b.must(err)
		b.must(ws.Write(b.ctx, websocket.MessageText, data))
	}
	return func() ([]byte, error) {
		_, data, err := ws.Read(b.ctx)
		return data, err
	}, func() { ws.CloseNow() }
}

// stream follows it over SSE.
func (b *backlog) stream() (next func() ([]byte, error), end func()) {
	caller, err := SignIn(b.ctx, b.http.URL, backlogDID, b.key, "stream")
	b.must(err)
	ctx, cancel := context.WithCancel(b.ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.http.URL+"/v1/sse?from_seq=1&conv_id="+string(backlogRoom), nil)
	b.must(err)
	request.Header.Set("Authorization", "Bearer "+caller.token)
	response, err := http.DefaultClient.Do(request)
	b.must(err)
	if response.StatusCode != http.StatusOK {
		b.t.Fatal(response.Status)
	}
	lines := bufio.NewReader(response.Body)
	return func() ([]byte, error) {
			for {
				line, err := lines.ReadString('\n')
				if data, ok := strings.CutPrefix(line, "data: "); ok || err != nil {
					return []byte(data), err
				}
			}
		}, func() {
			cancel()
			response.Body.Close()
		}
}

// TestBacklog: a reader that is many thousand messages behind catches up without a gap and
// costs the server no memory; and readers that have everything cost the database
// nothing but, where other nodes may write, the polls of heads, revoked sessions and expelled accounts.
func TestBacklog(t *testing.T) {
	messages := testsize.Of(10_000, 100_000)
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := "sqlite:" + t.TempDir()
			if kind == "postgres" {
				url = pgtest.URL(t)
			}
			b := newBacklog(t, url)
			b.fill(messages)
			for _, open := range []func() (func() ([]byte, error), func()){b.socket, b.stream} {
				before := heap()
				next, end := open()
				defer end() // it idles until then
				b.catchUp(messages, before, next)
			}
			b.idle(kind == "postgres")
		})
	}
}

// idle counts the statements of some seconds in which nothing happens.
func (b *backlog) idle(isShared bool) {
	b.t.Helper()
	time.Sleep(2 * time.Second) // for what was still to be written
	b.mu.Lock()
	clear(b.statements)
	b.mu.Unlock()
	time.Sleep(3 * time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	var heads, sessions, accounts int
	for sql, times := range b.statements {
		switch {
		case isShared && (sql == "BEGIN" || sql == "COMMIT"):
		case isShared && strings.HasPrefix(sql, "SELECT log_id, pos FROM logs WHERE log_id "):
			heads += times
		case isShared && strings.HasPrefix(sql, "SELECT revoked_seq, session_hash FROM sessions"):
			sessions += times
		case isShared && strings.HasPrefix(sql, "SELECT account, revoked_seq, expelled_ms FROM expelled_accounts"):
			accounts += times
		default:
			b.t.Errorf("an idle server asks %d times: %s", times, sql)
		}
	}
	if isShared && (min(heads, sessions, accounts) < 1 || max(heads, sessions, accounts) > 5) {
		b.t.Errorf("%d polls of heads, %d of sessions and %d of expelled accounts in 3 s, want 3", heads, sessions, accounts)
	}
}
