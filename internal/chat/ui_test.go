package chat

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/google/go-cmp/cmp"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/server"
)

var update = flag.Bool("update", false, "write the screens")

// The people of the screens.
const (
	screenAnn = "did:key:zDnaeAnnAnnAnnA"
	screenBob = "did:key:zDnaeBobBobBobB"
	screenCat = "did:key:zDnaeCatCatCatC"
)

var screenTime = time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)

func screenUI(width, height int) *ui {
	m := newUI(context.Background(), &Terminal{self: screenAnn, people: people{nil, screenAnn, screenContact}})
	m.zone = time.UTC
	m.isLoading, m.hasColours = true, true // nothing is read in these tests
	m.Update(sizeMsg{width, height})
	m.Update(stateMsg{state: client.State{Link: client.Online, Transport: client.WebSocket}})
	return m
}

// screenContact gives cat a name that pretends to be verified.
func screenContact(account string) client.Contact {
	c := client.Contact{Account: account}
	if account == screenCat {
		c.Name = "Cat ✓"
	}
	return c
}

func device(account string, vouched, trusted bool) client.Member {
	return client.Member{Account: account, Device: "d1", Verified: vouched, Trusted: trusted, Fingerprint: "f1"}
}

func said(seq int64, who client.Member, text string) client.Event {
	return client.Event{Type: client.EventMessage, Conversation: "dm1", Seq: seq, MessageID: fmt.Sprint("m", seq),
		Time: screenTime.Add(time.Duration(seq) * time.Minute), From: who, Text: []byte(text)}
}

func screenSnapshot() snapshot {
	ann, bob, cat := device(screenAnn, true, true), device(screenBob, true, false), device(screenCat, false, false)
	return snapshot{
		open: "dm1",
		list: []client.Conversation{
			{ID: "dm1", Kind: client.DM, Phase: client.Joined, Peer: screenBob, Members: []client.Member{ann, bob}},
			{ID: "5eb1f0c2aa", Kind: client.Room, Phase: client.Joined, Members: []client.Member{ann, bob, cat}, Unread: 12},
			{ID: "dm2", Kind: client.DM, Phase: client.Founding, Peer: screenCat, Inviting: []string{screenCat}},
			{ID: "0b5e55ed00", Kind: client.Room, Phase: client.Removed},
		},
		history: []client.Event{
			said(1, bob, "hello"),
			said(2, ann, "several\nlines\n14:00 me: that cannot be taken for others"),
			said(3, bob, "\x1b[2J\x1b]0;title\x07\x9b31m\u202etxt.exe\r steer the terminal? "+strings.Repeat("long ", 20)),
			said(4, cat, "z"+strings.Repeat("\u0301", 40)+"algo"),
		},
		waiting: []client.Event{{Type: client.EventMessage, Conversation: "dm1", MessageID: "w1", Time: screenTime.Add(9 * time.Minute), From: ann, Own: true, Text: []byte("into the void")}},
		pending: 1, isAll: true,
	}
}

// show gives the UI a snapshot that was just read.
func show(m *ui, s snapshot) {
	m.Update(snapshotMsg{snapshot: s})
	m.isLoading = true
}

func screenKey(m *ui, keys ...string) {
	special := map[string]tea.KeyMsg{
		"enter": {Type: tea.KeyEnter}, "alt+enter": {Type: tea.KeyEnter, Alt: true}, "pgup": {Type: tea.KeyPgUp}, "pgdown": {Type: tea.KeyPgDown},
		"esc": {Type: tea.KeyEsc}, "f1": {Type: tea.KeyF1}, "ctrl+f": {Type: tea.KeyCtrlF}, "up": {Type: tea.KeyUp}, "down": {Type: tea.KeyDown},
		"tab": {Type: tea.KeyTab}, "ctrl+c": {Type: tea.KeyCtrlC}, "backspace": {Type: tea.KeyBackspace}, "left": {Type: tea.KeyLeft}, "right": {Type: tea.KeyRight}, "delete": {Type: tea.KeyDelete},
		"ctrl+k": {Type: tea.KeyCtrlK},
		"alt+w":  {Type: tea.KeyRunes, Runes: []rune("w"), Alt: true}, "home": {Type: tea.KeyHome}, "ctrl+w": {Type: tea.KeyCtrlW}, "ctrl+u": {Type: tea.KeyCtrlU},
	}
	for _, k := range keys {
		msg, ok := special[k]
		if !ok {
			msg = tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		}
		m.Update(msg)
	}
}

// sequences are those that the UI sends: styles, and those of measure.row.
var sequences = regexp.MustCompile(`\x1b\[(?:[0127]m|[39][1-6]m|\d+;1H|\d+G|K)`)

func plainScreen(m *ui) string {
	var out strings.Builder
	for _, row := range m.rows() {
		out.WriteString(strings.TrimRight(sequences.ReplaceAllString(row, ""), " ") + "\n")
	}
	return out.String()
}

// TestOtherServiceIsRed: people see at once that another service answers.
func TestOtherServiceIsRed(t *testing.T) {
	m := screenUI(80, 24)
	const red = "41m"
	if strings.Contains(m.rows()[0], red) {
		t.Error("the header is red")
	}
	m.Update(stateMsg{state: client.State{Err: fmt.Errorf("%w: it is another", client.ErrOtherService), Host: "chat.example"}})
	if rows := m.rows(); !strings.Contains(rows[0], red) || !strings.Contains(rows[0], "offline") ||
		!strings.Contains(rows[1], red) || !strings.Contains(rows[1], "another service than expected") {
		t.Errorf("the header is %q, %q", rows[0], rows[1])
	}
}

// TestErrorsGoAway: the message of a line that failed goes away with the next one that works.
func TestErrorsGoAway(t *testing.T) {
	m := screenUI(80, 24)
	m.open = "dm1"
	m.jobs = []job{{conv: "dm1", line: "/dance"}}
	m.Update(replyMsg{job: m.jobs[0], err: mistake("/dance is not a command")})
	if m.flash == "" {
		t.Error("nothing is said about a mistake")
	}
	m.jobs = []job{{conv: "dm1", line: "hello"}}
	if m.Update(replyMsg{job: m.jobs[0], reply: reply{sent: "m1"}}); m.flash != "" {
		t.Errorf("it still says %q", m.flash)
	}
}

func TestScreens(t *testing.T) {
	screens := []struct {
		name          string
		width, height int
		steps         func(m *ui)
	}{
		{"empty", 80, 24, func(m *ui) { show(m, snapshot{isAll: true}) }},
		{"talk", 80, 24, func(m *ui) {}},
		{"narrow", 44, 16, func(m *ui) {}},
		{"offline", 80, 24, func(m *ui) {
			m.Update(stateMsg{state: client.State{Err: syscall.ECONNREFUSED, Host: "chat.example"}})
			m.Update(eventMsg{event: client.Event{Type: client.EventKeyChange, Conversation: "dm1", From: device(screenBob, true, false), Time: screenTime.Add(5 * time.Minute)}})
		}},
		{"refused", 80, 24, func(m *ui) {
			m.Update(stateMsg{state: client.State{Err: &client.Refusal{Code: "forbidden", Message: "invite required"}}})
		}},
		{"reason", 44, 16, func(m *ui) {
			m.Update(stateMsg{state: client.State{Err: x509.UnknownAuthorityError{}, Host: "chat.example"}})
			screenKey(m, "f1")
		}},
		{"fallback", 80, 24, func(m *ui) {
			m.Update(stateMsg{state: client.State{Link: client.Online, Transport: client.EventStream}})
		}},
		{"typing", 80, 24, func(m *ui) {
			screenKey(m, "one", "alt+enter", "two ", strings.Repeat("wide ", 20), "up", "home")
		}},
		{"help", 80, 24, func(m *ui) { screenKey(m, "f1", "pgdown") }},
		{"search", 80, 24, func(m *ui) {
			m.jobs = []job{{conv: "dm1", line: "/search l"}}
			m.Update(replyMsg{reply: reply{title: "Found: l", hits: m.snap.history}})
			screenKey(m, "down", "down")
		}},
		{"mistake", 80, 24, func(m *ui) {
			m.jobs = []job{{conv: "dm1", line: "/dance"}}
			m.Update(replyMsg{job: m.jobs[0], err: mistake("/dance is not a command")})
		}},
		{"verified", 80, 24, func(m *ui) {
			s := screenSnapshot()
			s.list[0].Members[1].Trusted, s.history[0].From.Trusted = true, true
			show(m, s)
		}},
	}
	for _, s := range screens {
		t.Run(s.name, func(t *testing.T) {
			m := screenUI(s.width, s.height)
			m.open = "dm1"
			show(m, screenSnapshot())
			if s.name == "empty" {
				m.open = ""
			}
			s.steps(m)
			got := plainScreen(m)
			if rows := strings.Count(got, "\n"); rows != s.height {
				t.Errorf("%d rows instead of %d", rows, s.height)
			}
			path := filepath.Join("testdata", "screen", s.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the screen differs (go test -run TestScreens -update writes it):\n%s", diff)
			}
		})
	}
}

// TestVerifyKey: who is verified already is not offered to be verified.
func TestVerifyKey(t *testing.T) {
	for _, isTrusted := range []bool{false, true} {
		m := screenUI(80, 24)
		m.open = "dm1"
		s := screenSnapshot()
		s.list[0].Members[1].Trusted = isTrusted
		show(m, s)
		screenKey(m, "alt+v")
		if asks := len(m.jobs) == 1 && strings.HasPrefix(m.jobs[0].line, "/verify "); asks == isTrusted || strings.Contains(m.flash, "verified already") != isTrusted {
			t.Errorf("verified %v: %+v, %q", isTrusted, m.jobs, m.flash)
		}
	}
}

// TestScreenIsHarmless looks at all bytes: the only escape sequences are our own, and
// no size makes a row that reaches the last column or a screen that is too high.
func TestScreenIsHarmless(t *testing.T) {
	for width := 1; width < 100; width += 7 {
		for height := 1; height < 30; height += 3 {
			m := screenUI(width, height)
			m.open = "dm1"
			s := screenSnapshot()
			s.list[0].Problem = "\x1b[2Jproblem"
			s.list[1].ID = "\x1b]0;id\x07"
			show(m, s)
			m.Update(eventMsg{event: client.Event{Type: client.EventProblem, Conversation: "dm1", Problem: "\x1b[5mblink", Time: screenTime}})
			m.Update(stateMsg{state: client.State{Err: &client.Refusal{Code: "\x1b[6m", Message: "\x9b6m"}}})
			check := func(what string) {
				view := sequences.ReplaceAllString(m.View(), "")
				if i := strings.IndexFunc(view, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == '\u202e' }); i >= 0 {
					t.Fatalf("%dx%d, %s: %q reaches the terminal", width, height, what, view[max(0, i-10):min(len(view), i+10)])
				}
				if view == "" {
					return
				}
				rows := m.rows()
				if strings.Count(view, "\n") != len(rows)-1 || len(rows) > height {
					t.Fatalf("%dx%d, %s: %d rows", width, height, what, len(rows))
				}
				for _, row := range rows {
					if m.measure.width(row) >= width {
						t.Fatalf("%dx%d, %s: too wide: %q", width, height, what, row)
					}
				}
			}
			check("history")
			m.Update(tea.KeyMsg{Type: tea.KeyRunes, Paste: true, Runes: []rune("\x1b[2Jpasted\r\n日本語" + strings.Repeat("x", 50))})
			m.flash = "\x1b[2J"
			check("pasted")
			m.panel = &panel{title: "\x1b[2J", lines: []string{"\x1b[2J"}}
			check("panel")
			m.panel.hits = s.history
			check("search")
			m.panel = nil
			screenKey(m, "pgup", "pgup")
			check("scrolled")
		}
	}
}

// TestScrolledPlace: what is being read stays where it is when something new comes.
func TestScrolledPlace(t *testing.T) {
	m := screenUI(80, 12)
	m.open = "dm1"
	s := screenSnapshot()
	for i := int64(5); i < 60; i++ {
		s.history = append(s.history, said(i, device(screenBob, true, false), fmt.Sprint("number ", i)))
	}
	show(m, s)
	screenKey(m, "pgup", "pgup")
	upper := func() string {
		rows := strings.Split(plainScreen(m), "\n")
		return strings.Join(rows[1:len(rows)-4], "\n")
	}
	before := upper()
	if !strings.Contains(before, "number 4") {
		t.Fatalf("not scrolled back:\n%s", before)
	}
	s.history = append(s.history, said(60, device(screenBob, true, false), "number 60\nof two lines"))
	s.waiting = nil
	show(m, s)
	if diff := cmp.Diff(before, upper()); diff != "" {
		t.Errorf("what is read has moved:\n%s", diff)
	}
	screenKey(m, "pgdown", "pgdown", "pgdown")
	if !strings.Contains(upper(), "of two lines") {
		t.Errorf("not at the end:\n%s", plainScreen(m))
	}
}

func TestEditor(t *testing.T) {
	steps := []struct {
		key  string
		want string // | is the cursor
	}{
		{"one two", "one two|"}, {"alt+enter", "one two\n|"}, {"three", "one two\nthree|"}, {"up", "one t|wo\nthree"},
		{"x", "one tx|wo\nthree"}, {"backspace", "one t|wo\nthree"}, {"ctrl+w", "one |wo\nthree"}, {"home", "|one wo\nthree"},
		{"down", "one wo\n|three"}, {"left", "one wo|\nthree"}, {"ctrl+u", "|\nthree"}, {"up", "|\nthree"}, {"delete", "|three"},
		{"ctrl+k", "|"}, {"a👨‍👩‍👧‍👦e\u0301", "a👨‍👩‍👧‍👦e\u0301|"}, {"alt+enter", "a👨‍👩‍👧‍👦e\u0301\n|"}, {"bcd", "a👨‍👩‍👧‍👦e\u0301\nbcd|"},
		{"up", "a|👨‍👩‍👧‍👦e\u0301\nbcd"}, {"right", "a👨‍👩‍👧‍👦|e\u0301\nbcd"}, {"backspace", "a|e\u0301\nbcd"}, {"delete", "a|\nbcd"},
	}
	m := screenUI(80, 24)
	m.open = "dm1"
	for _, s := range steps {
		screenKey(m, s.key)
		if got := string(m.input.text[:m.input.at]) + "|" + string(m.input.text[m.input.at:]); got != s.want {
			t.Fatalf("after %s: %q, want %q", s.key, got, s.want)
		}
	}
}

// TestFoundMessage: a message that was found is scrolled to, wherever it stands.
func TestFoundMessage(t *testing.T) {
	m := screenUI(80, 12)
	m.open = "dm2"
	s := screenSnapshot()
	show(m, s)
	all := s.history[:0:0]
	for i := int64(1); i < 600; i++ {
		all = append(all, said(i, device(screenBob, true, false), fmt.Sprintf("<%d>", i)))
	}
	m.jobs = []job{{conv: "dm2", line: "/search x"}}
	m.Update(replyMsg{reply: reply{title: "Found: x", hits: []client.Event{all[500], all[6], all[3]}}})
	screenKey(m, "down", "enter")
	for range 5 { // as much as is asked for
		s.history = all[max(0, len(all)-m.depth):]
		s.isAll = len(s.history) == len(all)
		show(m, s)
	}
	if got := plainScreen(m); m.open != "dm1" || !strings.Contains(got, "<7>") || strings.Contains(got, "<30>") {
		t.Errorf("in %s:\n%s", m.open, got)
	}
}

// TestTypedAhead: what is typed behind a line that turns to another conversation is
// for that one, and goes nowhere if the line fails.
func TestTypedAhead(t *testing.T) {
	m := screenUI(80, 24)
	m.open = "dm1"
	show(m, screenSnapshot())
	screenKey(m, "/dm nobody", "enter", "a secret", "enter", "another", "enter")
	m.Update(replyMsg{job: m.jobs[0], err: mistake("not a known account")})
	if len(m.jobs) != 0 || m.input.String() != "/dm nobody\na secret\nanother" {
		t.Errorf("after a mistake %v is to be obeyed, and the input is %q", m.jobs, m.input.String())
	}
	m.input = editor{}
	screenKey(m, "/open dm2", "enter", "for dm2", "enter")
	m.Update(replyMsg{job: m.jobs[0], reply: reply{opened: "dm2"}})
	if len(m.jobs) != 1 || !m.jobs[0].follows || m.open != "dm2" {
		t.Errorf("behind /open: %v in %s", m.jobs, m.open)
	}
	m.Update(replyMsg{job: m.jobs[0], reply: reply{sent: "m1"}})
	screenKey(m, "for dm2 too", "alt+enter", "enter")
	if len(m.jobs) != 1 || m.jobs[0].follows || m.jobs[0].conv != "dm2" || m.jobs[0].line != "for dm2 too" {
		t.Errorf("later: %v", m.jobs)
	}
}

// uiDriver runs a UI as bubbletea would, but for the terminal. Those of one test share
// a queue, so that all of them go on while one is waited for.
type uiDriver struct {
	t     *testing.T
	ui    *ui
	queue chan addressed
}

type addressed struct {
	to  *uiDriver
	msg tea.Msg
}

func (d *uiDriver) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	go func() {
		msg := cmd()
		if batch, ok := msg.(tea.BatchMsg); ok {
			for _, c := range batch {
				d.run(c)
			}
			return
		}
		select {
		case d.queue <- addressed{d, msg}:
		case <-d.ui.ctx.Done():
		}
	}()
}

// until runs until the screen shows text.
func (d *uiDriver) until(text string) {
	d.t.Helper()
	d.wait(text, func(tea.Msg) bool { return strings.Contains(plainScreen(d.ui), text) })
}

// wait runs until isDone, which is told what came for d last.
func (d *uiDriver) wait(what string, isDone func(tea.Msg) bool) {
	d.t.Helper()
	var last tea.Msg
	for !isDone(last) {
		select {
		case a := <-d.queue:
			_, cmd := a.to.ui.Update(a.msg)
			a.to.run(cmd)
			if last = nil; a.to == d {
				last = a.msg
			}
		case <-d.ui.ctx.Done():
			d.t.Fatalf("no %q:\n%s", what, plainScreen(d.ui))
		}
	}
}

func (d *uiDriver) types(line string) {
	d.ui.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(line)})
	d.press(tea.KeyEnter)
}

func (d *uiDriver) press(key tea.KeyType) {
	_, cmd := d.ui.Update(tea.KeyMsg{Type: key})
	d.run(cmd)
}

func newDriver(ctx context.Context, t *testing.T, queue chan addressed, serverURL, name string) *uiDriver {
	t.Helper()
	account, err := client.AccountFromSeed([]byte("the seed of this test"), name)
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, client.StorageKeyBytes)
	rand.Read(key)
	sdk, err := client.Open(ctx, client.Options{Dir: t.TempDir(), StorageKey: key, Server: serverURL, Account: account, DeviceID: name + "-device"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Close() })
	d := &uiDriver{t: t, queue: queue}
	d.ui = newUI(ctx, &Terminal{client: sdk, audience: newAudience(), self: sdk.DID(), people: people{sdk, sdk.DID(), sdk.Contacts().Get}})
	d.ui.Update(sizeMsg{80, 24})
	d.run(d.ui.Init())
	return d
}

// TestUITalks: two people over a real server.
func TestUITalks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config := server.DefaultConfig(t.TempDir())
	config.Listen = "127.0.0.1:0"
	config.LogTo = io.Discard
	s, err := server.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	queue := make(chan addressed)
	ann, bob := newDriver(ctx, t, queue, s.URL(), "ann"), newDriver(ctx, t, queue, s.URL(), "bob")
	ann.until("● online")
	bob.until("● online")
	ann.types("/dm " + bob.ui.chat.self)
	ann.types("hello bob") // at once: it is for bob
	bob.until("?: hello bob")
	bob.types("/verify " + short(ann.ui.chat.self) + " yes")
	bob.until("shows the number") // not read yet
	bob.press(tea.KeyCtrlU)
	bob.types("/verify " + short(ann.ui.chat.self))
	bob.until("If both of you read the same")
	bob.types("/verify " + short(ann.ui.chat.self) + " yes")
	bob.until("✓: hello bob")
	bob.types("and hello ann")
	ann.until("?: and hello ann")
	ann.types("/room " + bob.ui.chat.self)
	ann.until(" room ")
	bob.until("room ")
	ann.types("in here")
	bob.until("(2)    1")
	bob.press(tea.KeyTab)
	bob.until("✓: in here")
	bob.until("(2)      ")
	bob.types("/search HELLO")
	bob.until("Found: HELLO")
	bob.types("")
	bob.until("✓: hello bob")
	ann.types("/open 2") // the room, where the last message is, comes first
	bob.types("last words")
	bob.press(tea.KeyCtrlC) // not before they are on their way
	bob.wait("end", func(msg tea.Msg) bool { _, ok := msg.(tea.QuitMsg); return ok })
	if left := bob.ui.chat.undelivered(t.Context()); bob.ui.err != nil || left != nil {
		t.Errorf("the end: %v, %v", bob.ui.err, left)
	}
	ann.until("?: last words")
	var out bytes.Buffer // of another process
	newProgram(ann.ui.chat, &screen{out: &out, asJSON: true}).handle(t.Context(), []byte(`{"op":"room"}`))
	var made struct{ Conv string }
	if err := json.Unmarshal(out.Bytes(), &made); err != nil || len(made.Conv) < nameShown {
		t.Fatalf("the answer is %s: %v", out.String(), err)
	}
	ann.until("room " + made.Conv[:nameShown])
}
