//go:build !unix

package drive

import "syscall"

func attributes(atEnd syscall.Signal) *syscall.SysProcAttr { return nil }

func attributesOf(uid, gid int) *syscall.SysProcAttr { return nil }

func endGroup(pid int, isHard bool) {}
