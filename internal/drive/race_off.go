//go:build !race

package drive

// RaceEnabled reports whether this program has the race detector, so that the servers that it
// builds can have it too.
const RaceEnabled = false
