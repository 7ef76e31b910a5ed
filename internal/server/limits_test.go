package server

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/core"
)

// TestLimitsAreDocumented holds the table of limits in docs/configuration.md against the
// defaults: each name has one row with its value.
func TestLimitsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(line, "|\n "), "|")
		if len(cells) != 3 || !strings.HasPrefix(line, "| `") {
			continue
		}
		names, values := strings.Split(cells[0], ","), strings.Split(cells[2], ",")
		for i, name := range names {
			name = strings.Trim(name, "` ")
			documented[name] = strings.TrimSpace(values[min(i, len(values)-1)])
		}
	}
	for name, rate := range core.DefaultLimits() {
		value, isThere := documented[name]
		if !isThere {
			t.Errorf("%s: no row in docs/configuration.md", name)
			continue
		}
		if got, err := core.ParseRate(value); err != nil || got != rate {
			t.Errorf("%s: docs/configuration.md says %q, want %d in %s (%v)", name, value, rate.Count, fmt.Sprint(rate.Period), err)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s: docs/configuration.md has a row, and there is no such limit", name)
	}
}
