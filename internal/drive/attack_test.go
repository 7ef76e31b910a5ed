package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/testsize"
)

// Bounds of every attack.
const (
	attackHeapMax  = 256 << 20 // live, after a garbage collection
	attackWALMax   = 64 << 20  // a minute after
	attackSlowdown = 4         // p99 of an honest sender, times its quiet value
	attackMax      = 10 * time.Minute

	binaryVariable = "WAXWING_BINARY" // a server to attack in place of the one that is built
)

// attack is a server in a process of its own, on SQLite unless told otherwise, with an honest sender beside
// those who mean it harm.
type attack struct {
	*outage
	data   string
	honest *websocket.Conn
	sent   int
	quiet  time.Duration // p99 of the honest sender before the attack
}

// newAttack starts a server with its limits as they are, but for those that would keep
// one machine from playing many.
func newAttack(t *testing.T, options ...string) *attack {
	t.Helper()
	a := &attack{outage: &outage{t: t, ctx: within(t, attackMax), room: "honest", key: accountKey(t, "honest")}, data: t.TempDir()}
	a.ops = Ops{fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}
	binary := os.Getenv(binaryVariable)
	if binary == "" {
		binary = serverBinary(t)
	}
	var err error
	a.process, err = Serve(a.ctx, binary, append([]string{"--listen", "127.0.0.1:0", "--ops-listen", a.ops.URL[len("http://"):], "--data", a.data,
		"--log-level", "warn", "--ping-interval", "10m", "--limit", "session_starts=off", "--limit", "sends=off"}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.process.Kill)
	a.caller, err = SignIn(a.ctx, a.process.URL, a.process.DID, a.key, "caller")
	a.must(err)
	a.must(a.caller.CreateRoom(a.ctx, a.room, nil))
	a.honest = a.reader("sender")
	a.quiet = a.p99()
	return a
}

// p99 sends messages one after the other and returns how long all but a hundredth of
// them take at most to be acknowledged.
func (a *attack) p99() time.Duration {
	a.t.Helper()
	times := make([]time.Duration, testsize.Of(20, 1000))
	for i := range times {
		a.sent++
		began := time.Now()
		send := &gateway.Send{ConvID: a.room, MsgID: fmt.Sprint("honest-", a.sent), Env: "hello"}
		if answer := a.ask(a.honest, gateway.TypeSend, send); answer.Type != gateway.TypeAcked {
			a.t.Fatalf("an honest message is answered %s %s", answer.Type, answer.Body)
		}
		times[i] = time.Since(began)
		time.Sleep(2 * time.Millisecond) // it is one of many, not a load of its own
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

// during compares the honest sender with itself while the attack goes on, and looks at
// the server's memory before it ends.
func (a *attack) during() {
	a.t.Helper()
	p99 := a.p99()
	live := a.live()
	a.t.Logf("live heap %.1f MiB; an honest message within %s, quiet %s", float64(live)/(1<<20), p99.Round(time.Microsecond), a.quiet.Round(time.Microsecond))
	if live > attackHeapMax {
		a.t.Errorf("%d MiB of live heap, want at most %d", live>>20, attackHeapMax>>20)
	}
	if testsize.IsFull() && p99 > attackSlowdown*a.quiet {
		a.t.Errorf("an honest message takes %s, and %s without the attack", p99, a.quiet)
	}
	if err := a.process.Check(); err != nil {
		a.t.Error(err)
	}
}

// live returns the bytes of the server's heap that are in use after a collection.
func (a *attack) live() int64 {
	a.t.Helper()
	bytes, err := a.ops.LiveHeap(a.ctx)
	a.must(err)
	return bytes
}

// after waits until the write-ahead log is small again.
func (a *attack) after() {
	a.t.Helper()
	size := func() int64 {
		info, err := os.Stat(filepath.Join(a.data, "waxwing.db-wal"))
		if errors.Is(err, os.ErrNotExist) {
			return 0
		}
		a.must(err)
		return info.Size()
	}
	a.t.Logf("%d MiB of write-ahead log at the end", size()>>20)
	for deadline := time.Now().Add(time.Minute); size() > attackWALMax; pause(a.ctx, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Errorf("%d MiB of write-ahead log a minute after, want at most %d", size()>>20, attackWALMax>>20)
			return
		}
	}
	if err := a.process.Check(); err != nil {
		a.t.Error(err)
	}
}

// stranger signs an attacker in.
func (a *attack) stranger(name, device string) (*identity.AccountKey, *Caller) {
	a.t.Helper()
	key := accountKey(a.t, name)
	caller, err := SignIn(a.ctx, a.process.URL, a.process.DID, key, device)
	a.must(err)
	// What it does is not to open connections: where it does, a test dials by itself.
	caller.http.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	return key, caller
}

// narrow opens a socket, with a session of its own, on a network that holds little of
// what is not read.
func (a *attack) narrow(key *identity.AccountKey, device string) (*websocket.Conn, error) {
	token, err := authToken(key, a.process.DID)
	if err != nil {
		return nil, err
	}
	ws, _, err := websocket.Dial(a.ctx, "ws://"+a.process.Address()+"/v1/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialNarrow}}})
	if err != nil {
		return nil, err
	}
	a.t.Cleanup(func() { _ = ws.CloseNow() })
	if err := a.say(ws, gateway.TypeSessionStart, &gateway.Start{AuthToken: token, DeviceID: device}); err != nil {
		return nil, err
	}
	_, answer, err := ws.Read(a.ctx)
	if err != nil {
		return nil, err
	}
	if frame, err := gateway.DecodeFrame(answer); err != nil || frame.Type != gateway.TypeReady {
		return nil, fmt.Errorf("session.start is answered %.200s: %w", answer, err)
	}
	return ws, nil
}

func dialNarrow(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		err = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	return conn, err
}

// say writes a frame and reads nothing.
func (a *attack) say(ws *websocket.Conn, frameType string, body any) error {
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID("1"), body)
	if err != nil {
		return err
	}
	return ws.Write(a.ctx, websocket.MessageText, frame)
}

// post sends a frame through the inbox and ignores what it is answered.
func (a *attack) post(caller *Caller, frameType, id string, body any) error {
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID(id), body)
	if err != nil {
		return err
	}
	var answer json.RawMessage
	return caller.Post(a.ctx, "/v1/inbox", json.RawMessage(frame), &answer)
}

// together runs do for 0 to n-1, some at a time, and fails with the first error.
func (a *attack) together(n, atATime int, do func(i int) error) {
	a.t.Helper()
	var running sync.WaitGroup
	turns := make(chan int)
	failed := make(chan error, n)
	for range atATime {
		running.Go(func() {
			for i := range turns {
				if err := do(i); err != nil {
					failed <- fmt.Errorf("%d: %w", i, err)
				}
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	running.Wait()
	select {
	case err := <-failed:
		a.t.Fatal(err)
	default:
	}
}

// open opens a stream that only the network reads.
func (a *attack) open(caller *Caller, query string, dial func(context.Context, string, string) (net.Conn, error)) (*http.Response, error) {
	request, err := http.NewRequestWithContext(a.ctx, http.MethodGet, a.process.URL+"/v1/sse?"+query, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+caller.token)
	answer, err := (&http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	a.t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, fmt.Errorf("%s: %s", answer.Status, text)
	}
	return answer, nil
}
