//go:build unix && !linux

package drive

import "syscall"

// attributes keep a server from getting the signals of our terminal.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
