package main

import (
	"encoding/json"
	"fmt"
	"io"
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
	self   string

	// saying is held while a message enters the outbox, so that it is known as one
	// of this chat before its echo can come.
	saying sync.Mutex

	mu    sync.Mutex // guards the rest
	out   io.Writer
	err   error            // the first of writing
	typed map[string]bool  // messages of this chat, which the terminal shows already
	shown map[string]int64 // the last seq of each conversation
	conv  string
}

func newScreen(out io.Writer, asJSON bool, self string) *screen {
	return &screen{out: out, asJSON: asJSON, self: self,
		typed: map[string]bool{}, shown: map[string]int64{}}
}

// item is one JSON line. Scripts rely on the first six fields.
type item struct {
	Type string `json:"type"` // message, state, joined, left or error
	Conv string `json:"conv,omitempty"`
	From string `json:"from,omitempty"`
	Text string `json:"text,omitempty"`
	Seq  int64  `json:"seq,omitempty"`
	TS   int64  `json:"ts"` // milliseconds

	ID         string `json:"id,omitempty"`    // of a message
	Event      int64  `json:"event,omitempty"` // grows; after a crash the same one may come twice
	Own        bool   `json:"own,omitempty"`
	Unverified bool   `json:"unverified,omitempty"` // the account does not vouch for the device
	Code       string `json:"code,omitempty"`       // of an error
}

// said notes a message that was typed here.
func (s *screen) said(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.typed[id] = true
}

// open shows whom the next lines go to, and what was said before. Scripts have the
// events and get no history.
func (s *screen) open(conv, peer string, history []client.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conv = conv
	if s.asJSON {
		return
	}
	s.printf("-- talking to %s\n", peer)
	for _, e := range history {
		s.message(e)
	}
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
		} else if i.Type != "message" {
			s.line(i)
		} else if !s.typed[e.MessageID] {
			s.message(e)
		}
	}
	delete(s.typed, e.MessageID)
	return s.err
}

// items are the lines that tell of an event.
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
		i.ID, i.Own, i.Unverified = e.MessageID, e.Own, !e.From.Verified
		return []item{i}
	case client.EventJoined:
		return []item{about("joined", s.self, "")}
	case client.EventRemoved:
		return []item{about("left", s.self, "")}
	case client.EventMembers:
		var items []item
		for _, m := range e.Members {
			items = append(items, about("joined", m.Account, ""))
		}
		for _, m := range e.Gone {
			items = append(items, about("left", m.Account, ""))
		}
		return items
	}
	i := about("error", e.From.Account, e.Problem)
	i.Code, i.ID = e.Code, e.MessageID
	if i.Text == "" {
		i.Text = string(e.Type)
	}
	if i.Code == "" {
		i.Code = string(e.Type)
	}
	return []item{i}
}

// state prints how the connection is.
func (s *screen) state(state string) {
	s.print(item{Type: "state", Text: state, TS: time.Now().UnixMilli()})
}

// complain prints what went wrong.
func (s *screen) complain(conv, text string) {
	s.print(item{Type: "error", Conv: conv, Text: text, TS: time.Now().UnixMilli()})
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
	text, err := json.Marshal(i)
	if err != nil {
		panic(err) // numbers and texts
	}
	s.printf("%s\n", text)
}

// line prints what is no message.
func (s *screen) line(i item) {
	switch i.Type {
	case "joined":
		s.printf("-- %s joined\n", short(i.From))
	case "left":
		s.printf("-- %s left\n", short(i.From))
	default:
		s.printf("-- %s\n", printable(i.Text))
	}
}

// message prints a message, once, with its conversation if that is not the one that
// lines go to.
func (s *screen) message(e client.Event) {
	if e.Seq <= s.shown[e.Conversation] {
		return
	}
	s.shown[e.Conversation] = e.Seq
	who := short(e.From.Account)
	if e.From.Account == s.self {
		who = "me"
	} else if !e.From.Verified {
		who += " (unverified)"
	}
	elsewhere := ""
	if e.Conversation != s.conv {
		elsewhere = " in " + printable(e.Conversation)
	}
	s.printf("%s %s%s: %s\n", e.Time.Local().Format("15:04"), who, elsewhere, printable(string(e.Text)))
}

func (s *screen) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format, args...); err != nil && s.err == nil {
		s.err = err
	}
}

// short is the end of a DID, which tells people apart where its beginning does not.
func short(did string) string {
	const shown = 8
	if len(did) <= shown {
		return printable(did)
	}
	return "…" + printable(did[len(did)-shown:])
}

// printable keeps others' texts from steering the terminal: control characters and
// what turns the direction of writing become a mark.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		const joiner = '\u200d' // holds emoji together
		if unicode.IsGraphic(r) || r == '\t' || r == joiner {
			return r
		}
		return '\uFFFD'
	}, text)
}
