package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"waxwing.im/waxwing/mls"
)

// TextBytesMax bounds one message: with its encryption and base64 it stays under
// what the server takes.
const TextBytesMax = 128 << 10

// outboxRowsMax bounds what may wait to be sent in one home.
const outboxRowsMax = 10_000

// outgoing is a message that the server does not have yet, or has not shown back.
type outgoing struct {
	id           int64
	conversation string
	message      string // what Send returned
	wire         string // msg_id on the wire
	// envelope is the ciphertext in base64, "" until it is first sent. From then on
	// every retry sends these bytes, unless the server says that it did not keep them.
	envelope string
	body     outgoingBody
}

type outgoingBody struct {
	Text []byte    `json:"text"`
	Time time.Time `json:"time"`
}

// Send puts a message into the outbox and returns its id. The message is on disk,
// sealed, when Send returns, and is sent as soon as the conversation stands and the
// server can be reached, after everything put there before it. It is delivered when
// it comes back as an EventMessage with Own; if the server declines it for good there
// is an EventRefused.
func (c *Client) Send(ctx context.Context, conversationID string, text []byte) (messageID string, err error) {
	if len(text) > TextBytesMax {
		return "", ErrTooLarge
	}
	messageID = newMessageID()
	err = c.change(ctx, conversationID, func(tx *tx, conv *conversation) error {
		if conv.phase == Removed || conv.info.Leave != nil {
			return ErrNoGroup
		}
		if conv.info.Waiting.GaveUp {
			conv.askAgain()
		}
		return tx.addOutgoing(conversationID, messageID, outgoingBody{Text: text, Time: c.now()})
	})
	if err != nil {
		return "", err
	}
	return messageID, nil
}

func (t *tx) addOutgoing(conversation, message string, body outgoingBody) error {
	var waiting int64
	if _, err := t.get([]any{&waiting}, `SELECT count(*) FROM outbox`); err != nil {
		return err
	}
	if waiting >= outboxRowsMax {
		return ErrOutboxFull
	}
	id, err := t.next("outbox")
	if err != nil {
		return err
	}
	sealed, err := t.sealJSON("outbox", strconv.FormatInt(id, 10), "body", body)
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO outbox (id, conversation, message, wire, body) VALUES ($1, $2, $3, $3, $4)`,
		id, conversation, message, sealed)
}

// outgoing reads one row of the outbox; nil if there is none.
func (t *tx) outgoing(where string, args ...any) (*outgoing, error) {
	var o outgoing
	var sealed []byte
	found, err := t.get([]any{&o.id, &o.conversation, &o.message, &o.wire, &o.envelope, &sealed},
		`SELECT id, conversation, message, wire, coalesce(envelope, ''), body FROM outbox WHERE `+where, args...)
	if err != nil || !found {
		return nil, err
	}
	return &o, t.openJSON("outbox", strconv.FormatInt(o.id, 10), "body", sealed, &o.body)
}

// nextOutgoing is the conversation's first message behind the row after.
func (t *tx) nextOutgoing(conversation string, after int64) (*outgoing, error) {
	return t.outgoing(`conversation = $1 AND id > $2 ORDER BY id LIMIT 1`, conversation, after)
}

// outgoingByWire is the message that goes by that msg_id on the wire.
func (t *tx) outgoingByWire(conversation, wire string) (*outgoing, error) {
	return t.outgoing(`conversation = $1 AND wire = $2`, conversation, wire)
}

var errEncrypt = errors.New("encrypt message")

// sealOutgoing encrypts o in the current epoch. The ciphertext and the ratchet that
// made it are written together, before a byte of it leaves.
func (t *tx) sealOutgoing(conv *conversation, o *outgoing) error {
	if conv.group == nil {
		return ErrNoGroup
	}
	message, next, err := conv.group.Seal(o.body.Text, nil, mls.SealOptions{}) // padded by the group's policy
	if err != nil {
		return fmt.Errorf("%w: %w", errEncrypt, err)
	}
	o.envelope = base64.StdEncoding.EncodeToString(message)
	conv.setGroup(next)
	return t.exec(`UPDATE outbox SET envelope = $1 WHERE id = $2`, o.envelope, o.id)
}

// unsealOutgoing forgets the ciphertext of a message that the server has refused
// because of its epoch, so that it is encrypted again. Nothing was stored under its
// msg_id, which it keeps.
func (t *tx) unsealOutgoing(id int64) error {
	return t.exec(`UPDATE outbox SET envelope = NULL WHERE id = $1`, id)
}

// renameOutgoing gives a message a new msg_id: somebody else's message stands under
// the old one.
func (t *tx) renameOutgoing(o *outgoing) error {
	return t.exec(`UPDATE outbox SET wire = $1, envelope = NULL WHERE id = $2`, newMessageID(), o.id)
}

func (t *tx) removeOutgoing(id int64) error {
	return t.exec(`DELETE FROM outbox WHERE id = $1`, id)
}

// refuseOutgoing takes a message out of the outbox that will never be delivered.
func (t *tx) refuseOutgoing(o *outgoing, now time.Time, code, problem string) error {
	if err := t.removeOutgoing(o.id); err != nil {
		return err
	}
	return t.report(Event{Type: EventRefused, Conversation: o.conversation, MessageID: o.message, Own: true,
		Text: o.body.Text, Time: now, Code: code, Problem: problem})
}

// refuseAll does so with all that waits in a conversation.
func (t *tx) refuseAll(conversation string, now time.Time, code, problem string) error {
	for {
		o, err := t.nextOutgoing(conversation, 0)
		if err != nil || o == nil {
			return err
		}
		if err := t.refuseOutgoing(o, now, code, problem); err != nil {
			return err
		}
	}
}

// Pending is how many messages are in the outbox: not delivered yet.
func (c *Client) Pending(ctx context.Context) (count int, err error) {
	err = c.db.update(ctx, func(tx *tx) error {
		_, err := tx.get([]any{&count}, `SELECT count(*) FROM outbox`)
		return err
	})
	return count, err
}

// Flush waits until the outbox is empty, everything in it delivered or refused.
func (c *Client) Flush(ctx context.Context) error {
	for {
		woken := c.db.readersWake() // each delivery and refusal is an event
		count, err := c.Pending(ctx)
		if err != nil || count == 0 {
			return err
		}
		select {
		case <-woken:
		case <-c.closed:
			return c.endError()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
