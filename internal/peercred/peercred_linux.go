// Package peercred tells which user has the process at the other end of a Unix socket, as the system
// knows it: a process cannot claim another one.
package peercred

import (
	"net"

	"golang.org/x/sys/unix"
)

// IsKnown reports whether the system tells the users of sockets.
const IsKnown = true

// UID returns the user of the process at the other end of a socket on this machine.
func UID(network *net.UnixConn) (uid uint32, err error) {
	raw, err := network.SyscallConn()
	if err != nil {
		return 0, err
	}
	var of *unix.Ucred
	if failed := raw.Control(func(fd uintptr) { of, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); failed != nil {
		return 0, failed
	}
	if err != nil {
		return 0, err
	}
	return of.Uid, nil
}
