package drive

import "syscall"

// attributes keep a server from getting the signals of our terminal, and let it end with us even
// if we are killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
