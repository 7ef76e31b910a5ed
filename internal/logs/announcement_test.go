package logs_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// listen is a follower of a conversation that is at its head, and its listener.
func (w *world) listen(account, id string) (*logs.Follower, *logs.Listener) {
	w.t.Helper()
	f := w.logs.NewFollower(who(account))
	w.t.Cleanup(f.Close)
	l := f.Listen()
	if _, err := f.Follow(context.Background(), logs.Start{Conversation: ds.ConversationID(id), From: logs.AtHead}); err != nil {
		w.t.Fatal(err)
	}
	if page := w.next(f); !page.CaughtUp {
		w.t.Fatalf("at the head: %v", page)
	}
	return f, l
}

func (w *world) next(f *logs.Follower) logs.Page {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	page, err := f.Next(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return page
}

func (w *world) announce(account, id string, a logs.Announcement) error {
	return w.service.Announce(context.Background(), who(account), ds.ConversationID(id), a)
}

func TestAnnounce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "ben")
		for _, test := range []struct{ account, id string }{{"eve", "c1"}, {"ann", "nothing"}, {"ann", ""}} {
			if err := w.announce(test.account, test.id, logs.Announcement{Kind: logs.Typing}); ds.CodeOf(err) != ds.Forbidden {
				t.Errorf("%s in %q: %v", test.account, test.id, err)
			}
		}
		ben, heard := w.listen("ben", "c1")
		// Of what somebody says again, the last counts; of messages each.
		for i := range 10 {
			if err := w.announce("ann", "c1", logs.Announcement{Kind: logs.Typing, IsTyping: i%2 == 0}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range logs.AnnouncementsMax {
			if err := w.announce("ann", "c1", logs.Announcement{Kind: logs.Ephemeral, Body: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		<-heard.Ready()
		id, list := heard.Take()
		if n := len(list); id != "c1" || n != logs.AnnouncementsMax || list[0].Kind != logs.Ephemeral || string(list[n-1].Body) != fmt.Sprint(n-1) {
			t.Errorf("a slow listener hears %d", n) // the oldest, that ann types, was dropped
		}
		big := make([]byte, logs.AnnouncementBytesMax)
		for range 3 {
			if err := w.announce("ann", "c1", logs.Announcement{Kind: logs.Ephemeral, Body: big}); err != nil {
				t.Fatal(err)
			}
		}
		if _, list := heard.Take(); len(list) != 1 {
			t.Errorf("%d long ones wait", len(list))
		}
		// Records come before what was announced behind them, and the end of a stay ends all.
		if _, err := w.send("ann", "c1", "m1", "x"); err != nil {
			t.Fatal(err)
		}
		if err := w.apply(who("ann"), core.Remove{ConversationID: "c1", Accounts: []ds.AccountID{"ben"}}); err != nil {
			t.Fatal(err)
		}
		if err := w.announce("ann", "c1", logs.Announcement{Kind: logs.Ephemeral, Body: []byte("not for ben")}); err != nil {
			t.Fatal(err)
		}
		for {
			page := w.next(ben)
			if _, list := heard.Take(); len(list) > 0 {
				t.Fatal("behind the end of its stay ben still hears")
			}
			if page.Ended != nil {
				break
			}
		}
		if err := w.announce("ben", "c1", logs.Announcement{Kind: logs.Typing}); ds.CodeOf(err) != ds.Forbidden {
			t.Errorf("who was removed: %v", err)
		}
		if n := heard.Waiting(); n != 0 {
			t.Errorf("%d are left over", n)
		}
	})
}
