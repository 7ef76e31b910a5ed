package prove_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/prove"
)

var (
	mutantsFlag = flag.Bool("mutants", false, "run the rows on mutants, builds without one of the defences, and demand that they fail")
	updateFlag  = flag.Bool("update", false, "write what TestMutants finds to docs/mutants.md")
)

// mutant is a build without one of its defences.
type mutant struct {
	name string // for WAXWING_MUTANT
	gone string // the missing defence
	file string // from the root
	old  string // occurs in the file once
	new  string // its replacement, which asks mutant.Is
	// rows must fail, each by itself.
	rows     []string
	database string // sqlite if ""
}

// mutants holds the mutants of all rows.
var mutants = slices.Concat(mutantsRR001, mutantsRR003, mutantsRR004, mutantsRR005, mutantsRR007, mutantsRR008, mutantsRR009, mutantsTM004, mutantsTM005)

const (
	root        = "../.."
	mutantsPage = root + "/docs/mutants.md"
	buildMax    = 10 * time.Minute
	mutantMax   = 3 * time.Minute
)

// mutated returns the source of each file with all of its mutants.
func mutated() (map[string]string, error) {
	texts := map[string]string{}
	for _, m := range mutants {
		text, ok := texts[m.file]
		if !ok {
			bytes, err := os.ReadFile(filepath.Join(root, m.file))
			if err != nil {
				return nil, err
			}
			text = string(bytes)
		}
		if n := strings.Count(text, m.old); n != 1 {
			return nil, fmt.Errorf("%s: the text that %s replaces in %s occurs %d times", m.name, m.name, m.file, n)
		}
		if !strings.Contains(m.new, fmt.Sprintf("mutant.Is(%q)", m.name)) {
			return nil, fmt.Errorf("%s: its text does not ask mutant.Is(%q)", m.name, m.name)
		}
		texts[m.file] = strings.Replace(text, m.old, m.new, 1)
	}
	for file, text := range texts {
		syntax, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly)
		if err != nil {
			return nil, err
		}
		end := int(syntax.Name.End()) - 1
		texts[file] = text[:end] + "\n\nimport \"waxwing.im/waxwing/internal/mutant\"" + text[end:]
	}
	return texts, nil
}

// TestMutantsFit keeps mutants, rows and docs/mutants.md in step with the code.
func TestMutantsFit(t *testing.T) {
	texts, err := mutated()
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range texts {
		if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
			t.Errorf("%s with its mutants: %v", file, err)
		}
	}
	page, err := os.ReadFile(mutantsPage)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	caught := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] || len(m.rows) == 0 {
			t.Errorf("%s: the name is taken, or no row shall catch it", m.name)
		}
		names[m.name] = true
		if _, err := prove.Find(m.rows); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		for _, id := range m.rows {
			caught[id] = true
			if !bytes.Contains(page, []byte(m.row(id))) {
				t.Errorf("docs/mutants.md lacks %s × %s (make mutants UPDATE=1)", m.name, id)
			}
		}
	}
	for _, p := range prove.Proofs() {
		if p.NotBuilt == "" && !caught[p.ID] {
			t.Errorf("%s: no mutant shows that it can fail", p.ID)
		}
	}
	if rows := strings.Count(string(page), "\n| `"); rows != len(pairs()) {
		t.Errorf("docs/mutants.md has %d rows for %d pairs", rows, len(pairs()))
	}
}

// row is the beginning of the row of docs/mutants.md for the mutant and a row of the register.
func (m mutant) row(id string) string { return fmt.Sprintf("| `%s` | %s | %s |", m.name, m.gone, id) }

// pair is a mutant and a row that must catch it.
type pair struct {
	mutant
	id string
}

func pairs() (all []pair) {
	for _, m := range mutants {
		for _, id := range m.rows {
			all = append(all, pair{m, id})
		}
	}
	return all
}

// TestMutants runs each row on its mutants, and first on the same binary without one.
func TestMutants(t *testing.T) {
	if !*mutantsFlag {
		t.Skip("takes minutes; make mutants runs it")
	}
	binary := buildMutants(t)
	type run struct{ id, database string }
	held := map[run]bool{}
	found := map[string]string{} // the rows of the page
	for _, p := range pairs() {
		t.Run(p.name+"/"+p.id, func(t *testing.T) {
			clean := run{p.id, cmp.Or(p.database, prove.SQLite)}
			if !held[clean] {
				if result := runMutant(t, binary, "", clean.id, clean.database); result.Status != prove.Holds && result.Status != prove.HoldsInPart {
					t.Fatalf("%s does not hold without a mutant: %s", p.id, result.Reason)
				}
				held[clean] = true
			}
			result := runMutant(t, binary, p.name, clean.id, clean.database)
			if result.Status != prove.Failed {
				t.Fatalf("%s, without %s: %s %s", p.id, p.gone, result.Status, result.Reason)
			}
			by := caughtBy(result)
			t.Logf("%s × %s: caught in %.0f s by %s", p.name, p.id, result.Seconds, by)
			found[p.name+p.id] = fmt.Sprintf("%s %s | %.0f s |\n", p.row(p.id), strings.ReplaceAll(by, "|", "¦"), result.Seconds)
		})
	}
	if *updateFlag && !t.Failed() {
		writePage(t, found)
	}
}

// caughtBy returns the first assertion that failed.
func caughtBy(result *prove.Result) string {
	for _, f := range result.Figures {
		if f.Bound != "" && !f.Holds {
			return f.Name
		}
	}
	first, _, _ := strings.Cut(result.Reason, "\n")
	return first
}

// writePage writes docs/mutants.md, with the rows of mutants that were not run as they are.
func writePage(t *testing.T, found map[string]string) {
	before, err := os.ReadFile(mutantsPage)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, _ := strings.Cut(string(before), "\n| ")
	page := intro + "\n| mutant | missing defence | row | caught by | in |\n|---|---|---|---|---|\n"
	for _, p := range pairs() {
		line := found[p.name+p.id]
		for old := range strings.Lines(string(before)) {
			if line == "" && strings.HasPrefix(old, p.row(p.id)) {
				line = old
			}
		}
		page += line
	}
	if err := os.WriteFile(mutantsPage, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
}

// buildMutants builds the command with all mutants.
func buildMutants(t *testing.T) string {
	t.Helper()
	texts, err := mutated()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	replace := map[string]string{}
	for file, text := range texts {
		path, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		changed := filepath.Join(folder, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildMax)
	defer cancel()
	binary := filepath.Join(folder, "waxwing")
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", "mutants", "-overlay", list, "-o", binary, "waxwing.im/waxwing/cmd/waxwing").CombinedOutput()
	if err != nil {
		t.Fatalf("build the mutants: %v\n%s", err, out)
	}
	return binary
}

// runMutant runs one row of the binary's own, with the mutant of that name or none.
func runMutant(t *testing.T, binary, name, id, database string) *prove.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mutantMax)
	defer cancel()
	command := exec.CommandContext(ctx, binary, "prove", id, "--quick", "--database", database, "--json", "-")
	command.Env = append(os.Environ(), "WAXWING_MUTANT="+name)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 30 * time.Second
	var out, log bytes.Buffer
	command.Stdout, command.Stderr = &out, &log
	err := command.Run()
	var report prove.Report
	if json.Unmarshal(out.Bytes(), &report) != nil || len(report.Rows) != 1 {
		t.Fatalf("%s: %v\n%s", id, err, log.Bytes())
	}
	return report.Rows[0]
}
