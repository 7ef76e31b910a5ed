//go:build unix

package chat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tmux is a terminal of another author that the tests draw on: a server of its own with
// one window and no bars.
type tmux struct {
	t      *testing.T
	socket string
}

// startTmux runs a shell command in a window of the size, with environment variables (K=V).
func startTmux(t *testing.T, width, height int, command string, env ...string) *tmux {
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
	term := &tmux{t, filepath.Join(dir, "s")}
	args := []string{"-u", "-f", config, "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height)}
	for _, e := range env {
		args = append(args, "-e", e)
	}
	t.Cleanup(func() { exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	term.run(append(args, command)...)
	return term
}

// run runs a command of tmux and returns its output.
func (x *tmux) run(args ...string) string {
	x.t.Helper()
	command := exec.Command("tmux", append([]string{"-S", x.socket}, args...)...)
	command.Env = append(os.Environ(), "TMUX=", "TERM=xterm-256color")
	out, err := command.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

// rows returns the screen, without trailing blanks.
func (x *tmux) rows() []string {
	x.t.Helper()
	return strings.Split(strings.TrimSuffix(x.run("capture-pane", "-p"), "\n"), "\n")
}

// format returns the value of a format of tmux, such as #{wrap_flag}.
func (x *tmux) format(of string) string {
	x.t.Helper()
	return strings.TrimSpace(x.run("display-message", "-p", of))
}

// until waits until the screen shows text, and returns its rows.
func (x *tmux) until(text string) []string {
	x.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		rows := x.rows()
		if screen := strings.Join(rows, "\n"); strings.Contains(screen, text) {
			return rows
		} else if time.Now().After(deadline) {
			x.t.Fatalf("no %q:\n%s", text, screen)
		}
	}
}
