package client

import (
	"context"
	"strconv"
)

// Waiting are the messages of a conversation that are in the outbox, in the order in
// which they were written: not delivered yet. Each comes back as an EventMessage with
// the same MessageID and Own set once it is, or as an EventRefused. Until then it has
// neither ID nor Seq.
func (c *Client) Waiting(ctx context.Context, conversation string) ([]Event, error) {
	var out []Event
	self := c.Self()
	err := c.db.update(ctx, func(tx *tx) error {
		out = nil
		var id int64
		var message string
		var sealed []byte
		return tx.each([]any{&id, &message, &sealed}, func() error {
			var body outgoingBody
			err := tx.openJSON("outbox", strconv.FormatInt(id, 10), "body", sealed, &body)
			out = append(out, c.judged(Event{Type: EventMessage, Conversation: conversation, Time: body.Time,
				MessageID: message, From: self, Own: true, Text: body.Text}))
			sealed = nil
			return err
		}, `SELECT id, message, body FROM outbox WHERE conversation = $1 ORDER BY id`, conversation)
	})
	return out, err
}
