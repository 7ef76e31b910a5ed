package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// TextBytesMax bounds one message that Send takes: with its encryption and base64 it stays under
// the server's limit at all interfaces. Other programs may send longer ones.
const TextBytesMax = 128 << 10

// outboxRowsMax bounds the outbox of one home, in messages.
const outboxRowsMax = 10_000

// SendOption is a setting of one Send.
type SendOption func(*sending)

type sending struct {
	id       string
	isChosen bool // by the caller
}

// WithMessageID makes id the message's ID: 1 to 128 bytes of UTF-8 without NUL, or Send returns
// ErrMessageID. The home keeps it, so that a second Send with the same ID and text in the
// conversation returns the same and sends nothing, also after a restart; another text is
// ErrMessageIDUsed. The ID of a refused message (EventRefused) can be used again. A lower case
// UUID is also the ID that the server and other members see; for other IDs they see a random
// one.
func WithMessageID(id string) SendOption {
	return func(s *sending) { s.id, s.isChosen = id, true }
}

// Send puts a message into the outbox and returns its id. The message is on disk, sealed, when
// Send returns, and is sent, after all earlier ones, as soon as the conversation has a group
// and the server can be reached. An EventMessage with Own set reports the delivery, or an
// EventRefused that the server has refused it for good. The error is ErrTooLarge, ErrOutboxFull,
// ErrUnknownConversation, or ErrNoGroup after the account has left or was removed.
func (c *Client) Send(ctx context.Context, conversationID string, text []byte, with ...SendOption) (messageID string, err error) {
	s := sending{id: newMessageID()}
	for _, set := range with {
		set(&s)
	}
	if s.isChosen && !isMessageID(s.id) {
		return "", ErrMessageID
	}
	err = c.change(ctx, conversationID, func(tx *tx, conv *conversation) error { return c.addMessage(tx, conv, text, s) })
	if err != nil {
		return "", err
	}
	return s.id, nil
}

// Reply sends texts to the conversation of an event and acknowledges the event, as Ack does, in
// one transaction: a program that is killed at any point has either sent them all, and Next
// does not return the event again, or none. Without texts it is Ack. The error is that of Send, or
// ErrAcknowledged; nothing has happened then. Next returns the event again, so acknowledge it by
// Ack where no later reply could succeed: ErrNoGroup, ErrTooLarge.
func (c *Client) Reply(ctx context.Context, to Event, texts ...[]byte) (messageIDs []string, err error) {
	for range texts {
		messageIDs = append(messageIDs, newMessageID())
	}
	err = c.db.update(ctx, func(tx *tx) error {
		if before, err := tx.Counters.Get("application"); err != nil || to.ID <= before {
			return cmp.Or(err, ErrAcknowledged)
		}
		for i, text := range texts {
			conv, err := tx.existing(to.Conversation)
			if err == nil {
				err = c.addMessage(tx, conv, text, sending{id: messageIDs[i]})
			}
			if err != nil {
				return err
			}
			tx.wake(conv.id)
		}
		return tx.acknowledge(to.ID)
	})
	if err != nil {
		return nil, err
	}
	return messageIDs, nil
}

// addMessage puts a message into the outbox, unless one with the caller's id was there before.
func (c *Client) addMessage(tx *tx, conv *conversation, text []byte, s sending) error {
	if len(encodeContent(contentText, text)) > TextBytesMax {
		return ErrTooLarge
	}
	if s.isChosen {
		digest := sha256.Sum256(text)
		known, found, err := tx.Outbox.Chosen(conv.id, s.id)
		switch {
		case err != nil:
			return err
		case found && !bytes.Equal(known, digest[:]):
			return ErrMessageIDUsed
		case found:
			return nil
		}
		if err := tx.Outbox.Choose(conv.id, s.id, digest[:]); err != nil {
			return err
		}
	}
	if conv.phase == Removed || conv.info.Leave != nil {
		return ErrNoGroup
	}
	if conv.info.Waiting.GaveUp {
		conv.askAgain()
	}
	if err := c.keeper.introduceSelf(tx, conv); err != nil {
		return err
	}
	o := home.Outgoing{Message: s.id, Text: text}
	if !uuids.MatchString(s.id) {
		o.Wire = newMessageID()
	}
	return c.keeper.addOutgoing(tx, conv, o)
}

// messageIDBytesMax bounds the ID of a message, in all protocols.
const messageIDBytesMax = 128

func isMessageID(id string) bool {
	return id != "" && len(id) <= messageIDBytesMax && utf8.ValidString(id) && !strings.Contains(id, "\x00")
}

// addOutgoing puts a message into the outbox, with the conversation and the time.
func (k keeper) addOutgoing(tx *tx, conv *conversation, o home.Outgoing) error {
	count, err := tx.Outbox.Count()
	if err != nil {
		return err
	}
	if count >= outboxRowsMax {
		return ErrOutboxFull
	}
	o.Conversation, o.Time = conv.id, k.c.now()
	return tx.Outbox.Add(o)
}

var errEncrypt = errors.New("encrypt message")

// sealOutgoing encrypts o in the current epoch. The ciphertext and the ratchet that made it are
// written together, before a byte of it is sent.
func (t *tx) sealOutgoing(conv *conversation, o *home.Outgoing) error {
	if conv.group == nil {
		return ErrNoGroup
	}
	message, next, err := conv.group.Seal(encodeContent(contentType(o.Content), o.Text), nil, mls.SealOptions{}) // padded by the group's policy
	if err != nil {
		return fmt.Errorf("%w: %w", errEncrypt, err)
	}
	o.Envelope = message
	conv.setGroup(next)
	return t.Outbox.SetEnvelope(o.ID, o.Envelope)
}

// refuseOutgoing removes a message from the outbox that will never be delivered, and reports
// it.
func (t *tx) refuseOutgoing(o *home.Outgoing, now time.Time, code, problem string) error {
	if err := errors.Join(t.Outbox.Remove(o.ID), t.Outbox.Unchoose(o.Conversation, o.Message)); err != nil {
		return err
	}
	e := Event{Type: EventRefused, Conversation: o.Conversation, MessageID: o.Message, Own: true,
		Text: o.Text, Time: now, Code: code, Problem: problem}
	if of := contentType(o.Content); of != contentText {
		var c roomContent
		if of != contentRoom || json.Unmarshal(o.Text, &c) != nil || c.Title == nil || c.Of > 0 {
			return nil // nothing that the application has asked for
		}
		e.MessageID, e.Text, e.Title = "", nil, *c.Title
	}
	return t.report(e)
}

// refuseAll does so with all messages of a conversation.
func (t *tx) refuseAll(conversation string, now time.Time, code, problem string) error {
	for {
		o, err := t.Outbox.Next(conversation, 0)
		if err != nil || o == nil {
			return err
		}
		if err := t.refuseOutgoing(o, now, code, problem); err != nil {
			return err
		}
	}
}

// Pending returns the number of undelivered messages in the outbox, including those that are not
// for people, such as a new name of this account, once for each conversation that can be reached.
// With conversations it counts theirs only.
func (c *Client) Pending(ctx context.Context, conversations ...string) (int, error) {
	return read(ctx, c.db, func(tx *tx) (int, error) {
		all, err := tx.Outbox.Count()
		count := int(all)
		if len(conversations) > 0 {
			count = 0
		}
		for _, id := range conversations {
			list, failed := tx.Outbox.Waiting(id)
			count, err = count+len(list), errors.Join(err, failed)
		}
		for _, conv := range tx.conversations() {
			if conv.mustIntroduce() && (len(conversations) == 0 || slices.Contains(conversations, conv.id)) {
				count++
			}
		}
		return count, err
	})
}

// Flush waits until the outbox is empty and every message in it was delivered or refused.
func (c *Client) Flush(ctx context.Context) error {
	for {
		woken := c.db.home.NewEvents() // of each delivery and refusal, too
		count, err := c.Pending(ctx)
		if err != nil || count == 0 {
			return err
		}
		if err := c.wait(ctx, woken); err != nil {
			return err
		}
	}
}

// Waiting returns the undelivered messages of a conversation in the outbox, in the order in
// which they were written. They have neither ID nor Seq. An EventMessage or EventRefused with
// the same MessageID reports what became of each.
func (c *Client) Waiting(ctx context.Context, conversation string) ([]Event, error) {
	var out []Event
	self := c.Self()
	err := c.db.update(ctx, func(tx *tx) error {
		list, err := tx.Outbox.Waiting(conversation)
		for _, o := range list {
			if contentType(o.Content) != contentText {
				continue
			}
			out = append(out, c.authority.withTrust(Event{Type: EventMessage, Conversation: conversation, Time: o.Time,
				MessageID: o.Message, From: self, Own: true, Text: o.Text}))
		}
		return err
	})
	return out, err
}
