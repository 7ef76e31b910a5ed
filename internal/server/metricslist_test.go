package server

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsAreDocumented: the table of docs/operations.md has a row for each metric of ours, and
// none that does not exist.
func TestMetricsAreDocumented(t *testing.T) {
	c := DefaultConfig(t.TempDir())
	c.OpsListen = "127.0.0.1:0"
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	described := make(chan *prometheus.Desc)
	go func() {
		s.metrics.Describe(described)
		close(described)
	}()
	exist := map[string]bool{}
	for d := range described {
		if name := regexp.MustCompile(`fqName: "(waxwing_\w+)"`).FindStringSubmatch(d.String()); name != nil {
			exist[name[1]] = true
		}
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(waxwing_\\w+)").FindAllStringSubmatch(string(text), -1) {
		listed[row[1]] = true
	}
	if len(exist) < 20 || !maps.Equal(exist, listed) {
		t.Errorf("there are\n%q\nlisted are\n%q", slices.Sorted(maps.Keys(exist)), slices.Sorted(maps.Keys(listed)))
	}
}
