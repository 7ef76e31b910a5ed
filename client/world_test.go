package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/internal/memnet"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/mls"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is a real server and the people who use it.
type world struct {
	t      testing.TB
	ctx    context.Context
	config server.Config
	server *server.Server
	url    string
	// overXRPC says who uses the server's other door; nil: nobody.
	overXRPC func(name string) bool
	// dial replaces how people connect; nil: by TCP.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// memory is the network of a world in a bubble; nil: TCP.
	memory *memnet.Network
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, config: server.DefaultConfig(t.TempDir())}
	w.limit(time.Minute)
	w.config.Limit = []string{"all=off"}
	if os.Getenv("WAXWING_TEST_LOG") != "" {
		w.config.LogTo = os.Stderr
	}
	w.startServer()
	w.config.Listen = strings.TrimPrefix(w.server.URL(), "http://") // the same again after a restart
	t.Cleanup(func() { w.stopServer() })
	return w
}

// limit ends what takes longer, counted from now.
func (w *world) limit(d time.Duration) {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	w.t.Cleanup(cancel)
	w.ctx = ctx
}

func (w *world) startServer() {
	w.t.Helper()
	var err error
	if w.server, err = server.Start(w.ctx, w.config); err != nil {
		w.t.Fatal(err)
	}
	w.url = w.server.URL()
}

func (w *world) stopServer() {
	w.t.Helper()
	if w.server == nil {
		return
	}
	if err := w.server.Close(); err != nil {
		w.t.Error(err)
	}
	w.server = nil
}

// person is an account with a home, and the client that is open on it.
type person struct {
	*Client
	w       *world
	name    string
	options Options
	net     *cutter
	last    int64 // the last event read
	observe func(what, conversation string, number uint64, authenticator []byte)
}

// person makes one whose client is not open yet.
func (w *world) person(name string) *person {
	w.t.Helper()
	account, err := AccountFromSeed([]byte("seed of the tests"), name)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &person{w: w, name: name, net: &cutter{}}
	p.options = Options{Dir: w.t.TempDir(), StorageKey: bytes.Repeat([]byte{1}, StorageKeyBytes), Server: w.url,
		Account: account, DeviceID: name + "-device", KeyPackages: 4, Dial: p.net.dial}
	if w.dial != nil {
		p.options.Dial, p.options.PingInterval = w.dial, 10*time.Minute // or days would take long
	}
	p.options.useXRPC = w.overXRPC != nil && w.overXRPC(name)
	if os.Getenv("WAXWING_TEST_LOG") != "" {
		p.options.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("person", name)
	}
	w.t.Cleanup(p.close)
	return p
}

func (w *world) people(names ...string) []*person {
	w.t.Helper()
	var out []*person
	for _, name := range names {
		p := w.person(name)
		p.open()
		out = append(out, p)
	}
	return out
}

func (p *person) did() string { return p.options.Account.DID() }

func (p *person) open() {
	p.w.t.Helper()
	if err := p.tryOpen(nil); err != nil {
		p.w.t.Fatal(err)
	}
}

func (p *person) tryOpen(crash func(string) error) error {
	c, err := open(context.Background(), p.options, hooks{crash: crash, observe: p.observe})
	if err == nil {
		p.Client = c
	}
	return err
}

func (p *person) close() {
	if p.Client != nil {
		p.Client.Close()
		p.Client = nil
	}
}

// next reads the person's inbox up to the next event that want accepts.
func (p *person) next(what string, want func(Event) bool) Event {
	p.w.t.Helper()
	for e, err := range p.Events(p.w.ctx, p.last) {
		if err != nil {
			state, _ := p.State()
			conversations, _ := p.Conversations(context.Background())
			p.w.t.Fatalf("%s waits for %s: %v\nconnection %v %v\nconversations %+v", p.name, what, err, state.Link, state.Err, conversations)
		}
		p.last = e.ID
		if want(e) {
			return e
		}
	}
	return Event{}
}

func (p *person) nextType(t EventType) Event {
	p.w.t.Helper()
	return p.next(string(t), func(e Event) bool { return e.Type == t })
}

// reads waits for a message with that text.
func (p *person) reads(text string) Event {
	p.w.t.Helper()
	return p.next(fmt.Sprintf("%q", text), func(e Event) bool { return e.Type == EventMessage && string(e.Text) == text })
}

func (p *person) says(conversation, text string) {
	p.w.t.Helper()
	if _, err := p.Send(p.w.ctx, conversation, []byte(text)); err != nil {
		p.w.t.Fatalf("%s says %q: %v", p.name, text, err)
	}
}

// tells says something, and waits until readers have read it.
func (p *person) tells(conversation, text string, readers ...*person) {
	p.w.t.Helper()
	p.says(conversation, text)
	for _, reader := range readers {
		reader.reads(text)
	}
}

func (p *person) dm(with *person) string {
	p.w.t.Helper()
	id, err := p.StartDM(p.w.ctx, with.did())
	if err != nil {
		p.w.t.Fatal(err)
	}
	return id
}

// transcript is what the person's history of a conversation says, checked to be
// without a gap from its first seq on.
func (p *person) transcript(conversation string) []string {
	p.w.t.Helper()
	history, err := p.History(context.Background(), conversation, 0, 0)
	if err != nil {
		p.w.t.Fatal(err)
	}
	var out []string
	for _, e := range history {
		if e.Type == EventMessage {
			out = append(out, string(e.Text))
		}
	}
	return out
}

// agree checks that people are in one group in one epoch, waiting until they are.
func (w *world) agree(conversation string, people ...*person) {
	w.t.Helper()
	for {
		var seen []string
		for _, p := range people {
			authenticator, epoch, err := p.EpochAuthenticator(context.Background(), conversation)
			seen = append(seen, fmt.Sprintf("%d %x %v", epoch, authenticator, err))
		}
		equal := true
		for _, s := range seen {
			equal = equal && s == seen[0] && !strings.HasPrefix(s, "0 ")
		}
		if equal {
			return
		}
		if w.ctx.Err() != nil {
			w.t.Fatalf("people do not agree on the group:\n%s", strings.Join(seen, "\n"))
		}
		w.breathe()
	}
}

// breathe lets some time pass before a wait looks again; in a bubble, where waits of half a minute
// take no time, more of it.
func (w *world) breathe() {
	if w.memory != nil {
		time.Sleep(100 * time.Millisecond)
	} else {
		time.Sleep(5 * time.Millisecond)
	}
}

// eventually waits for something that no event tells.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for !is() {
		if w.ctx.Err() != nil {
			w.t.Fatalf("waited in vain: %s", what)
		}
		w.breathe()
	}
}

// cutter dials, and cuts what it has dialled.
type cutter struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	down  bool
}

type cutConn struct {
	net.Conn
	c *cutter
}

func (c *cutConn) Close() error {
	c.c.mu.Lock()
	delete(c.c.conns, c)
	c.c.mu.Unlock()
	return c.Conn.Close()
}

func (c *cutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		conn.Close()
		return nil, errors.New("the network is down")
	}
	if c.conns == nil {
		c.conns = map[net.Conn]bool{}
	}
	out := &cutConn{Conn: conn, c: c}
	c.conns[out] = true
	return out, nil
}

// cut breaks all connections, in the middle of whatever they carry.
func (c *cutter) cut() {
	c.mu.Lock()
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for conn := range conns {
		if tcp, ok := conn.(*cutConn).Conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.(*cutConn).Conn.Close()
	}
}

func (c *cutter) setDown(down bool) {
	c.mu.Lock()
	c.down = down
	c.mu.Unlock()
	if down {
		c.cut()
	}
}

// cutting breaks the connections of people, now of one and now of another, within each
// such time, until it is stopped. After restartAt cuts the server restarts as well.
func (w *world) cutting(within time.Duration, restartAt int, people ...*person) (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for i := 0; pause(ctx, rand.N(within)); i++ {
			people[rand.N(len(people))].net.cut()
			if i == restartAt {
				w.stopServer()
				w.startServer()
			}
		}
	})
	return func() { cancel(); cutting.Wait() }
}

// middleman stands between a client and the server and changes what it likes.
type middleman struct {
	server *httptest.Server
	// toClient sees each frame for the client, and whether it is passed on.
	toClient func(frame gateway.Frame) bool
	// answer may change the answer to an HTTP call.
	answer func(path string, body []byte) []byte
}

func newMiddleman(w *world) *middleman {
	m := &middleman{}
	target, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err == nil && m.answer != nil {
				body = m.answer(r.Request.URL.Path, body)
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
			return err
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/v1/ws", func(rw http.ResponseWriter, r *http.Request) { m.socket(rw, r, target) })
	m.server = httptest.NewServer(mux)
	w.t.Cleanup(func() { m.server.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	return m
}

func (m *middleman) socket(rw http.ResponseWriter, r *http.Request, target *url.URL) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	up, _, err := websocket.Dial(ctx, target.JoinPath("/v1/ws").String(), nil)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer up.CloseNow()
	down, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return
	}
	defer down.CloseNow()
	up.SetReadLimit(-1)
	down.SetReadLimit(-1)
	var pumps sync.WaitGroup
	pump := func(from, to *websocket.Conn, pass func([]byte) bool) {
		defer cancel()
		for {
			kind, data, err := from.Read(ctx)
			if err != nil {
				return
			}
			if pass(data) && to.Write(ctx, kind, data) != nil {
				return
			}
		}
	}
	pumps.Go(func() { pump(down, up, func([]byte) bool { return true }) })
	pumps.Go(func() {
		pump(up, down, func(data []byte) bool {
			frame, err := gateway.DecodeFrame(data)
			return err != nil || m.toClient == nil || m.toClient(frame)
		})
	})
	pumps.Wait()
}

// packages are all key packages of p's home.
func (p *person) packages() (all []home.KeyPackage) {
	p.w.t.Helper()
	if err := p.db.update(p.w.ctx, func(tx *tx) (err error) { all, err = tx.KeyPackages.All(); return err }); err != nil {
		p.w.t.Fatal(err)
	}
	return all
}

// message is a key package as it is published.
func (p *person) message(k home.KeyPackage) []byte {
	p.w.t.Helper()
	loaded, err := mls.LoadKeyPackage(k.Private)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return loaded.Message()
}

// call makes an HTTP call of the gateway with a session of p's.
func (p *person) call(ctx context.Context, session, path string, in, out any) error {
	return p.gateway(session).call(ctx, path, in, out)
}

// calls are those of p's session at the gateway.
func (p *person) calls() service {
	p.w.t.Helper()
	return p.gateway(p.session())
}

// xrpcDoor is the door of a client over XRPC.
func (p *person) xrpcDoor() *xrpcDoor { return p.door.(*xrpcDoor) }
