package waxwing_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTidyDecisionsAreNumbered holds the pages of docs/decisions to one number each, in
// the name of the file and in the title, without gaps.
func TestTidyDecisionsAreNumbered(t *testing.T) {
	pages, err := filepath.Glob("docs/decisions/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no decisions: %v", err)
	}
	for i, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(filepath.Base(page), fmt.Sprintf("%04d-", i+1)) || !strings.HasPrefix(string(text), fmt.Sprintf("# %d. ", i+1)) {
			t.Errorf("%s: the file's name begins with %04d- and its title with \"# %d. \": take the next free number", page, i+1, i+1)
		}
	}
}
