//go:build darwin || freebsd

package chat

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

const knowsPeers = true

// peerUID returns the user of the process at the other end.
func peerUID(conn net.Conn) (uid int, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		var peer *unix.Xucred
		if peer, err = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED); err == nil {
			uid = int(peer.Uid)
		}
	})
	return uid, errors.Join(failed, err)
}
