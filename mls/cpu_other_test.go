//go:build !unix

package mls

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
