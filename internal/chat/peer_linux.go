package chat

import (
	"errors"
	"net"
	"syscall"
)

// knowsPeers reports whether the system says who the process at the other end of a socket belongs
// to.
const knowsPeers = true

// peerUID returns the user of the process at the other end.
func peerUID(conn net.Conn) (uid int, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		var peer *syscall.Ucred
		if peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			uid = int(peer.Uid)
		}
	})
	return uid, errors.Join(failed, err)
}
