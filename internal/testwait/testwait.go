// Package testwait waits in tests for states that no event announces.
//
// A test that waits for a fixed time is slow where the state comes early and fails where it comes
// late; these look again and again. Only tests import it.
package testwait

import (
	"testing"
	"time"
)

// Max bounds each wait. Machines are shared: a test asserts with a measurement, not with this.
const Max = time.Minute

// Until returns once is returns true, and fails the test after Max, saying what it waited for.
// is is called by the test's own goroutine, so that it may fail the test itself.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	UntilNoFault(t, func() string {
		if is() {
			return ""
		}
		return "waited in vain: " + what
	})
}

// UntilNoFault returns once fault returns "", and fails the test after Max with the last fault.
func UntilNoFault(t testing.TB, fault func() string) {
	t.Helper()
	for end := time.Now().Add(Max); ; time.Sleep(time.Millisecond) {
		is := fault()
		if is == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(is)
		}
	}
}
