// Package testsize decides how much work a test does: the quick size of every run, or
// the full one of make full.
//
// Sizes are counts, durations of load and numbers of rounds; a test asserts the same at
// both, except for the measurements that only a full run has the time for. Only tests
// import it.
package testsize

import "os"

// Full is the environment variable that asks for full sizes with "1".
const Full = "WAXWING_FULL"

// IsFull reports whether full sizes are asked for.
func IsFull() bool { return os.Getenv(Full) == "1" }

// Of returns the size of this run.
func Of[T any](quick, full T) T {
	if IsFull() {
		return full
	}
	return quick
}
