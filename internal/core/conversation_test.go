package core

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

func TestSendAndFollow(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "bob")
		for i, m := range []string{"m1", "m2", "m3"} {
			r, err := w.send("ann", "c1", m, "text "+m)
			if err != nil || r.Seq != int64(i+1) {
				t.Fatalf("%s: seq %d, %v", m, r.Seq, err)
			}
		}
		list, _ := w.read("bob", "c1", 0)
		if got := seqs(list); got != "1:app 2:app 3:app" {
			t.Errorf("bob reads %s", got)
		}
		if list, _ = w.read("bob", "c1", 3); seqs(list) != "3:app" {
			t.Errorf("from 3 bob reads %s", seqs(list))
		}
		var previous []byte
		all, _ := w.read("ann", "c1", 1)
		if len(all) != 3 || string(all[0].Body) != "text m1" {
			t.Errorf("ann reads %v", all)
		}
		for _, r := range all { // the chain begins with the membership record at pos 1
			if previous != nil && !bytes.Equal(logs.ChainHash(previous, &r), r.Hash) {
				t.Errorf("the chain breaks at pos %d", r.Pos)
			}
			previous = r.Hash
		}
	})
}

func TestRemovalReachesAnIdleFollower(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		w.room("c1", "ann", "bob")
		f := w.logs.NewFollower(who("bob"))
		defer f.Close()
		if err := followFrom(ctx, f, "c1", 0); err != nil {
			t.Fatal(err)
		}
		if page, err := f.Next(ctx); err != nil || !page.CaughtUp || page.Head != 0 {
			t.Fatal(page, err)
		}
		if err := w.apply(who("ann"), Remove{ConversationID: "c1", Accounts: []ds.AccountID{"bob"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.send("ann", "c1", "secret", "after"); err != nil {
			t.Fatal(err)
		}
		page, err := f.Next(ctx)
		if err != nil || page.Ended == nil || page.Ended.Message != "membership revoked" {
			t.Fatal(page, err)
		}
		for _, r := range page.Records {
			if r.Seq != 0 {
				t.Errorf("bob is shown %v", r)
			}
		}
		if err := followFrom(ctx, f, "c1", 0); ds.CodeOf(err) != ds.Forbidden {
			t.Errorf("a removed account follows: %v", err)
		}
		if err := w.apply(who("ann"), Invite{ConversationID: "c1", Accounts: []ds.AccountID{"bob"}}); err != nil {
			t.Fatal(err)
		}
		list, ended := w.read("bob", "c1", 1)
		if seqs(list) != "1:app" || ended != nil {
			t.Errorf("after his return bob reads %s, %v", seqs(list), ended)
		}
	})
}

// TestFormerMember: who was away when it was removed reads on to the record that says
// so, if it asks for that, and nothing behind it or before its last stay.
func TestFormerMember(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		bob := []ds.AccountID{"bob"}
		step := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		send := func(id string) { _, err := w.send("ann", "c1", id, "x"); step(err) }
		w.room("c1", "ann", "bob")
		send("m1")
		step(w.apply(who("ann"), Remove{ConversationID: "c1", Accounts: bob}))
		send("m2")
		step(w.apply(who("ann"), Invite{ConversationID: "c1", Accounts: bob}))
		send("m3")
		send("m4")
		step(w.apply(who("ann"), Remove{ConversationID: "c1", Accounts: bob}))
		send("m5")
		follow := func(former bool, from int64) (string, error) {
			f := w.logs.NewFollower(who("bob"))
			f.Former = former
			defer f.Close()
			if err := followFrom(ctx, f, "c1", from); err != nil {
				return "", err
			}
			var all []ds.Record
			for {
				page, err := f.Next(ctx)
				if err != nil {
					return "", err
				}
				all = append(all, page.Records...)
				if page.CaughtUp {
					t.Errorf("told the present head %d", page.Head)
				}
				if page.Ended != nil {
					return seqs(all), nil
				}
			}
		}
		if _, err := follow(false, 1); ds.CodeOf(err) != ds.Forbidden {
			t.Errorf("without asking for it: %v", err)
		}
		for from, want := range map[int64]string{1: "3:app 4:app", 4: "4:app", 5: ""} {
			got, err := follow(true, from)
			if got != want || err != nil && from < 5 {
				t.Errorf("from %d: %q, %v, want %q", from, got, err, want)
			}
		}
		f := w.logs.NewFollower(who("sue"))
		f.Former = true
		defer f.Close()
		if err := followFrom(ctx, f, "c1", 1); ds.CodeOf(err) != ds.Forbidden {
			t.Errorf("a stranger: %v", err)
		}
	})
}

// TestFullConversationSwaps: in a full conversation a commit may put another account in
// the place of one that it removes, and a refusal names what the rules say.
func TestFullConversationSwaps(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx := context.Background()
		w.room("c1", "ann", "bob")
		two := int64(2)
		if _, err := w.service.Apply(ctx, who("ann"), Settings{ConversationID: "c1", Policy: PolicyChange{MaxMembers: &two}}); err != nil {
			t.Fatal(err)
		}
		bundle := func(id string, epoch uint64, add, remove []ds.AccountID) error {
			_, err := w.bundle("ann", Bundle{ConversationID: "c1", ID: ds.MessageID(id), Commit: commit("g", epoch), Add: add, Remove: remove})
			return err
		}
		const full = "the conversation has at most 2 members"
		refused := func(name string, err error) {
			t.Helper()
			if ds.CodeOf(err) != ds.LimitExceeded || reasonOf(err) != ds.TooManyMembers || !strings.HasSuffix(err.Error(), full) {
				t.Errorf("%s: %v", name, err)
			}
		}
		refused("an invitation", w.apply(who("ann"), Invite{ConversationID: "c1", Accounts: []ds.AccountID{"eve"}}))
		refused("a commit that adds", bundle("b0", 0, []ds.AccountID{"eve"}, nil))
		refused("two for one", bundle("b1", 0, []ds.AccountID{"eve", "sue"}, []ds.AccountID{"bob"}))
		if err := bundle("b2", 0, []ds.AccountID{"eve"}, []ds.AccountID{"bob"}); err != nil {
			t.Errorf("one for one: %v", err)
		}
		if list, err := w.service.Members(ctx, who("ann"), "c1"); fmt.Sprint(list) != "[{ann owner} {eve member}]" {
			t.Error(list, err)
		}
	})
}

// TestRoomCreates: an account opens so many conversations an hour, by whichever way; what
// it finds there already is not counted, and direct conversations have a limit of their own.
func TestRoomCreates(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, func(o *setup) {
			o.Limits = limits.New(limits.Rates{limits.RoomCreates: {Count: 3, Period: time.Hour}}, time.Now)
		})
		ctx := context.Background()
		group := func(account, id string) error {
			_, err := w.service.Apply(ctx, who(account), Create{ConversationID: ds.ConversationID(id), GroupID: []byte(id), Suite: "S"})
			return err
		}
		dms := 0
		dm := func() error {
			dms++
			return w.apply(who("ann"), Create{ConversationID: ds.ConversationID(fmt.Sprint("dm", dms)), Accounts: []ds.AccountID{"bob"}, IsDM: true})
		}
		steps := []struct {
			name string
			err  error
			want ds.Code
		}{
			{"a room", w.apply(who("ann"), Create{ConversationID: "c1", Accounts: nil}), ""},
			{"it is there", w.apply(who("ann"), Create{ConversationID: "c1", Accounts: nil}), ds.InvalidRequest},
			{"a group", group("ann", "aa"), ""},
			{"the same again", group("ann", "aa"), ""},
			{"somebody else's name", w.apply(who("bob"), Create{ConversationID: "c1", Accounts: nil}), ds.InvalidRequest},
			{"the last", group("ann", "bb"), ""},
			{"one more room", w.apply(who("ann"), Create{ConversationID: "c2", Accounts: nil}), ds.RateLimited},
			{"one more group", group("ann", "cc"), ds.RateLimited},
			{"the last again", group("ann", "bb"), ""},
			{"a direct conversation", dm(), ""},
			{"somebody else", w.apply(who("bob"), Create{ConversationID: "c2", Accounts: nil}), ""},
		}
		for _, step := range steps {
			if got := ds.CodeOf(step.err); got != step.want || step.want == "" && step.err != nil {
				t.Errorf("%s: got %v, want %q", step.name, step.err, step.want)
			}
		}
	})
}
