package logs_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

func TestCursors(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx := context.Background()
		w.room("c1", "ann", "bob")
		for n := range 5 {
			if _, err := w.send("ann", "c1", fmt.Sprint("m", n), "x"); err != nil {
				t.Fatal(err)
			}
		}
		next := func(want int64) {
			t.Helper()
			list, err := w.logs.Cursors(ctx, who("bob"))
			got := int64(0)
			for _, c := range list {
				if c.Log == ds.ConversationLog("c1") {
					got = c.Next
				}
			}
			if err != nil || got != want {
				t.Errorf("cursor at %d, want %d, %v", got, want, err)
			}
		}
		next(0)
		for _, ack := range []struct{ seq, want int64 }{{2, 3}, {1, 3}, {99, 6}} {
			if err := w.logs.Acknowledge(ctx, who("bob"), "c/c1", ack.seq); err != nil {
				t.Fatal(err)
			}
			next(ack.want) // read through the buffer
		}
		if list, _ := w.read("bob", "c1", 0); len(list) != 0 {
			t.Errorf("from the cursor bob reads %s", seqs(list))
		}
		if err := w.logs.AcknowledgeNow(ctx, who("ann"), "c/c1", 2); err != nil {
			t.Fatal(err)
		}
		if list, _ := w.read("ann", "c1", 0); seqs(list) != "3:app 4:app 5:app" {
			t.Errorf("from the cursor ann reads %s", seqs(list))
		}
		for name, err := range map[string]error{
			"stranger": w.logs.Acknowledge(ctx, who("sue"), "c/c1", 1),
			"no such":  w.logs.AcknowledgeNow(ctx, who("ann"), "c/none", 1),
			"bad name": w.logs.Acknowledge(ctx, who("ann"), "c/a\x00b", 1),
		} {
			if ds.CodeOf(err) != ds.Forbidden {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.logs.Acknowledge(ctx, who("ann"), "c/c1", -1); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("negative: %v", err)
		}
	})
}

// TestCursorsSurviveARestart: what was acknowledged before a clean close is there.
func TestCursorsSurviveARestart(t *testing.T) {
	url := "sqlite:" + t.TempDir()
	ctx := context.Background()
	w := newWorld(t, url)
	w.room("c1", "ann", "bob")
	if _, err := w.send("ann", "c1", "m", "x"); err != nil {
		t.Fatal(err)
	}
	if err := w.logs.Acknowledge(ctx, who("bob"), "c/c1", 1); err != nil {
		t.Fatal(err)
	}
	w.close()
	w = newWorld(t, url)
	if list, _ := w.read("bob", "c1", 0); len(list) != 0 {
		t.Errorf("bob reads %s again", seqs(list))
	}
}

// TestDeviceEvents: events are seen by the device they are for, again on each connect
// until they are acknowledged.
func TestDeviceEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx := context.Background()
		w.room("c1", "ann", "bob")
		r, err := w.bundle("ann", core.Bundle{ConversationID: "c1", ID: "b1", Commit: commit("group", 0), Welcome: welcome("aa", "bb"),
			To: []core.Recipient{recipient("bob", "aa"), {Device: ds.Device{Account: "bob", ID: "laptop"}, KeyPackageRef: "bb"}}})
		if err != nil || r.Epoch != 1 || r.Seq != 1 {
			t.Fatal(r, err)
		}
		events := func(device ds.DeviceID) (list []ds.DeviceEvent, kinds []ds.Kind, last int64) {
			t.Helper()
			f := w.logs.NewFollower(ds.Caller{Account: "bob", Device: device})
			defer f.Close()
			if err := followFrom(ctx, f, "", 0); err != nil {
				t.Fatal(err)
			}
			page, err := f.Next(ctx)
			if err != nil || !page.CaughtUp {
				t.Fatal(page, err)
			}
			for _, r := range page.Records {
				kinds = append(kinds, r.Kind)
			}
			return page.Events, kinds, page.Head
		}
		for range 2 {
			list, kinds, _ := events("laptop")
			if len(list) != 2 || kinds[0] != ds.MembersEvent || kinds[1] != ds.WelcomeEvent || list[1].KeyPackageRef != "bb" ||
				list[1].NextSeq != 2 || list[1].Epoch != 1 || string(list[1].Welcome) != string(welcome("aa", "bb")) {
				t.Errorf("laptop is told %+v", list)
			}
		}
		_, _, last := events("laptop")
		if err := w.logs.Acknowledge(ctx, ds.Caller{Account: "bob", Device: "laptop"}, "a/bob", last); err != nil {
			t.Fatal(err)
		}
		if list, _, _ := events("laptop"); len(list) != 0 {
			t.Errorf("after its ack laptop is told %+v", list)
		}
		if err := w.logs.Acknowledge(ctx, who("bob"), "a/bob", 1000); err != nil {
			t.Fatal(err)
		}
		if err := w.apply(who("ann"), core.Create{ConversationID: "c2", Accounts: []ds.AccountID{"bob"}}); err != nil {
			t.Fatal(err)
		}
		if list, _, _ := events("bob-phone"); len(list) != 1 || list[0].ConversationID != "c2" {
			t.Errorf("an ack beyond the head skips events to come: phone is told %+v", list)
		}
		if list, _, _ := events("laptop"); len(list) != 1 {
			t.Errorf("laptop is told %+v", list)
		}
		if list, _, _ := events("other-phone"); len(list) != 2 {
			t.Errorf("phone is told %+v", list)
		}
		if list, _, _ := events("tablet"); len(list) != 2 {
			t.Errorf("a third device is told %+v", list)
		}
	})
}

// TestDeviceAcksAreBuffered: a device that acknowledges one event after the other
// does not make a transaction for each, whether it has been handed them or not, and
// what comes behind an ack of more than there is is not skipped.
func TestDeviceAcksAreBuffered(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		const acks, rooms = 100, 3
		var writes atomic.Int64
		w := hookedWorld(t, url, func(sql string, done bool) {
			if !done && strings.HasPrefix(sql, "INSERT INTO cursors") {
				writes.Add(1)
			}
		})
		for n := range rooms {
			w.room(fmt.Sprint("c", n), "ann", "bob")
		}
		f := w.logs.NewFollower(who("bob"))
		defer f.Close()
		if err := followFrom(t.Context(), f, "", 0); err != nil {
			t.Fatal(err)
		}
		page, err := f.Next(t.Context())
		if err != nil || len(page.Events) != rooms {
			t.Fatal(page, err)
		}
		for n := range acks {
			if err := f.Acknowledge(t.Context(), "a/bob", int64(n)); err != nil {
				t.Fatal(err)
			}
			if err := w.logs.Acknowledge(t.Context(), who("ann"), "a/ann", int64(n)); err != nil {
				t.Fatal(err)
			}
		}
		if n := writes.Load(); n > acks/2 { // on a slow machine one for each interval
			t.Errorf("%d transactions for %d acks", n, 2*acks)
		}
		w.room("c-new", "ann", "bob")
		again := w.logs.NewFollower(who("bob"))
		defer again.Close()
		if err := followFrom(t.Context(), again, "", 0); err != nil {
			t.Fatal(err)
		}
		if page, err := again.Next(t.Context()); err != nil || len(page.Events) != 1 || page.Events[0].ConversationID != "c-new" {
			t.Errorf("after %d rooms were acknowledged, bob is told %+v, %v", rooms, page.Events, err)
		}
		if err := w.logs.AcknowledgeNow(t.Context(), who("bob"), "a/bob", rooms+1); err != nil {
			t.Fatal(err)
		}
		if err := w.store.View(t.Context(), func(tx *store.Tx) error {
			next, err := tx.Cursors.Get(who("bob").AsDevice(), ds.AccountLog("bob"))
			if next != rooms+2 {
				t.Errorf("an ack with an answer is stored as %d", next)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	})
}

// TestCursorsShareATransaction: devices that go away while one is being written are
// written together, each of them with what it acknowledged.
func TestCursorsShareATransaction(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		const devices = 20
		var writes atomic.Int64
		gate := make(chan struct{})
		w := hookedWorld(t, url, func(sql string, done bool) {
			if !done && strings.HasPrefix(sql, "INSERT INTO cursors") {
				writes.Add(1)
				<-gate
			}
		})
		w.room("c1", "ann", "bob")
		if _, err := w.send("ann", "c1", "m1", "x"); err != nil {
			t.Fatal(err)
		}
		bob := func(n int) ds.Caller {
			return ds.Caller{Account: "bob", Device: ds.DeviceID(fmt.Sprint("device-", n))}
		}
		var group errgroup.Group
		acknowledge := func(n int) {
			group.Go(func() error { return w.logs.AcknowledgeNow(t.Context(), bob(n), "c/c1", 1) })
		}
		for acknowledge(0); writes.Load() == 0 || w.logs.CursorsWaiting() > 0; { // until it is being written
			runtime.Gosched()
		}
		for n := range devices - 1 {
			acknowledge(n + 1)
		}
		for w.logs.CursorsWaiting() < devices-1 {
			runtime.Gosched()
		}
		close(gate)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		// Two, and on a slow machine some more that an interval ended in between.
		if n := writes.Load(); n < 2 || n > devices/2 {
			t.Errorf("%d transactions for %d devices, want two", n, devices)
		}
		for n := range devices {
			if list, err := w.logs.Cursors(t.Context(), bob(n)); err != nil || len(list) != 1 || list[0].Next != 2 {
				t.Errorf("device %d: %v, %v", n, list, err)
			}
		}
	})
}

// TestCursorsBesideAFullBuffer: what is said to be durable is, whatever others have left in
// the buffer.
func TestCursorsBesideAFullBuffer(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "bob")
		if _, err := w.send("ann", "c1", "m1", "x"); err != nil {
			t.Fatal(err)
		}
		bob := ds.Caller{Account: "bob", Device: "phone"}
		w.logs.FillCursors() // as if others had
		must(t, w.logs.AcknowledgeNow(t.Context(), bob, "c/c1", 1))
		must(t, w.logs.AcknowledgeNow(t.Context(), bob, "a/bob", 1))
		must(t, w.service.MarkRead(t.Context(), ds.Caller{Account: "ann", Device: "phone"}, "c1", core.ReadMark{All: true}))
		if list, err := w.logs.Cursors(t.Context(), ds.Caller{Account: "ann", Device: "phone"}); err != nil || len(list) != 1 {
			t.Errorf("read marks: %v, %v", list, err)
		}
		list, err := w.logs.Cursors(t.Context(), bob)
		if err != nil || len(list) != 2 || list[0].Next != 2 || list[1].Next != 2 {
			t.Errorf("cursors: %v, %v", list, err)
		}
	})
}
