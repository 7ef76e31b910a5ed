package core

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/testmetric"
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
			counter  prometheus.Collector
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
			{"a commit sent as a message that lost", func() error { _, err := w.sendMLS("ann", "c", "later", commit("g", 0)); return err }, m.commitConflicts, ds.EpochConflict},
			{"its result", func() error { _, err := w.sendMLS("ann", "c", "later", commit("g", 0)); return err }, m.commits.WithLabelValues("conflict"), ds.EpochConflict},
			{"a commit of a stranger", func() error { _, err := w.sendMLS("eve", "c", "hers", commit("g", 1)); return err }, m.commits.WithLabelValues("refused"), ds.Forbidden},
			{"the next commit", func() error { _, err := w.sendMLS("ann", "c", "next", commit("g", 1)); return err }, m.commits.WithLabelValues("ok"), ""},
		}
		for _, row := range rows {
			before := testmetric.Value(t, row.counter)
			if err := row.do(); ds.CodeOf(err) != row.wantCode || row.wantCode == "" && err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			if n := testmetric.Value(t, row.counter) - before; n != 1 {
				t.Errorf("%s is counted %g times", row.name, n)
			}
		}
	})
}
