//go:build unix

package mls

import (
	"syscall"
	"time"
)

// cpuTime returns the processor time of this process. Benchmarks report it because the clock time
// of a busy machine varies.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
