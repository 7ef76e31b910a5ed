package waxwing_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// privateCites matches references to the drafts that this project was planned with: a reader of
// the repository has docs/, decisions by their file and the RFCs.
var privateCites = regexp.MustCompile(`\((design|spec|gateway)\b[^)]*\d\)|\bdesign,? \d|\bspec (xrpc|gateway|mls|section)|\bgateway (v1,|section|decision) ?\S*\d|(^| )\(?[A-E]\.\d+\)?|\bhouse\.md|\bSTYLE\.md`)

// allowedCites are of standards.
var allowedCites = regexp.MustCompile(`(FIPS|RFC|NIST|section|appendix)[ \d,-]+[A-E]\.\d+`)

// links finds the targets of links in a page, without their anchors.
var links = regexp.MustCompile(`\]\(([^)#\s]+)`)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestTidyCitesCanBeOpened(t *testing.T) {
	check := func(where, text string) {
		text = allowedCites.ReplaceAllString(strings.Join(strings.Fields(text), " "), "")
		if found := privateCites.FindString(text); found != "" {
			t.Errorf("%s cites %q, which a reader cannot open: name a page of docs, an RFC, or say the rule itself", where, found)
		}
	}
	for _, file := range sources(t) {
		for _, group := range file.syntax.Comments {
			at := sourcePositions.Position(group.Pos()).String()
			check(at, group.Text())
			// A number alone could be another one than that of docs/decisions.
			if found := regexp.MustCompile(`\(?decision\s+\d+`).FindString(group.Text()); found != "" {
				t.Errorf("%s cites %q: name the file in docs/decisions", at, found)
			}
		}
	}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			check(page, string(text))
			for _, link := range links.FindAllStringSubmatch(string(text), -1) {
				if target := filepath.Join(filepath.Dir(page), link[1]); !strings.Contains(link[1], ":") && !exists(target) {
					t.Errorf("%s links to %s, which is not there", page, link[1])
				}
			}
		}
	}
}
