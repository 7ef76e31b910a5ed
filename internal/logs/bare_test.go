package logs

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// world is an engine over a real store, without rules.
type world struct {
	logs  *Engine
	store *store.DB
}

// onBoth runs a test on SQLite and on PostgreSQL.
var onBoth = pgtest.OnBoth

func newWorld(t testing.TB, url string) *world {
	t.Helper()
	return openWorld(t, store.Options{URL: url})
}

func openWorld(t testing.TB, at store.Options) *world {
	t.Helper()
	db, err := store.Open(context.Background(), at)
	must(t, err)
	w := &world{logs: New(Options{Store: db, PollInterval: 50 * time.Millisecond}), store: db}
	t.Cleanup(func() {
		must(t, w.logs.Close())
		must(t, db.Close())
	})
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func who(account string) ds.Caller {
	return ds.Caller{Account: ds.AccountID(account), Device: ds.DeviceID(account + "-phone")}
}

// longNames makes accounts with the longest names there may be.
func longNames(prefix string, n int) []ds.AccountID {
	list, tail := make([]ds.AccountID, n), strings.Repeat("x", ds.AccountBytesMax)
	for i := range list {
		name := prefix + "-" + strconv.Itoa(i) + "-"
		list[i] = ds.AccountID(name + tail[len(name):])
	}
	return list
}

// heapInUse is what can be reached.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // the first one empties pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
