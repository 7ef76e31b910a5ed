package chat

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/client"
)

// lines is a chat that reads lines and prints lines, for people without a terminal UI
// and for scripts.
type lines struct {
	chat    *Terminal
	screen  *screen
	program *program // that makes requests, with JSON
}

func newLines(t *Terminal, asJSON bool) *lines {
	s := newScreen(t, asJSON)
	p := newProgram(t, s)
	p.showsEvents = true
	return &lines{t, s, p}
}

// run executes first, which must succeed, and then each line that is read, until the end
// of the input.
func (t *lines) run(ctx context.Context, first string) error {
	if t.chat.isGuest {
		return ErrNoGuests
	}
	if err := t.obeyLine(ctx, first); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return t.showEvents(running) })
	staying, leave := context.WithCancel(running)
	group.Go(func() error { t.showStates(staying); return nil })
	typed := readLines(t.chat.in)
	group.Go(func() error {
		defer stop()
		err := t.obeyAll(running, typed)
		t.program.waits.Wait()
		leave() // the state of the connection no longer matters
		if err != nil {
			return err
		}
		return t.chat.flush(running)
	})
	err := group.Wait()
	if err == nil || errors.Is(err, context.Canceled) { // by a signal, or by us
		err = t.chat.undelivered(context.WithoutCancel(ctx))
	}
	if t.screen.asJSON && errors.Is(err, errUndelivered) {
		t.screen.print(item{Type: "error", Code: CodeStored, Text: err.Error(), TS: time.Now().UnixMilli()})
	}
	return err
}

var errQuit = errors.New("quit")

// obeyAll executes each line until the last one.
func (t *lines) obeyAll(ctx context.Context, typed <-chan typedLine) error {
	for {
		select {
		case line, more := <-typed:
			if !more {
				return nil
			}
			isRequest := t.screen.asJSON && strings.HasPrefix(line.text, "{")
			switch {
			case isRequest && line.isLong:
				t.program.reply(answer{Type: "answer"}, nil, errTooLong)
				continue
			case isRequest:
				t.program.handle(ctx, []byte(line.text))
				continue
			}
			err := errTooLong
			if !line.isLong {
				err = t.obeyLine(ctx, line.text)
			}
			switch {
			case errors.Is(err, errQuit):
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				t.screen.complain(t.chat.conv, err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// obeyLine executes one line and prints its result.
func (t *lines) obeyLine(ctx context.Context, line string) error {
	// Held until the message is recorded as typed, so that its echo is not printed too.
	t.screen.saying.Lock()
	defer t.screen.saying.Unlock()
	r, err := t.chat.obey(ctx, line)
	switch {
	case err != nil:
		return err
	case r.quit:
		return errQuit
	case r.sent != "":
		t.screen.said(r.sent)
	case r.opened != "":
		return t.open(ctx)
	}
	t.screen.answer(r)
	return nil
}

// historyLines is the number of messages shown when a conversation is opened.
const historyLines = 20

// open shows the conversation that was opened.
func (t *lines) open(ctx context.Context) error {
	history, err := t.chat.client.History(ctx, t.chat.conv, 0, historyLines)
	if err != nil {
		return err
	}
	c, err := t.chat.client.Conversation(ctx, t.chat.conv)
	if err != nil {
		return err
	}
	t.screen.open(c, history)
	return t.chat.client.MarkRead(ctx, t.chat.conv, 0)
}

// showEvents prints what happens. An event is acknowledged once it is printed: after
// a crash it may be printed again, but never not at all.
func (t *lines) showEvents(ctx context.Context) error {
	for {
		event, err := t.chat.audience.next(ctx, t.chat.client)
		if err != nil {
			return err
		}
		if err := t.screen.show(event); err != nil {
			return err
		}
		if event.Type == client.EventMessage {
			if err := t.chat.client.MarkRead(ctx, event.Conversation, event.Seq); err != nil {
				return err
			}
		}
		if err := t.chat.client.Ack(ctx, event.ID); err != nil {
			return err
		}
	}
}

// showStates prints whether the server is reachable, whenever that changes, until ctx ends.
func (t *lines) showStates(ctx context.Context) {
	shown := ""
	for ctx.Err() == nil {
		state, changed := t.chat.client.State()
		if now := state.Link.String() + string(state.Reason()); now != shown && (t.screen.asJSON || state.Link != client.Connecting) {
			shown = now
			t.screen.state(state)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
