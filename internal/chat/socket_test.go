package chat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/server"
)

// socketOptions describes a home whose server is away.
func socketOptions(t *testing.T) Options {
	t.Helper()
	config := t.TempDir()
	return Options{ConfigDir: func() (string, error) { return config, nil }, Seed: func() ([]byte, error) { return []byte("seed of the tests"), nil },
		DefaultServer: "http://127.0.0.1:1", In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}
}

func openChat(t *testing.T, o Options) *Terminal {
	t.Helper()
	chat, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chat.Close() })
	return chat
}

// askRunning sends lines to the process that has the home open, and returns the answers.
func askRunning(t *testing.T, o Options, lines ...string) (answers []answer) {
	t.Helper()
	r, err := Dial(t.Context(), o)
	if err != nil || r == nil {
		t.Fatalf("connected to %v: %v", r, err)
	}
	var out bytes.Buffer
	r.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err := r.Talk(t.Context(), strings.NewReader(strings.Join(lines, "\n")), &out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if a.Type == "answer" {
			answers = append(answers, a)
		}
	}
	return answers
}

// TestSocket: the process that has a home open answers others, whatever they send.
func TestSocket(t *testing.T) {
	o := socketOptions(t)
	if r, err := Dial(t.Context(), o); r != nil || err != nil {
		t.Errorf("connected to %v: %v", r, err)
	}
	dir, _ := o.homeDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, socketFile)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false) // as if it was killed
	stale.Close()
	chat := openChat(t, o)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v: %v", info, err)
	}
	long := `{"op":"send","text":"` + strings.Repeat("x", lineBytesMax) + `"}`
	got := askRunning(t, o, `{"op":"state","req":1}`, `nonsense`, ``, `[]`, `{"op":"list","req":"`+strings.Repeat("r", reqBytesMax)+`"}`, "{\"op\":\"\xff\"}",
		`{"op":"read","conv":"none","req":2}`, `{"op":"state","req":3}`)
	want := []string{"", codeBadJSON, codeBadJSON, CodeBadRequest, codeBadJSON, CodeMistake, ""}
	for i, a := range got {
		if i >= len(want) || a.Code != want[i] || a.OK != (want[i] == "") {
			t.Errorf("answer %d is %+v", i, a)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d answers, want %d", len(got), len(want))
	}
	// Long lines by the socket itself, and by standard input.
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, long+"\n"+`{"op":"state","req":"after"}`+"\n")
	in := bufio.NewReader(conn)
	for _, want := range []string{`"type":"hello"`, `"code":"too_long"`, `"req":"after","op":"state","ok":true`} {
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, want) {
			t.Errorf("got %q, want %s: %v", line, want, err)
		}
	}
	if got := askRunning(t, o, long, `{"op":"state"}`); len(got) != 2 || got[0].Code != codeTooLong && got[1].Code != codeTooLong {
		t.Errorf("answers to a long line: %+v", got)
	}
	var out bytes.Buffer
	chat.in, chat.out = strings.NewReader(long+"\n"+strings.Repeat("y", lineBytesMax+1)+"\n"+`{"op":"state"}`), &out
	if err := newLines(chat, true).run(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), codeTooLong) != 2 || strings.Count(out.String(), `"type":"answer"`) != 2 || !strings.Contains(out.String(), `"op":"state","ok":true`) {
		t.Errorf("standard output is %s", out.String())
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, client.ErrInUse) {
		t.Errorf("opened again: %v", err)
	}
	chat.Close()
	if r, err := Dial(t.Context(), o); r != nil || err != nil {
		t.Errorf("connected to %v after the end: %v", r, err)
	}
}

// TestSocketOfAnotherUser: neither side talks to a process of another user.
func TestSocketOfAnotherUser(t *testing.T) {
	ownUID = func() int { return os.Geteuid() + 1 }
	t.Cleanup(func() { ownUID = os.Geteuid }) // once the chat is closed
	o := socketOptions(t)
	openChat(t, o)
	r, err := Dial(t.Context(), o)
	if r != nil || CodeOf(err) != "other_user" || !strings.Contains(err.Error(), "chat.sock belongs to another user") {
		t.Errorf("connected to %v: %v", r, err)
	}
	dir, _ := o.homeDir()
	conn, err := net.Dial("unix", filepath.Join(dir, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if !strings.Contains(string(text), `"ok":false,"code":"other_user","error":"the process belongs to another user`) || strings.Count(string(text), "\n") != 1 {
		t.Errorf("the answer is %q: %v", text, err)
	}
}

// TestSocketEnds: a request that is waited for is answered as stored when the chat ends, and a
// process that does not read is cut off.
func TestSocketEnds(t *testing.T) {
	o := socketOptions(t)
	o.IsTalking = true
	chat := openChat(t, o)
	other, err := client.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := o.homeDir()
	deaf, err := net.Dial("unix", filepath.Join(dir, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	go func() { // until it is cut off
		for {
			if _, err := io.WriteString(deaf, `{"op":"nonsense, of which the answer is long"}`+"\n"); err != nil {
				return
			}
		}
	}()
	r, err := Dial(t.Context(), o)
	if err != nil || r == nil {
		t.Fatal(err)
	}
	in, typed := io.Pipe()
	var out bytes.Buffer
	ended := make(chan error)
	go func() { ended <- r.Talk(context.Background(), in, &out) }()
	if _, err := io.WriteString(typed, `{"op":"send","to":"`+other.DID()+`","text":"x","wait":"1h"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	for {
		if count, err := chat.client.Pending(t.Context()); err != nil {
			t.Fatal(err)
		} else if count > 0 {
			break
		}
	}
	chat.Close()
	if err := <-ended; CodeOf(err) != CodeInUse || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("the end: %v", err)
	}
	if !strings.Contains(out.String(), `"op":"send","ok":false,"code":"stored"`) {
		t.Errorf("the output is %s", out.String())
	}
}

// TestSocketOfACommand: a command that has the home open ends after the requests of others.
func TestSocketOfACommand(t *testing.T) {
	o := socketOptions(t)
	config := server.DefaultConfig(t.TempDir())
	free, err := net.Listen("tcp", config.Listen)
	if err != nil {
		t.Fatal(err)
	}
	config.Listen = free.Addr().String()
	free.Close()
	o.DefaultServer = "http://" + config.Listen
	chat := openChat(t, o)
	if got := askRunning(t, o, `{"op":"room"}`); len(got) != 1 || !got[0].OK {
		t.Fatalf("answers to room: %+v", got)
	}
	answers := make(chan []answer)
	go func() { answers <- askRunning(t, o, `{"op":"send","conv":"1","text":"x","wait":"1m"}`) }()
	for {
		if count, err := chat.client.Pending(t.Context()); err != nil {
			t.Fatal(err)
		} else if count > 0 {
			break
		}
	}
	closed := make(chan error)
	go func() { closed <- chat.Close() }()
	s, err := server.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := <-answers; len(got) != 1 || !got[0].OK {
		t.Errorf("answers to send: %+v", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestRequestsAreDocumented holds the page of the command line against the operations and codes.
func TestRequestsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/command-line.md")
	if err != nil {
		t.Fatal(err)
	}
	words := []string{CodeMistake, CodeStored, CodeRefused, CodeInUse, CodeBadRequest, codeBadJSON, codeTooLong, codeUnknownOp, codeFailed}
	for op := range operations() {
		words = append(words, op)
	}
	for _, known := range sdkCodes {
		words = append(words, known.code)
	}
	for _, word := range words {
		if !bytes.Contains(page, []byte("`"+word+"`")) {
			t.Errorf("docs/command-line.md does not describe `%s`", word)
		}
	}
}

// TestRequestsInOrder: requests that are waited for take effect in the order of their lines.
func TestRequestsInOrder(t *testing.T) {
	o := socketOptions(t)
	o.IsTalking = true
	var done []string // by one at a time
	o.Command = func(ctx context.Context, args []string, t *Terminal, _ io.Reader, _, _ io.Writer) int {
		done = append(done, args[1])
		t.until(ctx, 20*time.Millisecond, func() (bool, string, error) { return false, "", nil })
		return 0
	}
	openChat(t, o)
	var lines, want []string
	for i := range waitsMax / 2 {
		want = append(want, fmt.Sprint(i))
		lines = append(lines, fmt.Sprintf(`{"op":"run","args":["chat","%d"]}`, i))
	}
	if got := askRunning(t, o, lines...); len(got) != len(lines) || !slices.Equal(done, want) {
		t.Errorf("%d answers, done in the order %q", len(got), done)
	}
}

// TestStoppedProcess: a process that has the home open and does not answer, because it is stopped,
// keeps no other waiting.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	o := socketOptions(t)
	openChat(t, o).socket.close()
	dir, _ := o.homeDir()
	listener, err := net.Listen("unix", filepath.Join(dir, socketFile)) // accepts by itself
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended, end := context.WithCancel(t.Context())
	end()
	for _, ctx := range []context.Context{ended, t.Context()} {
		if r, err := Dial(ctx, o); r != nil || !errors.Is(err, client.ErrInUse) {
			t.Errorf("connected to %v: %v", r, err)
		}
	}
}

// TestNameIsSet: a name waits for no person who has never been here.
func TestNameIsSet(t *testing.T) {
	chat := openChat(t, socketOptions(t))
	if err := chat.Send(t.Context(), "did:web:nowhere.example", "hello", nil, 0, false); CodeOf(err) != CodeStored {
		t.Fatal(err)
	}
	name := "Ann"
	if err := chat.Name(t.Context(), &name, time.Second); err != nil {
		t.Error(err)
	}
}

// TestOwnAccount: an alias or a direct conversation for the own account is a mistake.
func TestOwnAccount(t *testing.T) {
	chat := openChat(t, socketOptions(t))
	for _, err := range []error{chat.Send(t.Context(), chat.self, "hello", nil, 0, false), chat.Alias(t.Context(), chat.self, "Me", 0)} {
		if CodeOf(err) != CodeMistake || !strings.Contains(err.Error(), "is your own account") {
			t.Error(err)
		}
	}
}
