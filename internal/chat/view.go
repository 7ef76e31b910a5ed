package chat

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
)

// All text from others goes through printable before it is drawn; the sequences added here are
// the only escape sequences that reach the terminal.
func inverted(text string) string { return "\x1b[7m" + text + "\x1b[0m" }
func alarming(text string) string { return "\x1b[1;97;41m" + text + "\x1b[0m" }
func bold(text string) string     { return "\x1b[1m" + text + "\x1b[0m" }
func faint(text string) string    { return "\x1b[2m" + text + "\x1b[0m" }

// The widths from which the list is shown, and the widths of the list.
const (
	listFrom  = 64
	listWidth = 24
)

func (m *ui) mainWidth() int {
	if !m.hasSide() {
		return max(1, m.width)
	}
	return m.width - listWidth - 1
}

// hasSide reports whether the list of conversations is shown. A panel needs the width.
func (m *ui) hasSide() bool { return m.width >= listFrom && len(m.snap.list) > 0 && m.panel == nil }

// mainHeight returns the height that the header, the line above the input, the input and
// the help leave.
func (m *ui) mainHeight() int {
	return max(1, m.height-2-len(m.header())-len(m.inputLines()))
}

func (m *ui) inputLines() []string {
	return m.input.view(m.measure, m.width-2, max(1, min(inputMax, m.height/3)))
}

// View draws the screen.
func (m *ui) View() string {
	if m.width <= 0 || m.height <= 0 {
		return ""
	}
	rows := m.rows()
	for y := range rows {
		rows[y] = m.measure.row(y, rows[y], m.width)
	}
	return strings.Join(rows, "\n")
}

// rows returns the rows of the screen.
func (m *ui) rows() []string {
	head := inverted
	if m.state.Reason() == client.ReasonOtherService {
		head = alarming
	}
	var rows []string
	for _, row := range m.header() {
		rows = append(rows, head(row))
	}
	side, main := m.side(), m.main()
	for i := range m.mainHeight() {
		row := m.measure.fit(main[i], m.mainWidth())
		if m.hasSide() {
			row = side[i] + faint("│") + row
		}
		rows = append(rows, row)
	}
	rows = append(rows, m.statusLine())
	for i, line := range m.inputLines() {
		prompt := "> "
		if i > 0 {
			prompt = "  "
		}
		rows = append(rows, m.measure.fit(prompt+line, m.width))
	}
	rows = append(rows, faint(m.measure.fit(m.keyLine(), m.width)))
	// If the screen is too small, its end is shown, which has the input.
	return rows[max(0, len(rows)-m.height):]
}

// keyLine names as many keys as there is room for.
func (m *ui) keyLine() string {
	line := "Enter send"
	for _, key := range []string{"F1 help", "^C quit", "Tab next", "PgUp back", "^F find", "Alt+Enter new line"} {
		if longer := line + "  " + key; m.measure.width(longer) <= m.width {
			line = longer
		}
	}
	return line
}

// header shows the account and the state of the connection. A reason that is too long for the
// first row has rows of its own.
func (m *ui) header() []string {
	sign := map[client.Link]string{client.Online: "●", client.Connecting: "◌"}[m.state.Link]
	sign = cmp.Or(sign, "○") + " "
	text := printable(stateText(m.state))
	left := m.measure.truncated(" waxwing  "+m.chat.people.myself(), m.width/2, "…")
	if m.chat.people.labelOf(m.chat.self) == "" {
		left += " " + short(m.chat.self)
	}
	beside := func(right string) string {
		right = m.measure.truncated(sign+right+" ", m.width, "… ")
		return m.measure.fit(left, m.width-m.measure.width(right)) + right
	}
	if m.measure.width(left+"  "+sign+text+" ") <= m.width {
		return []string{beside(text)}
	}
	state, reason, _ := strings.Cut(text, ": ")
	rows := []string{beside(state)}
	for _, row := range m.measure.wrap(reason, max(2, m.width-2)) {
		if len(rows) <= m.height/6 {
			rows = append(rows, m.measure.fit(" "+row, m.width))
		}
	}
	return rows
}

// statusLine shows the result of the last command, and pending and unread messages.
func (m *ui) statusLine() string {
	var parts []string
	below := m.scroll
	if m.panel != nil {
		below = m.panelEnd() - m.panel.at
	}
	if below == 1 {
		parts = append(parts, "1 line below")
	} else if below > 1 {
		parts = append(parts, fmt.Sprintf("%d lines below", below))
	}
	if m.snap.pending > 0 {
		parts = append(parts, fmt.Sprintf("%d not delivered", m.snap.pending))
	}
	elsewhere := 0
	for _, c := range m.snap.list {
		if c.ID != m.open {
			elsewhere += c.Unread
		}
	}
	if elsewhere > 0 && !m.hasSide() {
		parts = append(parts, fmt.Sprintf("%d unread elsewhere", elsewhere))
	}
	right := strings.Join(parts, ", ")
	if m.flash == "" {
		return faint(m.measure.fit(strings.Repeat("─", max(0, m.width-m.measure.width(right)-2))+" "+right, m.width))
	}
	left := "─ " + printable(m.flash) + " "
	room := m.width - m.measure.width(left) - 1
	if right == "" || m.measure.width(right) > room {
		return bold(m.measure.fit(left, m.width))
	}
	return bold(m.measure.fit(left, m.width-m.measure.width(right))) + faint(right)
}

// side returns the list of conversations, around the open one.
func (m *ui) side() []string {
	height := m.mainHeight()
	rows := []string{faint(m.measure.fit(" Conversations", listWidth))}
	at := slices.IndexFunc(m.snap.list, func(c client.Conversation) bool { return c.ID == m.open })
	first := max(0, at-height+2)
	for i := first; i < len(m.snap.list) && len(rows) < height; i++ {
		c := m.snap.list[i]
		count := ""
		if c.Unread > 0 {
			count = strconv.Itoa(c.Unread) + " "
		}
		text := m.measure.fit(" "+m.sideTitle(c), listWidth-m.measure.width(count)) + count
		switch {
		case i == at:
			text = inverted(text)
		case c.Unread > 0:
			text = bold(text)
		case c.Phase == client.Removed:
			text = faint(text)
		}
		rows = append(rows, text)
	}
	for len(rows) < height {
		rows = append(rows, strings.Repeat(" ", listWidth))
	}
	return rows
}

// sideTitle returns a title for the list.
func (m *ui) sideTitle(c client.Conversation) string {
	title := m.chat.titleOf(c)
	if c.Phase == client.Removed {
		return title + ", past"
	}
	if m.chat.people.phaseNote(c) != "" {
		title += " …"
	}
	return title
}

// main returns the open conversation or a panel over it, exactly as high as there is room.
func (m *ui) main() []string {
	height := m.mainHeight()
	var rows []string
	switch c, ok := m.conversation(); {
	case m.panel != nil:
		rows = append(rows, bold(" "+printable(m.panel.title))+faint("  Esc closes"))
		rows = append(rows, m.panelRows(height-1)...)
	case !ok:
		rows = m.emptyRows()
	default:
		title := bold(" " + m.chat.titleOf(c))
		if note := m.chat.people.phaseNote(c); note != "" {
			title += faint("  " + printable(note))
		}
		body := m.body()
		end := len(body) - min(m.scroll, m.scrollMaxOf(body))
		shown := body[max(0, end-height+1):end]
		rows = append(rows, title)
		rows = append(rows, make([]string, max(0, height-1-len(shown)))...)
		for _, line := range shown {
			rows = append(rows, line.text)
		}
	}
	for len(rows) < height {
		rows = append(rows, "")
	}
	return rows[:height]
}

func (m *ui) emptyRows() []string {
	out := []string{bold(" No conversation yet"), "", " You are"}
	for _, line := range m.measure.wrap(m.chat.self, max(2, m.mainWidth()-2)) {
		out = append(out, " "+line)
	}
	return append(out, "", " Ctrl+D or /dm DID talks to a person,", " Ctrl+T or /room DID… makes a room,", " /name NAME says who you are,",
		" F1 shows the keys and commands.")
}

// panelIndent is before the further rows of a line of a panel.
const panelIndent = "    "

// panelLines returns the lines of a panel other than a search, wrapped to the width.
func (m *ui) panelLines() []string {
	var out []string
	width := max(2, m.mainWidth()-2)
	for _, line := range m.panel.lines {
		line = printable(line)
		rows := m.measure.wrap(line, width)
		out = append(out, " "+rows[0])
		if len(rows) > 1 {
			rest := strings.TrimLeft(strings.TrimPrefix(line, rows[0]), " ")
			for _, row := range m.measure.wrap(rest, max(2, width-len(panelIndent))) {
				out = append(out, " "+panelIndent+row)
			}
		}
	}
	return out
}

// hitBytesMax is the part of a found message that may be in its row.
const hitBytesMax = 4096

func (m *ui) panelRows(height int) []string {
	var rows []string
	p := m.panel
	if len(p.hits) == 0 {
		lines := m.panelLines()
		return lines[min(p.at, len(lines)):]
	}
	first := max(0, p.at-height+1)
	for i := first; i < len(p.hits) && len(rows) < height; i++ {
		e := p.hits[i]
		text := fmt.Sprintf(" %s %s: %s", e.Time.In(m.zone).Format("01-02 15:04"), m.chat.people.nameOf(e.From),
			printable(strings.ReplaceAll(string(e.Text[:min(len(e.Text), hitBytesMax)]), "\n", " ")))
		text = m.measure.fit(text, m.mainWidth())
		if i == p.at {
			text = inverted(text)
		}
		rows = append(rows, text)
	}
	return rows
}

// bodyLine is one line of a conversation, with the message or note that it is part of.
type bodyLine struct{ text, of string }

// body returns the conversation as far as it was read, wrapped to the width.
func (m *ui) body() []bodyLine {
	out := make([]bodyLine, 0, m.bodyRows)
	wraps := make(map[wrapKey][]string, len(m.snap.history))
	notes := m.notes[m.open]
	day := ""
	add := func(at time.Time, of string, lines []string) {
		if d := at.In(m.zone).Format(time.DateOnly); d != day {
			day = d
			out = append(out, bodyLine{faint(" ── " + d + " ──"), "day " + d})
		}
		for _, line := range lines {
			out = append(out, bodyLine{line, of})
		}
	}
	addNote := func(n note) {
		lines := m.wrapped(clock(n.at, m.zone)+" -- ", n.text)
		for i := range lines {
			lines[i] = faint(lines[i])
		}
		add(n.at, "note "+n.at.String()+n.text, lines)
	}
	addNotes := func(until time.Time) {
		for len(notes) > 0 && (until.IsZero() || notes[0].at.Before(until)) {
			n := notes[0]
			notes = notes[1:]
			addNote(n)
		}
	}
	for _, e := range m.snap.history {
		if m.snap.isAll || e.Seq != m.snap.history[0].Seq { // older notes are above the loaded history
			addNotes(e.Time)
		}
		if e.Type != client.EventMessage {
			for _, text := range m.chat.noteOf(e) {
				addNote(note{e.Time, text})
			}
			continue
		}
		key := wrapKey{e.Seq, clock(e.Time, m.zone) + " " + m.chat.people.nameOf(e.From) + ": ", m.mainWidth()}
		rows, ok := m.wraps[key]
		if !ok {
			rows = m.wrapped(key.head, string(e.Text))
			rows[0] = m.coloured(rows[0], e)
		}
		wraps[key] = rows
		add(e.Time, e.MessageID, rows)
	}
	m.wraps = wraps
	addNotes(time.Time{})
	for _, e := range m.snap.waiting {
		lines := m.wrapped(clock(e.Time, m.zone)+" me: ", string(e.Text))
		lines[len(lines)-1] += " ◌ not delivered"
		if m.measure.width(lines[len(lines)-1]) > m.mainWidth() {
			lines[len(lines)-1] = strings.TrimSuffix(lines[len(lines)-1], " ◌ not delivered")
			lines = append(lines, "       ◌ not delivered")
		}
		for i := range lines {
			lines[i] = faint(lines[i])
		}
		add(e.Time, e.MessageID, lines)
	}
	m.bodyRows = len(out)
	return out
}

// coloured gives the name at the beginning of a message's first row the colour of its person.
func (m *ui) coloured(row string, e client.Event) string {
	before, name := " "+clock(e.Time, m.zone)+" ", m.chat.people.nameOf(e.From)
	rest, isWhole := strings.CutPrefix(row, before+name)
	if !m.hasColours || e.From.Account == m.chat.self || !isWhole {
		return row
	}
	return before + colourOf(e.From.Account) + name + "\x1b[0m" + rest
}

// wrapKey names the rows of a message of the open conversation: its text never changes.
type wrapKey struct {
	seq   int64
	head  string
	width int
}

// wrapped breaks a text into lines of the width, the further ones indented, so that
// none of them can be taken for another message.
func (m *ui) wrapped(head, text string) []string {
	const indent = "       "
	width := max(2, m.mainWidth()-1-len(indent))
	var out []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.ReplaceAll(printable(line), "\t", "    ")
		if i == 0 {
			line = head + line
		}
		for _, row := range m.measure.wrap(line, width) {
			if len(out) > 0 {
				row = indent + row
			}
			out = append(out, " "+row)
		}
	}
	return out
}

// scrollMax returns how far the history can be scrolled back.
func (m *ui) scrollMax() int { return m.scrollMaxOf(m.body()) }

func (m *ui) scrollMaxOf(body []bodyLine) int { return max(0, len(body)-m.mainHeight()+1) }

// keepPlace changes what is shown and keeps the line at the bottom where it is, if the
// history is scrolled back.
func (m *ui) keepPlace(change func()) {
	if m.scroll == 0 || m.panel != nil {
		change()
		return
	}
	before := m.body()
	at := len(before) - 1 - min(m.scroll, len(before)-1)
	if at < 0 {
		change()
		return
	}
	of, below := before[at].of, 0 // number of equal lines below
	for i := at + 1; i < len(before) && before[i].of == of; i++ {
		below++
	}
	change()
	after := m.body()
	for i := len(after) - 1; i >= 0; i-- {
		if after[i].of == of {
			m.scroll = max(0, min(len(after)-1-i+below, m.scrollMaxOf(after)))
			return
		}
	}
	m.scroll = min(m.scroll, m.scrollMaxOf(after))
}

// reachGoal scrolls to the selected search hit, loading more history if it is further back.
func (m *ui) reachGoal() {
	if m.goal == 0 || len(m.snap.history) == 0 {
		return
	}
	first := m.snap.history[0].Seq
	if m.goal < first && !m.snap.isAll {
		m.depth += max(depthStep, int(first-m.goal))
		m.isStale = true
		return
	}
	i := slices.IndexFunc(m.snap.history, func(e client.Event) bool { return e.Seq >= m.goal })
	m.goal = 0
	if i < 0 {
		return
	}
	body := m.body()
	for at, line := range body {
		if line.of == m.snap.history[i].MessageID {
			m.scroll = max(0, min(len(body)-at-m.mainHeight()/2, m.scrollMaxOf(body)))
			return
		}
	}
}

// stateText describes the state of the connection, and why it is not up.
func stateText(s client.State) string {
	switch {
	case s.Link == client.Online && s.Transport == client.EventStream:
		return "online over HTTP: WebSockets are blocked"
	case s.Link == client.Online && s.Transport == client.XRPC:
		return "online over XRPC"
	case s.Link == client.Online:
		return "online"
	}
	if problem := s.Problem(); problem != "" {
		return s.Link.String() + ": " + problem
	}
	return s.Link.String()
}
