package waxwing_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// onePlaces are what stands in one place of the rules, so that each operation is decided in
// the same order, and so that "the home is elsewhere" can come to mean "forward it".
var onePlaces = []struct {
	pattern string
	in      []string // files of internal/core
	why     string
}{
	{`\blogs\.Request\{`, []string{"op.go"}, "a request is made by Service.prepare, within a task: an operation is an Op for Apply or Begin"},
	{`&task\{`, []string{"op.go"}, "a request is made by Service.prepare: an operation is an Op for Apply or Begin"},
	{`\blogs\.(Begin|Submit)\(`, []string{"op.go"}, "requests are queued by Apply and Begin alone"},
	{`\.(Decide|run)\(`, []string{"admit.go"}, "an operation is decided by its flusher, in the order that admit.go holds"},
	{`\bHead\.Home\b`, []string{"admit.go"}, "whether the home of a conversation is elsewhere is asked once, in admit.go"},
	{`\bbill\.Take\(|\btakeOnce\(|\.charge(Bytes)?\(`, []string{"admit.go"},
		"an operation on a conversation names its limits and what it stores; admit.go asks the limiter"},
	{`\blimits\.Take(N)?\(`, []string{"conversation_list.go", "record.go", "stream.go"},
		"an operation on a conversation names its limits; admit.go asks the limiter"},
	{`\bbill\.(isRepeat|lostRace) =|, a\.bill\.isRepeat =`, []string{"admit.go", "bundle.go"}, "what is counted of a request is noted where it is decided"},
}

// doorsPass are what the engine offers and doors leave to core, or a change would be decided by
// no rule.
var doorsPass = regexp.MustCompile(`\blogs\.Request\{|\blogs\.(Begin|Submit|Announce)\(`)

// TestTidyDoorsUseRules checks that the packages beside core make no requests of the engine.
func TestTidyDoorsUseRules(t *testing.T) {
	for _, file := range sources(t) {
		if file.isTest || !strings.HasPrefix(file.folder, "internal/") || file.folder == "internal/core" || file.folder == "internal/logs" {
			continue
		}
		checkPlace(t, file.path, string(file.text), doorsPass, nil, "changes and announcements pass the rules of core")
	}
}

// TestTidyOps checks that operations on conversations are made, queued and decided in one way.
func TestTidyOps(t *testing.T) {
	files, err := filepath.Glob("internal/core/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, place := range onePlaces {
			checkPlace(t, file, string(text), regexp.MustCompile(place.pattern), place.in, place.why)
		}
	}
}

func checkPlace(t *testing.T, file, text string, pattern *regexp.Regexp, in []string, why string) {
	t.Helper()
	for _, name := range in {
		if filepath.Base(file) == name {
			return
		}
	}
	for i, line := range strings.Split(text, "\n") {
		if code, _, _ := strings.Cut(line, "//"); pattern.MatchString(code) {
			t.Errorf("%s:%d: %s: %s", file, i+1, strings.TrimSpace(line), why)
		}
	}
}
