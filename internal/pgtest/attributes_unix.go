//go:build unix && !linux

package pgtest

import "syscall"

// attributes cannot make the server die with us here: who kills a test binary ends
// its server too.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true}
}
