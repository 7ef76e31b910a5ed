package drive

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// TestSecondServerOnDeletedLock: no second server comes up on a database that one uses,
// whatever became of the lock file and by whatever path it is reached.
func TestSecondServerOnDeletedLock(t *testing.T) {
	t.Parallel()
	ctx := within(t, outageMax)
	data := filepath.Join(t.TempDir(), "data")
	first, err := Serve(ctx, serverBinary(t), "--listen", "127.0.0.1:0", "--data", data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Kill)
	refused := func(name, folder string) {
		t.Helper()
		second, err := Serve(ctx, serverBinary(t), "--listen", "127.0.0.1:0", "--data", folder)
		if err == nil {
			second.Kill()
			t.Errorf("%s: a second server is up", name)
		} else if !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("as it is", data)
	for range 2 { // each time a server that is refused makes the file again
		if err := os.Remove(filepath.Join(data, "waxwing.lock")); err != nil {
			t.Fatal(err)
		}
		refused("without its lock file", data)
	}
	if runtime.GOOS == "linux" { // elsewhere it is the directory that is locked
		linked := filepath.Join(filepath.Dir(data), "linked")
		if err := os.Mkdir(linked, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"waxwing.db", "waxwing.db-wal", "waxwing.db-shm"} {
			if err := os.Link(filepath.Join(data, name), filepath.Join(linked, name)); err != nil {
				t.Fatal(err)
			}
		}
		refused("by another path", linked)
	}
	if err := first.Check(); err != nil {
		t.Error(err)
	}
	first.Kill()
	third, err := Serve(ctx, serverBinary(t), "--listen", "127.0.0.1:0", "--data", data)
	if err != nil {
		t.Fatalf("after the first one was killed: %v", err)
	}
	third.Kill()
}

// TestReplacedDirectory: a server whose directory was replaced acknowledges nothing more,
// says so once, and works again when its files are back.
func TestReplacedDirectory(t *testing.T) {
	t.Parallel()
	ctx := within(t, outageMax)
	data := filepath.Join(t.TempDir(), "data")
	o := newOutage(t, "--data", data)
	send := func(id string) error {
		frame, err := gateway.EncodeFrame(gateway.TypeSend, gateway.StringID(id), &gateway.Send{ConvID: o.room, MsgID: id, Env: "x"})
		o.must(err)
		var answer json.RawMessage
		return o.caller.Post(ctx, "/v1/inbox", json.RawMessage(frame), &answer)
	}
	o.must(send("before"))
	away := data + ".away"
	o.must(os.Rename(data, away))
	if err := send("away"); err == nil {
		t.Error("a message was acknowledged that is not in the data directory")
	}
	o.must(os.Mkdir(data, 0o700))
	second, err := Serve(ctx, serverBinary(t), "--listen", "127.0.0.1:0", "--data", data)
	o.must(err)
	if err := send("replaced"); err == nil {
		t.Error("a message was acknowledged that is not in the data directory")
	}
	o.ready(false)
	if status, _ := o.get("/livez"); status != http.StatusOK {
		t.Errorf("livez: %d", status)
	}
	second.Kill()
	o.must(os.RemoveAll(data))
	o.must(os.Rename(away, data))
	for err := send("after"); err != nil; err = send("after") {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		pause(ctx, 50*time.Millisecond)
	}
	o.ready(true)
	o.logsOutages(1)
}

// TestFewOpenFiles: a server that may have few files open says so at start, and shows how
// many it has.
func TestFewOpenFiles(t *testing.T) {
	t.Parallel()
	const few = 512
	script := filepath.Join(t.TempDir(), "few")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec '%s' \"$@\"\n", few, serverBinary(t))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	o := &outage{t: t, ctx: within(t, outageMax)}
	o.ops = Ops{fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}
	for _, binary := range []string{script, serverBinary(t)} {
		var err error
		o.process, err = Serve(o.ctx, binary, "--listen", "127.0.0.1:0", "--ops-listen", o.ops.URL[len("http://"):], "--data", t.TempDir())
		o.must(err)
		most, now := o.metric("process_max_fds"), o.metric("process_open_fds")
		if binary == script && most != few || now < 5 || now > most {
			t.Errorf("%g of %g files are open", now, most)
		}
		want := 0
		if most < 8192 {
			want = 1
		}
		if got := strings.Count(o.process.log.String(), "few files open"); got != want {
			t.Errorf("%d lines about %g open files, want %d:\n%s", got, most, want, o.process.log)
		}
		o.must(o.process.Stop())
	}
}
