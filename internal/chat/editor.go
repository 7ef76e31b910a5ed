package chat

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/rivo/uniseg"
)

// editor is a multi-line text that is being typed. It is a value.
type editor struct {
	text []rune
	at   int // the cursor: before text[at]
}

func newEditor(text string) editor {
	runes := []rune(text)
	return editor{runes, len(runes)}
}

// String returns the text without the cursor.
func (e editor) String() string { return string(e.text) }

func (e editor) isEmpty() bool { return len(e.text) == 0 }

// replaced returns e with the runes from i to j replaced, the cursor behind the new ones.
func (e editor) replaced(i, j int, with ...rune) editor {
	return editor{slices.Concat(e.text[:i], with, e.text[j:]), i + len(with)}
}

// key returns e after a key, and reports whether the editor knows the key.
func (e editor) key(k tea.KeyMsg) (editor, bool) {
	switch {
	case k.Type == tea.KeyRunes && (!k.Alt || k.Paste), k.Type == tea.KeySpace:
		return e.typed(k.Runes), true
	}
	switch k.String() {
	case "alt+enter", "ctrl+j":
		return e.replaced(e.at, e.at, '\n'), true
	case "backspace", "ctrl+h":
		return e.replaced(e.before(), e.at), true
	case "delete":
		return e.replaced(e.at, e.after()), true
	case "ctrl+w", "alt+backspace":
		return e.replaced(e.wordBefore(), e.at), true
	case "ctrl+u":
		return e.replaced(e.lineStart(), e.at), true
	case "ctrl+k":
		return e.replaced(e.at, e.lineEnd()), true
	case "left", "ctrl+b":
		e.at = e.before()
	case "right":
		e.at = e.after()
	case "alt+left", "ctrl+left":
		e.at = e.wordBefore()
	case "alt+right", "ctrl+right":
		e.at = e.wordAfter()
	case "home", "ctrl+a":
		e.at = e.lineStart()
	case "end", "ctrl+e":
		e.at = e.lineEnd()
	case "up":
		return e.moved(-1)
	case "down":
		return e.moved(1)
	default:
		return e, false
	}
	return e, true
}

// typed inserts typed or pasted runes, without control characters.
func (e editor) typed(runes []rune) editor {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\t", "    ").Replace(string(runes))
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return e.replaced(e.at, e.at, []rune(strings.Join(lines, "\n"))...)
}

// before returns the beginning of the grapheme cluster that ends at the cursor.
func (e editor) before() int {
	start := max(0, e.lineStart()-1)
	cluster := 0
	for rest := string(e.text[start:e.at]); rest != ""; {
		var first string
		first, rest, _, _ = uniseg.FirstGraphemeClusterInString(rest, -1)
		cluster = utf8.RuneCountInString(first)
	}
	return e.at - cluster
}

// after returns the end of the grapheme cluster that begins at the cursor.
func (e editor) after() int {
	first, _, _, _ := uniseg.FirstGraphemeClusterInString(string(e.text[e.at:]), -1)
	return e.at + utf8.RuneCountInString(first)
}

func (e editor) lineStart() int {
	i := e.at
	for i > 0 && e.text[i-1] != '\n' {
		i--
	}
	return i
}

func (e editor) lineEnd() int {
	i := e.at
	for i < len(e.text) && e.text[i] != '\n' {
		i++
	}
	return i
}

func (e editor) wordBefore() int {
	i := e.at
	for i > 0 && unicode.IsSpace(e.text[i-1]) {
		i--
	}
	for i > 0 && !unicode.IsSpace(e.text[i-1]) {
		i--
	}
	return i
}

func (e editor) wordAfter() int {
	i := e.at
	for i < len(e.text) && unicode.IsSpace(e.text[i]) {
		i++
	}
	for i < len(e.text) && !unicode.IsSpace(e.text[i]) {
		i++
	}
	return i
}

// moved moves the cursor a line up or down, and reports whether there is one.
func (e editor) moved(by int) (editor, bool) {
	column := e.at - e.lineStart()
	to := e
	if by < 0 {
		if to.at = e.lineStart() - 1; to.at < 0 {
			return e, false
		}
	} else if to.at = e.lineEnd() + 1; to.at > len(e.text) {
		return e, false
	}
	to.at = to.lineStart()
	if to.at = min(to.at+column, to.lineEnd()); to.at < to.lineEnd() {
		to.at++
		to.at = to.before() // not within a cluster
	}
	return to, true
}

// view draws at most height lines of width, those around the cursor, which is shown
// inverted.
func (e editor) view(m measure, width, height int) []string {
	width = max(width, 2)
	var rows []string
	var row strings.Builder
	used, cursorRow := 0, 0
	end := func() {
		rows = append(rows, row.String())
		row.Reset()
		used = 0
	}
	rest := string(e.text)
	for at := 0; at <= len(e.text); {
		shown, bytes := unit{" ", 1, true}, min(1, len(rest))
		isBreak := rest == "" || rest[0] == '\n'
		if !isBreak {
			shown, bytes = m.next(rest, width)
		}
		next := at + max(1, utf8.RuneCountInString(rest[:bytes]))
		rest = rest[bytes:]
		isCursor := at <= e.at && e.at < next
		if used+shown.width > width && (!isBreak || isCursor) {
			end()
		}
		switch {
		case isCursor:
			cursorRow = len(rows)
			row.WriteString(inverted(shown.text))
			used += shown.width
		case !isBreak:
			row.WriteString(shown.text)
			used += shown.width
		}
		if isBreak {
			end()
		}
		at = next
	}
	first := max(0, min(cursorRow-height+1, len(rows)-height))
	if cursorRow < first {
		first = cursorRow
	}
	return rows[first:min(len(rows), first+height)]
}
