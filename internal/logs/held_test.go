package logs_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testwait"
)

// TestHeldKeepNobodyWaiting: many conversations that somebody else holds, each of
// whose requests waits for its lock alone, hold up what comes for others by about one
// wait, not by all of them. Lost waits are counted, and not as errors of the store.
func TestHeldKeepNobodyWaiting(t *testing.T) {
	const rooms, newcomers = 24, 3
	url := pgtest.URL(t)
	ctx := t.Context()
	var waits atomic.Int64
	hook := func(sql string, done bool) {
		if !done && strings.HasSuffix(sql, "FOR NO KEY UPDATE") {
			waits.Add(1)
		}
	}
	w := openWorld(t, store.Options{URL: url, Hook: store.Watch(hook)}, oneFlusher)
	w.room("free", "ann")
	for n := range rooms {
		w.room(fmt.Sprint("c", n), "ann")
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, `SELECT pos FROM logs WHERE log_id <> 'c/free' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	var told []<-chan answered
	for n := range rooms {
		told = append(told, w.begin("ann", fmt.Sprint("c", n), "m"))
	}
	waits.Store(0)
	testwait.Until(t, "they wait alone", func() bool { return waits.Load() >= 2 })
	before := waits.Load()
	for n := range newcomers {
		if _, err := w.send("ann", "free", fmt.Sprint("m", n), "x"); err != nil {
			t.Error(err)
		}
	}
	if n := waits.Load() - before; n > 3*newcomers {
		t.Errorf("%d newcomers waited for %d waits of others", newcomers, n)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	for n, answer := range told {
		if got := <-answer; got.err != nil || got.record.Seq != 1 {
			t.Errorf("c%d: %+v", n, got)
		}
	}
	if lost, errors := valueOf(t, w.logs.Collectors()[2]), valueOf(t, w.store.Collectors()[0]); lost == 0 || errors != 0 {
		t.Errorf("%g lost waits and %g errors are counted", lost, errors)
	}
}

// TestSlowRerun: where a batch failed and its requests run one by one on a slow disk,
// longer than one attempt may take, everybody gets the own answer: those of the batch
// and those who come meanwhile. The time is virtual.
func TestSlowRerun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count, poison, newcomers = 20, 5, 5
		var isSlow atomic.Bool
		db, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + t.TempDir(), Hook: store.Watch(func(sql string, done bool) {
			if isSlow.Load() && !done && strings.HasPrefix(strings.TrimSpace(sql), "INSERT INTO records") {
				time.Sleep(logs.BatchTimeout / (count - 5))
			}
		})})
		if err != nil {
			t.Fatal(err)
		}
		w := startWorld(t, db, oneFlusher)
		defer w.close()
		w.room("c1", "ann", "bob")
		w.room("c2", "ann", "bob")
		w.room("c3", "ann", "bob")
		if _, err := w.sendMLS("ann", "c2", "bind", commit("group", 0)); err != nil {
			t.Fatal(err)
		}
		late := make(chan error, newcomers)
		for i, err := range w.together(count, func(i int) error {
			if i == poison {
				isSlow.Store(true)
				for n := range newcomers {
					time.AfterFunc(time.Duration(n+1)*time.Second, func() {
						_, err := w.send("bob", "c3", fmt.Sprint("late", n), "x")
						late <- err
					})
				}
				_, err := w.sendMLS("ann", "c1", "poison", commit("group", 4))
				return err
			}
			_, err := w.send("bob", []string{"c1", "c2"}[i%2], fmt.Sprintf("m%d", i), "x")
			return err
		}) {
			if i == poison && ds.CodeOf(err) != ds.InvalidRequest || i != poison && err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}
		for range newcomers {
			if err := <-late; err != nil {
				t.Errorf("who came meanwhile: %v", err)
			}
		}
	})
}

// valueOf reads a counter.
func valueOf(t *testing.T, counter prometheus.Collector) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(counter)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}
