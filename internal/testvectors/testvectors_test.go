package testvectors_test

import (
	"os"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/testvectors"
)

// Each folder of the data has a row, or rows for its folders.
func TestPageNamesAllData(t *testing.T) {
	page, err := os.ReadFile("../../docs/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	hasRow := func(folder string) bool { return strings.Contains(string(page), "\n| `"+folder+"` |") }
	for _, folder := range testvectors.Names(t, ".") {
		if strings.Contains(folder, ".") || hasRow(folder) {
			continue
		}
		for _, name := range testvectors.Names(t, folder) {
			if !strings.Contains(name, ".") && !hasRow(folder+"/"+name) {
				t.Errorf("docs/evidence.md has no row for %s/%s", folder, name)
			}
		}
	}
}
