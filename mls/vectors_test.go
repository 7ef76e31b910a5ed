package mls_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"

	"waxwing.im/waxwing/internal/testvectors"
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

// readVectors returns the entries of a file of MLS vectors.
func readVectors[T any](t *testing.T, file string) []T {
	t.Helper()
	return testvectors.JSON[T](t, "mlswg/"+file)
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
