//go:build unix

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testtmux"
)

// TestWalk lets four people in terminals of two sizes talk through a server, and holds each screen
// on docs/walk.md against theirs.
func TestWalk(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	ann, bob := w.person("ann", 100, 30), w.person("bob", 60, 20)

	w.write("## Two people")
	w.show(ann, "Ann has just begun, with `waxwing chat --as ann`. The header says who she is and that the server is there.",
		"No conversation yet", "● online")
	ann.enter("/name Ann Lee")
	ann.Until("others see you as ~Ann Lee")
	bob.enter("/name Bob")
	bob.Until("others see you as ~Bob")
	ann.Press("C-d") // types /dm
	ann.enter(bob.did)
	bob.Until("goes by ~Ann Lee now")
	ann.Until("goes by ~Bob now")
	ann.enter("hello Bob 👍🏽")
	bob.Until("hello Bob")
	bob.enter("the family says hi: 👨‍👩‍👧‍👦, and 🏳️‍🌈 from us")
	ann.Until("from us")
	ann.enter("日本語 works too")
	bob.Until("日本語 works too")
	w.show(ann, "They have given themselves names, `/name Ann Lee` and `/name Bob`. `~` before a name means that its owner has "+
		"chosen it,\n`?` behind it that safety numbers were not compared. Whatever width a terminal gives to emoji, the frame stays in its place: this tmux\n"+
		"draws some narrower than it might, which leaves gaps, and keeps 21 bytes of a character, so the family lacks a child.",
		"日本語 works too")
	bob.enter("/alias Ann Lee Annie")
	w.show(bob, "Bob's terminal is smaller. He gives Ann a name of his own, `/alias Ann Lee Annie`, which only he sees.", "is Annie now", " Annie ?: 日本語")

	w.write("## A room of four")
	carol, dan := w.person("carol", 100, 30), w.person("dan", 60, 20)
	everyone := []*walker{ann, bob, carol, dan}
	carol.enter("/name Carol")
	carol.Until("others see you as ~Carol")
	dan.enter("/name Dan")
	dan.Until("others see you as ~Dan")
	ann.enter("/room Bob")
	bob.Until("new conversation")
	bob.Press("Tab")
	ann.enter("/title Picnic on Sunday")
	untilAll("Picnic on Sunday (2)", ann, bob)
	ann.enter("/invite " + carol.did)
	meet("Carol", carol, ann, bob)
	ann.enter("/invite " + dan.did)
	meet("Dan", dan, ann, bob, carol)
	dan.enter("what do we bring?")
	untilAll("what do we bring?", everyone...)
	carol.enter("🍉 and 🧀")
	untilAll("and 🧀", everyone...)
	w.show(ann, "Ann has made a room with Bob, `/room Bob`, has given it a title, `/title Picnic on Sunday`, and has invited Carol and Dan by\n"+
		"their DIDs, which are known by name from then on.", "Picnic on Sunday (4)")
	w.show(dan, "Dan, who came last, sees who added him, and has the title and the names too.", "Picnic on Sunday (4)")

	w.write("## An admin, and a removal")
	ann.enter("/admin Bob")
	untilAll(" an admin", everyone...)
	bob.Press("M-w")
	w.show(bob, "Ann, the owner, has made Bob an admin: `/admin Bob`. `Alt+W`, or `/who`, lists the members with their roles, DIDs and devices, to be\n"+
		"copied or compared.", "In Picnic on Sunday (4)", ", owner")
	bob.Press("Escape")
	bob.enter("/remove Dan")
	untilAll("removed ~Dan", ann, carol)
	w.show(dan, "Bob removes Dan: `/remove Dan`. Dan keeps what he has read.", "removed you")
	w.show(carol, "Carol sees who was removed by whom; that stays in the history, as comings do.", "Picnic on Sunday (3)")

	w.write("## A server that goes away")
	w.server.stop()
	ann.enter("see you at noon")
	w.show(ann, "The server is down. The header says why Ann is offline, and what she says waits.", "refuses the connection", "1 not delivered")
	w.show(bob, "In a small terminal the reason has a row of its own.", "refuses the connection")
	w.server.start()
	w.show(bob, "The server is back. The clients have connected again by themselves, and the message is there.", "● online", "see you at noon")
	w.finish()
}

// walk is a server with its clients, and the page that shows their screens.
type walk struct {
	t        *testing.T
	dir      string
	server   *walkServer
	before   string   // the page as it is
	recorded []string // the screens on it
	page     strings.Builder
	shown    int // the number of screens on page
}

const (
	walkPage  = "../../docs/walk.md"
	walkIntro = `# A walk through the terminal

These are screens of ` + "`waxwing chat`" + ` in tmux, at 100×30 and 60×20 characters. A test takes the walk at each run and compares the
screens (` + "`go test ./cmd/waxwing -run TestWalk -update`" + ` writes this page); dates, ports and keys that change are replaced. Colours, bold
and inverted text do not show here: each person has a colour, and the header and the open conversation are inverted.
`
	// walkSeed makes the accounts, and so their DIDs, the same in each walk.
	walkSeed = "waxwing docs/walk.md, a seed that everybody knows"
)

func newWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{t: t, dir: t.TempDir()}
	text, err := os.ReadFile(walkPage)
	if err != nil && !*update {
		t.Fatal(err)
	}
	w.before = string(text)
	for _, block := range regexp.MustCompile("(?s)```text\n(.*?)```\n").FindAllStringSubmatch(w.before, -1) {
		w.recorded = append(w.recorded, block[1])
	}
	w.write(strings.TrimSpace(walkIntro))
	w.server = &walkServer{walk: w, address: "127.0.0.1:0"}
	w.server.start()
	return w
}

// env returns the environment of all commands of the walk.
func (w *walk) env() []string {
	east := 12 - time.Now().UTC().Hour() // where it is midday: a walk has one date
	return []string{"WAXWING_CONFIG_HOME=" + filepath.Join(w.dir, "config"), "WAXWING_SEED=" + walkSeed, "WAXWING_SERVER=http://" + w.server.address,
		fmt.Sprintf("TZ=Etc/GMT%+d", -east)}
}

func (w *walk) command(args ...string) *exec.Cmd {
	cmd := exec.Command("waxwing", args...)
	cmd.Env = append(os.Environ(), w.env()...)
	return cmd
}

// walkServer is a server that can go away and come back at its address.
type walkServer struct {
	*walk
	address string
	cmd     *exec.Cmd
	log     bytes.Buffer
}

func (s *walkServer) start() {
	s.t.Helper()
	s.cmd = s.command("serve", "--listen", s.address, "--data", filepath.Join(s.dir, "data"))
	s.cmd.Stderr = &s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.stop()
		s.t.Fatalf("%v: %s", err, &s.log)
	}
	fmt.Sscanf(line, "listening on http://%s", &s.address)
}

func (s *walkServer) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
}

// walker is a person at a terminal.
type walker struct {
	*testtmux.Terminal
	t             *testing.T
	name, did     string
	width, height int
}

func (w *walk) person(name string, width, height int) *walker {
	w.t.Helper()
	did, err := w.command("chat", "init", "--as", name, "--device", "laptop").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &walker{testtmux.Start(w.t, width, height, "waxwing chat --as "+name, w.env()...), w.t, name, strings.TrimSpace(string(did)), width, height}
	p.Until("● online")
	return p
}

// enter types a line and sends it.
func (p *walker) enter(line string) {
	p.Type(line)
	p.Press("Enter")
}

// untilAll waits until the screens of all people show the text.
func untilAll(text string, people ...*walker) {
	for _, p := range people {
		p.t.Helper()
		p.Until(text)
	}
}

// meet waits until a person who joins others has their names, and they the new one.
func meet(name string, p *walker, others ...*walker) {
	p.t.Helper()
	p.UntilNoFault(func(rows []string) string {
		screen := strings.Join(rows, "\n")
		if strings.Count(screen, isName) < len(others) || !strings.Contains(screen, isTitle) {
			return fmt.Sprintf("no title, or not all of %d names:\n%s", len(others), screen)
		}
		return ""
	})
	untilAll(isName+"~"+name, others...)
}

// The notes of what members send to a new one.
const (
	isName  = " goes by "
	isTitle = "the room is called"
)

// fault returns what is wrong with the frame.
func (p *walker) fault(rows []string) string {
	end := len(rows) - 3
	switch {
	case len(rows) != p.height:
		return fmt.Sprintf("%d rows instead of %d", len(rows), p.height)
	case !strings.HasPrefix(rows[0], " waxwing  me") || !strings.HasPrefix(rows[end], "─") || !strings.HasPrefix(rows[end+1], ">") || !strings.HasPrefix(rows[end+2], "Enter send"):
		return "a row of the frame is not in its place"
	case slices.ContainsFunc(rows, func(row string) bool { return len([]rune(row)) >= p.width }):
		return "the last column is not empty"
	}
	for _, row := range rows[1:end] {
		if at := slices.Index([]rune(row), '│'); strings.Contains(rows[1], "│") && at != 24 {
			return fmt.Sprintf("the line beside the list is in column %d", at)
		}
	}
	return ""
}

// write puts a paragraph on the page.
func (w *walk) write(text string) { w.page.WriteString(text + "\n\n") }

// show puts the screen of a person on the page, once it has the texts.
func (w *walk) show(p *walker, sentence string, texts ...string) {
	w.t.Helper()
	for _, text := range texts {
		p.Until(text)
	}
	screen, since := "", time.Now()
	p.UntilNoFault(func(rows []string) string {
		now := stable(rows)
		if now != screen {
			screen, since = now, time.Now()
		}
		switch fault := p.fault(rows); {
		case fault != "":
			return fault + ":\n" + now
		case *update && time.Since(since) < time.Second:
			return "the screen does not come to rest:\n" + now
		case *update:
			return ""
		case w.shown >= len(w.recorded) || alike(now) != alike(w.recorded[w.shown]):
			return fmt.Sprintf("the screen of %s is\n%s\nand another one on %s", p.name, now, walkPage)
		}
		screen = w.recorded[w.shown]
		return ""
	})
	w.shown++
	w.write(fmt.Sprintf("%s\n\n```text\n%s```", sentence, screen))
}

// stable returns a screen with what changes replaced by something of the same width.
func stable(rows []string) string {
	text := strings.Join(rows, "\n") + "\n"
	for _, r := range []struct{ changes, to string }{
		{`\b\d\d:\d\d\b`, "12:00"}, {`\b\d{4}-\d\d-\d\d\b`, "2026-06-01"}, {`(127\.0\.0\.1):\d{5}`, "$1:43210"},
		{`\b[0-9a-f]{32}\b`, "00112233445566778899aabbccddeeff"}, {`\broom [0-9a-f]{8}`, "room 00112233"},
	} {
		text = regexp.MustCompile(r.changes).ReplaceAllString(text, r.to)
	}
	return text
}

// alike returns the part of a screen that is the same in each walk: what members send to a new one
// comes in any order, and versions of tmux draw emoji in different widths.
func alike(screen string) string {
	rows := strings.Split(screen, "\n")
	for i := range rows {
		end := i
		for end < len(rows) && (strings.Contains(rows[end], isName) || strings.Contains(rows[end], isTitle)) {
			end++
		}
		slices.Sort(rows[i:end])
	}
	emoji := regexp.MustCompile(`[\x{1f000}-\x{1ffff}\x{200d}\x{fe0f}] *`)
	for i, row := range rows {
		rows[i] = emoji.ReplaceAllString(row, "")
	}
	return strings.Join(rows, "\n")
}

// finish compares the page, or writes it.
func (w *walk) finish() {
	w.t.Helper()
	page := strings.TrimSuffix(w.page.String(), "\n")
	switch {
	case page == w.before:
	case *update:
		if err := os.WriteFile(walkPage, []byte(page), 0o644); err != nil {
			w.t.Fatal(err)
		}
	default:
		w.t.Errorf("%s is out of step with the walk: go test ./cmd/waxwing -run TestWalk -update", walkPage)
	}
}
