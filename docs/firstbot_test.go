package docs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/client/clienttest"
	"waxwing.im/waxwing/internal/server"
)

// blocks returns the blocks of a language in a page.
func blocks(t *testing.T, page, language string) (texts []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		texts = append(texts, found[1])
	}
	return texts
}

// bot is the program of first-bot.md, in a module of its own that is made by the page's
// commands.
type bot struct {
	t       *testing.T
	dir     string
	server  string
	invite  string
	running *exec.Cmd
	did     string
}

func buildBot(t *testing.T) *bot {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	b := &bot{t: t, dir: filepath.Join(folder, "bot")}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	program := blocks(t, "first-bot.md", "go")[0]
	if err := os.WriteFile(filepath.Join(b.dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	commands, _, ok := strings.Cut(blocks(t, "first-bot.md", "sh")[0], "./bot ")
	if !ok {
		t.Fatal("the commands do not run ./bot")
	}
	// The path itself, not a link: the go command keeps what it has compiled for each path.
	build := exec.Command("sh", "-ec", strings.ReplaceAll(commands, "../waxwing", root))
	build.Dir = folder
	build.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GOSUMDB=off", "GOWORK=off") // all that it needs is here
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return b
}

// at begins a test of the bot with an empty home.
func (b *bot) at(t *testing.T, server, invite string) {
	t.Helper()
	b.t, b.server, b.invite = t, server, invite
	if err := os.RemoveAll(filepath.Join(b.dir, "home")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kill)
	b.start()
}

// start starts the bot, and waits until it has said who it is.
func (b *bot) start() {
	b.t.Helper()
	b.running = exec.Command("./bot", b.server)
	b.running.Dir = b.dir
	b.running.Env = append(os.Environ(), "INVITE="+b.invite)
	out, err := b.running.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.running.Start(); err != nil {
		b.t.Fatal(err)
	}
	text := bufio.NewReader(out)
	line, err := text.ReadString('\n')
	_, did, ok := strings.Cut(strings.TrimSpace(line), "I am ")
	if err != nil || !ok {
		b.t.Fatalf("the bot says %q, %v", line, err)
	}
	b.did = did
	go func() { _, _ = io.Copy(io.Discard, text) }() // until it is killed
}

// kill kills the bot as kill -9 does.
func (b *bot) kill() {
	if b.running != nil {
		_ = b.running.Process.Kill()
		_ = b.running.Wait() // its end is an error
		b.running = nil
	}
}

func TestFirstBot(t *testing.T) {
	b := buildBot(t)
	t.Run("is killed", b.isKilled)
	t.Run("needs an invite", b.needsInvite)
}

// isKilled: the bot of the page answers each command once, in a direct conversation and in a
// room, however it is killed, and lets other devices of its account talk.
func (b *bot) isKilled(t *testing.T) {
	server := clienttest.NewServer(t)
	b.at(t, server.URL, "")
	ann, bob := server.Client("ann"), server.Client("bob")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last int64
	hears := func(text string) {
		t.Helper()
		for e, err := range ann.Events(ctx, last) {
			if err != nil {
				t.Fatalf("ann waits for %q: %v", text, err)
			}
			if last = e.ID; e.Type == client.EventMessage && string(e.Text) == text {
				return
			}
		}
	}
	asks := func(by *client.Client, conversation, text string) {
		t.Helper()
		if _, err := by.Send(ctx, conversation, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}

	dm, err := ann.StartDM(ctx, b.did)
	if err != nil {
		t.Fatal(err)
	}
	asks(ann, dm, "!echo hello")
	hears("hello")
	room, err := ann.CreateRoom(ctx, bob.DID(), b.did)
	if err != nil {
		t.Fatal(err)
	}
	server.Await(bob, client.EventJoined)
	asks(bob, room, "!echo from bob")
	hears("from bob")

	// The account of the bot on another device.
	seed, err := os.ReadFile(filepath.Join(b.dir, "seed"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[!-~]{32,}$`).Match(seed) {
		t.Errorf("WAXWING_SEED cannot be %q", seed)
	}
	o := server.Options("the bot's other device")
	if o.Account, err = client.AccountFromSeed(seed, "echo"); err != nil {
		t.Fatal(err)
	}
	other, err := client.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 2 { // the two conversations
		server.Await(other, client.EventJoined)
	}
	asks(other, dm, "!echo to myself")
	hears("!echo to myself")

	want := []string{"!echo hello", "hello", "!echo to myself"}
	for i := range 6 {
		text := fmt.Sprint("message ", i)
		asks(ann, dm, "!echo "+text)
		switch i % 3 {
		case 0: // it is killed before, during or after its work
			b.kill()
			b.start()
		case 1:
			hears("!echo " + text)
			b.kill()
			b.start()
		}
		hears(text)
		want = append(want, "!echo "+text, text)
	}
	b.kill()
	asks(ann, dm, "while it is away")
	asks(ann, dm, "!echo back?")
	b.start()
	hears("back?")
	want = append(want, "while it is away", "!echo back?", "back?")

	history, err := ann.History(ctx, dm, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range history {
		if e.Type == client.EventMessage { // and not who has come
			got = append(got, string(e.Text))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the conversation is %q\nwant %q", got, want)
	}
}

// needsInvite: the bot uses an invite at a server that asks for one.
func (b *bot) needsInvite(t *testing.T) {
	c := server.DefaultConfig(t.TempDir())
	invited, err := server.Administer(t.Context(), c, server.AdminRequest{Operation: server.AdminInviteCreate, Uses: 2})
	if err != nil {
		t.Fatal(err)
	}
	var invite struct{ Code string }
	if err := json.Unmarshal(invited.Result, &invite); err != nil {
		t.Fatal(err)
	}
	c.Admission = "invite"
	s, err := server.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b.at(t, s.URL(), invite.Code)
	account, err := client.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	ann, err := client.Open(t.Context(), client.Options{Dir: t.TempDir(), StorageKey: make([]byte, client.StorageKeyBytes),
		Server: s.URL(), Account: account, InviteCode: invite.Code})
	if err != nil {
		t.Fatal(err)
	}
	defer ann.Close()
	dm, err := ann.StartDM(t.Context(), b.did)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ann.Send(t.Context(), dm, []byte("!echo hello")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for e, err := range ann.Events(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Text) == "hello" {
			break
		}
	}
}

// TestFirstBotIsShort holds the promise of the pages that name its length.
func TestFirstBotIsShort(t *testing.T) {
	program := blocks(t, "first-bot.md", "go")[0]
	_, body, _ := strings.Cut(program, "\nfunc main")
	if lines := strings.Count(strings.TrimSpace(body), "\n") + 1; lines > 45 {
		t.Errorf("its functions have %d lines", lines)
	}
}
