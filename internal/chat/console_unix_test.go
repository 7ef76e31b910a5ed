//go:build unix

package chat

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/google/go-cmp/cmp"
)

// TestConsoleRead types into a console, in parts that arrive one after the other: keys stay whole and no
// answer of the terminal is read as typed, however it is cut.
func TestConsoleRead(t *testing.T) {
	const answer, kind = "\x1b[?2027;2$y", "\x1b[?62;4;22c"
	rows := []struct {
		name    string
		isAsked bool
		parts   []string
		want    string
		answers []tea.Msg
	}{
		{"keys", false, []string{"a", "\x1b[A", "\x1b", "\x1b/"}, "a\x1b[A\x1b\x1b/", nil},
		{"answer among keys", true, []string{"a" + answer + "b" + kind + "c"}, "abc", []tea.Msg{clustersMsg(2)}},
		{"other answers", true, []string{"\x1b[?2027;0$y\x1b[?7;1$y\x1b[?1;2c"}, "", []tea.Msg{clustersMsg(0)}},
		{"no number", true, []string{"\x1b[?2027;$y\x1b[?2027;99999999999999999999$yx"}, "x", nil},
		{"late and nothing asked", false, []string{answer, "x", kind}, "x", []tea.Msg{clustersMsg(2)}},
		{"beginning that is no answer", true, []string{"\x1b[?12", "\rhello"}, "\x1b[?12\rhello", nil},
		{"long beginning", false, []string{"\x1b[?" + strings.Repeat("1", 100)}, "\x1b[?" + strings.Repeat("1", 100), nil},
		{"paste with an answer", true, []string{strings.Repeat("é", 126) + answer + "日本", "語"}, strings.Repeat("é", 126) + "日本語", []tea.Msg{clustersMsg(2)}},
	}
	for i := 1; i < len(answer); i++ {
		rows = append(rows, struct {
			name    string
			isAsked bool
			parts   []string
			want    string
			answers []tea.Msg
		}{fmt.Sprint("cut at ", i), true, []string{"x" + answer[:i], answer[i:] + "y"}, "xy", []tea.Msg{clustersMsg(2)}})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			in, keys, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			messages := make(chan tea.Msg, 10)
			c := newConsole(in, io.Discard)
			c.send = func(msg tea.Msg) { messages <- msg }
			c.isAsked.Store(row.isAsked)
			c.keyWait, c.answerWait, c.started = time.Millisecond, time.Hour, time.Now().Add(time.Hour)
			got := make(chan string)
			go func() {
				text, err := "", error(nil)
				for read := make([]byte, 256); err == nil; {
					var n int
					n, err = c.Read(read)
					text += string(read[:n])
				}
				got <- text
			}()
			for _, part := range row.parts {
				keys.WriteString(part)
				for c.isReadable(0) { // until it is read
					time.Sleep(time.Millisecond)
				}
			}
			keys.Close()
			if text := <-got; text != row.want {
				t.Errorf("read %q instead of %q", text, row.want)
			}
			in.Close()
			var answers []tea.Msg
			for range row.answers {
				select {
				case msg := <-messages:
					answers = append(answers, msg)
				case <-time.After(10 * time.Second):
					t.Fatal("no answer")
				}
			}
			if diff := cmp.Diff(row.answers, answers); diff != "" || len(messages) > 0 {
				t.Errorf("answers:\n%s", diff)
			}
		})
	}
}

// TestUnboundAlt types Esc and a command at once, which comes as Alt and the first character.
func TestUnboundAlt(t *testing.T) {
	m := screenUI(80, 24)
	m.open = "dm1"
	show(m, screenSnapshot())
	screenKey(m, "f1")
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("/"), Alt: true})
	screenKey(m, "quit")
	if m.panel != nil || m.input.String() != "/quit" {
		t.Errorf("the panel is %v, the input %q", m.panel, m.input.String())
	}
	m.input = editor{}
	for _, k := range []tea.KeyMsg{
		{Type: tea.KeyRunes, Runes: []rune("日"), Alt: true},
		{Type: tea.KeySpace, Runes: []rune(" "), Alt: true},
		{Type: tea.KeyRunes, Runes: []rune("w"), Alt: true}, // a command
		{Type: tea.KeyCtrlA, Alt: true},
		{Type: tea.KeyRunes, Runes: []rune("x"), Alt: true},
	} {
		m.Update(k)
	}
	if m.input.String() != "x日 " || len(m.jobs) != 1 || m.jobs[0].line != "/who" {
		t.Errorf("the input is %q, the jobs %v", m.input.String(), m.jobs)
	}
}
