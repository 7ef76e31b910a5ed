package chat

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"github.com/rivo/uniseg"
)

// measure counts the columns that a text takes in the terminal, and places texts in columns.
//
// Terminals disagree about widths and no table is right for all of them, so a row depends on
// none: it sets the cursor behind each character that they may count differently. A wrong width
// leaves a gap or covers a part of that character, and moves nothing else.
type measure struct {
	// byCluster is true if the terminal counts grapheme clusters (its mode 2027). Others count
	// the code points one by one.
	byCluster bool
}

// unit is the smallest piece of a text, which is never divided: a grapheme cluster or one
// of the style sequences of this package.
type unit struct {
	text   string
	width  int
	isSure bool // all terminals count the same width
}

// unitRunesMax bounds a cluster; the longest emoji have ten code points.
const unitRunesMax = 16

const (
	joiner        = '\u200d' // holds emoji together
	nonJoiner     = '\u200c' // parts letters, in Persian
	emojiSelector = '\ufe0f' // makes the character before it an emoji, which is wide
	markCarrier   = "◌"      // carries marks that have no character of their own
	notPrintable  = "\uFFFD"
)

// next returns the first unit of a text that is not empty, and how many bytes it stands for.
// A cluster that is wider than limit is divided where that is possible.
func (m measure) next(text string, limit int) (unit, int) {
	c := text[0]
	if c >= ' ' && c < 0x7f && (len(text) == 1 || text[1] < utf8.RuneSelf) {
		return unit{text[:1], 1, true}, 1
	}
	if n := styleBytes(text); n > 0 {
		return unit{text[:n], 0, true}, n
	}
	r, n := utf8.DecodeRuneInString(text)
	if unicode.IsControl(r) || r == utf8.RuneError && n == 1 {
		return unit{notPrintable, 1, false}, n
	}
	if isIdeograph(r) {
		if r, _ := utf8.DecodeRuneInString(text[n:]); n == len(text) || r < utf8.RuneSelf || isIdeograph(r) {
			return unit{text[:n], 2, true}, n
		}
	}
	end := 0
	for i := 0; i < unitRunesMax && end < len(text); i++ {
		_, n := utf8.DecodeRuneInString(text[end:])
		end += n
	}
	cluster, _, width, _ := uniseg.FirstGraphemeClusterInString(text[:end], -1)
	switch {
	case !m.byCluster:
		if width = codePointsWidth(cluster); width > limit {
			cluster = firstCodePoint(cluster)
			width = codePointsWidth(cluster)
		}
	case strings.ContainsRune(cluster, emojiSelector):
		width = 2
	default:
		width = min(2, max(width, codePointWidth(r)))
	}
	shown := strings.TrimRight(cluster, string(joiner)) // or tmux joins whatever is written next, anywhere
	if width == 0 {
		return unit{markCarrier + shown, 1, false}, len(cluster)
	}
	return unit{shown, width, shown[0] < utf8.RuneSelf && len(shown) == 1}, len(cluster)
}

// firstCodePoint returns the first code point of a cluster, with those of no width behind it.
func firstCodePoint(cluster string) string {
	for i, r := range cluster {
		if i > 0 && codePointWidth(r) > 0 {
			return cluster[:i]
		}
	}
	return cluster
}

// styleBytes returns the length of the style sequence that text begins with, or 0.
func styleBytes(text string) int {
	rest, ok := strings.CutPrefix(text, "\x1b[")
	if !ok {
		return 0
	}
	rest = strings.TrimLeft(rest, "0123456789;")
	if !strings.HasPrefix(rest, "m") {
		return 0
	}
	return len(text) - len(rest) + 1
}

// isIdeograph reports whether r is of a script whose characters every terminal makes two
// columns wide.
func isIdeograph(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0x3041 && r <= 0x3096 || r >= 0x30a1 && r <= 0x30fa
}

// codePoints is the table of terminals that count code points, outside of East Asia.
var codePoints = runewidth.Condition{StrictEmojiNeutral: true}

func codePointWidth(r rune) int {
	if r >= 0x1f1e6 && r <= 0x1f1ff {
		return 2 // halves of flags: some terminals count 1
	}
	return codePoints.RuneWidth(r)
}

// codePointsWidth returns the width of a cluster in a terminal that counts code points, where
// some count the emoji selector. Of two widths it is the larger one, which covers nothing.
func codePointsWidth(cluster string) int {
	sum, last := 0, 0
	for _, r := range cluster {
		if r == emojiSelector && last == 1 {
			sum++
		}
		last = codePointWidth(r)
		sum += last
	}
	return sum
}

// width returns the number of columns of a text.
func (m measure) width(text string) int {
	sum := 0
	for len(text) > 0 {
		u, n := m.next(text, len(text))
		sum += u.width
		text = text[n:]
	}
	return sum
}

// truncated returns the part of a text that fits into width, ending in tail if that is not all
// of it. Styles remain.
func (m measure) truncated(text string, width int, tail string) string {
	room := width - m.width(tail)
	used, cut := 0, 0 // cut is where the tail would stand
	for at := 0; at < len(text); {
		u, n := m.next(text[at:], width)
		if used+u.width > width {
			return text[:cut] + tail + styles(text[cut:])
		}
		used += u.width
		if at += n; used <= room {
			cut = at
		}
	}
	return text
}

// styles returns the style sequences of a text.
func styles(text string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '\x1b')
		if i < 0 {
			return out.String()
		}
		n := styleBytes(text[i:])
		out.WriteString(text[i : i+n])
		text = text[max(i+n, i+1):]
	}
}

// fit makes text exactly width wide.
func (m measure) fit(text string, width int) string {
	if width <= 0 {
		return ""
	}
	text = m.truncated(text, width, "…")
	return text + strings.Repeat(" ", max(0, width-m.width(text)))
}

// wrap breaks a line into rows of at most width, behind a blank or a hyphen where it has one.
func (m measure) wrap(line string, width int) []string {
	var rows []string
	start, used := 0, 0        // the row, and its width
	breakAt, breakUsed := 0, 0 // behind the last blank or hyphen of the row, if behind start
	for at := 0; at < len(line); {
		u, n := m.next(line[at:], width)
		if used+u.width > width && at > start {
			if u.text == " " { // it ends the row
				rows = append(rows, line[start:at])
				at += n
				start, used = at, 0
				continue
			}
			if breakAt <= start {
				breakAt, breakUsed = at, used
			}
			rows = append(rows, strings.TrimSuffix(line[start:breakAt], " "))
			start, used = breakAt, used-breakUsed
			continue
		}
		at += n
		used += u.width
		if u.text == " " || u.text == "-" {
			breakAt, breakUsed = at, used
		}
	}
	return append(rows, line[start:])
}

// row returns the text as the terminal draws it from the beginning of the row y on: cut off
// behind columns, with the rest of the row erased.
func (m measure) row(y int, text string, columns int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\x1b[%d;1H", y+1)
	used := 0
	for len(text) > 0 {
		u, n := m.next(text, columns)
		text = text[n:]
		switch {
		case used+u.width > columns:
			columns = used // only styles follow
			continue
		case u.isSure:
			out.WriteString(u.text)
		default: // it may leave cells as they were, and the cursor elsewhere
			blank := strings.Repeat(" ", u.width)
			fmt.Fprintf(&out, "%s\x1b[%dG%s\x1b[%dG", blank, used+1, u.text, used+u.width+1)
		}
		used += u.width
	}
	out.WriteString("\x1b[K")
	return out.String()
}
