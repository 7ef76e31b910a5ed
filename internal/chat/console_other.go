//go:build !unix

package chat

import "time"

// isReadable reports false: the console of Windows gives whole keys.
func (c *console) isReadable(time.Duration) bool { return false }
