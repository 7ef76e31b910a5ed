package mls

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var mutantsFlag = flag.Bool("mutants", false, "takes every defence out, one at a time, and demands that its test fails")

// mutant is the package without one of its defences.
type mutant struct {
	defence string // what is gone
	file    string // below this folder
	old     string // occurs in the file once
	new     string
	test    string // in the folder of the file, or here
}

// pkg is the folder of the mutant's test: this one, unless the test is named with a folder.
func (m mutant) pkg() (dir, test string) {
	if dir, test, found := strings.Cut(m.test, "."); found {
		return dir, test
	}
	return ".", m.test
}

// apply is the file's text without the defence.
func (m mutant) apply() ([]byte, error) {
	text, err := os.ReadFile(filepath.FromSlash(m.file))
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return nil, fmt.Errorf("%s: %q occurs %d times", m.file, m.old, n)
	}
	return []byte(strings.Replace(string(text), m.old, m.new, 1)), nil
}

// row is the mutant's line in TESTING.md.
func (m mutant) row() string {
	return fmt.Sprintf("| %s | `%s` | `%s` |", m.defence, m.file, m.test)
}

// TestMutantsFit keeps the list of mutants and TESTING.md in step with the code:
// a mutant that no longer applies would prove nothing.
func TestMutantsFit(t *testing.T) {
	doc, err := os.ReadFile("TESTING.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		text, err := m.apply()
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), m.file, text, 0); err != nil {
			t.Errorf("%s: %v", m.defence, err)
		}
		dir, test := m.pkg()
		if !isTest(t, dir, test) {
			t.Errorf("%s: there is no %s", m.defence, m.test)
		}
		if !strings.Contains(string(doc), m.row()+"\n") {
			t.Errorf("TESTING.md lacks this row:\n%s", m.row())
		}
	}
	if rows := strings.Count(string(doc), ".go` | `Test") + strings.Count(string(doc), ".Test"); rows != len(mutants) {
		t.Errorf("TESTING.md has %d rows for %d mutants", rows, len(mutants))
	}
}

// isTest reports whether the folder's tests have a function of that name.
func isTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// TestMutants builds the package without each of its defences, by an overlay that
// leaves the files alone, and runs the test that must notice.
func TestMutants(t *testing.T) {
	if !*mutantsFlag {
		t.Skip("takes minutes; make mutants runs it")
	}
	for _, m := range mutants {
		t.Run(m.defence, func(t *testing.T) {
			out, err := m.run(t)
			switch {
			case err == nil:
				t.Errorf("%s passes without it", m.test)
			case !strings.Contains(out, "--- FAIL") && !strings.Contains(out, "panic:"):
				t.Errorf("%s did not run: %v\n%s", m.test, err, out)
			}
		})
	}
}

// run runs the mutant's test on the mutant.
func (m mutant) run(t *testing.T) (string, error) {
	text, err := m.apply()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	changed := filepath.Join(folder, path.Base(m.file))
	if err := os.WriteFile(changed, text, 0o600); err != nil {
		t.Fatal(err)
	}
	original, err := filepath.Abs(filepath.FromSlash(m.file))
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, test := m.pkg()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-timeout=2m", "-overlay", list, "-run", "^"+test+"$", "./"+dir)
	out, err := command.CombinedOutput()
	return string(out), err
}
