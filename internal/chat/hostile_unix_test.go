//go:build unix

package chat

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	tea "github.com/charmbracelet/bubbletea"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/testsize"
)

// hostileEnv makes the test binary a program that draws so many hostile messages, for terminals
// that run one.
const hostileEnv = "WAXWING_CHAT_HOSTILE"

func TestMain(m *testing.M) {
	count, err := strconv.Atoi(os.Getenv(hostileEnv))
	if err != nil {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runProgram(ctx, newHostileUI(1, 1, count), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hostilePieces are texts that terminals count in different ways, or that steer them.
var hostilePieces = []string{
	"👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇩🇪🇫🇷🇯", "1️⃣", "❤️", "❤", "☺️", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
	"👩🏽‍❤️‍💋‍👨🏿", strings.Repeat("👨‍", 40), "🫱🏻‍🫲🏿", "⚠︎", "🧑🏾‍🦽‍➡️", "🏽", "©️", "#️⃣",
	"日本語", "한국어", "각", strings.Repeat("\u1100", 30), "\u1161\u11a8", "ｶﾞ", "か\u3099", "ＦＵＬＬ", "𠀋", "　", "㍿", "ㅤ",
	"שלום עולם", "السلام عليكم", "لا", "\u202eevil\u202c", "\u2066a\u2069", "\u200f", "\u200e", "\u061c", "ﷺ", "﷽",
	"z" + strings.Repeat("\u0301", 60) + "algo", "e\u0301\u0302\u0303", "a\u20dd", "\u0301\u0301", "क्षि", strings.Repeat("क्", 30), "நி", "กำ", "བསྒྲུབས", strings.Repeat("\u0903", 30),
	"\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u034f", "\ufe0e", "\ufe0f", "\u180e", "\u00ad", "می\u200cخواهم",
	"\x1b[2J", "\x1b[H", "\x1bM", "\x1bD", "\x1bc", "\x1b]0;title\x07", "\x9b5A", "\x84", "\r", "\b\b\b", "\t", "\v", "\f", "\x00", "\x7f", "\u0085", "\u2028", "\u2029", "\x0e", "\n", "\r\n",
	"\x1b[?7h", "\x1b[?2027l", "\x1b[6n", "\x1b[c", "\x1b[1m", "\xff\xfe", "\xe6\x97", "\ufffe", "\U0010ffff", "\ue000", "ꜝ", "─│┼", "…", "①", "Ω", "⸻", "𝔊", "ǅ",
	"two words", "x", " ", "  ", strings.Repeat("x", 90), strings.Repeat("日", 50), strings.Repeat("👍🏽", 30), strings.Repeat("🏳️‍🌈", 30), strings.Repeat("❤️", 60), strings.Repeat("é", 90),
}

// hostileText returns the nth hostile text: some pieces, or characters of any kind.
func hostileText(n int) string {
	if n < len(hostilePieces) {
		return hostilePieces[n]
	}
	random := rand.New(rand.NewPCG(11, uint64(n)))
	var text strings.Builder
	for range 1 + random.IntN(8) {
		if random.IntN(4) > 0 {
			text.WriteString(hostilePieces[random.IntN(len(hostilePieces))])
			continue
		}
		for range random.IntN(12) {
			text.WriteRune(rune(random.IntN([]int{0x300, 0x3000, 0x20000, utf8.MaxRune}[random.IntN(4)])))
		}
	}
	return text.String()
}

// hostileBlocks are messages of 64 KiB without a blank, each of which fills screens.
var hostileBlocks = []string{"x", "日", "👍🏽", "👨‍", "\u0301", "\u1100", "ش", "🇩🇪", "\u0903", "❤️", "क्", "\x1b[A", "é\u0301"}

// hostileUI is a UI that shows hostile messages, the next screenful at F5, and after all of them
// the blocks. Its status line says how many were drawn.
type hostileUI struct {
	*ui
	count    int // the number of messages before the blocks
	from, to int // the messages on the screen
	blocks   int // the number of blocks that were shown
}

// hostileMax is the number of messages where most are drawn.
func hostileMax() int { return testsize.Of(2_500, 100_000) }

func newHostileUI(width, height, count int) *hostileUI {
	m := &hostileUI{ui: screenUI(width, height), count: count}
	m.open = "dm1"
	return m
}

func (m *hostileUI) isDone() bool { return m.blocks == len(hostileBlocks) }

// next loads the next screenful.
func (m *hostileUI) next() {
	m.snap = screenSnapshot()
	m.snap.waiting, m.snap.pending, m.snap.history = nil, 0, nil
	bob := device(screenBob, true, false)
	m.from = m.to
	m.input = editor{}.typed([]rune(hostileText(m.from)))
	m.input.at /= 2
	head := clock(screenTime, m.zone) + " " + m.chat.people.nameOf(bob) + ": "
	for room := m.mainHeight() - 3; m.to < m.count; m.to++ { // the title and two days
		text := fmt.Sprintf("#%d %s <%d>", m.to, hostileText(m.to), m.to)
		if room -= len(m.wrapped(head, text)); room < 0 && m.to > m.from {
			break
		}
		m.snap.history = append(m.snap.history, said(int64(m.to+1), bob, text))
	}
	m.flash = fmt.Sprintf("drawn %d.", m.to)
	if m.to == m.from {
		piece := hostileBlocks[m.blocks]
		m.blocks++
		m.snap.history = append(m.snap.history, said(int64(m.to+m.blocks), bob, strings.Repeat(piece, 64<<10/len(piece))))
		m.flash = fmt.Sprintf("block %d.", m.blocks)
	}
	for i := range 8 {
		m.snap.list = append(m.snap.list, client.Conversation{ID: "c", Kind: client.DM, Phase: client.Joined, Peer: hostileText(m.from + i), Unread: i})
	}
}

// Init reads no home.
func (m *hostileUI) Init() tea.Cmd { return nil }

// Update has keys for the ways in which a program ends.
func (m *hostileUI) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	key, _ := msg.(tea.KeyMsg)
	switch key.Type {
	case tea.KeyF5:
		m.next()
	case tea.KeyF6:
		return m, tea.Quit
	case tea.KeyF7:
		panic("F7")
	case tea.KeyF8:
		return m, func() tea.Msg { panic("F8") }
	case tea.KeyF9:
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	case tea.KeyF10:
		syscall.Kill(os.Getpid(), syscall.SIGHUP)
	default:
		_, cmd := m.ui.Update(msg)
		return m, cmd
	}
	return m, nil
}
