package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
)

// chat is one running chat, whoever shows it: lines, JSON or the terminal UI. What a
// line of input means is decided here and nowhere else. None of it waits for the
// network.
type chat struct {
	client *client.Client
	self   string              // the DID of whose chat it is
	server string              // where it connects to
	conv   string              // what a line is sent to; "" for nobody
	shown  client.SafetyNumber // the last one, which "yes" is about
}

// reply is what comes of one line of input.
type reply struct {
	quit   bool
	sent   string // the message that it became
	opened string // the conversation that was turned to
	title  string // of what follows
	lines  []string
	hits   []client.Event // messages that were looked for
}

// errWords is a mistake of whoever types.
type errWords struct{ text string }

// Error is what is wrong, in a sentence for whoever types.
func (e errWords) Error() string { return e.text }

func mistake(format string, args ...any) error { return errWords{fmt.Sprintf(format, args...)} }

// slashCommand is what a line that begins with a slash can ask for.
type slashCommand struct {
	name, args, help string
	run              func(t *chat, ctx context.Context, words []string) (reply, error)
}

// slashCommands are all of them, in the order of /help.
func slashCommands() []slashCommand {
	return []slashCommand{
		{"/dm", "DID", "talk to one person", (*chat).doDM},
		{"/room", "[DID…]", "make a room with these people", (*chat).doRoom},
		{"/list", "", "the conversations", (*chat).doList},
		{"/open", "CONVERSATION", "turn to one: its number in /list, its id or a person", (*chat).doOpen},
		{"/who", "", "who is in this conversation", (*chat).doWho},
		{"/invite", "DID…", "bring people into this room", (*chat).doInvite},
		{"/remove", "DID…", "take people out of this room", (*chat).doRemove},
		{"/leave", "[DID]", "leave this conversation, perhaps to a new owner", (*chat).doLeave},
		{"/verify", "DID [NUMBER|yes]", "show a safety number, or that it is the same", (*chat).doVerify},
		{"/unverify", "DID", "take that back", (*chat).doUnverify},
		{"/devices", "[add|remove …]", "the devices of this account", (*chat).doDevices},
		{"/search", "WORDS", "look through the history", (*chat).doSearch},
		{"/help", "", "this list", (*chat).doHelp},
		{"/quit", "", "end the chat", func(*chat, context.Context, []string) (reply, error) { return reply{quit: true}, nil }},
	}
}

// obey does what a line of input says: a command, or a message.
func (t *chat) obey(ctx context.Context, line string) (reply, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return reply{}, nil
	}
	if !strings.HasPrefix(line, "/") || strings.HasPrefix(line, "//") {
		return t.say(ctx, line)
	}
	for _, c := range slashCommands() {
		if c.name == words[0] {
			return c.run(t, ctx, words[1:])
		}
	}
	return reply{}, mistake("%s is no command: /help lists them; // begins a message with a slash", words[0])
}

// say puts a line into the outbox: from then on it is not lost.
func (t *chat) say(ctx context.Context, line string) (reply, error) {
	if t.conv == "" {
		return reply{}, mistake("nobody to talk to yet: /dm DID, /room DID… or /open")
	}
	id, err := t.client.Send(ctx, t.conv, []byte(strings.TrimPrefix(line, "/"))) // the first of two
	if errors.Is(err, client.ErrNoGroup) {
		err = errors.New("you have left this conversation, or were removed")
	}
	return reply{sent: id}, err
}

// turnTo makes conv the conversation that lines go to.
func (t *chat) turnTo(conv string) reply {
	t.conv = conv
	return reply{opened: conv}
}

func (t *chat) doDM(ctx context.Context, words []string) (reply, error) {
	if len(words) != 1 {
		return reply{}, mistake("/dm takes one DID")
	}
	peer, err := t.person(ctx, words[0])
	if err != nil {
		return reply{}, fmt.Errorf("talk to %q: %w", words[0], err)
	}
	conv, err := t.client.StartDM(ctx, peer)
	if err != nil {
		return reply{}, fmt.Errorf("talk to %q: %w", words[0], err)
	}
	return t.turnTo(conv), nil
}

func (t *chat) doRoom(ctx context.Context, words []string) (reply, error) {
	people, err := t.persons(ctx, words)
	if err != nil {
		return reply{}, err
	}
	conv, err := t.client.CreateRoom(ctx, people...)
	if err != nil {
		return reply{}, err
	}
	return t.turnTo(conv), nil
}

func (t *chat) doList(ctx context.Context, _ []string) (reply, error) {
	all, err := t.client.Conversations(ctx)
	out := reply{title: "Conversations", lines: []string{"no conversations yet: /dm DID or /room DID…"}}
	for i, c := range all {
		if i == 0 {
			out.lines = nil
		}
		line := fmt.Sprintf("%d  %s", i+1, t.titleOf(c))
		if c.Unread > 0 {
			line += fmt.Sprintf(", %d unread", c.Unread)
		}
		if note := phaseNote(c); note != "" {
			line += ", " + note
		}
		out.lines = append(out.lines, line)
	}
	return out, err
}

func (t *chat) doOpen(ctx context.Context, words []string) (reply, error) {
	if len(words) != 1 {
		return reply{}, mistake("/open takes one conversation: its number in /list, its id or a person")
	}
	conv, err := t.find(ctx, words[0])
	if err != nil {
		return reply{}, err
	}
	return t.turnTo(conv.ID), nil
}

func (t *chat) doWho(ctx context.Context, _ []string) (reply, error) {
	c, err := t.here(ctx)
	if err != nil {
		return reply{}, err
	}
	return reply{title: "In " + t.titleOf(c), lines: t.memberLines(c)}, nil
}

// here is the conversation that lines go to.
func (t *chat) here(ctx context.Context) (client.Conversation, error) {
	if t.conv == "" {
		return client.Conversation{}, mistake("no conversation is open: /list and /open, or /dm DID")
	}
	return t.client.Conversation(ctx, t.conv)
}

func (t *chat) doInvite(ctx context.Context, words []string) (reply, error) {
	return t.manage(ctx, "/invite", words, t.client.Invite, "is to be invited")
}

func (t *chat) doRemove(ctx context.Context, words []string) (reply, error) {
	return t.manage(ctx, "/remove", words, t.client.Remove, "is to be removed")
}

func (t *chat) manage(ctx context.Context, command string, words []string, do func(context.Context, string, ...string) error, what string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("%s takes the DIDs of people", command)
	}
	c, err := t.here(ctx)
	if err != nil {
		return reply{}, err
	}
	people, err := t.persons(ctx, words)
	if err != nil {
		return reply{}, err
	}
	if err := do(ctx, c.ID, people...); err != nil {
		return reply{}, roomError(err)
	}
	var out reply
	for _, p := range people {
		out.lines = append(out.lines, short(p)+" "+what)
	}
	return out, nil
}

// roomError says for people why a room cannot be changed.
func roomError(err error) error {
	if errors.Is(err, client.ErrNoGroup) {
		return fmt.Errorf("you are not in the room, or not yet: %w", err)
	}
	return err
}

func (t *chat) doLeave(ctx context.Context, words []string) (reply, error) {
	c, err := t.here(ctx)
	if err != nil {
		return reply{}, err
	}
	switch len(words) {
	case 0:
		err = t.client.Leave(ctx, c.ID)
	case 1:
		var heir string
		if heir, err = t.person(ctx, words[0]); err == nil {
			err = t.client.LeaveTo(ctx, c.ID, heir)
		}
	default:
		err = mistake("/leave takes at most one DID: who owns the conversation then")
	}
	if err != nil {
		return reply{}, err
	}
	return reply{lines: []string{"leaving " + t.titleOf(c)}}, nil
}

func (t *chat) doSearch(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/search takes the words to look for")
	}
	hits, err := t.client.Search(ctx, client.Query{Text: strings.Join(words, " "), Limit: searchHits})
	out := reply{title: "Found: " + strings.Join(words, " "), hits: hits}
	if len(hits) == 0 {
		out.lines = []string{"nothing found"}
	}
	return out, err
}

// searchHits is how many messages a search shows.
const searchHits = 200

func (t *chat) doHelp(context.Context, []string) (reply, error) {
	out := reply{title: "Commands"}
	for _, c := range slashCommands() {
		out.lines = append(out.lines, fmt.Sprintf("%-25s %s", c.name+" "+c.args, c.help))
	}
	out.lines = append(out.lines, "", "A DID may be given by its end, as names are shown, if it is the only one that is known.",
		"✓ means: you have compared safety numbers; everybody else is unverified (?).")
	return out, nil
}

// leave gives what was typed a moment to be delivered; false if that was not enough.
func (t *chat) leave(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	err := t.client.Flush(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// undelivered tells of a farewell that was too short.
const undelivered = "not everything is delivered yet; what is left will be sent next time"

// nameEndMin is how much of the end of a DID names a person.
const nameEndMin = 4

// person is the DID that a word means: itself, or the one known account that ends so.
func (t *chat) person(ctx context.Context, word string) (string, error) {
	if strings.HasPrefix(word, "did:") {
		return word, nil
	}
	end := strings.TrimPrefix(word, "…")
	var found []string
	if len(end) >= nameEndMin {
		all, err := t.client.Conversations(ctx)
		if err != nil {
			return "", err
		}
		for _, account := range accountsOf(all) {
			if strings.HasSuffix(account, end) {
				found = append(found, account)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", mistake("%q is nobody known here: want a DID, as printed by waxwing did", word)
	case 1:
		return found[0], nil
	}
	return "", mistake("%q is the end of several known DIDs: give more of it", word)
}

func (t *chat) persons(ctx context.Context, words []string) ([]string, error) {
	var out []string
	for _, word := range words {
		did, err := t.person(ctx, word)
		if err != nil {
			return nil, err
		}
		out = append(out, did)
	}
	return out, nil
}

// accountsOf are all accounts of some conversations, each once.
func accountsOf(all []client.Conversation) []string {
	var out []string
	add := func(account string) {
		if account != "" && !slices.Contains(out, account) {
			out = append(out, account)
		}
	}
	for _, c := range all {
		add(c.Peer)
		for _, m := range c.Members {
			add(m.Account)
		}
		for _, account := range c.Inviting {
			add(account)
		}
	}
	return out
}

// find is the conversation that a word means: its number in the list, its id or the
// beginning of it, or the person of a direct one.
func (t *chat) find(ctx context.Context, word string) (client.Conversation, error) {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return client.Conversation{}, err
	}
	if n, err := strconv.Atoi(word); err == nil && n >= 1 && n <= len(all) {
		return all[n-1], nil
	}
	var found []client.Conversation
	for _, c := range all {
		if c.ID == word {
			return c, nil
		}
		isPeer := c.Peer != "" && (c.Peer == word || strings.HasSuffix(c.Peer, strings.TrimPrefix(word, "…")))
		if len(word) >= nameEndMin && (strings.HasPrefix(c.ID, word) || isPeer) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return client.Conversation{}, mistake("no conversation %q here: waxwing chat list, or /list", word)
	case 1:
		return found[0], nil
	}
	return client.Conversation{}, mistake("%q means several conversations: give more of it", word)
}

// noteOf tells of an event that is no message, as sentences for people; none for one
// that is.
func (t *chat) noteOf(e client.Event) []string {
	var out []string
	switch e.Type {
	case client.EventMessage:
	case client.EventJoined:
		out = append(out, "you are in")
	case client.EventRejoined:
		out = append(out, "you have entered the group anew: "+orElse(e.Problem, "your own state was of no use"))
	case client.EventRemoved:
		out = append(out, "you are no longer in this conversation")
	case client.EventMembers:
		for _, m := range e.Members {
			out = append(out, t.comer(m)+" joined")
		}
		for _, m := range e.Gone {
			out = append(out, t.comer(m)+" left")
		}
	case client.EventKeyChange:
		out = append(out, "a new key of "+t.nameOf(e.From)+": compare safety numbers again (/verify)")
	default:
		out = append(out, orElse(e.Problem, string(e.Type)))
	}
	return out
}

// comer is who comes or goes: of our own account it is another device.
func (t *chat) comer(m client.Member) string {
	if m.Account == t.self {
		return "your device " + deviceName(m)
	}
	return t.nameOf(m)
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// The marks behind names. There are no names without one, but our own.
const (
	markVerified   = " ✓"
	markUnverified = " (unverified)"
	markDevice     = " (unverified device)"
)

// nameOf is who a member is, and whether that is certain.
func (t *chat) nameOf(m client.Member) string {
	switch {
	case m.Account == t.self:
		return "me"
	case m.Trusted:
		return short(m.Account) + markVerified
	case !m.Verified:
		return short(m.Account) + markDevice
	}
	return short(m.Account) + markUnverified
}

// accountMark is the mark of an account in a conversation: that of its least certain
// device there.
func (t *chat) accountMark(c client.Conversation, account string) string {
	mark := markUnverified
	for _, m := range c.Members {
		if m.Account != account {
			continue
		}
		if !m.Trusted {
			return strings.TrimPrefix(t.nameOf(m), short(account))
		}
		mark = markVerified
	}
	return mark
}

// titleOf names a conversation with the mark of whom it is with.
func (t *chat) titleOf(c client.Conversation) string {
	if c.Kind == client.DM {
		return short(c.Peer) + t.accountMark(c, c.Peer)
	}
	return roomTitle(c)
}

// roomTitle names a room by the beginning of its id and how many people are in it.
func roomTitle(c client.Conversation) string {
	id := c.ID
	if len(id) > nameShown {
		id = id[:nameShown]
	}
	var people []string
	for _, m := range c.Members {
		if !slices.Contains(people, m.Account) {
			people = append(people, m.Account)
		}
	}
	if len(people) == 0 {
		return "room " + printable(id)
	}
	return fmt.Sprintf("room %s (%d)", printable(id), len(people))
}

// phaseNote says what a conversation waits for; "" when nothing.
func phaseNote(c client.Conversation) string {
	switch c.Phase {
	case client.Joined:
		if c.Problem != "" {
			return c.Problem
		}
		if len(c.Inviting) > 0 {
			return "waits for " + shorts(c.Inviting)
		}
		if len(c.Removing) > 0 {
			return "takes out " + shorts(c.Removing)
		}
		return ""
	case client.Removed:
		return "left"
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
		return "waits for " + shorts(c.Inviting)
	}
	return "setting up the group"
}

func shorts(accounts []string) string {
	var out []string
	for _, a := range accounts {
		out = append(out, short(a))
	}
	return strings.Join(out, ", ")
}

// stateText says how the connection stands and what it waits for.
func stateText(s client.State, server string) string {
	switch {
	case s.Link == client.Online && s.Transport == client.EventStream:
		return "online over HTTP: no WebSocket gets through"
	case s.Link == client.Online && s.Transport == client.XRPC:
		return "online over XRPC"
	case s.Link == client.Online:
		return "online"
	case s.Link == client.Connecting:
		return "connecting"
	}
	var refused *client.Refusal
	if errors.As(s.Err, &refused) {
		return "offline: " + refused.Error()
	}
	return "offline: waits for " + server
}

// clock is how times of messages are shown.
func clock(at time.Time, zone *time.Location) string { return at.In(zone).Format("15:04") }
