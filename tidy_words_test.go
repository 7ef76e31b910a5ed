package waxwing_test

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Comments are read by experts in a hurry, many of whom do not speak English as their first
// language. Two habits make them stumble: words such as whoever and anew, and definitions by a
// relative clause ("grant is what a session may do") in place of a verb or a noun ("grant
// returns the features of a session"). These are the most comment lines of each kind.
const (
	oldWordsMax    = 40
	definitionsMax = 30
)

var (
	oldWords    = regexp.MustCompile(`(?i)\b(nobody|somebody|whoever|whom|whose|anew)\b`)
	definitions = regexp.MustCompile(`^// \w+ (is|are|says) (what|who|whom|where|how) `)
)

func TestTidyWords(t *testing.T) {
	words, clauses := map[string]int{}, map[string]int{} // lines by folder
	for _, file := range sources(t) {
		if file.isTest {
			continue
		}
		for _, group := range file.syntax.Comments {
			for _, comment := range group.List {
				for line := range strings.Lines(comment.Text) {
					if oldWords.MatchString(line) {
						words[file.folder]++
					}
					if definitions.MatchString(line) {
						clauses[file.folder]++
					}
				}
			}
		}
	}
	check := func(what string, byFolder map[string]int, most int) {
		if n := total(byFolder); n > most {
			t.Errorf("%d comment lines with %s, at most %d: %s. Begin with a verb (returns, reports, checks) and say \"another client\", \"no member\", \"again\".",
				n, what, most, countText(byFolder))
		}
	}
	check("nobody, somebody, whoever, whom, whose or anew", words, oldWordsMax)
	check(`definitions by "is what, who, where, how"`, clauses, definitionsMax)
}

func total(counts map[string]int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

// countText lists counts, the largest first.
func countText(counts map[string]int) string {
	folders := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	var parts []string
	for _, f := range folders {
		parts = append(parts, fmt.Sprintf("%s %d", f, counts[f]))
	}
	return strings.Join(parts, ", ")
}
