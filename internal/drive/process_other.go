//go:build !unix

package drive

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
