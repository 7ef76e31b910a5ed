package core

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// hookedWorld is a world whose statements a test may watch, and stop at.
func hookedWorld(t *testing.T, url string, hook store.Hook) *world {
	t.Helper()
	return openWorld(t, store.Options{URL: url, Hook: hook}, func(o *Options) {
		o.PollInterval = time.Hour // nothing but the wake-up may say that there is more
	})
}

// TestAppendWhileAFollowBegins: what is appended between the snapshot that a follow
// begins with and its first page is not missed.
func TestAppendWhileAFollowBegins(t *testing.T) {
	begin := map[string]func(context.Context, *Follower) error{
		"one": func(ctx context.Context, f *Follower) error { return f.Follow(ctx, "c1", 2) },
		"all": func(ctx context.Context, f *Follower) error {
			_, err := f.FollowAll(ctx, []StreamStart{{Conversation: "c2", FromSeq: 1}, {Conversation: "c1", FromSeq: 2}})
			return err
		},
	}
	for name, begin := range begin {
		t.Run(name, func(t *testing.T) {
			url := pgtest.URL(t)
			other := newWorld(t, url)
			var once sync.Once
			var w *world
			w = hookedWorld(t, url, func(sql string, done bool) {
				if done && strings.HasPrefix(sql, "SELECT l.log_id, COALESCE(l.home") {
					once.Do(func() {
						if _, err := w.send("ann", "c1", "m2", "in between"); err != nil {
							t.Error(err)
						}
					})
				}
			})
			other.room("c1", "ann", "bob")
			other.room("c2", "ann", "bob")
			if _, err := other.send("ann", "c1", "m1", "before"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			f := w.service.NewFollower(who("bob"))
			defer f.Close()
			if err := begin(ctx, f); err != nil {
				t.Fatal(err)
			}
			for seq := int64(0); seq != 2; {
				page, err := f.Next(ctx)
				if err != nil {
					t.Fatal("the message in between: ", err)
				}
				for _, r := range page.Records {
					seq = r.Seq
				}
			}
		})
	}
}

// TestFollowReadsOnce: whoever comes back and has everything costs one statement,
// for one conversation or for many.
func TestFollowReadsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var mu sync.Mutex
		var statements []string
		w := hookedWorld(t, url, func(sql string, done bool) {
			mu.Lock()
			defer mu.Unlock()
			if !done && strings.HasPrefix(sql, "SELECT") {
				statements = append(statements, sql)
			}
		})
		ids := []ds.ConversationID{"c1", "c2", "c3"}
		var starts []StreamStart
		for _, id := range ids {
			w.room(string(id), "ann", "bob")
			if _, err := w.send("ann", string(id), "m1", "text"); err != nil {
				t.Fatal(err)
			}
			starts = append(starts, StreamStart{Conversation: id, FromSeq: 2})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		f := w.service.NewFollower(who("bob"))
		defer f.Close()
		caughtUp := func() {
			t.Helper()
			for range ids {
				if page, err := f.Next(ctx); err != nil || !page.CaughtUp || page.Head != 1 || len(page.Records) != 0 {
					t.Fatalf("%+v, %v: want to have caught up to 1", page, err)
				}
			}
		}
		mu.Lock()
		statements = nil
		mu.Unlock()
		for _, id := range ids {
			if err := f.Follow(ctx, id, 2); err != nil {
				t.Fatal(err)
			}
		}
		caughtUp()
		if _, err := f.FollowAll(ctx, starts); err != nil {
			t.Fatal(err)
		}
		caughtUp()
		mu.Lock()
		if len(statements) != 4 {
			t.Errorf("%d statements, want one for each of three follows and one for all of them:\n%s", len(statements), strings.Join(statements, "\n"))
		}
		mu.Unlock()
		if _, err := w.send("ann", "c2", "m2", "text"); err != nil {
			t.Fatal(err)
		}
		if page, err := f.Next(ctx); err != nil || len(page.Records) != 1 || page.Records[0].Seq != 2 {
			t.Errorf("%+v, %v: want message 2", page, err)
		}
	})
}

// TestFailedFollowLeavesNothing: a follow that is refused, or comes after the end, is
// not told of appends any more.
func TestFailedFollowLeavesNothing(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	w.room("c1", "ann", "bob")
	ctx := t.Context()
	stranger, bob := w.service.NewFollower(who("eve")), w.service.NewFollower(who("bob"))
	defer stranger.Close()
	if err := stranger.Follow(ctx, "c1", 1); ds.CodeOf(err) != ds.Forbidden {
		t.Error("a stranger follows: ", err)
	}
	if _, err := stranger.FollowAll(ctx, []StreamStart{{Conversation: "c1", MayBeLost: true}}); err != nil {
		t.Error(err)
	}
	if err := bob.Follow(ctx, "c1", 1); err != nil {
		t.Fatal(err)
	}
	if err := bob.Follow(ctx, "c1", 1); err != nil { // again: the first one is over
		t.Fatal(err)
	}
	bob.Close()
	if err := bob.Follow(ctx, "c1", 1); err != ErrClosed {
		t.Errorf("%v, want ErrClosed", err)
	}
	if left := w.service.wakes.followed(); len(left) != 0 {
		t.Errorf("still told of appends: %v", left)
	}
}
