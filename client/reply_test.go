package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/internal/testsize"
)

// TestSendWithMessageID: the same id sends once, also after a restart and after the delivery;
// other members see a UUID as it is, and no other id.
func TestSendWithMessageID(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	dm, room := ann.dm(bob), w.room(ann, bob)
	const uuid = "0b6f8a52-9d5e-4a5f-8f3c-6c1f5d1f2a10"
	send := func(conversation, id, text string, want error) {
		t.Helper()
		got, err := ann.Send(w.ctx, conversation, []byte(text), WithMessageID(id))
		if !errors.Is(err, want) || err == nil && got != id {
			t.Errorf("send %q as %q: %q, %v; want %v", text, id, got, err, want)
		}
	}
	send(dm, "order 1", "first", nil)
	send(dm, "order 1", "first", nil)
	send(dm, "order 1", "other", ErrMessageIDUsed)
	send(room, "order 1", "in the room", nil) // another conversation
	send(dm, uuid, "second", nil)
	if e := bob.reads("first"); e.MessageID == "order 1" || !uuids.MatchString(e.MessageID) {
		t.Errorf("bob sees the id %q", e.MessageID)
	}
	if e := bob.reads("second"); e.MessageID != uuid {
		t.Errorf("bob sees the id %q", e.MessageID)
	}
	if e := ann.reads("first"); e.MessageID != "order 1" || !e.Own {
		t.Errorf("ann sees %+v", e)
	}
	ann.close()
	ann.open()
	send(dm, "order 1", "first", nil)
	send(dm, uuid, "second", nil)
	send(dm, uuid, "other", ErrMessageIDUsed)
	send(dm, "", "x", ErrMessageID)
	send(dm, strings.Repeat("é", 65), "x", ErrMessageID)
	send(dm, "a\x00", "x", ErrMessageID)
	send(dm, "\xff", "x", ErrMessageID)
	send(dm, "too long", strings.Repeat("x", TextBytesMax+1), ErrTooLarge)
	send(dm, "too long", "so shorter", nil) // what failed has used nothing up
	ann.tells(dm, "end", bob, ann)
	if got := bob.transcript(dm); !slices.Equal(got, []string{"first", "second", "so shorter", "end"}) {
		t.Errorf("bob has %q", got)
	}
	if err := ann.Leave(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	send(room, "order 1", "in the room", nil)
	send(room, "order 2", "too late", ErrNoGroup)
}

// TestSameMessageIDOfTwoDevices: of two devices that choose one id both messages arrive.
func TestSameMessageIDOfTwoDevices(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	dm := ann.dm(bob)
	bob.nextType(EventJoined)
	const uuid = "0b6f8a52-9d5e-4a5f-8f3c-6c1f5d1f2a10"
	for _, p := range people {
		if _, err := p.Send(w.ctx, dm, []byte("by "+p.name), WithMessageID(uuid)); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(w.ctx); err != nil {
			t.Fatal(err)
		}
		bob.reads("by " + p.name)
	}
	ann.reads("by bob")
}

// TestReply: a reply acknowledges what it replies to, and fails as a whole.
func TestReply(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	dm := ann.dm(bob)
	ann.says(dm, "question")
	e := bob.reads("question")
	if _, err := bob.Reply(w.ctx, e, []byte("a"), make([]byte, TextBytesMax+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a reply that is too long: %v", err)
	}
	if _, err := bob.Reply(w.ctx, Event{ID: e.ID, Conversation: "nowhere"}, []byte("a")); !errors.Is(err, ErrUnknownConversation) {
		t.Errorf("a reply to nowhere: %v", err)
	}
	ids, err := bob.Reply(w.ctx, e, []byte("one"), []byte("two"))
	if err != nil || len(ids) != 2 {
		t.Fatalf("%q, %v", ids, err)
	}
	if _, err := bob.Reply(w.ctx, e, []byte("again")); !errors.Is(err, ErrAcknowledged) {
		t.Errorf("a second reply: %v", err)
	}
	if one, two := ann.reads("one"), ann.reads("two"); one.MessageID != ids[0] || two.MessageID != ids[1] {
		t.Errorf("the messages %q and %q, want %q", one.MessageID, two.MessageID, ids)
	}
	bob.close()
	bob.open()
	if next, err := bob.Next(w.ctx); err != nil || next.ID <= e.ID {
		t.Errorf("after the restart %+v, %v", next, err)
	}
	if _, err := bob.Reply(w.ctx, bob.reads("two")); err != nil {
		t.Errorf("a reply without a text: %v", err)
	}
}

// TestReplyIsTooLong: other programs may send longer texts than Send takes. A reply that is as
// long changes nothing, and the event can be acknowledged.
func TestReplyIsTooLong(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	dm := ann.dm(bob)
	long := strings.Repeat("x", TextBytesMax+1)
	if err := ann.change(w.ctx, dm, func(tx *tx, conv *conversation) error {
		return ann.keeper.addOutgoing(tx, conv, home.Outgoing{Message: newMessageID(), Text: []byte(long)})
	}); err != nil {
		t.Fatal(err)
	}
	e := bob.reads(long)
	if _, err := bob.Reply(w.ctx, e, e.Text); !errors.Is(err, ErrTooLarge) {
		t.Errorf("the reply: %v", err)
	}
	if err := bob.Ack(w.ctx, e.ID); err != nil {
		t.Error(err)
	}
	bob.tells(dm, "next", ann)
}

// TestBotAnswersOnce kills a bot at each point between two local writes in turn: of each message
// there is one answer.
func TestBotAnswersOnce(t *testing.T) {
	w := newWorld(t)
	asker, bot := w.people("asker")[0], &churner{person: w.person("bot")}
	ctx, stop := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			err := bot.tryOpen(bot.crash)
			if err == nil {
				err = echo(ctx, bot.Client)
				bot.close()
			}
			if ctx.Err() == nil && !errors.Is(err, errCrash) {
				t.Errorf("the bot ends: %v", err)
				return
			}
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	dm := asker.dm(bot.person)
	var want []string
	ask := func(text string) {
		asker.says(dm, text)
		asker.reads("echo " + text)
		want = append(want, text, "echo "+text)
	}
	ask("hello")
	step := testsize.Of[int64](3, 1)
	for n := int64(1); !t.Failed(); n += step {
		before := bot.crashes.Load()
		bot.left.Store(n)
		ask(fmt.Sprintf("first %d", n))
		ask(fmt.Sprintf("second %d", n))
		if bot.left.Store(0); bot.crashes.Load() == before {
			t.Logf("%d points", n-1)
			if n < 10 {
				t.Error("that are too few to be true")
			}
			break
		}
	}
	ask("end")
	if got := asker.transcript(dm); !slices.Equal(got, want) {
		t.Errorf("the log is %q\nwant %q", got, want)
	}
}

// echo runs a bot until its client or ctx ends.
func echo(ctx context.Context, c *Client) error {
	for {
		e, err := c.Next(ctx)
		if err != nil {
			return err
		}
		var answer [][]byte
		if e.Type == EventMessage && !e.Own {
			answer = append(answer, append([]byte("echo "), e.Text...))
		}
		if _, err := c.Reply(ctx, e, answer...); err != nil {
			return err
		}
	}
}
