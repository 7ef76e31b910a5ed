package waxwing_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/prove"
)

const (
	alertRules = "deploy/prometheus/waxwing.rules.yml"
	alertTests = "deploy/prometheus/waxwing.rules.test.yml"
)

var (
	alertBlock  = regexp.MustCompile(`(?m)^      - alert: (\w+)`)
	alertRow    = regexp.MustCompile(`(?m)^          row: (.*)$`)
	alertMetric = regexp.MustCompile(`\bwaxwing_\w+`)
	severity    = regexp.MustCompile(`(?m)^        labels: \{severity: (critical|warning)\}$`)
	summary     = regexp.MustCompile(`(?m)^          summary: ".{40,}"$`)
	metricParts = regexp.MustCompile(`_(bucket|sum|count)$`)
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// knownMetrics returns the metrics of a server, from the table that a test of internal/server holds
// against its registry.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(waxwing_\\w+)").FindAllStringSubmatch(readText(t, "docs/operations.md"), -1) {
		known[row[1]] = true
	}
	return known
}

// alerts returns the rows that each alert detects.
func alerts(t *testing.T) map[string][]string {
	t.Helper()
	text, rows := readText(t, alertRules), map[string][]string{}
	names := alertBlock.FindAllStringSubmatchIndex(text, -1)
	for i, at := range names {
		end := len(text)
		if i+1 < len(names) {
			end = names[i+1][0]
		}
		name, block := text[at[2]:at[3]], text[at[0]:end]
		row := alertRow.FindStringSubmatch(block)
		if row == nil || !severity.MatchString(block) || !summary.MatchString(block) {
			t.Errorf("%s: %s has no row, severity or summary", alertRules, name)
			continue
		}
		rows[name] = strings.Fields(row[1])
	}
	return rows
}

// TestTidyAlerts holds the alert rules to their form: rows and metrics exist, and the rules' own
// tests have each alert fire and each metric healthy.
func TestTidyAlerts(t *testing.T) {
	rows, tests, known := alerts(t), readText(t, alertTests), knownMetrics(t)
	if len(rows) < 20 {
		t.Fatalf("%s: %d alerts", alertRules, len(rows))
	}
	for name, ids := range rows {
		if _, err := prove.Find(ids); err != nil {
			t.Errorf("%s: %s: %v", alertRules, name, err)
		}
		if !strings.Contains(tests, `{alertname="`+name+`"`) {
			t.Errorf("%s: %s never fires", alertTests, name)
		}
	}
	healthy, _, _ := strings.Cut(tests, "\n  - name: the database has lost records")
	rules := readText(t, alertRules)
	for _, metric := range alertMetric.FindAllString(rules, -1) {
		if !known[metricParts.ReplaceAllString(metric, "")] {
			t.Errorf("%s: there is no metric %s", alertRules, metric)
		}
	}
	for _, metric := range alertMetric.FindAllString(summary.ReplaceAllString(rules, ""), -1) {
		if !strings.Contains(healthy, "'"+metric+"{") {
			t.Errorf("%s: the healthy server has no %s", alertTests, metric)
		}
	}
}

// TestAlertRules runs the rules' own tests: which alerts fire, and which do not.
func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing; scripts/prepare.sh installs it")
		}
		t.Skip("NOT TESTED: promtool is missing; scripts/prepare.sh installs it")
	}
	for _, args := range [][]string{{"check", "rules", alertRules}, {"test", "rules", alertTests}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
