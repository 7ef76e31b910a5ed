package gatewayserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/memnet"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const testDID = "did:web:ds.example"

// testTime is when every test begins. A world's clock stands still unless it is moved,
// so that answers are always the same.
var testTime = time.UnixMilli(1_800_000_000_123)

// world is a door on a real listener over a real store.
type world struct {
	t         testing.TB
	later     atomic.Int64 // ms that the clock has been moved
	core      *core.Service
	logs      *logs.Engine
	directory *directory.Service
	limits    *limits.Limiter
	server    *Server
	http      *httptest.Server
	dialer    func(ctx context.Context, network, address string) (net.Conn, error)
	names     []string
	people    map[string]*person
}

// person is an account with one device, its last session and its socket.
type person struct {
	did, session, resume string
	ws                   *websocket.Conn
	network              net.Conn
	events               *events
	lastID               string // of the last item of a stream
}

// setup holds the options that a test may change.
type setup struct {
	core      core.Options
	logs      logs.Options
	directory directory.Options
	limits    limits.Rates
	door      Options
	memory    *memnet.Network // in place of a socket of the system, for bubbles
}

func newWorld(t testing.TB, change ...func(*setup)) *world {
	t.Helper()
	return newWorldOn(t, "sqlite:"+t.TempDir(), change...)
}

// onBoth runs a test on SQLite and on PostgreSQL.
var onBoth = pgtest.OnBoth

func newWorldOn(t testing.TB, url string, change ...func(*setup)) *world {
	t.Helper()
	return newHookedWorld(t, url, nil, change...)
}

// newHookedWorld is a world whose statements a test is told of.
func newHookedWorld(t testing.TB, url string, watch func(sql string, done bool), change ...func(*setup)) *world {
	t.Helper()
	w := &world{t: t, people: map[string]*person{}}
	now := w.now
	db, err := store.Open(context.Background(), store.Options{URL: url, Now: now, Hook: store.Watch(watch)})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	auth, err := identity.New(identity.Options{Store: db, Now: now, PollInterval: 50 * time.Millisecond,
		Limit:    func(name, key string) error { return w.limits.Take(name, key) },
		Audience: func() []string { return []string{testDID} }})
	must(t, err)
	t.Cleanup(auth.Close)
	rates := limits.Default()
	must(t, rates.Set("all=off"))
	s := setup{
		limits: rates,
		core:   core.Options{Store: db, Now: now},
		logs:   logs.Options{Store: db, Now: now, PollInterval: 50 * time.Millisecond},
		door: Options{Identity: auth, PingMisses: 2,
			ServiceDID: func() string { return testDID }, PublicURL: func() string { return "https://ds.example" }},
	}
	for _, c := range change {
		c(&s)
	}
	w.limits = limits.New(s.limits, w.now)
	s.core.Limits, s.door.Limits = w.limits, w.limits
	w.logs = logs.New(s.logs)
	t.Cleanup(func() { must(t, w.logs.Close()) })
	s.directory.Store, s.directory.Now, s.directory.Limits, s.directory.Wake = db, w.now, w.limits, w.logs.WakeAccount
	w.directory = directory.New(s.directory)
	s.core.Logs, s.core.Directory = w.logs, w.directory
	w.core = core.New(s.core)
	t.Cleanup(w.core.Close)
	s.door.Core, s.door.Logs, s.door.Directory = w.core, w.logs, w.directory
	w.server = New(s.door)
	w.http = httptest.NewUnstartedServer(w.server)
	w.dialer = (&net.Dialer{}).DialContext
	if s.memory != nil {
		must(t, w.http.Listener.Close())
		w.http.Listener, w.dialer = s.memory.Listen(), s.memory.Dial
	}
	w.http.Start()
	t.Cleanup(func() {
		for _, p := range w.people {
			if p.ws != nil {
				_ = p.ws.CloseNow()
			}
			if p.events != nil {
				p.events.stop()
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		must(t, w.server.Shutdown(ctx))
		w.http.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return w
}

func (w *world) now() time.Time {
	return testTime.Add(time.Duration(w.later.Load()) * time.Millisecond)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) person(name string) *person {
	if p := w.people[name]; p != nil {
		return p
	}
	p := &person{did: accountKey(w.t, name).DID()}
	w.people[name] = p
	w.names = append(w.names, name)
	return p
}

func accountKey(t testing.TB, name string) *identity.AccountKey {
	key, err := identity.DeriveAccountKey([]byte("test seed"), name, identity.ES256)
	must(t, err)
	return key
}

func (w *world) token(name string) string {
	w.person(name)
	key := accountKey(w.t, name)
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: testDID,
		Method: gateway.AuthMethod, IssuedAt: w.now(), ExpiresAt: w.now().Add(time.Minute)})
	must(w.t, err)
	return token
}

// start gives name a session over HTTP.
func (w *world) start(name string, features ...string) *person {
	w.t.Helper()
	body, err := gateway.Marshal(gateway.Start{AuthToken: w.token(name), DeviceID: "phone", Features: features})
	must(w.t, err)
	status, answer, _ := w.call("", "POST", "/v1/session/start", string(body))
	if status != http.StatusOK {
		w.t.Fatalf("start: %d %s", status, answer)
	}
	w.remember(name, answer)
	return w.person(name)
}

var (
	sessionTokens = regexp.MustCompile(`"session_token":"(st_[\w-]{22})"`)
	resumeTokens  = regexp.MustCompile(`"resume_token":"(rt_[\w-]{22})"`)
)

// remember takes the tokens out of a ready body.
func (w *world) remember(name, answer string) {
	p := w.person(name)
	if m := sessionTokens.FindStringSubmatch(answer); m != nil {
		p.session = m[1]
	}
	if m := resumeTokens.FindStringSubmatch(answer); m != nil {
		p.resume = m[1]
	}
}

// call makes an HTTP call with the session of name ("" for none).
func (w *world) call(name, method, path, body string) (status int, answer string, header http.Header) {
	w.t.Helper()
	request, err := http.NewRequest(method, w.http.URL+path, strings.NewReader(body))
	must(w.t, err)
	if name != "" {
		request.Header.Set("Authorization", "Bearer "+w.person(name).session)
	}
	response, err := http.DefaultClient.Do(request)
	must(w.t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	must(w.t, err)
	return response.StatusCode, string(data), response.Header
}

// open gives name a socket.
func (w *world) open(name string) *person {
	w.t.Helper()
	return w.openFrom(name, nil)
}

// openFrom is open with headers, such as a proxy's.
func (w *world) openFrom(name string, header http.Header) *person {
	w.t.Helper()
	p := w.person(name)
	if p.ws != nil {
		_ = p.ws.CloseNow()
	}
	ws, network, err := w.dial(header)
	must(w.t, err)
	ws.SetReadLimit(32 << 20)
	p.ws, p.network = ws, network
	return p
}

func (w *world) dial(header http.Header) (*websocket.Conn, net.Conn, error) {
	var network net.Conn
	transport := &http.Transport{DialContext: func(ctx context.Context, n, address string) (net.Conn, error) {
		var err error
		network, err = w.dialer(ctx, n, address)
		return network, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, w.http.URL+"/v1/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, HTTPHeader: header})
	return ws, network, err
}

// cut resets the connection, as a dying network does.
func (p *person) cut() {
	_ = p.network.(*net.TCPConn).SetLinger(0)
	_ = p.network.Close()
	_ = p.ws.CloseNow()
	p.ws = nil
}

func (w *world) say(name, frame string) {
	w.t.Helper()
	must(w.t, w.person(name).ws.Write(context.Background(), websocket.MessageText, []byte(frame)))
}

// hear reads one frame; at the end of the socket it is "closed CODE".
func (w *world) hear(name string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, data, err := w.person(name).ws.Read(ctx)
	if ctx.Err() != nil {
		w.t.Fatalf("%s hears nothing", name)
	}
	if err != nil {
		return fmt.Sprintf("closed %d", websocket.CloseStatus(err))
	}
	w.remember(name, string(data))
	return string(data)
}

// join opens a socket and starts a session on it.
func (w *world) join(name string, features ...string) *person {
	w.t.Helper()
	p := w.open(name)
	frame, err := gateway.EncodeFrame(gateway.TypeSessionStart, nil,
		gateway.Start{AuthToken: w.token(name), DeviceID: "phone", Features: features})
	must(w.t, err)
	w.say(name, string(frame))
	ready := w.hear(name)
	for ready == `{"v":1,"t":"ping"}` { // where the interval is short and the machine is slow
		ready = w.hear(name)
	}
	if !strings.Contains(ready, `"t":"session.ready"`) {
		w.t.Fatalf("%s: %s", name, ready)
	}
	return p
}

var (
	inScript = regexp.MustCompile(`\$(token|session|resume|sid|commit|app|welcome|repeat)\(([^)]*)\)|\$[a-z]+`)
	tokens   = regexp.MustCompile(`\b([sr]t_|sid_)[\w-]{22}`)
	random   = regexp.MustCompile(`("welcome_id":")[^"]+`)
	dmIDs    = regexp.MustCompile(`"dm_[\w-]{16}"`)
)

// fill writes what a script names: people, tokens, MLS messages.
func (w *world) fill(text string) string {
	return inScript.ReplaceAllStringFunc(text, func(s string) string {
		m := inScript.FindStringSubmatch(s)
		arguments := strings.Split(m[2], ",")
		switch m[1] {
		case "token":
			return w.token(m[2])
		case "session":
			return w.person(m[2]).session
		case "sid":
			hash := sha256.Sum256([]byte(w.person(m[2]).session))
			return "sid_" + encodeID(hash[:16])
		case "resume":
			return w.person(m[2]).resume
		case "commit":
			return mlsMessage(arguments[0], arguments[1], wire.CommitContent)
		case "app":
			return mlsMessage(arguments[0], arguments[1], wire.ApplicationContent)
		case "welcome":
			return welcomeFor(m[2])
		case "repeat":
			var n int
			_, _ = fmt.Sscan(arguments[1], &n)
			return strings.Repeat(arguments[0], n)
		}
		return w.person(strings.TrimPrefix(s, "$")).did
	})
}

// plain puts names back for what is not the same in every run.
func (w *world) plain(text string) string {
	for _, name := range w.names {
		text = strings.ReplaceAll(text, w.people[name].did, "$"+name)
	}
	text = tokens.ReplaceAllString(text, "$1…")
	text = random.ReplaceAllString(text, "$1…")
	return dmIDs.ReplaceAllString(text, `"dm_…"`)
}

func mlsMessage(group, epoch string, content wire.ContentType) string {
	var n uint64
	_, _ = fmt.Sscan(epoch, &n)
	return base64.StdEncoding.EncodeToString(wire.Marshal(&wire.Message{
		WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{GroupID: []byte(group), Epoch: n,
			ContentType: content, EncryptedSenderData: []byte("s"), Ciphertext: []byte("c")}}))
}

// welcomeFor is a Welcome for the device whose key package has that text as its ref.
func welcomeFor(ref string) string {
	return base64.StdEncoding.EncodeToString(wire.Marshal(&wire.Message{
		WireFormat: wire.WelcomeFormat, Welcome: &wire.Welcome{CipherSuite: 1, EncryptedGroupInfo: bytes.Repeat([]byte("g"), 40),
			Secrets: []wire.EncryptedGroupSecrets{{NewMember: []byte(ref)}}}}))
}

// apply applies an operation whose result does not matter.
func (w *world) apply(who ds.Caller, op core.Op) error {
	_, err := w.core.Apply(context.Background(), who, op)
	return err
}
