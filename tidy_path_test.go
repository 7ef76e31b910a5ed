package waxwing_test

import (
	"bytes"
	"os"
	"regexp"
	"testing"
)

// TestTidyPathIsShort: ARCHITECTURE.md names what a newcomer reads to add an endpoint, at most
// 600 lines in all.
func TestTidyPathIsShort(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, path, found := bytes.Cut(page, []byte("A newcomer's path"))
	files := regexp.MustCompile("`([a-z0-9/]+\\.go)`").FindAllSubmatch(path, -1)
	if !found || len(files) < 3 {
		t.Fatalf("ARCHITECTURE.md names %d files in its path for newcomers", len(files))
	}
	lines := 0
	for _, file := range files {
		text, err := os.ReadFile(string(file[1]))
		if err != nil {
			t.Error(err)
		}
		lines += bytes.Count(text, []byte("\n"))
	}
	if lines > 600 {
		t.Errorf("the path for newcomers has %d lines, want at most 600", lines)
	}
}
