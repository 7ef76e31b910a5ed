//go:build unix && !linux

package drive

import "syscall"

// attributes keep a process from getting the signals of our terminal.
func attributes(atEnd syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
