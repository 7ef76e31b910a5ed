package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/mlspeer"
)

// peer is one process, or what stands for it, that speaks the peer protocol.
type peer struct {
	kind  string // ours or theirs
	mu    sync.Mutex
	in    io.WriteCloser
	out   *bufio.Reader
	end   func() error
	kill  func()
	count int
}

// answerMax is far more than any request takes, on a busy machine too.
const answerMax = 5 * time.Minute

// call makes one request. What the peer answers with an error is one here too;
// everything else that goes wrong ends the test.
func (p *peer) call(t *testing.T, method string, params, result any) error {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	line, err := json.Marshal(map[string]any{"id": p.count, "method": method, "params": params})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatalf("%s: %s: %v", p.kind, method, err)
	}
	// A peer that hangs must not outlive the test.
	watch := time.AfterFunc(answerMax, p.kill)
	text, err := p.out.ReadBytes('\n')
	watch.Stop()
	if err != nil {
		t.Fatalf("%s: %s: %v", p.kind, method, err)
	}
	var answer struct {
		ID     int             `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  string          `json:"error"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.ID != p.count {
		t.Fatalf("%s: %s: answer %d to request %d, %v: %.200s", p.kind, method, answer.ID, p.count, err, text)
	}
	if answer.Error != "" {
		return fmt.Errorf("%s: %s: %s", p.kind, method, answer.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		t.Fatalf("%s: %s: %v: %.200s", p.kind, method, err, answer.Result)
	}
	return nil
}

// close ends the peer and waits for it.
func (p *peer) close() error {
	return errors.Join(p.in.Close(), p.end())
}

// startOurs starts the server of waxwing dev mls-peer in this process.
func startOurs(t *testing.T) *peer {
	t.Helper()
	requests, in := io.Pipe()
	out, responses := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := mlspeer.Serve(context.Background(), requests, responses, "test")
		responses.CloseWithError(err)
		ended <- err
	}()
	p := &peer{kind: "ours", in: in, out: bufio.NewReader(out), end: func() error { return <-ended }, kill: func() { responses.Close() }}
	t.Cleanup(func() { closePeer(t, p) })
	return p
}

// startTheirs is ts-mls in a process of its own, without the patches named.
func startTheirs(t *testing.T, without ...string) *peer {
	t.Helper()
	arguments := []string{"--no-warnings", "peer.mjs"}
	for _, name := range without {
		arguments = append(arguments, "--without", name)
	}
	p := startNode(t, "ts", "ts-mls", arguments...)
	var hello struct{ Impl, Version string }
	if err := p.call(t, "hello", nil, &hello); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s", hello.Impl, hello.Version)
	return p
}

// startNode runs node in a folder of this one, with the library that npm installed there.
func startNode(t *testing.T, folder, library string, arguments ...string) *peer {
	t.Helper()
	command := nodeCommand(t, folder, library, arguments...)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{kind: "theirs", in: in, out: bufio.NewReader(out), end: command.Wait, kill: func() { command.Process.Kill() }}
	t.Cleanup(func() { closePeer(t, p) })
	return p
}

func nodeCommand(t *testing.T, folder, library string, arguments ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(requireNode(t, folder, library), arguments...)
	command.Dir = folder
	return command
}

func closePeer(t *testing.T, p *peer) {
	if err := p.close(); err != nil {
		t.Errorf("%s: %v", p.kind, err)
	}
}

const nodeMajorMin = 20

// requireNode finds node with what npm installed from the lock file. Where node or
// npm is not there the tests of this package that need them do not count; where
// both are, continuous integration must not pass without having run them.
func requireNode(t *testing.T, folder, library string) string {
	t.Helper()
	// The go command runs a cached test again if a file that it read has changed.
	sources, err := filepath.Glob(folder + "/*.mjs")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no peer in %s: %v", folder, err)
	}
	for _, name := range append(sources, folder+"/package-lock.json") {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("NOT TESTED against %s: %v", library, err)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skipf("NOT TESTED against %s: %v", library, err)
	}
	version, err := exec.Command(node, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < nodeMajorMin {
		t.Skipf("NOT TESTED against %s: node %s is older than %d", library, strings.TrimSpace(string(version)), nodeMajorMin)
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules", library, "package.json")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("node and npm are here, but %s is not installed: make interop", library)
		}
		t.Skipf("NOT TESTED against %s, which is not installed: make interop", library)
	}
	return node
}
