package sim

import (
	"encoding/json"
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
	if status, _ := o.get(o.ops + "/livez"); status != http.StatusOK {
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
