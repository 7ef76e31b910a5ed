package mls_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// hexBytes is a byte string as the vector files write it.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(raw []byte) error {
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil || text == nil {
		return err
	}
	b, err := hex.DecodeString(*text)
	*h = b
	return err
}

// readVectors decodes a file of the official test vectors, which are kept outside
// the repository. Without them the tests are skipped, except in CI.
func readVectors[T any](t *testing.T, name string) []T {
	t.Helper()
	path := filepath.Join(vectorsDir(t), name)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("official MLS test vectors are missing: %s", path)
		}
		t.Skipf("NOT CHECKED: the official MLS test vectors are not at %s; set WAXWING_SHARED", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	var entries []T
	if err := json.Unmarshal(raw, &entries); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return entries
}

func vectorsDir(t *testing.T) string {
	shared := os.Getenv("WAXWING_SHARED")
	if shared == "" {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for !exists(filepath.Join(dir, "go.mod")) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
		}
		shared = filepath.Join(filepath.Dir(dir), "shared")
	}
	return filepath.Join(shared, "vectors", "mlswg")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tally counts what became of the entries of one vector file.
type tally struct {
	file                        string
	passed, failed, unsupported int
	reasons                     map[string]int
}

func (c *tally) skip(reason string) {
	if c.reasons == nil {
		c.reasons = map[string]int{}
	}
	c.unsupported++
	c.reasons[reason]++
}

func (c *tally) done(t *testing.T, err error, entry int) {
	t.Helper()
	if err != nil {
		c.failed++
		t.Errorf("%s, entry %d: %v", c.file, entry, err)
		return
	}
	c.passed++
}

func (c *tally) log(t *testing.T) {
	t.Helper()
	t.Logf("%s: %d passed, %d failed, %d unsupported", c.file, c.passed, c.failed, c.unsupported)
	for reason, n := range c.reasons {
		t.Logf("%s: unsupported, %s: %d", c.file, reason, n)
	}
	if c.passed == 0 {
		t.Errorf("%s: nothing was checked", c.file)
	}
}

// equal returns an error that shows both values if they differ.
func equal(what string, got, want []byte) error {
	if string(got) != string(want) {
		return fmt.Errorf("%s: got %x, want %x", what, got, want)
	}
	return nil
}
