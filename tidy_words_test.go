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
// returns the features of a session"). These are the most comment lines of each kind in
// all packages without an allowance below.
const (
	oldWordsMax    = 40
	definitionsMax = 30
)

var (
	oldWords    = regexp.MustCompile(`(?i)\b(nobody|somebody|whoever|whom|whose|anew)\b`)
	definitions = regexp.MustCompile(`^// \w+ (is|are|says) (what|who|whom|where|how) `)
)

// wordAllowances holds the counts of packages that are still to be rewritten. Code moves
// between the packages of one allowance, so they share it. A count may only be lowered; without
// allowances the bounds above hold for the whole module.
var wordAllowances = []struct {
	name                  string
	folders               []string // and the folders below them
	oldWords, definitions int
}{
	{"rules, engine and doors", []string{"internal/core", "internal/logs", "internal/directory", "internal/limits",
		"internal/doors", "internal/gatewayserver", "internal/xrpcserver"}, 75, 62},
	{"the SDK", []string{"client"}, 7, 0},
}

// wordCount counts lines by package.
type wordCount struct{ oldWords, definitions map[string]int }

func TestTidyWords(t *testing.T) {
	counts := map[string]*wordCount{}
	for _, file := range sources(t) {
		if file.isTest {
			continue
		}
		name := allowanceOf(file.folder)
		if counts[name] == nil {
			counts[name] = &wordCount{map[string]int{}, map[string]int{}}
		}
		for _, group := range file.syntax.Comments {
			for _, comment := range group.List {
				for line := range strings.Lines(comment.Text) {
					if oldWords.MatchString(line) {
						counts[name].oldWords[file.folder]++
					}
					if definitions.MatchString(line) {
						counts[name].definitions[file.folder]++
					}
				}
			}
		}
	}
	check := func(name, what string, byFolder map[string]int, most int) {
		if n := total(byFolder); n > most {
			t.Errorf("%s: %d comment lines with %s, at most %d: %s. Begin with a verb (returns, reports, checks) and say \"another client\", \"no member\", \"again\".",
				name, n, what, most, countText(byFolder))
		}
	}
	for name, count := range counts {
		words, clauses := oldWordsMax, definitionsMax
		for _, a := range wordAllowances {
			if a.name == name {
				words, clauses = a.oldWords, a.definitions
			}
		}
		check(name, "nobody, somebody, whoever, whom, whose or anew", count.oldWords, words)
		check(name, `definitions by "is what, who, where, how"`, count.definitions, clauses)
	}
}

// allowanceOf returns the name of the allowance of a folder.
func allowanceOf(folder string) string {
	for _, a := range wordAllowances {
		for _, f := range a.folders {
			if folder == f || strings.HasPrefix(folder, f+"/") {
				return a.name
			}
		}
	}
	return "all other packages"
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
