package directory

import (
	"fmt"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// TestGenerationsAreBounded fills the memory with the longest names of accounts.
func TestGenerationsAreBounded(t *testing.T) {
	var g generations
	now := time.UnixMilli(1)
	name := func(i int) ds.AccountID { return ds.AccountID(fmt.Sprintf("%0*d", ds.AccountBytesMax, i)) }
	const count = 3 * generationsBytesMax / ds.AccountBytesMax
	for i := range count {
		g.remember(name(i), 2, now)
		g.remember(name(i), 1, now)
		if g.bytes > generationsBytesMax {
			t.Fatalf("holds %d bytes", g.bytes)
		}
	}
	if generation, ok := g.of(name(count-1), now); generation != 1 || !ok {
		t.Errorf("the latest: %d, %v", generation, ok)
	}
	for i := range count {
		g.forget(name(i))
	}
	if g.bytes != 0 || len(g.known) != 0 {
		t.Errorf("%d bytes of %d entries", g.bytes, len(g.known))
	}
}
