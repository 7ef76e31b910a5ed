package drive

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

const (
	outageVariable = "WAXWING_OUTAGE" // seconds that PostgreSQL is gone in TestDatabaseKilled

	postsRoom        = "posts" // of messages by HTTP, which may or may not be stored
	outageMax        = 2 * time.Minute
	outageClients    = 4
	outageReads      = 2 // of the whole room, by sockets from before
	outageEnvBytes   = 8 << 10
	outageSilence    = time.Minute // no client gives up a socket that is only slow
	outageHeapGrowth = 64 << 20
	outageGoroutines = 300
)

// outage is a server whose database is about to fail, with clients that go on sending.
type outage struct {
	t       *testing.T
	ctx     context.Context
	process *Process
	ops     Ops
	room    string
	key     *identity.AccountKey
	caller  *Caller           // with a session from before
	spare   string            // an unused resume token
	readers []*websocket.Conn // with sessions and no subscription
	clients []*Client
	running sync.WaitGroup
	hush    context.CancelFunc // ends the load
}

func newOutage(t *testing.T, options ...string) *outage {
	t.Helper()
	o := &outage{t: t, ctx: within(t, outageMax), room: "room", key: accountKey(t, "ann")}
	opsPort := freePort(t)
	o.ops = Ops{fmt.Sprintf("http://127.0.0.1:%d", opsPort)}
	var err error
	o.process, err = Serve(o.ctx, serverBinary(t), append([]string{"--listen", "127.0.0.1:0", "--ops-listen", o.ops.URL[len("http://"):],
		"--log-level", "warn", "--limit", "all=off", "--ping-interval", "10m"}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.process.Kill)
	o.caller, err = SignIn(o.ctx, o.process.URL, o.process.DID, o.key, "caller")
	o.must(err)
	o.must(o.caller.CreateRoom(o.ctx, o.room, nil))
	o.must(o.caller.CreateRoom(o.ctx, postsRoom, nil))
	var ready gateway.Ready
	o.must(o.caller.Post(o.ctx, sessionStart, o.start("spare"), &ready))
	o.spare = ready.ResumeToken
	for i := range outageReads {
		o.readers = append(o.readers, o.reader(fmt.Sprint("reader-", i)))
	}
	for i := range outageClients {
		o.connect(fmt.Sprint("client-", i))
	}
	return o
}

func (o *outage) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// start is the body of session.start, with a token of its own.
func (o *outage) start(device string) *gateway.Start {
	o.t.Helper()
	token, err := authToken(o.key, o.process.DID)
	o.must(err)
	return &gateway.Start{AuthToken: token, DeviceID: device}
}

// connect adds a client and waits until it is subscribed.
func (o *outage) connect(name string) {
	o.t.Helper()
	network, err := NewFaultProxy(o.process.Address(), 1)
	o.must(err)
	c := NewClient(ClientOptions{Name: name, Key: o.key, Device: name, Audience: o.process.DID, Network: network,
		Silence: outageSilence, KeepsText: true}, o.room)
	o.clients = append(o.clients, c)
	ctx, stop := context.WithCancel(o.ctx)
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	o.t.Cleanup(func() {
		stop()
		running.Wait()
		network.Close()
	})
	_, err = c.AwaitReady(o.ctx, 0)
	o.must(err)
}

// reader opens a socket with a session.
func (o *outage) reader(device string) *websocket.Conn {
	o.t.Helper()
	ws, _, err := websocket.Dial(o.ctx, "ws://"+o.process.Address()+"/v1/ws", nil)
	o.must(err)
	o.t.Cleanup(func() { _ = ws.CloseNow() })
	if answer := o.ask(ws, gateway.TypeSessionStart, o.start(device)); answer.Type != gateway.TypeReady {
		o.t.Fatalf("a reader was answered %s", answer.Type)
	}
	return ws
}

// ask writes a frame and reads the next.
func (o *outage) ask(ws *websocket.Conn, frameType string, body any) gateway.Frame {
	o.t.Helper()
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID("1"), body)
	o.must(err)
	o.must(ws.Write(o.ctx, websocket.MessageText, frame))
	_, data, err := ws.Read(o.ctx)
	o.must(err)
	answer, err := gateway.DecodeFrame(data)
	o.must(err)
	return answer
}

// load makes every client send without a pause, a few messages at once, until the
// test calls hush. The messages cannot be compressed.
func (o *outage) load() {
	ctx, hush := context.WithCancel(o.ctx)
	o.hush = hush
	for i, c := range o.clients {
		o.running.Go(func() {
			random := rand.NewChaCha8([32]byte{byte(i)})
			for n := 0; ctx.Err() == nil; n++ {
				text := make([]byte, outageEnvBytes*3/4)
				_, _ = random.Read(text) // never fails
				c.Send(o.room, fmt.Sprintf("%s-%d", c.o.Name, n), string(jsonText(text)))
				_ = c.await(ctx, "room in its outbox", func() bool { return len(c.outbox) < outboxMax })
			}
		})
	}
}

// jsonText is data in base64, as JSON would have it.
func jsonText(data []byte) []byte {
	text, _ := json.Marshal(data) // cannot fail
	return bytes.Trim(text, `"`)
}

// sent waits until so many more messages of each client are acked.
func (o *outage) sent(more int) {
	o.t.Helper()
	for _, c := range o.clients {
		goal := c.Counts().Acked + more
		o.must(c.await(o.ctx, fmt.Sprint(more, " acks"), func() bool { return c.counts.Acked >= goal }))
	}
}

// refused waits until so many more messages of each client were `unavailable`.
func (o *outage) refused(more int) {
	o.t.Helper()
	for _, c := range o.clients {
		goal := c.Counts().Unavailable + more
		for c.Counts().Unavailable < goal {
			o.must(o.ctx.Err())
			pause(o.ctx, 10*time.Millisecond)
		}
	}
}

// ready waits until the server says of itself that it is ready, or is not.
func (o *outage) ready(want bool) {
	o.t.Helper()
	for said := ""; ; {
		status, body := o.get("/readyz")
		if (status == http.StatusOK) == want {
			return
		}
		said = fmt.Sprint(status, " ", body)
		if o.ctx.Err() != nil {
			o.t.Fatalf("the server says %q, want ready: %t", said, want)
		}
		pause(o.ctx, 20*time.Millisecond)
	}
}

func (o *outage) get(path string) (status int, body string) {
	o.t.Helper()
	status, body, err := o.ops.Get(o.ctx, path)
	o.must(err)
	return status, body
}

// alive checks that the process answers for itself.
func (o *outage) alive() {
	o.t.Helper()
	if status, _ := o.get("/livez"); status != http.StatusOK {
		o.t.Errorf("/livez says %d", status)
	}
	if err := o.process.Check(); err != nil {
		o.t.Error(err)
	}
}

// metric reads a metric, over all of its labels.
func (o *outage) metric(name string) float64 {
	o.t.Helper()
	metrics, err := o.ops.Metrics(o.ctx)
	o.must(err)
	value, has := metrics.Sum(name)
	if !has {
		o.t.Fatalf("no metric %s", name)
	}
	return value
}

// call is an HTTP call that needs the database.
type call struct {
	method, path string
	body         any
}

// calls are all of them that a client may make without harm.
func (o *outage) calls() []call {
	count := int64(1)
	send := gateway.Send{ConvID: postsRoom, MsgID: "by-post", Env: "hello"}
	frame, err := gateway.EncodeFrame(gateway.TypeSend, gateway.StringID("1"), &send)
	o.must(err)
	return []call{
		{http.MethodPost, sessionStart, o.start("late")},
		{http.MethodPost, "/v1/session/resume", &gateway.Resume{ResumeToken: o.spare}},
		{http.MethodGet, "/v1/session/list", nil},
		{http.MethodGet, "/v1/conversations", nil},
		{http.MethodGet, "/v1/rooms/members?conv_id=" + o.room, nil},
		{http.MethodGet, "/v1/sse?conv_id=" + o.room, nil},
		{http.MethodPost, "/v1/rooms/create", &gateway.RoomMembers{ConvID: "another"}},
		{http.MethodPost, "/v1/keypackages", &gateway.PublishKeyPackages{DeviceID: "caller", KeyPackages: []string{"package"}}},
		{http.MethodPost, "/v1/keypackages/fetch", &gateway.FetchKeyPackages{UserID: o.key.DID(), Count: &count}},
		{http.MethodPost, "/v1/inbox", json.RawMessage(frame)},
	}
}

// unavailable checks that a call is answered 503, in the protocol's form and with the
// time to come back.
func (o *outage) unavailable(c call) {
	o.t.Helper()
	body, err := json.Marshal(c.body)
	o.must(err)
	request, err := http.NewRequestWithContext(o.ctx, c.method, o.process.URL+c.path, bytes.NewReader(body))
	o.must(err)
	request.Header.Set("Authorization", "Bearer "+o.caller.token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		o.t.Errorf("%s %s: %v", c.method, c.path, err)
		return
	}
	defer answer.Body.Close()
	var refusal gateway.Error
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // what is missing shows
	if err := json.Unmarshal(text, &refusal); err != nil || answer.StatusCode != http.StatusServiceUnavailable ||
		refusal.Code != gateway.CodeUnavailable || answer.Header.Get("Retry-After") == "" {
		o.t.Errorf("%s %s: %d, Retry-After %q, %s", c.method, c.path, answer.StatusCode, answer.Header.Get("Retry-After"), text)
	}
}

// unavailableSocket checks that a new socket is told the same, whichever way it comes.
func (o *outage) unavailableSocket() {
	o.t.Helper()
	for frameType, body := range map[string]any{
		gateway.TypeSessionStart:  o.start("late"),
		gateway.TypeSessionResume: &gateway.Resume{ResumeToken: o.spare},
	} {
		ws, _, err := websocket.Dial(o.ctx, "ws://"+o.process.Address()+"/v1/ws", nil)
		o.must(err)
		answer := o.ask(ws, frameType, body)
		var refusal gateway.Error
		if err := answer.Decode(&refusal); err != nil || answer.Type != gateway.TypeError || refusal.Code != gateway.CodeUnavailable {
			o.t.Errorf("%s on a socket: %s %v", frameType, answer.Type, &refusal)
		}
		_ = ws.CloseNow()
	}
}

// healed ends the load and checks that all is as it should be: everything is acked,
// stands once and where that said, all have it, no socket was lost, and the spare
// session is there.
func (o *outage) healed() {
	o.t.Helper()
	o.hush()
	o.running.Wait()
	for _, c := range o.clients {
		o.must(c.AwaitEmpty(o.ctx))
	}
	heads, err := o.caller.Heads(o.ctx)
	o.must(err)
	var ready gateway.Ready
	if err := o.caller.Post(o.ctx, "/v1/session/resume", &gateway.Resume{ResumeToken: o.spare}, &ready); err != nil {
		o.t.Errorf("the session from before: %v", err)
	}
	var log map[string][]gateway.Event
	acked, refused := 0, 0
	for _, c := range o.clients {
		o.must(c.AwaitSeq(o.ctx, o.room, heads[o.room]))
		if log == nil {
			log = map[string][]gateway.Event{o.room: c.Events(o.room)}
		}
		c.compare(log)
		counts := c.Counts()
		acked, refused = acked+counts.Acked, refused+counts.Unavailable
		if counts.Connections != 1 || len(counts.Ends) > 0 {
			o.t.Errorf("%s had %d connections, ended by %v", c.o.Name, counts.Connections, counts.Reasons)
		}
		if err := c.Violations(); err != nil {
			o.t.Error(err)
		}
	}
	if _, err := allAcked(log, o.clients); err != nil {
		o.t.Error(err)
	}
	o.t.Logf("%d messages acked, %d answers unavailable", acked, refused)
	o.must(o.process.Stop())
}

// bounded watches memory and goroutines from here on; the returned function checks
// what has become of them.
func (o *outage) bounded() func() {
	const heap, goroutines = "go_memstats_heap_inuse_bytes", "go_goroutines"
	heapBefore, goroutinesBefore := o.metric(heap), o.metric(goroutines)
	return func() {
		o.t.Helper()
		heapNow, goroutinesNow := o.metric(heap), o.metric(goroutines)
		if heapNow > heapBefore+outageHeapGrowth || goroutinesNow > goroutinesBefore+outageGoroutines {
			o.t.Errorf("from %.0f to %.0f bytes of memory, from %.0f to %.0f goroutines", heapBefore, heapNow, goroutinesBefore, goroutinesNow)
		}
		o.t.Logf("heap %.1f to %.1f MiB, goroutines %.0f to %.0f", heapBefore/(1<<20), heapNow/(1<<20), goroutinesBefore, goroutinesNow)
	}
}

// posts attempts sends by HTTP, many at once, until ctx ends. None of them is ever
// answered anything but 503.
func (o *outage) posts(ctx context.Context, senders int) (attempts int64) {
	var running sync.WaitGroup
	var n atomic.Int64
	last := o.calls()
	post := last[len(last)-1]
	for range senders {
		running.Go(func() {
			for ctx.Err() == nil && !o.t.Failed() {
				o.unavailable(post)
				n.Add(1)
			}
		})
	}
	running.Wait()
	return n.Load()
}

// logsOutages waits until the server says that its database works again, and demands
// that it has logged nothing but one line for the beginning and one for the end of each
// outage.
func (o *outage) logsOutages(n int) {
	o.t.Helper()
	const begin, end = "the database fails", "the database works again"
	for {
		log := o.process.log.String()
		begun, ended := strings.Count(log, begin), strings.Count(log, end)
		if ended >= n {
			if begun != n || ended != n || strings.Count(log, "\n") != 2*n {
				o.t.Errorf("%d outages are logged as\n%s", n, log)
			}
			break
		}
		if o.ctx.Err() != nil {
			o.t.Fatalf("%d outages are logged as\n%s", n, log)
		}
		pause(o.ctx, 50*time.Millisecond)
	}
	if up := o.metric("waxwing_store_up"); up != 1 {
		o.t.Errorf("the database counts as away: %g", up)
	}
	if errors := o.metric("waxwing_store_errors_total"); errors == 0 {
		o.t.Error("no errors are counted")
	}
}
