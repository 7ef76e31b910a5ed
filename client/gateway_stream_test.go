package client

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
)

// How a gate treats an Upgrade.
const (
	gateOpen     = "open"
	gateRefuses  = "answers 426"
	gateStrips   = "strips the header"
	gateResets   = "resets the connection"
	gateStrikes  = "ends sockets before session.ready"
	gateIsBroken = "answers 502 to everything"
)

// gate is a proxy as they stand in front of offices: HTTP passes, WebSockets do not.
type gate struct {
	server *httptest.Server
	mode   atomic.Pointer[string]

	streamBytes atomic.Int64 // if set, streams are cut after up to so many bytes
	lose        atomic.Int64 // if set, one in so many answers is lost after the server gave it
	cuts, lost  atomic.Int64
	sockets     atomic.Int64 // Upgrades that were asked for

	mu     sync.Mutex
	paths  map[string]int // requests; guarded by mu
	putOff map[string]int // those that were told to come again later; guarded by mu
}

func (g *gate) set(mode string) { g.mode.Store(&mode) }

func (g *gate) seen(path string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paths[path]
}

func (g *gate) hasPutOff(path string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.putOff[path] > 0
}

func newGate(w *world, mode string) *gate {
	g := &gate{paths: map[string]int{}, putOff: map[string]int{}}
	g.set(mode)
	target, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{}
	quiet := log.New(io.Discard, "", 0)
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       quiet,
		ModifyResponse: g.pass,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	g.server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.paths[r.URL.Path]++
		g.mu.Unlock()
		if *g.mode.Load() == gateIsBroken {
			http.Error(rw, "no", http.StatusBadGateway)
			return
		}
		if r.URL.Path != "/v1/ws" || g.upgrade(rw, r) {
			proxy.ServeHTTP(rw, r)
		}
	}))
	g.server.Config.ErrorLog = quiet
	g.server.Start()
	w.t.Cleanup(func() {
		g.server.CloseClientConnections()
		g.server.Close()
		transport.CloseIdleConnections()
	})
	return g
}

// upgrade deals with a WebSocket and says whether the server is to see it.
func (g *gate) upgrade(rw http.ResponseWriter, r *http.Request) bool {
	g.sockets.Add(1)
	switch *g.mode.Load() {
	case gateRefuses:
		rw.WriteHeader(http.StatusUpgradeRequired)
		return false
	case gateStrips:
		r.Header.Del("Upgrade")
		r.Header.Del("Connection")
	case gateResets:
		if conn, _, err := rw.(http.Hijacker).Hijack(); err == nil {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
		return false
	case gateStrikes:
		if conn, err := websocket.Accept(rw, r, nil); err == nil {
			conn.CloseNow()
		}
		return false
	}
	return true
}

func (g *gate) pass(answer *http.Response) error {
	path := answer.Request.URL.Path
	if answer.StatusCode == http.StatusTooManyRequests {
		g.mu.Lock()
		g.putOff[path]++
		g.mu.Unlock()
	}
	if n := g.streamBytes.Load(); path == "/v1/sse" && n > 0 {
		answer.Body = &cutBody{answer.Body, g, rand.N(n)}
	}
	if n := g.lose.Load(); n > 0 && (path == "/v1/inbox" || path == "/v1/session/resume") && rand.N(n) == 0 {
		g.lost.Add(1)
		return errors.New("lost")
	}
	return nil
}

// cutBody ends in the middle of whatever it carries.
type cutBody struct {
	io.ReadCloser
	g    *gate
	left int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.g.cuts.Add(1)
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// behind makes people whose way to the server leads through the gate.
func (w *world) behind(g *gate, names ...string) []*person {
	w.t.Helper()
	var out []*person
	for _, name := range names {
		p := w.person(name)
		p.options.Server = g.server.URL
		p.open()
		out = append(out, p)
	}
	return out
}

func (p *person) transport() Transport {
	state, _ := p.State()
	return state.Transport
}

func (p *person) waitFor(what Transport) {
	p.w.t.Helper()
	p.w.eventually(p.name+" is online by "+string(what), func() bool { return p.transport() == what })
}

// TestStreamConversation: where no WebSocket comes through, for whatever reason, two
// people meet and talk all the same.
func TestStreamConversation(t *testing.T) {
	for _, mode := range []string{gateRefuses, gateStrips, gateResets, gateStrikes} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			g := newGate(w, mode)
			ann, bob := w.behind(g, "ann")[0], w.people("bob")[0]
			dm := ann.dm(bob)
			ann.says(dm, "can you read this?")
			bob.reads("can you read this?")
			bob.says(dm, "every word")
			if e := ann.reads("every word"); !e.From.Verified || e.From.Account != bob.did() {
				t.Errorf("from %+v", e.From)
			}
			w.agree(dm, ann, bob)
			if ann.transport() != EventStream || bob.transport() != WebSocket {
				t.Errorf("ann is online by %q, bob by %q", ann.transport(), bob.transport())
			}
			if err := ann.Flush(w.ctx); err != nil {
				t.Fatal(err)
			}
			// Acknowledged, and its own: a new connection begins where the old one was.
			before := g.seen("/v1/inbox")
			ann.close()
			bob.says(dm, "while you were away")
			ann.open()
			ann.reads("while you were away")
			if got := ann.transcript(dm); !slices.Equal(got, []string{"can you read this?", "every word", "while you were away"}) {
				t.Errorf("ann has %q", got)
			}
			if s := ann.Stats(); s.Gaps+s.Undecryptable+s.Duplicates != 0 {
				t.Errorf("%+v", s)
			}
			w.eventually("it is acknowledged", func() bool { return g.seen("/v1/inbox") > before })
		})
	}
}

// TestStreamManyConversations: more conversations than one stream follows, one by one
// and all at once, with one of them lost while nobody listens.
func TestStreamManyConversations(t *testing.T) {
	w := newWorld(t)
	g := newGate(w, gateRefuses)
	ann, bob := w.behind(g, "ann")[0], w.people("bob")[0]
	var rooms []string
	const count = feedConversationsMax + 8
	for range count {
		room, err := bob.CreateRoom(w.ctx, ann.did())
		if err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, room)
	}
	for range rooms {
		ann.nextType(EventJoined)
	}
	talk := func(text string, rooms []string) {
		t.Helper()
		for i, room := range rooms {
			bob.says(room, fmt.Sprint(text, i))
		}
		heard := map[string]bool{}
		for range rooms {
			e := ann.nextType(EventMessage)
			heard[e.Conversation] = heard[e.Conversation] || strings.HasPrefix(string(e.Text), text)
		}
		if len(heard) != len(rooms) {
			t.Fatalf("%s: messages of %d rooms, want %d", text, len(heard), len(rooms))
		}
	}
	talk("first", rooms)
	ann.close()
	var kept tokens
	if err := bob.db.update(w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("tokens", &kept); return err }); err != nil {
		t.Fatal(err)
	}
	lost := rooms[3]
	if err := bob.call(w.ctx, kept.Session, "/v1/rooms/remove", gateway.RoomMembers{ConvID: lost, Members: []string{ann.did()}}, &gateway.Status{}); err != nil {
		t.Fatal(err)
	}
	before := g.seen("/v1/sse")
	ann.open()
	left := slices.DeleteFunc(slices.Clone(rooms), func(id string) bool { return id == lost })
	talk("second", left)
	w.eventually("ann knows that she is out of one", func() bool { return ann.must(lost).Phase == Removed })
	if n := g.seen("/v1/sse") - before; n > 20 {
		t.Errorf("%d streams were opened for %d rooms", n, count)
	}
	// And one more while it listens.
	if err := bob.call(w.ctx, kept.Session, "/v1/rooms/remove", gateway.RoomMembers{ConvID: left[5], Members: []string{ann.did()}}, &gateway.Status{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("ann is out of another", func() bool { return ann.must(left[5]).Phase == Removed })
	talk("third", slices.Delete(left, 5, 6))
	if s := ann.Stats(); s.Gaps+s.Undecryptable != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStreamDisconnects: streams end in the middle of frames, answers to posts and
// resumes are lost, connections are reset and the server restarts, while everybody
// talks. Everything arrives once, in one order, everywhere.
func TestStreamDisconnects(t *testing.T) {
	w := newWorld(t)
	g := newGate(w, gateRefuses)
	people := append(w.behind(g, "ann", "bob"), w.people("cid")...)
	room, err := people[0].CreateRoom(w.ctx, people[1].did(), people[2].did())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range people {
		p.nextType(EventJoined)
	}
	w.agree(room, people...)
	g.streamBytes.Store(6 << 10)
	g.lose.Store(6)
	w.talksWhile(room, func() (stop func()) {
		quiet := w.cutting(250*time.Millisecond, 4, people...)
		return func() {
			quiet()
			if g.cuts.Load() == 0 || g.lost.Load() == 0 {
				t.Errorf("%d cuts in streams and %d lost answers are not enough", g.cuts.Load(), g.lost.Load())
			}
			g.streamBytes.Store(0)
			g.lose.Store(0)
		}
	}, 60*time.Millisecond, people...)
	for _, p := range people {
		t.Logf("%s by %s: %d cuts, %d lost answers", p.name, p.transport(), g.cuts.Load(), g.lost.Load())
	}
	for _, p := range people[:2] {
		p.waitFor(EventStream)
	}
}

// TestStreamAndBack: a client leaves the WebSocket when it must and returns when it
// can, again and again, and loses nothing on the way.
func TestStreamAndBack(t *testing.T) {
	w := newWorld(t)
	g := newGate(w, gateOpen)
	ann, bob := w.person("ann"), w.people("bob")[0]
	ann.options.Server, ann.options.SocketProbe = g.server.URL, 30*time.Millisecond
	ann.open()
	dm := ann.dm(bob)
	bob.nextType(EventJoined)
	ann.waitFor(WebSocket)
	stop := make(chan struct{})
	var talking sync.WaitGroup
	sent := 0
	talking.Go(func() {
		for ; ; sent++ {
			select {
			case <-stop:
				return
			case <-time.After(rand.N(10 * time.Millisecond)):
			}
			from := []*person{ann, bob}[sent%2]
			if _, err := from.Send(w.ctx, dm, fmt.Append(nil, sent)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		g.set(gateRefuses)
		ann.net.cut()
		ann.waitFor(EventStream)
		tried := g.sockets.Load()
		w.eventually("it is tried again", func() bool { return g.sockets.Load() > tried })
		if ann.transport() == WebSocket {
			t.Error("online by a WebSocket that nobody lets through")
		}
		g.set(gateOpen)
		ann.waitFor(WebSocket)
	}
	close(stop)
	talking.Wait()
	for _, p := range []*person{ann, bob} {
		if err := p.Flush(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.eventually(p.name+" has everything", func() bool { return len(p.transcript(dm)) == sent })
		checkSequence(t, p, dm, sent)
		if s := p.Stats(); s.Gaps+s.Undecryptable != 0 {
			t.Errorf("%s: %+v", p.name, s)
		}
	}
}

// TestNoWayAtAll: a server that answers nothing useful is no reason to settle for
// streams.
func TestNoWayAtAll(t *testing.T) {
	w := newWorld(t)
	g := newGate(w, gateIsBroken)
	ann := w.behind(g, "ann")[0]
	w.eventually("it was tried", func() bool {
		state, _ := ann.State()
		return g.seen("/.well-known/did.json") >= 2 && state.Err != nil
	})
	if state, _ := ann.State(); asRefusal(state.Err) == nil || asRefusal(state.Err).Code != codeUnavailable {
		t.Errorf("the state is %+v", state)
	}
	g.set(gateOpen)
	ann.waitFor(WebSocket)
}

// TestStreamSessionRevoked: a session that the server ends is replaced by another.
func TestStreamSessionRevoked(t *testing.T) {
	w := newWorld(t)
	g := newGate(w, gateRefuses)
	ann, bob := w.behind(g, "ann")[0], w.people("bob")[0]
	dm := ann.dm(bob)
	ann.says(dm, "before")
	bob.reads("before")
	var kept tokens
	if err := ann.db.update(w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("tokens", &kept); return err }); err != nil {
		t.Fatal(err)
	}
	if err := ann.call(w.ctx, kept.Session, "/v1/session/logout", struct{}{}, &gateway.Status{}); err != nil {
		t.Fatal(err)
	}
	ann.says(dm, "after")
	bob.reads("after")
	bob.says(dm, "still there")
	ann.reads("still there")
}

// TestStreamRateLimit: what the server puts off, a stream or a message, comes later.
func TestStreamRateLimit(t *testing.T) {
	w := newWorld(t)
	w.stopServer()
	w.config.Limit = []string{"all=off", "sends=2/2s", "subscribes=2/4s"}
	w.startServer()
	g := newGate(w, gateRefuses)
	two := w.behind(g, "ann", "bob")
	ann, bob := two[0], two[1]
	dm := ann.dm(bob)
	var said, rooms []string
	for len(said) < 4 || !g.hasPutOff("/v1/inbox") {
		said = append(said, fmt.Sprint(len(said)))
		ann.says(dm, said[len(said)-1])
		w.eventually("it is sent or put off", func() bool {
			n, err := ann.Pending(w.ctx)
			return err == nil && n == 0 || g.hasPutOff("/v1/inbox")
		})
	}
	for len(rooms) == 0 || !g.hasPutOff("/v1/sse") {
		room, err := ann.CreateRoom(w.ctx, bob.did())
		if err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, room)
		w.eventually("bob is in the room or put off", func() bool {
			c, err := bob.Conversation(w.ctx, room) // which he learns of in his own time
			return err == nil && c.Phase == Joined || g.hasPutOff("/v1/sse")
		})
	}
	for _, room := range rooms {
		w.agree(room, ann, bob) // what is said before bob is in is not for him
		ann.says(room, "in the room")
	}
	w.eventually("bob has it all", func() bool {
		for _, room := range rooms {
			if len(bob.transcript(room)) == 0 {
				return false
			}
		}
		return len(bob.transcript(dm)) == len(said)
	})
	if got := bob.transcript(dm); !slices.Equal(got, said) {
		t.Errorf("bob has %q", got)
	}
	for _, p := range two {
		if s := p.Stats(); s.Gaps+s.Undecryptable != 0 {
			t.Errorf("%s: %+v", p.name, s)
		}
	}
}
