package waxwing_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/prove"
)

// registers are the pages with the rows that waxwing prove runs, by the first letters of their IDs.
var registers = map[string]string{"RR": "docs/risk-register.md", "TM": "docs/threat-model.md"}

var (
	registerRow    = regexp.MustCompile(`(?m)^## ((?:RR|TM)-\d+) `)
	registerCell   = regexp.MustCompile(`(?m)^\| (\w+) \| (.+) \|$`)
	registerStatus = regexp.MustCompile(`^(built|in part|not built)\b`)
	quoted         = regexp.MustCompile("`([^`]+)`")
)

// TestTidyRegisters holds the rows of the risk register and of the threat model to the project:
// their paths, metrics, alerts and commands exist, and their status is that of their proof.
func TestTidyRegisters(t *testing.T) {
	known, detects := knownMetrics(t), alerts(t)
	proofs := map[string]prove.Proof{}
	for _, p := range prove.Proofs() {
		proofs[p.ID] = p
	}
	for letters, page := range registers {
		text := readText(t, page)
		for _, name := range quoted.FindAllStringSubmatch(text, -1) {
			switch word := name[1]; {
			case strings.HasPrefix(word, "waxwing_"):
				if !known[word] {
					t.Errorf("%s: there is no metric %s", page, word)
				}
			case strings.HasPrefix(word, "Waxwing"):
				if detects[word] == nil {
					t.Errorf("%s: there is no alert %s", page, word)
				}
			case strings.Contains(word, "/") || strings.HasSuffix(word, ".go"):
				if _, err := os.Stat(word); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
		}
		rows := sections(text)
		for id := range rows {
			if _, exists := proofs[id]; !exists {
				t.Errorf("%s: there is no row %s", page, id)
			}
		}
		for id, p := range proofs {
			if strings.HasPrefix(id, letters) {
				checkRegisterRow(t, page, text, rows[id], p, detects)
			}
		}
	}
}

// sections returns the cells of each row by their names.
func sections(text string) map[string]map[string]string {
	rows := map[string]map[string]string{}
	starts := registerRow.FindAllStringSubmatchIndex(text, -1)
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		section, _, _ := strings.Cut(text[at[1]:end], "\n## ")
		cells := map[string]string{}
		for _, cell := range registerCell.FindAllStringSubmatch(section, -1) {
			cells[cell[1]] = cell[2]
		}
		rows[text[at[2]:at[3]]] = cells
	}
	return rows
}

func checkRegisterRow(t *testing.T, page, text string, cells map[string]string, p prove.Proof, detects map[string][]string) {
	for _, name := range []string{"status", "mitigation", "metric", "alert", "proof"} {
		if cells[name] == "" {
			t.Errorf("%s: %s has no %s", page, p.ID, name)
		}
	}
	status := registerStatus.FindString(cells["status"])
	switch hasFeature := p.NotBuilt == "" || p.NotBuilt == "its proof"; {
	case status == "":
		t.Errorf("%s: the status of %s is none of built, in part and not built", page, p.ID)
	case hasFeature == (status == "not built"):
		t.Errorf("%s: %s is %s, and waxwing prove says that it waits for %q", page, p.ID, status, p.NotBuilt)
	case p.Missing != "" && status == "built":
		t.Errorf("%s: %s is built, and waxwing prove misses %q: its status is in part", page, p.ID, p.Missing)
	}
	if !regexp.MustCompile(`(?m)^\| \[` + p.ID + `\].* \| ` + status + ` \|$`).MatchString(text) {
		t.Errorf("%s: the first table does not say that %s is %s", page, p.ID, status)
	}
	if !strings.Contains(cells["proof"], "`waxwing prove "+p.ID+"`") {
		t.Errorf("%s: the proof of %s is waxwing prove %s", page, p.ID, p.ID)
	}
	var named, detecting []string
	for _, alert := range quoted.FindAllStringSubmatch(cells["alert"], -1) {
		named = append(named, alert[1])
	}
	for alert, ids := range maps.All(detects) {
		if slices.Contains(ids, p.ID) {
			detecting = append(detecting, alert)
		}
	}
	if slices.Sort(named); !slices.Equal(named, slices.Sorted(slices.Values(detecting))) {
		t.Errorf("%s: %s names the alerts %v, and those of %s are %v", page, p.ID, named, alertRules, detecting)
	}
	for _, metric := range p.Detection {
		if name, _, _ := strings.Cut(metric, "{"); !strings.Contains(cells["metric"], "`waxwing_"+strings.TrimPrefix(name, "waxwing_")+"`") {
			t.Errorf("%s: %s does not name %s, which waxwing prove looks at", page, p.ID, metric)
		}
	}
	if status != "not built" && (!strings.Contains(cells["mitigation"], "/") || !strings.Contains(cells["metric"], "`waxwing_") || len(named) == 0) {
		t.Errorf("%s: %s needs a path, a metric and an alert", page, p.ID)
	}
}
