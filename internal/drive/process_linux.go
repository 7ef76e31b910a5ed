package drive

import "syscall"

// attributes keep a process from getting the signals of our terminal, and let it end with us even
// if we are killed: by atEnd.
func attributes(atEnd syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: atEnd}
}
