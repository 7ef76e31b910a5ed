//go:build unix

package mls

import (
	"syscall"
	"time"
)

// cpuTime is the processor time that this process has taken. Benchmarks report it
// beside the time on the clock, which on a busy machine says little.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
