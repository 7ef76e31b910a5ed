//go:build unix

package chat

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"

	"waxwing.im/waxwing/internal/testsize"
	"waxwing.im/waxwing/internal/testtmux"
	"waxwing.im/waxwing/internal/testwait"
)

// wide and high is the size of the terminals that hostile messages are drawn in.
const (
	wide = 100
	high = 300
)

func startHostile(t *testing.T, width, height, count int) *testtmux.Terminal {
	t.Helper()
	term := testtmux.Start(t, width, height, os.Args[0], hostileEnv+"="+strconv.Itoa(count))
	term.Until("Enter send")
	return term
}

// TestFrameInTmux draws hostile messages in tmux, which has no mode 2027: each row of the
// frame is where it belongs after each screenful.
func TestFrameInTmux(t *testing.T) {
	t.Parallel()
	for _, size := range []struct{ width, count int }{
		{wide, hostileMax()},
		{listFrom - 10, testsize.Of(500, 10_000)}, // without the list
	} {
		t.Run(fmt.Sprint(size.width), func(t *testing.T) {
			t.Parallel()
			term := startHostile(t, size.width, high, size.count)
			m := newHostileUI(size.width, high, size.count)
			for !m.isDone() {
				m.next()
				term.Press("F5")
				term.Until("─ " + m.flash)
				checkFrame(term, m)
			}
		})
	}
}

// checkFrame waits until the screen has the frame.
func checkFrame(term *testtmux.Terminal, m *hostileUI) {
	term.UntilNoFault(func(rows []string) string { return frameFault(m, rows) })
}

// The modes of a terminal for tmux: autowrap, the alternate screen, the cursor.
const (
	modes        = "#{wrap_flag} #{alternate_on} #{cursor_flag}"
	modesDrawing = "0 1 0"
	modesAtRest  = "1 0 1"
)

// TestTerminalIsRestored ends the UI in all ways that leave it a last word.
func TestTerminalIsRestored(t *testing.T) {
	t.Parallel()
	for key, way := range map[string]string{"F6": "quitting", "F7": "panic", "F8": "panic elsewhere", "F9": "SIGTERM", "F10": "SIGHUP"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			term := testtmux.Start(t, wide, 50, `before=$(stty -g); `+os.Args[0]+`; [ "$(stty -g)" = "$before" ] && echo restored; sleep 600`, hostileEnv+"=100")
			term.Until("Enter send")
			untilModes(t, term, modesDrawing)
			term.Press(key)
			term.Until("restored")
			untilModes(t, term, modesAtRest)
		})
	}
}

// TestSuspend suspends the UI and goes on with it.
func TestSuspend(t *testing.T) {
	t.Parallel()
	term := testtmux.Start(t, wide, 50, `set -m; before=$(stty -g); `+os.Args[0]+`; [ "$(stty -g)" = "$before" ] && echo restored; read go; fg; sleep 600`, hostileEnv+"=100")
	term.Until("Enter send")
	m := newHostileUI(wide, 50, 100)
	m.next()
	term.Press("F5")
	checkFrame(term, m)
	term.Press("C-z")
	term.Until("restored")
	untilModes(t, term, modesAtRest)
	term.Press("Enter")
	checkFrame(term, m)
	untilModes(t, term, modesDrawing)
}

// TestRedraw writes over the UI from outside, and resizes it.
func TestRedraw(t *testing.T) {
	t.Parallel()
	term := startHostile(t, wide, 50, 100)
	m := newHostileUI(wide, 50, 100)
	m.next()
	term.Press("F5")
	checkFrame(term, m)
	tty, err := os.OpenFile(term.Format("#{pane_tty}"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	fmt.Fprint(tty, "\x1b[?7h\x1b[2J\x1b[Hfrom another program")
	term.Until("from another program")
	term.Press("C-l")
	checkFrame(term, m)
	untilModes(t, term, modesDrawing)
	term.Run("resize-window", "-x", "81", "-y", "40")
	m.Update(sizeMsg{81, 40})
	checkFrame(term, m)
	term.Run("resize-window", "-x", "30", "-y", "60")
	m.Update(sizeMsg{30, 60})
	checkFrame(term, m)
}

// untilModes waits until the terminal has the modes.
func untilModes(t *testing.T, term *testtmux.Terminal, want string) {
	t.Helper()
	testwait.UntilNoFault(t, func() string {
		if is := term.Format(modes); is != want {
			return fmt.Sprintf("modes %s instead of %s", is, want)
		}
		return ""
	})
}

// TestFrameByClusters draws hostile messages in a terminal that counts clusters and is asked to:
// besides, all cells that need no measuring are in their columns, and the last column is empty.
func TestFrameByClusters(t *testing.T) {
	t.Parallel()
	m := newHostileUI(wide, high, hostileMax())
	m.Update(measureMsg{measure{byCluster: true}})
	term := startEmulator(t, m.count, true)
	term.checkAll(m)
	for mode, want := range map[ansi.Mode]bool{ansi.ModeAutoWrap: true, ansi.ModeUnicodeCore: false, ansi.ModeAltScreenSaveCursor: false, ansi.ModeTextCursorEnable: true} {
		if is, ok := term.mode(mode); !ok || is != want {
			t.Errorf("mode %v: set %v, changed %v", mode, is, ok)
		}
	}
}

// TestFrameMeasuredWrong draws hostile messages in a terminal that counts clusters, but does not
// say so: each width may be wrong, and the frame stays.
func TestFrameMeasuredWrong(t *testing.T) {
	t.Parallel()
	m := newHostileUI(wide, high, testsize.Of(1_000, 20_000))
	term := startEmulator(t, m.count, false)
	term.checkAll(m)
	if _, isChanged := term.mode(ansi.ModeUnicodeCore); isChanged {
		t.Error("a mode is set that the terminal does not have")
	}
}

// frameFault compares the rows of a terminal with what was to be drawn, as far as a row begins
// or ends with characters that every terminal counts alike.
func frameFault(m *hostileUI, rows []string) string {
	want := strings.Split(strings.TrimSuffix(plainScreen(m.ui), "\n"), "\n")
	if len(rows) != len(want) {
		return fmt.Sprintf("%d rows instead of %d", len(rows), len(want))
	}
	for y := range want {
		begin := sureStart(want[y])
		end := want[y][strings.LastIndexAny(want[y], " ")+1:]
		if sureStart(end) != end || !strings.HasPrefix(end, "<") {
			end = ""
		}
		if !strings.HasPrefix(rows[y], begin) || !strings.HasSuffix(strings.TrimRight(rows[y], " "), end) {
			return fmt.Sprintf("%s row %d is %q instead of %q … %q:\n%s", m.flash, y, rows[y], begin, end, strings.Join(rows[max(0, y-3):y+1], "\n"))
		}
	}
	return ""
}

// sureStart returns the beginning of a row that needs no measuring: ASCII and lines.
func sureStart(row string) string {
	i := strings.IndexFunc(row, func(r rune) bool { return (r < ' ' || r > '~') && r != '│' && r != '─' && r != '●' && r != '…' })
	if i < 0 {
		return row
	}
	// A mark may have joined the last one.
	return strings.TrimRight(row[:max(0, i-1)], " ")
}

// TestHostileRows breaks and fits hostile texts: no row is too wide, and nothing is lost but
// blanks where a text was broken.
func TestHostileRows(t *testing.T) {
	t.Parallel()
	for n := range testsize.Of(3_000, 300_000) {
		m, width := measure{byCluster: n%2 == 0}, 2+n%80
		line := printable(strings.ReplaceAll(hostileText(n), "\n", " "))
		var all strings.Builder
		for _, row := range m.wrap(line, width) {
			all.WriteString(row)
			if m.width(row) > width {
				t.Fatalf("%d: %q in %d: row %q", n, line, width, row)
			}
		}
		if strings.ReplaceAll(all.String(), " ", "") != strings.ReplaceAll(line, " ", "") {
			t.Fatalf("%d: %q in %d became %q", n, line, width, all.String())
		}
		if row := m.row(0, line, width); strings.Contains(row, string(joiner)+"\x1b") {
			t.Fatalf("%d: a joiner at the end of a unit: %q", n, row)
		}
		if got := m.width(m.fit(line, width)); got != width {
			t.Fatalf("%d: %q fits %d of %d", n, line, got, width)
		}
	}
}

// emulator is a terminal of another author in this process. It counts clusters.
type emulator struct {
	t     *testing.T
	mu    sync.Mutex // guards vt
	vt    *vt.Emulator
	keys  *os.File
	ended chan error
	modes chan map[ansi.Mode]bool // those that were changed; one value, which its holder may change
}

// startEmulator runs a hostileUI in a terminal that says that it has mode 2027, which is reset, or
// that it does not know it.
func startEmulator(t *testing.T, count int, hasMode bool) *emulator {
	t.Helper()
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	e := &emulator{t: t, vt: vt.NewEmulator(wide, high), keys: keys, ended: make(chan error, 1), modes: make(chan map[ansi.Mode]bool, 1)}
	e.modes <- map[ansi.Mode]bool{}
	if hasMode {
		e.vt.Write([]byte("\x1b[?2027l")) // it knows the modes that were ever set or reset
	}
	e.vt.SetCallbacks(vt.Callbacks{
		EnableMode:  func(mode ansi.Mode) { e.setMode(mode, true) },
		DisableMode: func(mode ansi.Mode) { e.setMode(mode, false) },
	})
	go func() {
		answer := make([]byte, 256)
		for {
			n, err := e.vt.Read(answer)
			if err != nil {
				return
			}
			keys.Write(answer[:n])
		}
	}()
	go func() { e.ended <- runProgram(t.Context(), newHostileUI(wide, high, count), in, e) }()
	t.Cleanup(func() {
		e.vt.InputPipe().(io.Closer).Close()
		keys.Close()
		in.Close()
	})
	if hasMode {
		e.wait("mode 2027", func() bool { is, _ := e.mode(ansi.ModeUnicodeCore); return is })
	}
	return e
}

// checkAll draws all screens, checks each, and ends the program.
func (e *emulator) checkAll(m *hostileUI) {
	e.t.Helper()
	for !m.isDone() {
		m.next()
		e.types("\x1b[15~")
		e.until("─ " + m.flash)
		testwait.UntilNoFault(e.t, func() string { return cmp.Or(frameFault(m, e.rows(0)), e.columnsFault(m)) })
	}
	e.types("\x1b[17~")
	e.untilEnd()
}

// Write draws.
func (e *emulator) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.vt.Write(p)
}

func (e *emulator) setMode(mode ansi.Mode, on bool) {
	modes := <-e.modes
	modes[mode] = on
	e.modes <- modes
}

func (e *emulator) mode(mode ansi.Mode) (on, ok bool) {
	modes := <-e.modes
	defer func() { e.modes <- modes }()
	on, ok = modes[mode]
	return on, ok
}

func (e *emulator) types(keys string) {
	if _, err := e.keys.WriteString(keys); err != nil {
		e.t.Error(err)
	}
}

func (e *emulator) wait(what string, isThere func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(time.Minute); !isThere(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("no %s:\n%s", what, strings.Join(e.rows(0), "\n"))
		}
	}
}

// until waits until the status line is text.
func (e *emulator) until(text string) {
	e.t.Helper()
	e.wait(text, func() bool {
		return slices.ContainsFunc(e.rows(high-8), func(row string) bool { return strings.Contains(row, text) })
	})
}

func (e *emulator) untilEnd() {
	e.t.Helper()
	select {
	case err := <-e.ended:
		if err != nil {
			e.t.Error(err)
		}
	case <-time.After(time.Minute):
		e.t.Fatal("the program does not end")
	}
}

// cells returns the characters of each cell of the rows from the first on; the second cell of a
// wide character has none.
func (e *emulator) cells(first int) [][]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rows [][]string
	for y := first; y < high; y++ {
		row := make([]string, wide)
		for x := range row {
			if cell := e.vt.CellAt(x, y); cell.Content == "" && cell.Width == 1 {
				row[x] = " "
			} else {
				row[x] = cell.Content
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// rows returns the rows of the screen from the first on, without trailing blanks.
func (e *emulator) rows(first int) []string {
	var rows []string
	for _, row := range e.cells(first) {
		rows = append(rows, strings.TrimRight(strings.Join(row, ""), " "))
	}
	return rows
}

// columnsFault compares the cells of each row that need no measuring, and the last column.
func (e *emulator) columnsFault(m *hostileUI) string {
	cells := e.cells(0)
	for y, row := range m.rows() {
		for x := 0; row != ""; {
			u, n := m.measure.next(row, wide)
			row = row[n:]
			if u.isSure && u.width > 0 && !strings.HasPrefix(cells[y][x], u.text) {
				return fmt.Sprintf("%s row %d column %d has no %q: %q", m.flash, y, x, u.text, cells[y])
			}
			x += u.width
		}
		if last := cells[y][wide-1]; last != " " {
			return fmt.Sprintf("%s row %d: %q is in the last column: %q", m.flash, y, last, cells[y])
		}
	}
	return ""
}
