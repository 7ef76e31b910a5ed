//go:build unix && !linux

package pgserver

import "syscall"

// attributes cannot make the server die with us here: to kill a test binary, kill its server
// too.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true}
}
