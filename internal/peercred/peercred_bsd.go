//go:build darwin || freebsd

package peercred

import (
	"net"

	"golang.org/x/sys/unix"
)

// IsKnown reports whether the system tells the users of sockets.
const IsKnown = true

// levelLocal is the level of the options of sockets on one machine, in sys/un.h.
const levelLocal = 0

// UID returns the user of the process at the other end of a socket on this machine.
func UID(network *net.UnixConn) (uid uint32, err error) {
	raw, err := network.SyscallConn()
	if err != nil {
		return 0, err
	}
	var of *unix.Xucred
	if failed := raw.Control(func(fd uintptr) { of, err = unix.GetsockoptXucred(int(fd), levelLocal, unix.LOCAL_PEERCRED) }); failed != nil {
		return 0, failed
	}
	if err != nil {
		return 0, err
	}
	return of.Uid, nil
}
