package core

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"waxwing.im/waxwing/internal/ds"
)

// TestRulesCountOnce: what a rule finds is counted with the answer, however often it ran.
func TestRulesCountOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c", "ann", "bob")
		for i := range 6 { // until it is decided from memory
			if _, err := w.send("bob", "c", fmt.Sprint("m", i), "x"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.bundle("ann", Bundle{ConversationID: "c", ID: "bind", Commit: commit("g", 0)}); err != nil {
			t.Fatal(err)
		}
		m := w.service.metrics
		rows := []struct {
			name     string
			do       func() error
			counter  prometheus.Counter
			wantCode ds.Code
		}{
			{"a repeat", func() error { _, err := w.send("bob", "c", "m0", "x"); return err }, m.duplicates, ""},
			{"a repeated commit", func() error {
				_, err := w.bundle("ann", Bundle{ConversationID: "c", ID: "bind", Commit: commit("g", 0)})
				return err
			}, m.duplicates, ""},
			{"a commit that lost", func() error {
				_, err := w.bundle("ann", Bundle{ConversationID: "c", ID: "late", Commit: commit("g", 0)})
				return err
			}, m.commitConflicts, ds.EpochConflict},
		}
		for _, row := range rows {
			before := valueOf(t, row.counter)
			if err := row.do(); ds.CodeOf(err) != row.wantCode || row.wantCode == "" && err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			if n := valueOf(t, row.counter) - before; n != 1 {
				t.Errorf("%s is counted %g times", row.name, n)
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
