package drive

import (
	"syscall"
	"testing"
)

// TestAttributes: when we are killed, a server of one process dies at once, and a proxy can end its
// children.
func TestAttributes(t *testing.T) {
	if got := attributes(syscall.SIGKILL).Pdeathsig; got != syscall.SIGKILL {
		t.Errorf("a server gets %s", got)
	}
	if got := attributesOf(0, 0).Pdeathsig; got != syscall.SIGTERM {
		t.Errorf("a proxy gets %s", got)
	}
}
