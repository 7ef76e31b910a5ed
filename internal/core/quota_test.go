package core

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// TestStoredBytes: an account adds as much as it may, by whatever way and in whatever
// conversation, and what is not stored is not counted.
func TestStoredBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		bind, next := commit("group", 0), commit("group", 1)
		stays := enteringBytes((&logs.Conversation{}), []ds.AccountID{"ann", "bob", "ann"}) + enteringBytes((&logs.Conversation{}), []ds.AccountID{"ann"})
		most := 1000 + len(bind) + len(next) + stays
		w := newWorld(t, url, func(o *setup) {
			o.Limits = limits.New(limits.Rates{limits.StoredBytes: {Count: int64(most), Period: 24 * time.Hour}}, time.Now)
		})
		w.room("c1", "ann", "bob")
		w.room("c2", "ann")
		w.room("c3", "bob")
		check := func(name string, err error, want ds.Code) {
			t.Helper()
			if got := ds.CodeOf(err); got != want || want == "" && err != nil {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
		send := func(account, id, message string, bytes int) error {
			_, err := w.send(account, id, message, strings.Repeat("x", bytes))
			return err
		}
		check("first", send("ann", "c1", "m1", 400), "")
		for range 3 {
			check("a repeat", send("ann", "c1", "m1", 400), "")
		}
		check("too large", send("ann", "c1", "m2", bodyBytesMax+1), ds.InvalidRequest)
		check("not a member", send("ann", "c3", "m2", 400), ds.Forbidden)
		_, err := w.sendMLS("ann", "c2", "bind", bind)
		check("a commit", err, "")
		_, err = w.sendMLS("ann", "c2", "stale", bind)
		check("one that lost", err, ds.EpochConflict)
		_, err = w.bundle("ann", Bundle{ConversationID: "c2", ID: "b", Commit: next})
		check("a bundle", err, "")
		err = w.publish(who("ann"), strings.Repeat("p", 100), strings.Repeat("q", 200))
		check("key packages", err, "")
		check("one byte too much", send("ann", "c1", "m3", 301), ds.RateLimited)
		check("the last", send("ann", "c1", "m3", 298), "")
		check("no more", send("ann", "c2", "m4", 100), ds.RateLimited)
		err = w.publish(who("ann"), strings.Repeat("p", 100))
		check("no more packages", err, ds.RateLimited)
		check("a repeat is answered", send("ann", "c1", "m3", 298), "")
		check("others may", send("bob", "c1", "m5", 500), "")
	})
}

// TestMembershipsAreStoredBytes: who makes up members by the thousand stores as much as
// who sends long messages, and is stopped like them.
func TestMembershipsAreStoredBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		strangers := func(name string) (list []ds.AccountID) {
			for n := range 100 {
				list = append(list, ds.AccountID(fmt.Sprint(name, n, strings.Repeat("x", 500))))
			}
			return list
		}
		one := enteringBytes((&logs.Conversation{}), strangers("a"))
		w := newWorld(t, url, func(o *setup) {
			o.Limits = limits.New(limits.Rates{limits.StoredBytes: {Count: int64(5*one/2 + 10_000), Period: 24 * time.Hour}}, time.Now)
		})
		steps := []struct {
			name string
			err  error
			want ds.Code
		}{
			{"a room", w.apply(who("ann"), Create{ConversationID: "c1", Accounts: strangers("a")}), ""},
			{"those again", w.apply(who("ann"), Invite{ConversationID: "c1", Accounts: strangers("a")}), ""},
			{"others", w.apply(who("ann"), Invite{ConversationID: "c1", Accounts: strangers("b")}), ""},
			{"too many", w.apply(who("ann"), Invite{ConversationID: "c1", Accounts: strangers("c")}), ds.RateLimited},
			{"another room", w.apply(who("ann"), Create{ConversationID: "c2", Accounts: strangers("d")}), ds.RateLimited},
			{"out", w.apply(who("ann"), Remove{ConversationID: "c1", Accounts: strangers("a")}), ""},
			{"a room of two", w.apply(who("ann"), Create{ConversationID: "c2", Accounts: []ds.AccountID{"bob"}}), ""},
			{"somebody else's", w.apply(who("bob"), Create{ConversationID: "c3", Accounts: strangers("c")}), ""},
		}
		for _, step := range steps {
			if got := ds.CodeOf(step.err); got != step.want || step.want == "" && step.err != nil {
				t.Errorf("%s: got %v, want %q", step.name, step.err, step.want)
			}
		}
	})
}

// TestNothingIsPaidForWhatIsNotStored: a request whose transaction fails has cost nothing,
// so that its retries can be paid for; and a repeat that is found on the way is free.
func TestNothingIsPaidForWhatIsNotStored(t *testing.T) {
	t.Run("the database goes", func(t *testing.T) {
		server := pgtest.Start(t, pgtest.Options{})
		var isDoomed atomic.Bool
		w := openWorld(t, store.Options{URL: server.Database(t), Hook: store.Watch(func(sql string, done bool) {
			if !done && strings.HasPrefix(sql, "INSERT INTO records") && isDoomed.CompareAndSwap(true, false) {
				server.Kill()
			}
		})}, func(o *setup) {
			one := enteringBytes((&logs.Conversation{}), []ds.AccountID{"ann"})
			o.Limits = limits.New(limits.Rates{limits.StoredBytes: {Count: int64(one + 1000), Period: 24 * time.Hour}, limits.Sends: {Count: 2, Period: time.Hour}}, time.Now)
		})
		w.room("c1", "ann")
		for _, bytes := range []int{500, 500} {
			message := fmt.Sprint("m", w.headOf("c1"))
			for range 3 {
				for isDoomed.Store(true); isDoomed.Load(); { // connections that were lost before come first
					if _, err := w.send("ann", "c1", message, strings.Repeat("x", bytes)); !ds.IsUnavailable(err) {
						t.Fatalf("with the database away: %v", err)
					}
				}
				if err := server.Restart(); err != nil {
					t.Fatal(err)
				}
			}
			w.retry(message, bytes)
		}
		if _, err := w.send("ann", "c1", "more", "x"); ds.CodeOf(err) != ds.RateLimited {
			t.Errorf("more than there is: %v", err)
		}
	})
	t.Run("the group is another's", func(t *testing.T) {
		onBoth(t, func(t *testing.T, url string) {
			poison := commit("group", 4)
			stays := 2 * enteringBytes((&logs.Conversation{}), []ds.AccountID{"ann"})
			w := newWorld(t, url, func(o *setup) {
				o.Limits = limits.New(limits.Rates{limits.StoredBytes: {Count: int64(stays + 2*len(poison)), Period: 24 * time.Hour}}, time.Now)
			})
			w.room("c1", "ann")
			w.room("c2", "ann")
			if _, err := w.sendMLS("ann", "c2", "bind", poison); err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				if _, err := w.sendMLS("ann", "c1", fmt.Sprint("poison", n), poison); ds.CodeOf(err) != ds.InvalidRequest {
					t.Fatal(err)
				}
			}
			if _, err := w.send("ann", "c1", "m", strings.Repeat("x", len(poison))); err != nil {
				t.Errorf("what is left was paid for nothing: %v", err)
			}
		})
	})
}

func (w *world) headOf(id string) (pos int64) {
	w.t.Helper()
	if err := w.store.Read(context.Background(), func(tx *store.Tx) error {
		head, err := tx.Logs.Head(ds.ConversationID(id))
		pos = head.Pos
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return pos
}

// retry sends until the answer is not `unavailable`, which must be success.
func (w *world) retry(message string, bytes int) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := w.send("ann", "c1", message, strings.Repeat("x", bytes))
		if err == nil {
			return
		}
		if !ds.IsUnavailable(err) || time.Now().After(deadline) {
			w.t.Fatal(err)
		}
	}
}
