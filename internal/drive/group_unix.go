//go:build unix

package drive

import "syscall"

// attributesOf are attributes of a process of another user, unless uid is 0.
func attributesOf(uid, gid int) *syscall.SysProcAttr {
	a := attributes(syscall.SIGTERM) // the parent ends its children; killed, it would leave them (Apache)
	if uid != 0 {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return a
}

// endGroup ends a process and its children, at once if isHard. They may have ended.
func endGroup(pid int, isHard bool) {
	signal := syscall.SIGTERM
	if isHard {
		signal = syscall.SIGKILL
	}
	_ = syscall.Kill(-pid, signal)
}
