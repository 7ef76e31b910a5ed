package core

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// TestExpulsion: an expelled account is removed from all conversations as if it had left them, and
// its key packages are gone; a pass that is cut off is repeated, and one that comes late enough
// finishes. An account that is admitted again is left alone.
func TestExpulsion(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var ahead atomic.Int64 // of the service's clock
		w := newWorld(t, url, func(s *setup) { s.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
		ctx := context.Background()
		const rooms = expulsionConvos + 3
		for i := range rooms {
			w.room(fmt.Sprintf("r%03d", i), "bob", "ann")
		}
		w.room("owned", "ann", "bob", "cem")
		w.room("alone", "ann")
		w.room("others", "bob", "cem")
		if err := w.publish(who("ann"), "one", "two"); err != nil {
			t.Fatal(err)
		}
		expel := func() {
			t.Helper()
			if err := w.store.Update(ctx, func(tx *store.Tx) error {
				if err := tx.Sessions.LockRevocations(); err != nil {
					return err
				}
				return tx.Admission.Expel("ann", "local:1")
			}); err != nil {
				t.Fatal(err)
			}
		}
		state := func() (in int, a store.Account, d store.AccountDetails) {
			t.Helper()
			if err := w.store.View(ctx, func(tx *store.Tx) (err error) {
				if a, err = tx.Admission.Get("ann"); err != nil {
					return err
				}
				d, err = tx.Admission.Details("ann")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return d.Conversations, a, d
		}
		if err := w.service.FinishExpulsion(ctx, "ann"); err != nil {
			t.Fatal(err)
		}
		expel()
		in, a, d := state()
		if in != rooms+2 || a.ExpelledBy != "local:1" || len(d.Devices) != 1 || d.Devices[0].KeyPackages != 2 || d.StoredBytes == 0 {
			t.Fatalf("before: in %d, %+v, %+v", in, a, d)
		}
		cut, cancel := context.WithCancel(ctx)
		cancel()
		if err := w.service.FinishExpulsion(cut, "ann"); err == nil {
			t.Error("done without any time")
		}
		for _, pass := range []string{"first", "second"} {
			if err := w.service.FinishExpulsion(ctx, "ann"); err != nil {
				t.Fatal(err)
			}
			if in, a, d := state(); in != 0 || a.FinishedMS != 0 || len(d.Devices) != 0 {
				t.Errorf("after the %s pass: in %d, %+v, %+v", pass, in, a, d)
			}
		}
		f := w.logs.NewFollower(who("bob"))
		defer f.Close()
		if _, err := f.Follow(ctx, logs.Start{Conversation: "owned", From: logs.AfterPos(0)}); err != nil {
			t.Fatal(err)
		}
		page, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		list := page.Records
		if len(list) != 3 || list[1].Kind != ds.Roles || list[2].Kind != ds.Membership {
			t.Fatalf("logged %+v", list)
		}
		var change ds.MembershipChange
		if err := json.Unmarshal(list[2].Body, &change); err != nil || change.By != "" || len(change.Remove) != 1 || change.Remove[0] != "ann" {
			t.Errorf("the record is %s, %v", list[2].Body, err)
		}
		if err := w.apply(who("bob"), SetAdmins{ConversationID: "owned", Accounts: []ds.AccountID{"cem"}}); err != nil {
			t.Errorf("bob does not own it: %v", err)
		}
		if _, err := w.send("bob", "others", "m", "x"); err != nil {
			t.Error(err)
		}
		// What came later than the first pass.
		w.room("late", "bob", "ann")
		ahead.Store(int64(2 * expulsionSettle))
		if err := w.service.finishExpulsions(ctx); err != nil {
			t.Fatal(err)
		}
		if in, a, _ := state(); in != 0 || a.FinishedMS == 0 {
			t.Errorf("in the end: in %d, %+v", in, a)
		}
		if err := w.store.Update(ctx, func(tx *store.Tx) error {
			if err := tx.Admission.Readmit("ann"); err != nil {
				return err
			}
			_, err := tx.Admission.Admit([]ds.AccountID{"ann"}, 1)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		w.room("again", "bob", "ann")
		if err := w.service.FinishExpulsion(ctx, "ann"); err != nil {
			t.Fatal(err)
		}
		if in, _, _ := state(); in != 1 {
			t.Error("an account that was admitted again is removed")
		}
	})
}
