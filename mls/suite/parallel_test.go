package suite_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/mls/suite"
)

func TestParallelCallsEachOnce(t *testing.T) {
	for _, n := range []int{0, 1, 3, 4, 1000} {
		calls := make([]atomic.Int32, n)
		if err := suite.Parallel(n, func(i int) error { calls[i].Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		for i := range calls {
			if got := calls[i].Load(); got != 1 {
				t.Errorf("call %d of %d was made %d times", i, n, got)
			}
		}
	}
}

// The error must not depend on which goroutine is faster.
func TestParallelReturnsTheFirstError(t *testing.T) {
	early, late := errors.New("early"), errors.New("late")
	for range 100 {
		err := suite.Parallel(50, func(i int) error {
			switch {
			case i == 7:
				return early
			case i > 7:
				return late
			}
			return nil
		})
		if err != early {
			t.Fatalf("got %v", err)
		}
	}
}
