package client

import "context"

// Waiting returns the undelivered messages of a conversation in the outbox, in the order in
// which they were written. Each comes back as an EventMessage with the same MessageID and Own
// set once it is delivered, or as an EventRefused. Until then it has neither ID nor Seq.
func (c *Client) Waiting(ctx context.Context, conversation string) ([]Event, error) {
	var out []Event
	self := c.Self()
	err := c.db.update(ctx, func(tx *tx) error {
		list, err := tx.Outbox.Waiting(conversation)
		for _, o := range list {
			out = append(out, c.authority.judged(Event{Type: EventMessage, Conversation: conversation, Time: o.Time,
				MessageID: o.Message, From: self, Own: true, Text: o.Text}))
		}
		return err
	})
	return out, err
}
