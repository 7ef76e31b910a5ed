package core

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/testmetric"
)

// TestAttestGeneration: what is said of an epoch of another group of the conversation
// is not compared with what is said of the present one.
func TestAttestGeneration(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	w.room("c1", "ann", "bob")
	if _, err := w.sendMLS("ann", "c1", "bind", commit("group", 0)); err != nil {
		t.Fatal(err)
	}
	for i, row := range []struct {
		generation int64
		value      string
		want       ds.Code
	}{
		{1, "right", ""}, {0, "right", ""},
		{2, "wrong", ds.InvalidRequest}, {-1, "wrong", ds.InvalidRequest},
		{1, "right", ""}, // nothing was noted of the others
		{0, "wrong", ds.EpochConflict}, {1, "right", ds.EpochConflict},
	} {
		if err := w.service.Attest(t.Context(), who("bob"), "c1", row.generation, 1, []byte(row.value)); ds.CodeOf(err) != row.want {
			t.Errorf("%d: %v, want %q", i, err, row.want)
		}
	}
	if n := testmetric.Value(t, w.service.metrics.attestationConflicts); n != 2 {
		t.Errorf("%g mismatches are counted", n)
	}
}

// TestAttestationsAreBounded: the oldest epoch is forgotten first, each time round.
func TestAttestationsAreBounded(t *testing.T) {
	var a attestations
	key := func(n int) attestedEpoch { return attestedEpoch{ds.ConversationID(fmt.Sprint("c", n)), 1, 1} }
	one, other := sha256.Sum256([]byte("one")), sha256.Sum256([]byte("other"))
	const count = 2*attestedEpochsMax + 10
	for n := range count {
		if a.differs(key(n), one) {
			t.Fatalf("%d differs from nothing", n)
		}
	}
	if len(a.values) != attestedEpochsMax || len(a.order) != attestedEpochsMax {
		t.Errorf("%d and %d are kept", len(a.values), len(a.order))
	}
	if !a.differs(key(count-attestedEpochsMax), other) {
		t.Error("the oldest that fits is forgotten")
	}
	if a.differs(key(count-attestedEpochsMax-1), other) {
		t.Error("the one before it is kept")
	}
}
