package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
)

type chatListCommand struct {
	JSON bool `name:"json" help:"Print JSON lines {conv, kind, phase, unread, members, inviting, problem}."`
	chatOptions
}

// conversationItem is one JSON line of a conversation.
type conversationItem struct {
	Conv     string   `json:"conv"`
	Kind     string   `json:"kind"`
	Phase    string   `json:"phase"`
	Role     string   `json:"role,omitempty"`
	Peer     string   `json:"peer,omitempty"`
	Unread   int      `json:"unread"`
	Members  []string `json:"members"`
	Inviting []string `json:"inviting,omitempty"`
	Problem  string   `json:"problem,omitempty"`
}

// Run lists.
func (c *chatListCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		all, err := t.client.Conversations(ctx)
		if err != nil {
			return err
		}
		for _, conv := range all {
			if !c.JSON {
				line := conv.ID + "  " + t.titleOf(conv)
				if conv.Unread > 0 {
					line += fmt.Sprintf("  %d unread", conv.Unread)
				}
				if note := phaseNote(conv); note != "" {
					line += "  " + note
				}
				if err := printLines(std, []string{line}); err != nil {
					return err
				}
				continue
			}
			members := append([]string{}, accountsOf([]client.Conversation{{Members: conv.Members}})...)
			i := conversationItem{conv.ID, string(conv.Kind), conv.Phase.String(), conv.Role, conv.Peer, conv.Unread,
				members, conv.Inviting, conv.Problem}
			if err := printJSONLine(std.out, i); err != nil {
				return err
			}
		}
		return nil
	})
}

type chatSearchCommand struct {
	Words  []string `arg:"" help:"Words, or parts of words, that have to be in the message; upper and lower case are alike."`
	In     string   `placeholder:"CONVERSATION" help:"Only in this conversation: its id, the beginning of it, or the person of a direct one."`
	From   string   `placeholder:"DID" help:"Only what this person wrote."`
	After  string   `placeholder:"DATE" help:"Only from this day on: 2026-12-31, or a time as in RFC 3339."`
	Before string   `placeholder:"DATE" help:"Only before this day or time."`
	Limit  int      `default:"100" placeholder:"N" help:"At most so many, 1–1000."`
	JSON   bool     `name:"json" help:"Print JSON lines as chat dm does, with type found."`
	chatOptions
}

// Run searches the history of this device, newest first.
func (c *chatSearchCommand) Run(ctx context.Context, std streams, g *globals) error {
	q := client.Query{Text: strings.Join(c.Words, " "), Limit: c.Limit}
	if c.Limit < 1 || c.Limit > 1000 {
		return usageError{errors.New("limit: want 1–1000")}
	}
	var err error
	if q.After, err = day("after", c.After); err != nil {
		return err
	}
	if q.Before, err = day("before", c.Before); err != nil {
		return err
	}
	if !q.After.IsZero() {
		q.After = q.After.Add(-time.Nanosecond) // the query leaves its bounds out
	}
	return c.within(ctx, g, func(t *chat) error {
		if c.From != "" {
			if q.From, err = t.person(ctx, c.From); err != nil {
				return usageOf(err)
			}
		}
		if c.In != "" {
			conv, err := t.find(ctx, c.In)
			if err != nil {
				return usageOf(err)
			}
			q.Conversation = conv.ID
		}
		hits, err := t.client.Search(ctx, q)
		if err != nil {
			return err
		}
		s := newScreen(std.out, c.JSON, t)
		s.found(hits)
		return s.err
	})
}

// day reads a date, which begins at midnight here, or a time; the zero time for "".
func day(option, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	at, err := time.ParseInLocation(time.DateOnly, text, time.Local)
	if err != nil {
		return at, usageError{fmt.Errorf("%s: %q is no date: want 2026-12-31, or a time as in RFC 3339", option, text)}
	}
	return at, nil
}
