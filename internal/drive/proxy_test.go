package drive

import (
	"os"
	"strings"
	"testing"

	"waxwing.im/waxwing/deploy/proxies"
)

// TestProxiesAreDescribed: docs/proxies.md has a row for each proxy and each configuration, and
// none for others.
func TestProxiesAreDescribed(t *testing.T) {
	text, err := os.ReadFile("../../docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n|---")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[1:]
	kinds := ProxyKinds()
	if len(rows) != len(kinds)+1 {
		t.Errorf("%d rows, want one for each of %d proxies and one for the CDN", len(rows), len(kinds))
	}
	used := map[string]bool{}
	for i, kind := range kinds {
		if i >= len(rows) || !strings.HasPrefix(rows[i], "| "+kind.Name+" | ") {
			t.Errorf("row %d is not about %s", i+1, kind.Name)
			continue
		}
		for _, part := range kind.programs {
			used[part.file] = true
			if !strings.Contains(rows[i], "`"+part.file+"`") {
				t.Errorf("the row of %s does not name %s", kind.Name, part.file)
			}
			if _, err := part.configuration(); err != nil {
				t.Error(err)
			}
		}
	}
	files, err := proxies.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !used[file.Name()] {
			t.Errorf("deploy/proxies/%s is not tested", file.Name())
		}
	}
}
