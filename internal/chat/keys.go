package chat

import (
	"fmt"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"waxwing.im/waxwing/client"
)

// uiKey is a key of the terminal UI that does not edit.
type uiKey struct {
	keys []string // by the names of bubbletea
	name string   // for people
	help string
	do   func(m *ui) tea.Cmd
}

// uiKeys returns all of them, in the order in which they are shown.
func uiKeys() []uiKey {
	return []uiKey{
		{[]string{"enter"}, "Enter", "send, or obey a /command", (*ui).enter},
		{nil, "Alt+Enter, Ctrl+J", "begin a new line", nil},
		{[]string{"tab"}, "Tab", "next conversation, those with something new first", (*ui).nextUnread},
		{[]string{"ctrl+n", "alt+down"}, "Ctrl+N, Alt+Down", "next conversation", func(m *ui) tea.Cmd { return m.step(1) }},
		{[]string{"ctrl+p", "alt+up", "shift+tab"}, "Ctrl+P, Alt+Up", "conversation before", func(m *ui) tea.Cmd { return m.step(-1) }},
		{[]string{"pgup"}, "PgUp", "scroll back", func(m *ui) tea.Cmd { return m.scrollBy(m.page()) }},
		{[]string{"pgdown"}, "PgDn", "scroll on", func(m *ui) tea.Cmd { return m.scrollBy(-m.page()) }},
		{[]string{"ctrl+end", "alt+>"}, "Ctrl+End", "to the newest message", func(m *ui) tea.Cmd { return m.scrollBy(-m.scroll) }},
		{[]string{"ctrl+f"}, "Ctrl+F", "search the history", prefill("/search ")},
		{[]string{"ctrl+d"}, "Ctrl+D", "talk to somebody", prefill("/dm ")},
		{[]string{"ctrl+t"}, "Ctrl+T", "make a room", prefill("/room ")},
		{[]string{"alt+w"}, "Alt+W", "who is here", func(m *ui) tea.Cmd { return m.do("/who") }},
		{[]string{"alt+i"}, "Alt+I", "invite into the room", prefill("/invite ")},
		{[]string{"alt+r"}, "Alt+R", "remove from the room", prefill("/remove ")},
		{[]string{"alt+l"}, "Alt+L", "leave the conversation", prefill("/leave ")},
		{[]string{"alt+v"}, "Alt+V", "verify who it is", (*ui).verify},
		{[]string{"alt+d"}, "Alt+D", "own devices", func(m *ui) tea.Cmd { return m.do("/devices") }},
		{[]string{"ctrl+l"}, "Ctrl+L", "draw the screen again", func(*ui) tea.Cmd { return redraw }},
		{[]string{"esc"}, "Esc", "close what is shown over the history", (*ui).escape},
		{[]string{"f1"}, "F1", "this list", (*ui).help},
		{[]string{"ctrl+z"}, "Ctrl+Z", "suspend", func(*ui) tea.Cmd { return tea.Suspend }},
		{[]string{"ctrl+c"}, "Ctrl+C", "quit", (*ui).leave},
	}
}

// key handles a key: a command of the UI, or one of the editor. A terminal sends Esc and a
// key typed soon after it as one key with Alt; with Alt, keys that have no meaning are these two.
func (m *ui) key(k tea.KeyMsg) tea.Cmd {
	cmd, ok := m.tryKey(k)
	if ok || !k.Alt || k.Paste {
		return cmd
	}
	escaped := m.escape()
	k.Alt = false
	cmd, _ = m.tryKey(k)
	return tea.Batch(escaped, cmd)
}

// tryKey handles a key, and reports whether it has a meaning.
func (m *ui) tryKey(k tea.KeyMsg) (tea.Cmd, bool) {
	if !k.Paste {
		for _, known := range uiKeys() {
			for _, name := range known.keys {
				if name == k.String() {
					return known.do(m), true
				}
			}
		}
	}
	if m.isLeaving {
		return nil, true
	}
	if m.panel != nil && m.input.isEmpty() && (k.String() == "up" || k.String() == "down") {
		m.movePanel(map[string]int{"up": -1, "down": 1}[k.String()])
		return nil, true
	}
	edited, ok := m.input.key(k)
	if ok {
		m.input, m.flash = edited, ""
		return nil, true
	}
	switch k.String() { // beyond the first and the last line of the input
	case "up":
		return m.scrollBy(1), true
	case "down":
		return m.scrollBy(-1), true
	}
	return nil, false
}

// enter sends the input, or opens the message that is selected in a search.
func (m *ui) enter() tea.Cmd {
	if m.isLeaving {
		return nil
	}
	line := strings.Trim(m.input.String(), "\n") // what a paste leaves behind
	if strings.TrimSpace(line) == "" {
		if m.panel == nil || len(m.panel.hits) == 0 {
			return m.escape()
		}
		hit := m.panel.hits[m.panel.at]
		cmd := m.turnTo(hit.Conversation)
		m.goal = hit.Seq
		m.reachGoal()
		return tea.Batch(cmd, m.load())
	}
	m.input, m.flash, m.panel = editor{}, "", nil
	if !strings.HasPrefix(line, "/") || strings.HasPrefix(line, "//") {
		m.scroll = 0
	}
	return m.do(line)
}

// prefill begins a command in the input, which is sent only when it is complete.
func prefill(command string) func(m *ui) tea.Cmd {
	return func(m *ui) tea.Cmd {
		switch {
		case !m.input.isEmpty():
			m.flash = "send what is typed first, or clear it with Ctrl+U"
		default:
			m.input, m.flash = newEditor(command), ""
		}
		return nil
	}
}

func (m *ui) verify() tea.Cmd {
	c, ok := m.conversation()
	switch {
	case !ok || c.Kind != client.DM:
		return prefill("/verify ")(m)
	case m.chat.people.accountMark(c, c.Peer) == markVerified:
		m.flash = m.chat.people.called(c.Peer) + markVerified + " is verified already: /verify shows the number, /unverify takes it back"
		return nil
	}
	return m.do("/verify " + c.Peer)
}

func (m *ui) escape() tea.Cmd {
	m.panel, m.flash = nil, ""
	return m.markRead()
}

func (m *ui) help() tea.Cmd {
	m.panel = &panel{title: "Keys"}
	for _, k := range uiKeys() {
		m.panel.lines = append(m.panel.lines, fmt.Sprintf("%-18s %s", k.name, k.help))
	}
	commands, _ := m.chat.doHelp(m.ctx, nil)
	m.panel.lines = append(append(m.panel.lines, ""), commands.lines...)
	return nil
}

// step opens the conversation so many places further down the list.
func (m *ui) step(by int) tea.Cmd {
	list := m.snap.list
	for i, c := range list {
		if c.ID == m.open {
			return m.turnTo(list[(i+by+len(list))%len(list)].ID)
		}
	}
	return nil
}

// nextUnread opens the next conversation with unread messages, or else the next one.
func (m *ui) nextUnread() tea.Cmd {
	list := m.snap.list
	for i, c := range list {
		if c.ID != m.open {
			continue
		}
		for k := range list {
			if other := list[(i+1+k)%len(list)]; other.Unread > 0 && other.ID != m.open {
				return m.turnTo(other.ID)
			}
		}
	}
	return m.step(1)
}

// page returns how many lines PgUp scrolls.
func (m *ui) page() int { return max(1, m.mainHeight()-2) }

func (m *ui) movePanel(by int) { m.panel.at = max(0, min(m.panel.at+by, m.panelEnd())) }

// panelEnd returns how far the panel can be moved.
func (m *ui) panelEnd() int {
	if len(m.panel.hits) > 0 {
		return len(m.panel.hits) - 1
	}
	return len(m.panelLines()) - m.mainHeight() + 1
}

// scrollBy scrolls back or forward; at the top more history is read.
func (m *ui) scrollBy(lines int) tea.Cmd {
	if m.panel != nil {
		m.movePanel(-lines)
		return nil
	}
	limit := m.scrollMax()
	m.scroll = max(0, min(m.scroll+lines, limit))
	if m.scroll == limit && lines > 0 && !m.snap.isAll && len(m.snap.history) >= m.depth {
		m.depth += depthStep
		return m.load()
	}
	return m.markRead()
}
