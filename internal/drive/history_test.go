package drive

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A check that cannot fail proves nothing: these are histories of a broken log.
func TestHistoriesThatMayNotBe(t *testing.T) {
	add := func(id string, call, back, seq int64) porcupine.Operation {
		return porcupine.Operation{Input: historyInput{"c", id}, Call: call, Output: historyOutput{seq: seq}, Return: back}
	}
	read := func(call, back int64, ids ...string) porcupine.Operation {
		out := historyOutput{length: len(ids)}
		for _, id := range ids {
			out.hash = hashNext(out.hash, id)
		}
		return porcupine.Operation{Input: historyInput{conversation: "c"}, Call: call, Output: out, Return: back}
	}
	for _, step := range []struct {
		name    string
		history []porcupine.Operation
		log     []string
		want    HistoryReport // without the counts of what there is
	}{
		{"all is well", []porcupine.Operation{add("a", 1, 9, 1), add("b", 2, 5, 2), add("a", 6, 8, 1), read(3, 4, "a"), read(6, 7, "a", "b")}, []string{"a", "b"}, HistoryReport{IsSearched: true}},
		{"order of answers", []porcupine.Operation{add("a", 1, 2, 2), add("b", 3, 4, 1)}, []string{"b", "a"}, HistoryReport{IsSearched: true, Impossible: 1}},
		{"two places", []porcupine.Operation{add("a", 1, 2, 1), add("a", 3, 4, 2)}, []string{"a", "a"}, HistoryReport{Twice: 1, Differ: 1}},
		{"lost", []porcupine.Operation{add("a", 1, 2, 1)}, nil, HistoryReport{Lost: 1}},
		{"vanished", []porcupine.Operation{read(1, 2, "a")}, []string{"b"}, HistoryReport{Vanished: 1}},
		{"stale", []porcupine.Operation{add("a", 1, 2, 1), read(3, 4)}, []string{"a"}, HistoryReport{Stale: 1}},
	} {
		l := &HistoryLoad{places: map[historyInput]int64{}, Answered: func(time.Duration) {}}
		for _, o := range step.history {
			if in, out := o.Input.(historyInput), o.Output.(historyOutput); in.id != "" {
				l.answered(0, in, 0, out.seq)
			}
		}
		l.history = step.history
		got, err := l.Check(map[string][]string{"c": step.log}, time.Second)
		got.Operations, got.Messages = 0, 0
		if err != nil || got != step.want {
			t.Errorf("%s: got %+v, %v, want %+v", step.name, got, err, step.want)
		}
	}
}
