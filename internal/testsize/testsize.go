// Package testsize selects the amount of work in a test: the quick size of every run, or the
// full one of make full.
//
// Sizes are counts, durations of load and numbers of rounds; a test asserts the same at both,
// except for measurements that only a full run has time for. Only tests import it.
package testsize

import "os"

// Full is the environment variable that selects full sizes with "1".
const Full = "WAXWING_FULL"

// IsFull reports whether full sizes are selected.
func IsFull() bool { return os.Getenv(Full) == "1" }

// Of returns quick or full, the size of this run.
func Of[T any](quick, full T) T {
	if IsFull() {
		return full
	}
	return quick
}
