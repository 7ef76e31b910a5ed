package chat

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"waxwing.im/waxwing/client"
)

// screen prints what happens in a chat, as lines for people or as JSON for scripts.
// It is safe for concurrent use.
type screen struct {
	asJSON bool
	chat   *Terminal // for names; not what it does

	// saying is held while a message enters the outbox, so that it is recorded as one of this
	// chat before its echo can arrive.
	saying sync.Mutex

	mu    sync.Mutex // guards the rest
	out   io.Writer
	err   error            // the first of writing
	typed map[string]bool  // messages of this chat, which the terminal shows already
	shown map[string]int64 // the last seq of each conversation
	// changed is the time of the last change of each conversation that the history has.
	changed map[string]time.Time
	conv    string
}

func newScreen(t *Terminal, asJSON bool) *screen {
	return &screen{out: t.out, asJSON: asJSON, chat: t,
		typed: map[string]bool{}, shown: map[string]int64{}, changed: map[string]time.Time{}}
}

// item is one JSON line. Scripts rely on the first six fields.
type item struct {
	Type string `json:"type"` // message, state, joined, left, role, title, name, error, opened, info or found
	Conv string `json:"conv,omitempty"`
	From string `json:"from,omitempty"`
	Text string `json:"text,omitempty"`
	Seq  int64  `json:"seq,omitempty"`
	TS   int64  `json:"ts"` // milliseconds

	Name       string `json:"name,omitempty"`  // of From, as people see it
	ID         string `json:"id,omitempty"`    // of a message
	Event      int64  `json:"event,omitempty"` // grows; after a crash the same event may be printed twice
	Own        bool   `json:"own,omitempty"`
	Unverified bool   `json:"unverified,omitempty"` // the account has not confirmed the device
	Trusted    bool   `json:"trusted,omitempty"`    // a person has compared the sender's safety number
	Code       string `json:"code,omitempty"`       // of an error, or the reason of a state
	Problem    string `json:"problem,omitempty"`    // the reason of a state as a sentence
	By         string `json:"by,omitempty"`         // who added or removed the device, or changed the role or title; absent if the account left
	Device     bool   `json:"device,omitempty"`     // of joined and left: only a device, of an account that is in the conversation anyway
}

// said records a message that was typed here.
func (s *screen) said(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.typed[id] = true
}

// open shows the conversation that the next lines go to, and its history. Scripts have
// the events and get no history.
func (s *screen) open(c client.Conversation, history []client.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conv = c.ID
	if s.asJSON {
		s.json(item{Type: "opened", Conv: c.ID, From: c.Peer, TS: time.Now().UnixMilli()})
		return
	}
	title := s.chat.titleOf(c)
	if c.Kind == client.DM {
		title = c.Peer + s.chat.people.accountMark(c, c.Peer)
		if s.chat.people.labelOf(c.Peer) != "" {
			title = s.chat.titleOf(c) + ", " + c.Peer
		}
	}
	s.printf("-- talking to %s\n", printable(title))
	for _, e := range history {
		if e.Type == client.EventMessage {
			s.message(e)
		} else {
			s.change(e)
		}
	}
}

// answer prints the result of a command.
func (s *screen) answer(r reply) {
	for _, line := range r.lines {
		s.print(item{Type: "info", Conv: s.chat.conv, Text: line, TS: time.Now().UnixMilli()})
	}
	s.found(r.hits)
}

// found prints the messages of a search.
func (s *screen) found(hits []client.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range hits {
		if s.asJSON {
			i := s.items(e)[0]
			i.Type = "found"
			s.json(i)
			continue
		}
		s.printf("%s %s in %s: %s\n", e.Time.Local().Format("2006-01-02 15:04"), s.chat.people.nameOf(e.From), printable(e.Conversation), indented(string(e.Text)))
	}
}

// indented indents the further lines of a text, so that they cannot be taken for lines of
// the chat itself.
func indented(text string) string {
	parts := strings.Split(text, "\n")
	for i := range parts {
		parts[i] = printable(parts[i])
	}
	return strings.Join(parts, "\n      ")
}

// show prints an event.
func (s *screen) show(e client.Event) error {
	s.saying.Lock() // until the message that this may echo is known as typed
	defer s.saying.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.items(e) {
		if s.asJSON {
			s.json(i)
		} else if e.Type != client.EventMessage {
			s.change(e)
			break
		} else if !s.typed[e.MessageID] {
			s.message(e)
		}
	}
	delete(s.typed, e.MessageID)
	return s.err
}

// items returns the JSON lines of an event.
func (s *screen) items(e client.Event) []item {
	base := item{Conv: e.Conversation, Seq: e.Seq, TS: e.Time.UnixMilli(), Event: e.ID}
	about := func(kind, who, text string) item {
		i := base
		i.Type, i.From, i.Text = kind, who, text
		return i
	}
	switch e.Type {
	case client.EventMessage:
		i := about("message", e.From.Account, string(e.Text))
		i.ID, i.Own, i.Unverified, i.Trusted = e.MessageID, e.Own, !e.From.Verified, e.From.Trusted
		return []item{i}
	case client.EventName:
		return []item{about("name", e.From.Account, e.Name)}
	case client.EventJoined:
		i := about("joined", s.chat.self, "")
		i.By = e.By.Account
		return []item{i}
	case client.EventRemoved:
		i := about("left", s.chat.self, "")
		i.By = e.By.Account
		return []item{i}
	case client.EventMembers:
		var items []item
		for _, list := range []struct {
			kind    string
			devices []client.Member
		}{{"joined", e.Members}, {"left", e.Gone}} {
			for _, m := range list.devices {
				i := about(list.kind, m.Account, "")
				if !slices.Contains(e.Left, m.Account) {
					i.By = e.By.Account
				}
				i.Device = !slices.Contains(slices.Concat(e.Added, e.Removed, e.Left), m.Account)
				items = append(items, i)
			}
		}
		return items
	}
	if e.Type == client.EventTitle {
		i := about("title", "", e.Title)
		i.By = e.By.Account
		return []item{i}
	}
	if e.Type == client.EventRoles {
		var items []item
		for _, change := range e.Roles {
			i := about("role", change.Account, change.Role)
			i.By = e.By.Account
			items = append(items, i)
		}
		return items
	}
	i := about("error", e.From.Account, strings.Join(s.chat.noteOf(e), "; "))
	i.Code, i.ID = e.Code, e.MessageID
	if i.Code == "" {
		i.Code = string(e.Type)
	}
	return []item{i}
}

// state prints the state of the connection.
func (s *screen) state(state client.State) {
	i := item{Type: "state", Text: state.Link.String(), Code: string(state.Reason()), Problem: state.Problem(), TS: time.Now().UnixMilli()}
	if !s.asJSON {
		i.Text = stateText(state)
	}
	s.print(i)
}

// complain prints an error.
func (s *screen) complain(conv string, err error) {
	s.print(item{Type: "error", Conv: conv, Code: CodeOf(err), Text: err.Error(), TS: time.Now().UnixMilli()})
}

// raw prints a line of JSON.
func (s *screen) raw(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printf("%s\n", line)
}

func (s *screen) print(i item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asJSON {
		s.json(i)
		return
	}
	s.line(i)
}

func (s *screen) json(i item) {
	i.Name = s.chat.people.labelOf(i.From)
	text, err := json.Marshal(i)
	if err != nil {
		panic(err) // numbers and texts
	}
	s.printf("%s\n", text)
}

// line prints an item other than a message.
func (s *screen) line(i item) {
	s.printf("-- %s\n", printable(i.Text))
}

// change prints an event other than a message, once if the history has it.
func (s *screen) change(e client.Event) {
	if isInHistory(e) {
		if !e.Time.After(s.changed[e.Conversation]) {
			return
		}
		s.changed[e.Conversation] = e.Time
	}
	for _, note := range s.chat.noteOf(e) {
		s.line(item{Text: note})
	}
}

// message prints a message, once, with its conversation if that is not the one that
// lines go to.
func (s *screen) message(e client.Event) {
	if e.Seq <= s.shown[e.Conversation] {
		return
	}
	s.shown[e.Conversation] = e.Seq
	elsewhere := ""
	if e.Conversation != s.conv {
		elsewhere = " in " + printable(e.Conversation)
	}
	s.printf("%s %s%s: %s\n", clock(e.Time, time.Local), s.chat.people.nameOf(e.From), elsewhere, indented(string(e.Text)))
}

func (s *screen) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format, args...); err != nil && s.err == nil {
		s.err = err
	}
}

// printable replaces characters that control a terminal in the texts of others: control
// characters and those that change the direction of writing. More than a few combining marks on
// one character, which would reach into other lines, are left out.
func printable(text string) string {
	marks, tags := 0, 0
	return strings.Map(func(r rune) rune {
		if r >= tagFirst && r <= tagLast && tags > 0 {
			tags--
			return r
		}
		tags = 0
		if unicode.In(r, unicode.Mn, unicode.Me) || r == joiner || r == nonJoiner {
			if marks++; marks > marksMax {
				return -1
			}
			return r
		}
		marks = 0
		if r == blackFlag {
			tags = tagsMax
		}
		if unicode.IsGraphic(r) || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// marksMax is the number of combining marks and joiners that a character may have; no script
// needs more.
const marksMax = 4

// A flag of a region is a black flag and the name of the region in tags.
const (
	blackFlag = '\U0001f3f4'
	tagFirst  = '\U000e0020'
	tagLast   = '\U000e007f'
	tagsMax   = 7
)

// clock formats the time of a message.
func clock(at time.Time, zone *time.Location) string { return at.In(zone).Format("15:04") }

// print prints lines, which may contain texts of others.
func (t *Terminal) print(lines ...string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(t.out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Terminal) printJSON(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "%s\n", text)
	return err
}
