package chat

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	tea "github.com/charmbracelet/bubbletea"
)

// console is the terminal of a program: its modes, and what is typed in it. The answers of the
// terminal come among what is typed and are taken out, however late.
type console struct {
	*os.File // the input
	out      io.Writer
	send     func(tea.Msg) // sends a message to the program

	started             time.Time
	keyWait, answerWait time.Duration
	held                []byte // the beginning of an answer whose end has not been read

	isAsked   atomic.Bool   // whether an answer is missing
	answered  chan struct{} // closed once none is missing
	clusters  bool          // whether the terminal counts clusters since it was asked to
	isDrawing bool          // whether the modes are set
}

// The messages of a console.
type (
	sizeMsg    struct{ width, height int }
	measureMsg struct{ measure }
	redrawMsg  struct{} // everything on the screen is doubtful
	askMsg     struct{}
	// clustersMsg is the state of mode 2027, by DECRPM: 0 unknown, 1 set, 2 reset, 3 always set,
	// 4 never set.
	clustersMsg int
)

// The sequences that a console sends. Autowrap is off while it draws: a character at the end of
// a row can at worst cover another one there. The question for mode 2027 is followed by that for
// the kind of terminal, since all terminals answer this one.
const (
	autowrapOff = "\x1b[?7l"
	autowrapOn  = "\x1b[?7h"
	clustersOn  = "\x1b[?2027h"
	clustersOff = "\x1b[?2027l"
	question    = "\x1b[?2027$p\x1b[c"
)

const (
	// keyWait is the time in which the rest of a key arrives that the terminal sends as several
	// bytes, answerWait that of an answer, and answersWait that of all answers at the end.
	keyWait     = 50 * time.Millisecond
	answerWait  = 300 * time.Millisecond
	answersWait = 500 * time.Millisecond
	// answersUntil is the time after the start in which answers are waited for.
	answersUntil = 5 * time.Second
	heldMax      = 64
)

func newConsole(in *os.File, out io.Writer) *console {
	return &console{File: in, out: out, started: time.Now(), keyWait: keyWait, answerWait: answerWait, answered: make(chan struct{})}
}

// runProgram runs a program in a terminal until its end or that of ctx, and leaves the terminal
// as it was, whatever ends the program.
func runProgram(ctx context.Context, m tea.Model, in *os.File, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	c := newConsole(in, out)
	program := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(c), tea.WithOutput(out),
		tea.WithAltScreen(), tea.WithoutSignalHandler(),
		tea.WithFilter(func(_ tea.Model, msg tea.Msg) tea.Msg { return c.filter(msg) }))
	c.send = program.Send
	c.draw()
	defer c.rest()
	go program.Send(askMsg{}) // once the program runs, and the terminal echoes nothing
	_, err := program.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// draw sets the modes that drawing needs, and rest resets them.
func (c *console) draw() {
	c.isDrawing = true
	c.write(autowrapOff)
	if c.clusters {
		c.write(clustersOn)
	}
}

func (c *console) rest() {
	if !c.isDrawing {
		return
	}
	c.isDrawing = false
	if c.clusters {
		c.write(clustersOff)
	}
	c.write(autowrapOn)
}

// write writes to the terminal, whose failure the program notices when it draws.
func (c *console) write(text string) { _, _ = io.WriteString(c.out, text) }

// filter handles the messages that concern the terminal before the program has them.
func (c *console) filter(msg tea.Msg) tea.Msg {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg: // the library would cut rows by its own count of columns
		return sizeMsg{msg.Width, msg.Height}
	case askMsg:
		if runtime.GOOS != "windows" { // where answers come as keys
			c.isAsked.Store(true)
			c.write(question)
		}
		return redrawMsg{} // a terminal that does not know the question may print the end of it
	case clustersMsg:
		if msg < 1 || msg > 3 {
			return nil
		}
		if msg == 2 {
			c.clusters = true
			c.draw()
		}
		return measureMsg{measure{byCluster: true}}
	case tea.SuspendMsg:
		if runtime.GOOS == "windows" {
			return nil
		}
		c.rest()
	case tea.ResumeMsg, redrawMsg:
		c.draw()
		return redrawMsg{}
	case tea.QuitMsg: // the shell shall not read the answers
		if c.isAsked.Load() {
			select {
			case <-c.answered:
			case <-time.After(answersWait):
			}
		}
	}
	return msg
}

// Read reads what is typed. A key that comes in parts is put together.
func (c *console) Read(p []byte) (int, error) {
	n := copy(p, c.held)
	c.held = nil
	more, err := c.File.Read(p[n:])
	n += more
	for err == nil && n < len(p) && unfinished(p[:n]) > 0 && c.isReadable(c.patience()) {
		more, err = c.File.Read(p[n:])
		n += more
	}
	if tail := n - unfinished(p[:n]); err == nil && tail < n && (bytes.HasPrefix(p[tail:n], []byte(answerStart)) || n == len(p)) {
		c.held = bytes.Clone(p[tail:n])
		n = tail
	}
	return c.withoutAnswers(p[:n]), err
}

func (c *console) patience() time.Duration {
	if c.isAsked.Load() && time.Since(c.started) < answersUntil {
		return c.answerWait
	}
	return c.keyWait
}

// answerStart begins all answers, and no key.
const answerStart = "\x1b[?"

var (
	answers       = regexp.MustCompile(`\x1b\[\?([0-9;:]*)([\x20-\x2f]*[\x40-\x7e])`)
	sequenceStart = regexp.MustCompile(`\x1b(\[[\x30-\x3f]*[\x20-\x2f]*|O)?$`)
)

// unfinished returns how many bytes at the end of the input may be the beginning of a sequence or of
// a character.
func unfinished(p []byte) int {
	tail := p[max(0, len(p)-heldMax):]
	if at := sequenceStart.FindIndex(tail); at != nil {
		return len(tail) - at[0]
	}
	for i := len(tail) - 1; i >= max(0, len(tail)-utf8.UTFMax); i-- {
		if utf8.RuneStart(tail[i]) {
			if utf8.FullRune(tail[i:]) {
				return 0
			}
			return len(tail) - i
		}
	}
	return 0
}

// withoutAnswers takes the answers of the terminal out of p, handles them, and returns what is
// left of p.
func (c *console) withoutAnswers(p []byte) int {
	n, rest := 0, p
	for {
		at := answers.FindSubmatchIndex(rest)
		if at == nil {
			return n + copy(p[n:], rest)
		}
		n += copy(p[n:], rest[:at[0]])
		c.answer(string(rest[at[2]:at[3]]), string(rest[at[4]:at[5]]))
		rest = rest[at[1]:]
	}
}

func (c *console) answer(parameters, kind string) {
	switch kind {
	case "$y":
		if value, ok := strings.CutPrefix(parameters, "2027;"); ok {
			if state, err := strconv.Atoi(value); err == nil {
				go c.send(clustersMsg(state)) // the program may be waiting for the next answer
			}
		}
	case "c":
		if c.isAsked.Swap(false) {
			close(c.answered)
		}
	}
}
