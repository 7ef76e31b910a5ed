package logs_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// clockedWorld is a world whose clocks, of the service and of its store, are off by that.
func clockedWorld(t *testing.T, url string, off *atomic.Int64) *world {
	now := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	return openWorld(t, store.Options{URL: url, Now: now}, func(o *setup) { o.Now, o.flushers = now, 1 })
}

// checkTimes reads a log from its beginning: no record is older than the one before it.
func (w *world) checkTimes(log ds.LogID, most int) {
	w.t.Helper()
	list, err := w.store.RecordsAfter(context.Background(), log, 0, 1000, 1<<30)
	if err != nil || len(list) < most {
		w.t.Fatalf("%s has %d records, %v", log, len(list), err)
	}
	for i := range list[1:] {
		if list[i+1].CreatedMS < list[i].CreatedMS {
			w.t.Errorf("%s: record %d is %d ms older than the one before it", log, list[i+1].Pos, list[i].CreatedMS-list[i+1].CreatedMS)
		}
	}
}

// exercise appends records of every sort from the worlds by turns.
func exercise(t *testing.T, turn func(n int) *world) {
	t.Helper()
	turn(0).room("c1", "ann", "bob")
	for n := range 6 {
		w := turn(n)
		if _, err := w.send("ann", "c1", fmt.Sprint("m", n), "x"); err != nil {
			t.Fatal(err)
		}
		w = turn(n + 1)
		if err := w.apply(who("ann"), core.Invite{ConversationID: "c1", Accounts: []ds.AccountID{"eve"}}); err != nil {
			t.Fatal(err)
		}
		w = turn(n)
		if err := w.apply(who("ann"), core.Remove{ConversationID: "c1", Accounts: []ds.AccountID{"eve"}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, err := range turn(1).together(20, func(i int) error { // enough for the fast way of many rows
		_, err := turn(1).send("bob", "c1", fmt.Sprint("many", i), "x")
		return err
	}) {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	turn(0).checkTimes("c/c1", 39)
	turn(0).checkTimes("a/eve", 12)
}

// TestTimesOfTwoNodes: two nodes whose clocks differ by two minutes write by turns.
func TestTimesOfTwoNodes(t *testing.T) {
	url := pgtest.URL(t)
	var right, behind atomic.Int64
	behind.Store(int64(-2 * time.Minute))
	nodes := []*world{clockedWorld(t, url, &right), clockedWorld(t, url, &behind)}
	exercise(t, func(n int) *world { return nodes[n%2] })
}

// TestClockIsSetBack: the clock of the only node goes back before each second record.
func TestClockIsSetBack(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var off atomic.Int64
		w := clockedWorld(t, url, &off)
		exercise(t, func(n int) *world {
			off.Store(int64(-n%2) * int64(time.Hour))
			return w
		})
	})
}
