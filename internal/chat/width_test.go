package chat

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWidth(t *testing.T) {
	rows := []struct {
		text                  string
		byCluster, codePoints int
	}{
		{"abc", 3, 3}, {"é", 1, 1}, {"e\u0301", 1, 1}, {"日本", 4, 4}, {"각", 2, 2},
		{"👍🏽", 2, 4}, {"👨‍👩‍👧‍👦", 2, 8}, {"🏳️‍🌈", 2, 4}, {"🇩🇪", 2, 4}, {"❤️", 2, 2}, {"❤", 1, 1}, {"🏽", 2, 2}, {"1️⃣", 2, 2},
		{"\u0301", 1, 1}, {"\u200d", 1, 1}, {"\x07", 1, 1}, {"\xff", 1, 1}, {"\x1b[1mx\x1b[0m", 1, 1}, {"\x1b[2J", 4, 4},
	}
	for _, row := range rows {
		byCluster, codePoints := measure{true}.width(row.text), measure{}.width(row.text)
		if byCluster != row.byCluster || codePoints != row.codePoints {
			t.Errorf("%q: %d by cluster, %d by code point, want %d and %d", row.text, byCluster, codePoints, row.byCluster, row.codePoints)
		}
	}
}

func TestFit(t *testing.T) {
	for _, row := range []struct {
		text  string
		width int
		want  string
	}{
		{"abc", 5, "abc  "}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"日本語", 5, "日本…"}, {"日本語", 4, "日… "}, {"日本語", 1, "…"}, {"x", 0, ""},
		{bold("abcd") + faint("e"), 3, "\x1b[1mab…\x1b[0m\x1b[2m\x1b[0m"},
	} {
		if got := (measure{}).fit(row.text, row.width); got != row.want {
			t.Errorf("%q in %d: %q instead of %q", row.text, row.width, got, row.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, row := range []struct {
		line  string
		width int
		want  []string
	}{
		{"", 5, []string{""}}, {"one two", 7, []string{"one two"}}, {"one two", 6, []string{"one", "two"}}, {"one  two", 4, []string{"one ", "two"}},
		{"abcdefgh", 3, []string{"abc", "def", "gh"}}, {"a-bcd", 3, []string{"a-", "bcd"}}, {"a bcdefg", 4, []string{"a", "bcde", "fg"}},
		{"日本語", 5, []string{"日本", "語"}}, {"👍🏽👍🏽", 4, []string{"👍🏽", "👍🏽"}}, {"👍🏽", 2, []string{"👍", "🏽"}}, {"     ", 3, []string{"   ", " "}},
	} {
		if diff := cmp.Diff(row.want, measure{}.wrap(row.line, row.width)); diff != "" {
			t.Errorf("%q in %d:\n%s", row.line, row.width, diff)
		}
	}
}
