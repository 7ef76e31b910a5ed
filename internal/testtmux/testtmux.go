// Package testtmux runs programs of tests in tmux, a terminal of another author.
//
// Each terminal is a tmux server of its own with one window and no bars, so that a screen has
// nothing that the program did not draw. Only tests import it.
package testtmux

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testwait"
)

// Terminal is a terminal that runs one program. It ends with its test.
type Terminal struct {
	t      testing.TB
	socket string
}

// Start runs a shell command in a window of the size, with environment variables (K=V). Without
// tmux it skips the test; where CI is true it fails it.
func Start(t testing.TB, width, height int, command string, env ...string) *Terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("tmux is missing; scripts/prepare.sh installs it: %v", err)
		}
		t.Skipf("NOT TESTED: tmux is missing; scripts/prepare.sh installs it: %v", err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte("set -g status off\nset -g remain-on-exit on\nset -g escape-time 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := &Terminal{t, filepath.Join(dir, "s")}
	args := []string{"-u", "-f", config, "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height)}
	for _, e := range env {
		args = append(args, "-e", e)
	}
	t.Cleanup(func() { exec.Command("tmux", "-S", x.socket, "kill-server").Run() })
	x.Run(append(args, command)...)
	return x
}

// Run runs a command of tmux and returns its output.
func (x *Terminal) Run(args ...string) string {
	x.t.Helper()
	command := exec.Command("tmux", append([]string{"-S", x.socket}, args...)...)
	command.Env = append(os.Environ(), "TMUX=", "TERM=xterm-256color")
	out, err := command.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

// Type types a text.
func (x *Terminal) Type(text string) {
	x.t.Helper()
	x.Run("send-keys", "-l", "--", text)
}

// Press presses keys, by the names of tmux.
func (x *Terminal) Press(keys ...string) {
	x.t.Helper()
	x.Run(append([]string{"send-keys"}, keys...)...)
}

// Rows returns the screen, without trailing blanks.
func (x *Terminal) Rows() []string {
	x.t.Helper()
	return strings.Split(strings.TrimSuffix(x.Run("capture-pane", "-p"), "\n"), "\n")
}

// Format returns the value of a format of tmux, such as #{wrap_flag}.
func (x *Terminal) Format(of string) string {
	x.t.Helper()
	return strings.TrimSpace(x.Run("display-message", "-p", of))
}

// Until waits until the screen shows text.
func (x *Terminal) Until(text string) {
	x.t.Helper()
	x.UntilNoFault(func(rows []string) string {
		if screen := strings.Join(rows, "\n"); !strings.Contains(screen, text) {
			return fmt.Sprintf("no %q:\n%s", text, screen)
		}
		return ""
	})
}

// UntilNoFault waits until fault finds none in the rows of the screen, and fails the test with the
// last one.
func (x *Terminal) UntilNoFault(fault func(rows []string) string) {
	x.t.Helper()
	testwait.UntilNoFault(x.t, func() string {
		is := fault(x.Rows())
		if is != "" {
			time.Sleep(10 * time.Millisecond) // each look is a process
		}
		return is
	})
}
