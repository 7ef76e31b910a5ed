package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"waxwing.im/waxwing/client"
)

// finding is the outcome of one check.
type finding struct {
	what string
	err  error
}

func (f finding) String() string {
	if f.err != nil {
		return fmt.Sprintf("FAILED  %s: %v", f.what, f.err)
	}
	return "ok      " + f.what
}

// check examines the end of the story: did all people see the same messages, and did the server
// learn no content?
func (s *stage) check(ctx context.Context) []finding {
	findings := []finding{
		{"everybody saw every message once, in one order", s.checkOrder()},
		{"nobody's sequence has a gap", s.checkSeq()},
		{"all three agree on the epoch authenticator", s.checkAuthenticators(ctx)},
	}
	raw, frames := s.wire.carried()
	places := []struct {
		what    string
		pieces  [][]byte
		control string // a text that must be found, or the search is broken
	}{
		{"no plaintext on the network", raw, "GET /v1/ws"},
		{fmt.Sprintf("no plaintext in the %d WebSocket frames", len(frames)), frames, s.room},
		{"no plaintext in the logs, the server's and the clients'", [][]byte{s.log.bytes()}, s.server.DID()},
	}
	for _, place := range places {
		findings = append(findings, finding{place.what, search(place.pieces, place.control)})
	}
	files, err := readTree(filepath.Join(s.dir, "server"))
	if err == nil {
		err = search(files, s.room)
	}
	findings = append(findings, finding{fmt.Sprintf("no plaintext in the %d files of the server's database and its WAL", len(files)), err})
	for _, p := range s.people {
		files, err := readTree(filepath.Join(s.dir, p.name))
		if err == nil {
			err = search(files, "SQLite format 3")
		}
		findings = append(findings, finding{"no plaintext on the disk of " + p.name, err})
	}
	return findings
}

// messages returns the person's messages, in order.
func (p *person) messages() []client.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	var messages []client.Event
	for _, e := range p.seen {
		if e.Type == client.EventMessage {
			messages = append(messages, e)
		}
	}
	return messages
}

func (s *stage) checkOrder() error {
	first := s.people[0].messages()
	if len(first) != len(demoLines) {
		return fmt.Errorf("%s saw %d messages, not %d", s.people[0].name, len(first), len(demoLines))
	}
	for _, p := range s.people {
		messages := p.messages()
		if len(messages) != len(first) {
			return fmt.Errorf("%s saw %d messages and %s %d", s.people[0].name, len(first), p.name, len(messages))
		}
		for i, m := range messages {
			if m.Seq != first[i].Seq || !bytes.Equal(m.Text, first[i].Text) || m.From.Account != first[i].From.Account {
				return fmt.Errorf("%s and %s differ at message %d", s.people[0].name, p.name, i+1)
			}
			if !m.From.Verified {
				return fmt.Errorf("%s: the sender of seq %d is not verified", p.name, m.Seq)
			}
		}
	}
	return nil
}

// checkSeq checks the seqs of all messages and group changes of a log: 1, 2, 3, … from the
// person's first one.
func (s *stage) checkSeq() error {
	for _, p := range s.people {
		p.mu.Lock()
		seen := slices.Clone(p.seen)
		p.mu.Unlock()
		var last int64
		for _, e := range seen {
			if e.Conversation != s.room || e.Seq == 0 {
				continue
			}
			if last != 0 && e.Seq != last+1 {
				return fmt.Errorf("%s: seq %d after %d", p.name, e.Seq, last)
			}
			last = e.Seq
		}
	}
	return nil
}

func (s *stage) checkAuthenticators(ctx context.Context) error {
	var first []byte
	for _, p := range s.people {
		authenticator, epoch, err := p.client.EpochAuthenticator(ctx, s.room)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if len(authenticator) == 0 {
			return fmt.Errorf("%s has none", p.name)
		}
		if first == nil {
			first = authenticator
		}
		if !bytes.Equal(authenticator, first) {
			return fmt.Errorf("%s has another one, in epoch %d", p.name, epoch)
		}
	}
	return nil
}

// search looks for each line of the story in every encoding in which it could have leaked, and
// for the control, which must be found.
func search(pieces [][]byte, control string) error {
	isFound := false
	for _, piece := range pieces {
		isFound = isFound || bytes.Contains(piece, []byte(control))
		for _, line := range demoLines {
			for form, bytesOf := range disguises(line) {
				if bytes.Contains(piece, bytesOf) {
					return fmt.Errorf("%q was found, %s", line, form)
				}
			}
		}
	}
	if !isFound {
		return errors.New("the control text was not found either: the search is broken")
	}
	return nil
}

// disguises returns the encodings of a text: unchanged, in hex, and in base64, where the
// preceding bytes shift it by none, one or two.
func disguises(line string) map[string][]byte {
	forms := map[string][]byte{"as it is": []byte(line), "in hex": []byte(hex.EncodeToString([]byte(line)))}
	for shift := range 3 {
		whole := line[(3-shift)%3:] // begins at a boundary of three bytes
		whole = whole[:len(whole)/3*3]
		forms[fmt.Sprintf("in base64, shifted by %d", shift)] = []byte(base64.RawStdEncoding.EncodeToString([]byte(whole)))
	}
	return forms
}

// readTree reads all files below dir. Files that disappear meanwhile are ignored.
func readTree(dir string) ([][]byte, error) {
	var files [][]byte
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files = append(files, content)
		return err
	})
	return files, err
}

// printTable prints each message as the people see it beside the server's view of it.
func (s *stage) printTable(w io.Writer) {
	names := map[string]string{}
	for _, p := range s.people {
		names[p.client.Self().Account] = p.name
	}
	envelopes := s.envelopes()
	seen := map[int64]string{}
	seenBy := map[int64][]string{}
	for _, p := range s.people {
		for _, m := range p.messages() {
			seen[m.Seq] = names[m.From.Account] + ": " + string(m.Text)
			seenBy[m.Seq] = append(seenBy[m.Seq], p.name)
		}
	}
	const textWidth, byWidth, envelopeWidth = 63, 12, 32
	fmt.Fprintf(w, "%4s  %-*s  %-*s  %s\n", "seq", textWidth, "what the people see", byWidth, "seen by", "what the server saw")
	for _, seq := range slices.Sorted(maps.Keys(envelopes)) {
		text := seen[seq]
		if text == "" {
			text = "(a commit: the group changes its keys)"
		}
		envelope := envelopes[seq]
		shown := envelope[max(0, len(envelope)-envelopeWidth):] // it begins with the group's id
		fmt.Fprintf(w, "%4d  %-*s  %-*s  %4d characters …%s\n", seq, textWidth, text, byWidth, strings.Join(seenBy[seq], " "), len(envelope), shown)
	}
}

// envelopes returns the messages of the room as the server delivered them, by seq.
func (s *stage) envelopes() map[int64]string {
	found := map[int64]string{}
	_, frames := s.wire.carried()
	for _, text := range frames {
		var frame struct {
			Type string `json:"t"`
			Body struct {
				Conversation string `json:"conv_id"`
				Seq          int64  `json:"seq"`
				Envelope     string `json:"env"`
			} `json:"body"`
		}
		if json.Unmarshal(text, &frame) == nil && frame.Type == "conv.event" && frame.Body.Conversation == s.room {
			found[frame.Body.Seq] = frame.Body.Envelope
		}
	}
	return found
}
