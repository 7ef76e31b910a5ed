package chat

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"waxwing.im/waxwing/client"
)

// ui is the terminal UI of a chat. It holds no data that is not in the home: after any change
// it reads the home again and draws it. Only Update changes it.
type ui struct {
	ctx  context.Context
	chat *Terminal // used by one job at a time; the form of names may be read at any time
	zone *time.Location

	width, height int // of what is drawn; the last column is not
	measure       measure
	wraps         map[wrapKey][]string // the rows of the loaded history
	bodyRows      int                  // their number with all else, when they were last laid out
	state         client.State
	snap          snapshot
	open          string // the conversation that is shown; "" for none
	depth         int    // number of its messages to load
	scroll        int    // lines between the last one that is shown and the last one
	goal          int64  // the message to scroll to, once it is loaded

	isLoading, isStale bool // the home is being read; it has changed since
	jobs               []job
	input              editor
	drafts             map[string]editor
	notes              map[string][]note // by conversation
	flash              string            // result or error of the last command
	panel              *panel
	isLeaving          bool
	hasColours         bool // of people
	err                error
}

// snapshot is the state of the home that the UI draws.
type snapshot struct {
	open    string
	list    []client.Conversation
	history []client.Event
	waiting []client.Event
	pending int  // in all conversations
	isAll   bool // there is no older history
}

// note is an event of a conversation other than a message.
type note struct {
	at   time.Time
	text string
}

// job is a line to execute in the conversation that was open when it was typed, or, if it was
// typed after a line that opens another one, in that one.
type job struct {
	conv, line string
	follows    bool
}

// turns reports whether the line may open another conversation.
func (j job) turns() bool {
	command, _, _ := strings.Cut(j.line, " ")
	return command == "/dm" || command == "/room" || command == "/open"
}

// panel shows an answer in place of the history.
type panel struct {
	title string
	lines []string
	hits  []client.Event // the same as lines, if it was a search
	at    int            // the first line that is shown, or the selected hit
}

const (
	depthStep = 200
	notesMax  = 200
	inputMax  = 5
)

// The messages of Update.
type (
	snapshotMsg struct {
		snapshot
		err error
	}
	eventMsg struct {
		event client.Event
		err   error
	}
	stateMsg struct {
		state   client.State
		changed <-chan struct{}
	}
	replyMsg struct {
		job   job
		reply reply
		err   error
	}
	leftMsg struct{ err error }
	readMsg struct{ err error }
	// changedMsg reports that another process may have changed the home.
	changedMsg struct{}
)

func newUI(ctx context.Context, t *Terminal) *ui {
	return &ui{ctx: ctx, chat: t, zone: time.Local, depth: depthStep,
		drafts: map[string]editor{}, notes: map[string][]note{}}
}

// runUI runs the terminal UI until its end, which waits a moment for pending messages.
func runUI(ctx context.Context, t *Terminal) error {
	if t.isGuest {
		return ErrNoGuests
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	m := newUI(running, t)
	m.hasColours = t.hasColours
	err := runProgram(ctx, m, t.in.(*os.File), t.out)
	if err == nil {
		err = m.err
	}
	if err == nil || ctx.Err() != nil { // by a signal
		err = t.undelivered(context.WithoutCancel(ctx))
	}
	return err
}

// Init starts the first jobs.
func (m *ui) Init() tea.Cmd {
	return tea.Batch(m.load(), m.nextEvent(nil), m.watchState(nil), m.watchPrograms())
}

// load reads the home, or records that it has to be read again.
func (m *ui) load() tea.Cmd {
	if m.isLoading {
		m.isStale = true
		return nil
	}
	m.isLoading, m.isStale = true, false
	ctx, t, open, depth := m.ctx, m.chat, m.open, m.depth
	return func() tea.Msg {
		s, err := readSnapshot(ctx, t.client, open, depth)
		return snapshotMsg{s, err}
	}
}

func readSnapshot(ctx context.Context, c *client.Client, open string, depth int) (snapshot, error) {
	s := snapshot{open: open}
	list, err := c.Conversations(ctx)
	if err != nil {
		return s, err
	}
	s.list = list
	if s.pending, err = c.Pending(ctx); err != nil || open == "" {
		return s, err
	}
	for before := int64(0); len(s.history) < depth && !s.isAll; before = s.history[0].Seq {
		page, err := c.History(ctx, open, before, min(depth-len(s.history), 1000))
		if err != nil {
			return s, err
		}
		s.history = append(page, s.history...)
		s.isAll = len(page) == 0
		if len(s.history) == 0 {
			break
		}
	}
	s.waiting, err = c.Waiting(ctx, open)
	return s, err
}

// nextEvent waits for the next event, once the previous one is handled.
func (m *ui) nextEvent(shown *client.Event) tea.Cmd {
	ctx, c := m.ctx, m.chat
	return func() tea.Msg {
		if shown != nil {
			if err := c.client.Ack(ctx, shown.ID); err != nil {
				return eventMsg{err: err}
			}
		}
		e, err := c.audience.next(ctx, c.client)
		return eventMsg{e, err}
	}
}

// watchState waits until the connection changes, or reports its state at once.
func (m *ui) watchState(changed <-chan struct{}) tea.Cmd {
	ctx, c := m.ctx, m.chat
	return func() tea.Msg {
		if changed != nil {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
		state, changed := c.client.State()
		return stateMsg{state, changed}
	}
}

// watchPrograms waits until another process may have changed the home.
func (m *ui) watchPrograms() tea.Cmd {
	ctx, c := m.ctx, m.chat
	return func() tea.Msg {
		select {
		case <-c.audience.changed:
			return changedMsg{}
		case <-ctx.Done():
			return nil
		}
	}
}

// do queues a line after those that are being executed.
func (m *ui) do(line string) tea.Cmd {
	m.jobs = append(m.jobs, job{m.open, line, slices.ContainsFunc(m.jobs, job.turns)})
	if len(m.jobs) > 1 {
		return nil
	}
	return m.work()
}

// work executes the first line of the queue.
func (m *ui) work() tea.Cmd {
	j, ctx, t := m.jobs[0], m.ctx, m.chat
	if j.follows {
		j.conv = m.open
	}
	return func() tea.Msg {
		t.conv = j.conv
		r, err := t.obey(ctx, j.line)
		return replyMsg{j, r, err}
	}
}

// Update handles a message of the program.
func (m *ui) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case sizeMsg:
		m.width, m.height = msg.width-1, msg.height
		return m, m.layOut()
	case measureMsg:
		m.measure = msg.measure
		return m, m.layOut()
	case redrawMsg:
		return m, tea.ClearScreen
	case tea.KeyMsg:
		return m, m.key(msg)
	case snapshotMsg:
		if msg.err != nil {
			return m, m.fail(msg.err)
		}
		return m, m.take(msg.snapshot)
	case eventMsg:
		if msg.err != nil {
			return m, m.fail(msg.err)
		}
		for _, text := range m.chat.noteOf(msg.event) {
			if isInHistory(msg.event) {
				break
			}
			m.note(msg.event.Conversation, note{msg.event.Time, text})
		}
		if isInHistory(msg.event) && msg.event.By.Account == m.chat.self && !m.isLeaving {
			m.flash = "" // what it announced is done
		}
		return m, tea.Batch(m.load(), m.nextEvent(&msg.event))
	case stateMsg:
		m.state = msg.state
		return m, tea.Batch(m.load(), m.watchState(msg.changed))
	case replyMsg:
		return m, m.answer(msg)
	case changedMsg:
		return m, tea.Batch(m.load(), m.watchPrograms())
	case readMsg:
		if msg.err != nil {
			return m, m.fail(msg.err)
		}
		return m, m.load()
	case leftMsg:
		if !m.isOurEnd(msg.err) {
			m.err = msg.err
		}
		return m, tea.Quit
	}
	return m, nil
}

// layOut lays everything out for another size or measure.
func (m *ui) layOut() tea.Cmd {
	m.wraps = nil
	m.scroll = min(m.scroll, m.scrollMax())
	return tea.ClearScreen
}

func redraw() tea.Msg { return redrawMsg{} }

// fail ends the UI with an error, unless that is the end itself.
func (m *ui) fail(err error) tea.Cmd {
	if m.isOurEnd(err) {
		return nil
	}
	m.err = err
	return tea.Quit
}

func (m *ui) isOurEnd(err error) bool {
	return err == nil || errors.Is(err, context.Canceled) || errors.Is(err, client.ErrClosed)
}

func (m *ui) note(conv string, n note) {
	if conv == "" {
		m.flash = n.text
		return
	}
	kept := append(m.notes[conv], n)
	m.notes[conv] = kept[max(0, len(kept)-notesMax):]
}

// take shows a new snapshot. If the history was scrolled back, the line at the bottom
// stays there.
func (m *ui) take(s snapshot) tea.Cmd {
	m.isLoading = false
	if s.open != m.open {
		m.snap.list, m.snap.pending = s.list, s.pending
		return m.load()
	}
	m.announce(s.list)
	m.keepPlace(func() { m.snap = s })
	m.reachGoal()
	var again tea.Cmd
	if m.isStale {
		again = m.load()
	}
	if m.open == "" && len(s.list) > 0 {
		return tea.Batch(again, m.turnTo(firstShown(s.list)))
	}
	return tea.Batch(again, m.markRead())
}

// announce says that there is a new conversation, where the list is not shown.
func (m *ui) announce(list []client.Conversation) {
	for _, c := range list {
		isKnown := func(old client.Conversation) bool { return old.ID == c.ID }
		if len(m.snap.list) > 0 && m.open != c.ID && !m.hasSide() && !slices.ContainsFunc(m.snap.list, isKnown) {
			m.flash = "there is a new conversation, " + m.chat.titleOf(c) + ": Tab turns to it"
		}
	}
}

// firstShown returns the conversation to begin with: the first with unread messages, or else
// the one with the last message.
func firstShown(list []client.Conversation) string {
	for _, c := range list {
		if c.Unread > 0 {
			return c.ID
		}
	}
	return list[0].ID
}

// markRead records that the messages on the screen were read.
func (m *ui) markRead() tea.Cmd {
	c, ok := m.conversation()
	if !ok || c.Unread == 0 || m.scroll > 0 || m.panel != nil || m.width == 0 || len(m.snap.history) == 0 {
		return nil
	}
	last := m.snap.history[len(m.snap.history)-1].Seq
	if last <= c.ReadSeq {
		return nil
	}
	ctx, sdk := m.ctx, m.chat
	return func() tea.Msg { return readMsg{sdk.client.MarkRead(ctx, c.ID, last)} }
}

// conversation returns the one that is open.
func (m *ui) conversation() (client.Conversation, bool) {
	i := slices.IndexFunc(m.snap.list, func(c client.Conversation) bool { return c.ID == m.open })
	if i < 0 {
		return client.Conversation{}, false
	}
	return m.snap.list[i], true
}

// turnTo opens a conversation, with the input that was being typed there.
func (m *ui) turnTo(conv string) tea.Cmd {
	m.panel = nil
	if conv == m.open {
		return m.load()
	}
	m.drafts[m.open] = m.input
	m.open, m.input = conv, m.drafts[conv]
	m.depth, m.scroll, m.goal, m.wraps = depthStep, 0, 0, nil
	m.snap.open, m.snap.history, m.snap.waiting, m.snap.isAll = conv, nil, nil, false
	return m.load()
}

// answer shows the result of a line and executes the next one.
func (m *ui) answer(msg replyMsg) tea.Cmd {
	m.jobs = m.jobs[1:]
	r := msg.reply
	var turned tea.Cmd
	switch {
	case msg.err != nil && m.isOurEnd(msg.err):
		return nil
	case msg.err != nil:
		m.refuse(msg)
		r = reply{}
	case !m.isLeaving:
		m.flash = "" // of an earlier line
	}
	switch {
	case r.quit && !m.isLeaving:
		m.jobs = nil // nothing is executed after the end
		return m.leave()
	case r.opened != "":
		turned = m.turnTo(r.opened)
	case r.title != "":
		m.panel = &panel{title: r.title, lines: r.lines, hits: r.hits}
	case len(r.lines) > 0:
		m.flash = r.lines[len(r.lines)-1]
	}
	var next tea.Cmd
	switch {
	case len(m.jobs) > 0:
		next = m.work()
	case m.isLeaving:
		next = m.farewell()
	}
	return tea.Batch(turned, next, m.load())
}

// refuse shows the error of a line and puts the line back into the input, with the text typed
// for the conversation that it did not open.
func (m *ui) refuse(msg replyMsg) {
	m.flash = msg.err.Error()
	back := msg.job.line
	if msg.job.turns() {
		for len(m.jobs) > 0 && m.jobs[0].follows {
			back += "\n" + m.jobs[0].line
			m.jobs = m.jobs[1:]
		}
	}
	switch {
	case m.open != msg.job.conv && !msg.job.follows:
		if d := m.drafts[msg.job.conv]; d.isEmpty() {
			m.drafts[msg.job.conv] = newEditor(back)
		}
	case m.input.isEmpty():
		m.input = newEditor(back)
	default:
		m.input = newEditor(back + "\n" + m.input.String())
	}
}

// leave ends the chat, after a moment for pending messages; called twice, at once.
func (m *ui) leave() tea.Cmd {
	if m.isLeaving {
		return tea.Quit
	}
	m.isLeaving = true
	m.flash = "delivering what was typed; Ctrl+C again leaves it for the next time"
	return m.farewell()
}

// farewell waits until the outbox is empty, once every line is in it.
func (m *ui) farewell() tea.Cmd {
	if len(m.jobs) > 0 {
		return nil
	}
	ctx, t := m.ctx, m.chat
	return func() tea.Msg {
		return leftMsg{t.flush(ctx)}
	}
}
