package drive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	*Attack
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
	a.Attack = NewAttack(a.ctx, a.process)
	t.Cleanup(a.Calm)
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
	caller, err := a.Stranger(key, device)
	a.must(err)
	return key, caller
}
