//go:build !linux && !darwin && !freebsd

package peercred

import (
	"errors"
	"net"
)

// IsKnown reports whether the system tells the users of sockets.
const IsKnown = false

// UID returns an error: the system does not tell the users of sockets.
func UID(*net.UnixConn) (uid uint32, err error) { return 0, errors.ErrUnsupported }
