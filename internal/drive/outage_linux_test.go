package drive

import (
	"bufio"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testsize"
)

const (
	outageFileSlack = 256 << 10 // what a file may still grow when the disk is about to be full
	outagePosters   = 32
)

// limitFiles lets the server's files grow no larger than so many bytes, as a full
// disk would.
func (o *outage) limitFiles(bytes uint64) {
	o.t.Helper()
	pid := o.process.command.Process.Pid
	var limit unix.Rlimit
	o.must(unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &limit))
	limit.Cur = min(bytes, limit.Max)
	o.must(unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil))
}

// TestDiskFull: when nothing can be written, sends are `unavailable`, reads go on, the
// server lives and says that it is not ready. With room again it goes on by itself,
// and nothing that was acked is missing.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		folder := t.TempDir()
		o := newOutage(t, "--data", folder)
		full := func() error {
			largest := int64(0)
			files, err := filepath.Glob(filepath.Join(folder, "*.db*"))
			for _, name := range files {
				if info, err := os.Stat(name); err == nil {
					largest = max(largest, info.Size())
				}
			}
			o.limitFiles(uint64(largest + outageFileSlack))
			return err
		}
		o.diskFull(full, func() error { o.limitFiles(math.MaxUint64); return nil })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		server := pgtest.Start(t, pgtest.Options{SmallSegments: true})
		o := newOutage(t, "--data", t.TempDir(), "--database", server.Database(t))
		o.diskFull(func() error { return server.FillDisk(outageFileSlack) }, server.FreeDisk)
	})
}

func (o *outage) diskFull(full, free func() error) {
	o.t.Helper()
	o.load()
	o.sent(10)
	o.ready(true)
	check := o.bounded()
	for outages := range outageReads {
		o.must(full())
		o.refused(10)
		o.ready(false)
		o.alive()
		o.reads()
		check()
		o.must(free())
		o.sent(10)
		o.ready(true)
		o.logsOutages(outages + 1)
	}
	o.healed()
}

// reads looks at what is there, by HTTP and from the first message on by a socket.
func (o *outage) reads() {
	o.t.Helper()
	heads, err := o.caller.Heads(o.ctx)
	o.must(err)
	if heads[o.room] == 0 {
		o.t.Error("the room is empty")
	}
	ws, first := o.readers[0], int64(1)
	o.readers = o.readers[1:]
	frame := o.ask(ws, gateway.TypeSubscribe, &gateway.Subscribe{ConvID: o.room, FromSeq: &first})
	var event gateway.Event
	if err := frame.Decode(&event); err != nil || frame.Type != gateway.TypeEvent || event.Seq != 1 {
		o.t.Errorf("a reader is given %s %d: %v", frame.Type, event.Seq, err)
	}
	_ = ws.CloseNow()
	o.streams()
}

// streams opens a stream from the first message on: it comes, with its id, or the server
// says that it has no room for where the stream stands.
func (o *outage) streams() {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.process.URL+"/v1/sse?from_seq=1&conv_id="+o.room, nil)
	o.must(err)
	request.Header.Set("Authorization", "Bearer "+o.caller.token)
	answer, err := http.DefaultClient.Do(request)
	o.must(err)
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable {
		var refusal gateway.Error
		if err := json.NewDecoder(answer.Body).Decode(&refusal); err != nil || refusal.Code != gateway.CodeUnavailable || answer.Header.Get("Retry-After") == "" {
			o.t.Errorf("a stream is refused %q, Retry-After %q: %v", refusal.Code, answer.Header.Get("Retry-After"), err)
		}
		o.t.Log("a new stream is told to come back")
		return
	}
	lines := bufio.NewReader(answer.Body)
	item := ""
	for !strings.HasSuffix(item, "\n\n") {
		line, err := lines.ReadString('\n')
		if err != nil {
			o.t.Fatalf("%d and %q, then %v", answer.StatusCode, item, err)
		}
		if item != "" || line[0] != ':' && line != "\n" { // signs of life
			item += line
		}
	}
	if !strings.Contains(item, `"seq":1,`) || !strings.Contains(item, "\nid: ") {
		o.t.Errorf("a stream is given %q", item)
	}
}

// TestDatabaseKilled: PostgreSQL dies under load and is gone for a while. Everything
// is `unavailable` in that time and costs bounded memory, no socket is lost, and
// afterwards traffic flows again by itself, in one order.
func TestDatabaseKilled(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	o := newOutage(t, "--data", t.TempDir(), "--database", server.Database(t))
	gone := time.Duration(numberOf(t, outageVariable, testsize.Of[uint64](5, 20))) * time.Second
	o.load()
	o.sent(10)
	check := o.bounded()
	server.Kill()
	ended, cancel := context.WithTimeout(o.ctx, gone)
	defer cancel()
	o.ready(false)
	var posting sync.WaitGroup
	posting.Go(func() { t.Logf("%d sends by HTTP, all unavailable", o.posts(ended, outagePosters)) })
	for round := 0; round == 0 || ended.Err() == nil; round++ {
		for _, c := range o.calls() {
			o.unavailable(c)
		}
		o.unavailableSocket()
		o.refused(1)
		o.alive()
		pause(ended, time.Second)
	}
	check()
	posting.Wait()
	o.must(server.Restart())
	o.sent(10)
	o.ready(true)
	o.logsOutages(1)
	o.healed()
}

// TestDatabasePaused: PostgreSQL is there and does not answer. Callers are told
// so while it lasts, and it does not pile up.
func TestDatabasePaused(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	o := newOutage(t, "--data", t.TempDir(), "--database", server.Database(t))
	o.load()
	o.sent(10)
	check := o.bounded()
	o.must(server.Pause())
	t.Cleanup(func() { _ = server.Resume() }) // or it cannot be ended
	var asking sync.WaitGroup
	for _, c := range o.calls() {
		asking.Go(func() { o.unavailable(c) })
	}
	o.refused(1)
	o.ready(false)
	asking.Wait()
	o.alive()
	check()
	o.must(server.Resume())
	o.sent(10)
	o.ready(true)
	o.logsOutages(1)
	o.healed()
}

// TestDatabaseAwayAtStart: a server without its database does not start, says which
// one, and does not reveal the password.
func TestDatabaseAwayAtStart(t *testing.T) {
	t.Parallel()
	const password = "correct-horse"
	_, err := Serve(within(t, outageMax), serverBinary(t), "--listen", "127.0.0.1:0", "--data", t.TempDir(),
		"--database", "postgres://waxwing:"+password+"@127.0.0.1:1/waxwing")
	if err == nil || !strings.Contains(err.Error(), "did not start") || !strings.Contains(err.Error(), "PostgreSQL") {
		t.Errorf("without a database: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), password) {
		t.Error("the password is in what the server says")
	}
}
