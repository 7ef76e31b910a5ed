package logs_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// TestPausedDatabase: a PostgreSQL that is stopped keeps its connections and answers
// nothing. Whatever is asked is `unavailable` while it is, and goes through after it.
func TestPausedDatabase(t *testing.T) {
	t.Parallel() // it mostly waits
	server := pgtest.Start(t, pgtest.Options{})
	w := newWorld(t, server.Database(t))
	w.room("c1", "ann", "bob")
	if _, err := w.send("ann", "c1", "before", "x"); err != nil {
		t.Fatal(err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Resume() }) // or it cannot be ended
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var asked sync.WaitGroup
	for name, ask := range map[string]func() error{
		"send": func() error { _, err := w.send("ann", "c1", "meanwhile", "x"); return err },
		"list": func() error { _, err := w.logs.Cursors(ctx, who("ann")); return err },
		"follow": func() error {
			f := w.logs.NewFollower(who("bob"))
			defer f.Close()
			return followFrom(ctx, f, "c1", 1)
		},
		"acknowledge": func() error { return w.logs.AcknowledgeNow(ctx, who("bob"), "c/c1", 1) },
		"publish":     func() error { return w.publish(who("ann"), "package") },
		"claim":       func() error { _, err := w.claimed(); return err },
	} {
		asked.Go(func() {
			if err := ask(); !ds.IsUnavailable(err) || ctx.Err() != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	asked.Wait()
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	for {
		r, err := w.send("ann", "c1", "meanwhile", "x")
		if err == nil {
			if r.Seq != 2 {
				t.Errorf("the retry stands at %d", r.Seq)
			}
			break
		}
		if !ds.IsUnavailable(err) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if list, _ := w.read("bob", "c1", 1); seqs(list) != "1:app 2:app" {
		t.Errorf("stored %s", seqs(list))
	}
}
