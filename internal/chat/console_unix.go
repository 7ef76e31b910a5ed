//go:build unix

package chat

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// isReadable reports whether something can be read before the time is over.
func (c *console) isReadable(wait time.Duration) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.Fd()), Events: unix.POLLIN}}, int(wait.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}
