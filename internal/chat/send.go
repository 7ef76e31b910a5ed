package chat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/client"
)

// audience holds those that are shown the events of a chat, beside its own screen, and why the
// last messages were refused. It is safe for concurrent use.
type audience struct {
	mu       sync.Mutex
	screens  []*screen
	refusals map[string]string // by message ID

	changed chan struct{} // receives a value after a request of a program, which may have changed the home
}

func newAudience() *audience { return &audience{changed: make(chan struct{}, 1)} }

// change announces that the home may have changed.
func (a *audience) change() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// refusalsMax bounds the refusals that are remembered.
const refusalsMax = 1024

func (a *audience) add(s *screen) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.screens = append(a.screens, s)
}

// show shows an event to all; those that cannot be written to are dropped.
func (a *audience) show(e client.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Type == client.EventRefused {
		if a.refusals == nil || len(a.refusals) >= refusalsMax {
			a.refusals = map[string]string{}
		}
		a.refusals[e.MessageID] = e.Err().Error()
	}
	var left []*screen
	for _, s := range a.screens {
		if s.show(e) == nil {
			left = append(left, s)
		}
	}
	a.screens = left
}

func (a *audience) refusal(id string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	why, ok := a.refusals[id]
	return why, ok
}

// next returns the next event of a client, and shows it to all.
func (a *audience) next(ctx context.Context, sdk *client.Client) (client.Event, error) {
	e, err := sdk.Next(ctx)
	if err == nil {
		a.show(e)
	}
	return e, err
}

// Send sends a text to the conversation or person that word names, and prints what became of it
// within wait. An id that is not nil is that of the message: with the same one it is sent once.
func (t *Terminal) Send(ctx context.Context, word, text string, id *string, wait time.Duration, asJSON bool) error {
	params := sendParams{Text: &text, ID: id, Wait: (*duration)(&wait)}
	c, err := t.find(ctx, word)
	var several severalError
	switch {
	case errors.As(err, &several):
		return err
	case err == nil:
		params.Conv = c.ID
	default:
		params.To = word
	}
	p := newProgram(t, newScreen(t, true))
	result, await, err := p.send(ctx, params)
	if err == nil {
		err = await(ctx)
	}
	if asJSON {
		p.reply(answer{Type: "answer", Op: "send"}, result, err)
		return err
	}
	if err != nil {
		return err
	}
	return t.print(fmt.Sprintf("delivered: %d in %s", result.(*sentResult).Seq, result.(*sentResult).Conv))
}

// untilDelivered waits until a message is delivered or refused.
func (p *program) untilDelivered(ctx context.Context, wait time.Duration, message *sentResult) error {
	return p.chat.until(ctx, wait, func() (bool, string, error) {
		waiting, err := p.chat.client.Waiting(ctx, message.Conv)
		if err != nil {
			return false, "", err
		}
		for _, e := range waiting {
			if e.MessageID == message.ID {
				c, err := p.chat.client.Conversation(ctx, message.Conv)
				what := "the server"
				if note := p.chat.people.phaseNote(c); note != "" {
					what = strings.TrimPrefix(note, "waits for ")
				}
				return false, what, err
			}
		}
		return true, "", p.settle(ctx, message)
	})
}

// settle finds out what became of a message that is no longer in the outbox.
func (p *program) settle(ctx context.Context, message *sentResult) error {
	for before := int64(0); ; {
		page, err := p.chat.client.History(ctx, message.Conv, before, 0)
		if err != nil {
			return err
		}
		for _, e := range page {
			if e.MessageID == message.ID && e.Own {
				message.State, message.Seq = stateDelivered, e.Seq
				return nil
			}
		}
		if len(page) == 0 || page[0].Seq <= 1 {
			break
		}
		before = page[0].Seq
	}
	why, ok := p.chat.audience.refusal(message.ID)
	if !ok {
		why = p.refusalInInbox(ctx, message.ID)
	}
	message.State = stateRefused
	return failure{CodeRefused, errors.New(why)}
}

// refusalInInbox returns why a message was refused, if that was not acknowledged yet.
func (p *program) refusalInInbox(ctx context.Context, id string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for e, err := range p.chat.client.Events(ctx, 0) {
		if err != nil {
			break
		}
		if e.Type == client.EventRefused && e.MessageID == id {
			return e.Err().Error()
		}
	}
	return "server refused the message"
}
