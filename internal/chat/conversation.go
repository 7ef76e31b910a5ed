package chat

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"waxwing.im/waxwing/client"
)

// conversationItem is a conversation as a JSON line.
type conversationItem struct {
	Conv     string   `json:"conv"`
	Kind     string   `json:"kind"`
	Phase    string   `json:"phase"`
	Role     string   `json:"role,omitempty"`
	Peer     string   `json:"peer,omitempty"`
	Name     string   `json:"name,omitempty"` // of the peer, as it is shown
	Unread   int      `json:"unread"`
	Members  []string `json:"members"`
	Inviting []string `json:"inviting,omitempty"`
	Problem  string   `json:"problem,omitempty"`

	Roles       map[string]string `json:"roles,omitempty"`
	Title       string            `json:"title,omitempty"`
	ServerTitle string            `json:"server_title,omitempty"` // which the server can read, and may have made up
}

// List prints the conversations, the one with the last message first.
func (t *Terminal) List(ctx context.Context, asJSON bool) error {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	for _, conv := range all {
		if asJSON {
			err = t.printJSON(t.people.itemOf(conv))
		} else {
			line := conv.ID + "  " + t.titleOf(conv)
			if conv.Unread > 0 {
				line += fmt.Sprintf("  %d unread", conv.Unread)
			}
			if note := t.people.phaseNote(conv); note != "" {
				line += "  " + note
			}
			err = t.print(line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p people) itemOf(conv client.Conversation) conversationItem {
	members := append([]string{}, accountsOf([]client.Conversation{{Members: conv.Members}})...)
	return conversationItem{conv.ID, string(conv.Kind), conv.Phase.String(), conv.Role, conv.Peer, p.labelOf(conv.Peer), conv.Unread,
		members, conv.Inviting, conv.Problem, conv.Roles, conv.Title, conv.ServerTitle}
}

// find returns the conversation that a word names: its number in the list, its id or the
// beginning of it, its title, or the person of a direct one.
func (t *Terminal) find(ctx context.Context, word string) (client.Conversation, error) {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return client.Conversation{}, err
	}
	if n, err := strconv.Atoi(word); err == nil && n >= 1 && n <= len(all) {
		return all[n-1], nil
	}
	people, err := t.people.candidates(ctx, word)
	if err != nil {
		return client.Conversation{}, err
	}
	var found []client.Conversation
	for _, c := range all {
		if c.ID == word {
			return c, nil
		}
		if c.Title != "" && strings.EqualFold(c.Title, word) || len(word) >= nameEndMin && strings.HasPrefix(c.ID, word) || c.Peer != "" && (c.Peer == word || slices.Contains(people, c.Peer)) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return client.Conversation{}, mistake("no conversation %q here: waxwing chat list, or /list", word)
	case 1:
		return found[0], nil
	}
	return client.Conversation{}, Mistake{severalError(word)}
}

// severalError is the error of a word that names more than one conversation.
type severalError string

// Error describes it for people.
func (e severalError) Error() string {
	return fmt.Sprintf("%q means several conversations: give more of it", string(e))
}

// titleOf returns the name of a conversation, with the mark of the other person if it is
// a direct one.
func (t *Terminal) titleOf(c client.Conversation) string {
	if c.Kind == client.DM {
		return t.people.called(c.Peer) + t.people.accountMark(c, c.Peer)
	}
	return roomTitle(c)
}

// roomTitle names a room by its title or, in brackets, the one that the server holds, else by the
// beginning of its id, and by how many people are in it.
func roomTitle(c client.Conversation) string {
	name := "room " + printable(c.ID[:min(len(c.ID), nameShown)])
	switch {
	case c.Title != "":
		name = printable(c.Title)
	case c.ServerTitle != "":
		name = "[" + printable(c.ServerTitle) + "]"
	}
	var people []string
	for _, m := range c.Members {
		if !slices.Contains(people, m.Account) {
			people = append(people, m.Account)
		}
	}
	if len(people) == 0 {
		return name
	}
	return fmt.Sprintf("%s (%d)", name, len(people))
}

// phaseNote returns what a conversation waits for, or "".
func (p people) phaseNote(c client.Conversation) string {
	switch c.Phase {
	case client.Joined:
		if c.Problem != "" {
			return c.Problem
		}
		if len(c.Inviting) > 0 {
			return "waits for " + p.allCalled(c.Inviting)
		}
		if len(c.Removing) > 0 {
			return "removing " + p.allCalled(c.Removing)
		}
		return ""
	case client.Removed:
		return "no longer a member"
	case client.Leaving:
		return "leaving"
	}
	if c.Problem != "" {
		return c.Problem
	}
	switch c.Phase {
	case client.Creating:
		return "waits for the server"
	case client.Waiting:
		return "waits for an invitation"
	case client.Joining:
		return "entering the group"
	}
	if len(c.Inviting) > 0 {
		return "waits for " + p.allCalled(c.Inviting)
	}
	return "setting up the group"
}
