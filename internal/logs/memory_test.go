package logs_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/mls/wire"
)

// trusted makes node a decide conversation c from memory: its owner is ann, bob is in
// it, and a has seen that eve is not.
func trusted(t *testing.T, a *world) {
	t.Helper()
	a.room("c", "ann", "bob")
	if err := a.apply(who("ann"), core.Remove{ConversationID: "c", Accounts: []ds.AccountID{"eve"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * logs.KnownTrust {
		if _, err := a.send("bob", "c", fmt.Sprint("m", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMemoryIsVerified: what another node changed is seen by whatever is decided next,
// also where that writes nothing.
func TestMemoryIsVerified(t *testing.T) {
	invite := func(account ds.AccountID) core.Op {
		return core.Invite{ConversationID: "c", Accounts: []ds.AccountID{account}}
	}
	remove := func(account ds.AccountID) core.Op {
		return core.Remove{ConversationID: "c", Accounts: []ds.AccountID{account}}
	}
	message := core.Send{ConversationID: "c", ID: "later", Body: []byte("x")}
	rows := []struct {
		name     string
		there    core.Op // by ann
		by       string
		here     core.Op
		want     string
		wantCode ds.Code
	}{
		{"a removal of who has just entered", invite("eve"), "ann", remove("eve"), "[{ann owner} {bob member}]", ""},
		{"an invitation of who has just been removed", remove("bob"), "ann", invite("bob"), "[{ann owner} {bob member}]", ""},
		{"a message of who has just entered", invite("eve"), "eve", message, "[{ann owner} {bob member} {eve member}]", ""},
		{"a message of who has just been removed", remove("bob"), "bob", message, "[{ann owner}]", ds.Forbidden},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			url := pgtest.URL(t)
			a, b := newWorld(t, url), newWorld(t, url)
			trusted(t, a)
			if err := b.apply(who("ann"), row.there); err != nil {
				t.Fatal(err)
			}
			if err := a.apply(who(row.by), row.here); ds.CodeOf(err) != row.wantCode || err != nil && row.wantCode == "" {
				t.Errorf("got %v", err)
			}
			list, err := b.service.Members(t.Context(), who("ann"), "c")
			if got := fmt.Sprint(list); err != nil || got != row.want {
				t.Errorf("members %s, %v, want %s", got, err, row.want)
			}
		})
	}
}

// TestLimitsCountRequests: a rule that runs again, after a race with another node or
// beside a poisoned request, is counted once.
func TestLimitsCountRequests(t *testing.T) {
	limited := func(sends int64) func(*setup) {
		return func(o *setup) {
			o.Limits = limits.New(limits.Rates{limits.Sends: {Count: sends, Period: time.Hour}}, time.Now)
		}
	}
	t.Run("race", func(t *testing.T) {
		url := pgtest.URL(t)
		a, b := newWorld(t, url, limited(2*logs.KnownTrust+1)), newWorld(t, url)
		trusted(t, a)
		if _, err := b.send("ann", "c", "elsewhere", "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := a.send("bob", "c", "last", "x"); err != nil {
			t.Errorf("the last one allowed: %v", err)
		}
		if _, err := a.send("bob", "c", "one more", "x"); ds.CodeOf(err) != ds.RateLimited {
			t.Errorf("one more: %v", err)
		}
	})
	t.Run("poison", func(t *testing.T) {
		w := newWorld(t, "sqlite:"+t.TempDir(), oneFlusher, limited(1))
		members := []string{"ann"}
		for i := range 8 {
			members = append(members, fmt.Sprint("member", i))
		}
		w.room("c1", members...)
		w.room("c2", "ann")
		if _, err := w.sendMLS("ann", "c2", "bind", commit("group", 0)); err != nil {
			t.Fatal(err)
		}
		for i, err := range w.together(8, func(i int) error {
			if i == 4 {
				_, err := w.sendMLS("ann", "c1", "poison", commit("group", 4))
				return err
			}
			_, err := w.send(fmt.Sprint("member", i), "c1", fmt.Sprint("m", i), "x")
			return err
		}) {
			if i != 4 && err != nil {
				t.Errorf("first message of member %d: %v", i, err)
			}
		}
	})
}

// TestHeldRows: a row that somebody else holds keeps its own requests waiting and
// nobody else's.
func TestHeldRows(t *testing.T) {
	for _, row := range []struct{ name, held string }{{"conversation", "c/stuck"}, {"account log", "a/bob"}} {
		t.Run(row.name, func(t *testing.T) {
			url := pgtest.URL(t)
			w := newWorld(t, url, oneFlusher)
			w.room("stuck", "ann", "bob")
			w.room("free", "ann")
			ctx := context.Background()
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(ctx)
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, `SELECT pos FROM logs WHERE log_id = $1 FOR UPDATE`, row.held); err != nil {
				t.Fatal(err)
			}
			stuck := make(chan error, 1)
			go func() {
				stuck <- w.apply(who("ann"), core.Remove{ConversationID: "stuck", Accounts: []ds.AccountID{"bob"}})
			}()
			for i := range 20 {
				if _, err := w.send("ann", "free", fmt.Sprint("m", i), "x"); err != nil {
					t.Errorf("message %d into another conversation: %v", i, err)
				}
			}
			select {
			case err := <-stuck:
				t.Errorf("answered while the row was held: %v", err)
			default:
			}
			if err := tx.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-stuck; err != nil {
				t.Errorf("after the row was free: %v", err)
			}
		})
	}
}

// TestWelcomesAreBounded: a page of an account log holds its bound of Welcomes, and a
// bundle names a device once.
func TestWelcomesAreBounded(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	large := func(refs ...string) []byte {
		var m wire.Message
		if err := wire.Unmarshal(welcome(refs...), &m); err != nil {
			t.Fatal(err)
		}
		m.Welcome.EncryptedGroupInfo = make([]byte, logs.PageBytes*2/3)
		return wire.Marshal(&m)
	}
	const rooms = 5
	for i := range rooms {
		id := fmt.Sprint("c", i)
		w.room(id, "ann")
		bundle := core.Bundle{ConversationID: ds.ConversationID(id), ID: "b", Commit: commit(id, 0), Add: []ds.AccountID{"bob"}}
		bundle.Welcome, bundle.To = large("aa", "bb"), []core.Recipient{recipient("bob", "aa"), recipient("bob", "bb")}
		if _, err := w.bundle("ann", bundle); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("a device named twice: %v", err)
		}
		bundle.Welcome, bundle.To = large("aa"), bundle.To[:1]
		if _, err := w.bundle("ann", bundle); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f := w.logs.NewFollower(who("bob"))
	defer f.Close()
	if err := followFrom(ctx, f, "", 0); err != nil {
		t.Fatal(err)
	}
	for seen := 0; seen < rooms; {
		page, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, e := range page.Events {
			if e.Welcome != nil {
				seen++
			}
			bytes += len(e.Welcome)
		}
		if bytes > logs.PageBytes {
			t.Errorf("%d bytes of Welcomes on a page", bytes)
		}
		if page.CaughtUp && seen != rooms {
			t.Errorf("caught up with %d of %d", seen, rooms)
		}
	}
}
