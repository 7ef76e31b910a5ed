// Package testvectors reads the test data of others, which is kept outside the repository, and
// holds what its readers count against docs/evidence.md.
//
// The data is in ../shared/vectors beside the repository, or below WAXWING_SHARED. Where it is
// missing a test is skipped with a message that says so, and fails under CI=true. Only tests
// import this package.
package testvectors

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const page = "docs/evidence.md"

// Read returns a file of the data; name has slashes.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(path(t, name))
	if err != nil {
		missing(t, name, err)
	}
	return text
}

// Names returns the names of the files of a folder of the data.
func Names(t testing.TB, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(path(t, folder))
	if err != nil {
		missing(t, folder, err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// JSON returns the entries of a file with a list.
func JSON[T any](t testing.TB, name string) []T {
	t.Helper()
	var entries []T
	if err := json.Unmarshal(Read(t, name), &entries); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(entries) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return entries
}

// Lines returns the lines of a file that are not empty and no comments, which begin with "# ".
func Lines(t testing.TB, name string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(string(Read(t, name))) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "# ") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return lines
}

// Wycheproof returns the groups of a file of Project Wycheproof, which is a module that
// interop/wycheproof requires; G has a field for the tests of a group. make wycheproof downloads
// it.
func Wycheproof[G any](t testing.TB, file string) []G {
	t.Helper()
	folder, err := wycheproof(root(t))
	if err != nil || folder == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("test data of others: Wycheproof is missing, run make wycheproof (%v)", err)
		}
		t.Skipf("NOT CHECKED: Wycheproof is missing, run make wycheproof (%v)", err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "testvectors_v1", file+"_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct{ TestGroups []G }
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(vectors.TestGroups) == 0 {
		t.Fatalf("%s is empty", file)
	}
	return vectors.TestGroups
}

// wycheproof returns the folder of the module, "" if it was not downloaded.
func wycheproof(root string) (string, error) {
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/c2sp/wycheproof")
	list.Dir = filepath.Join(root, "interop", "wycheproof")
	list.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off")
	out, err := list.Output()
	return strings.TrimSpace(string(out)), err
}

// Hex is a byte string in hexadecimal digits.
type Hex []byte

// UnmarshalText reads digits.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Published verifies that docs/evidence.md has a row for data with these counts: of the entries
// that were read, and of those that were not.
func Published(t testing.TB, data string, read, unread int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(data) + "` \\| ([0-9 ]+) \\| ([0-9 ]+) \\|").FindStringSubmatch(string(text))
	if row == nil {
		t.Errorf("%s has no row for %s: %d read, %d not", page, data, read, unread)
		return
	}
	count := func(cell string) int {
		n, err := strconv.Atoi(strings.ReplaceAll(cell, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", page, err)
		}
		return n
	}
	if count(row[1]) != read || count(row[2]) != unread {
		t.Errorf("%s: %d read, %d not, but %s says %q", data, read, unread, page, row[0])
	}
}

func missing(t testing.TB, name string, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrNotExist) || os.Getenv("CI") == "true" {
		t.Fatalf("test data of others: %v", err)
	}
	t.Skipf("NOT CHECKED: %s is missing, set WAXWING_SHARED (%v)", name, err)
}

func path(t testing.TB, name string) string {
	t.Helper()
	shared := os.Getenv("WAXWING_SHARED")
	if shared == "" {
		shared = filepath.Join(filepath.Dir(root(t)), "shared")
	}
	return filepath.Join(shared, "vectors", filepath.FromSlash(name))
}

// root returns the root of the repository. Modules inside of it have a go.mod of their own.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(page))); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("the working directory is not in a folder with %s", page)
		}
		dir = filepath.Dir(dir)
	}
}
