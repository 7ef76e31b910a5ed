package home

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"
)

// Outgoing is a message that the server does not have yet, or has not echoed.
type Outgoing struct {
	ID           int64
	Conversation string
	Message      string // the application's id
	Wire         string // the server's id; nearly always the same
	// Envelope is the ciphertext, nil until it is first sent. From then on every retry sends
	// these bytes, unless the server reports that it did not keep them.
	Envelope []byte

	// Content is the type of the content, 0 for a text.
	Content byte
	Text    []byte // or other content
	Time    time.Time
}

// outgoingBody holds the sealed fields of an Outgoing.
type outgoingBody struct {
	Content byte      `json:"content,omitempty"`
	Text    []byte    `json:"text"`
	Time    time.Time `json:"time"`
	// ID is the application's id if the server's was another one from the start, and "" otherwise.
	ID string `json:"id,omitempty"`
}

// Outbox holds the messages that are to be sent, in the order in which they were written.
type Outbox struct{ t *Tx }

// Count returns the number of messages in the outbox.
func (b Outbox) Count() (count int64, err error) {
	_, err = b.t.get([]any{&count}, `SELECT count(*) FROM outbox`)
	return count, err
}

// Add appends a message. The outbox sets its ID, and its Wire if that is "".
func (b Outbox) Add(o Outgoing) error {
	body := outgoingBody{Content: o.Content, Text: o.Text, Time: o.Time}
	if o.Wire == "" {
		o.Wire = o.Message
	}
	if o.Wire != o.Message {
		body.ID = o.Message
	}
	id, err := b.t.Counters.Next("outbox")
	if err != nil {
		return err
	}
	return b.t.exec(`INSERT INTO outbox (id, conversation, message, wire, body) VALUES ($1, $2, $3, $3, $4)`,
		id, o.Conversation, o.Wire, b.t.sealJSON("outbox", strconv.FormatInt(id, 10), "body", body))
}

// chosen returns the setting for an id that the application has chosen, which does not disclose
// the id.
func (b Outbox) chosen(conversation, message string) string {
	return "sent " + hex.EncodeToString(b.t.home.sealer.name("sent", conversation, message))
}

// Chosen returns the digest of the text that the application has sent under an id of its own.
func (b Outbox) Chosen(conversation, message string) (digest []byte, found bool, err error) {
	found, err = b.t.Settings.Get(b.chosen(conversation, message), &digest)
	return digest, found, err
}

// Choose records the digest of the text that is sent under an id of the application's own.
func (b Outbox) Choose(conversation, message string, digest []byte) error {
	return b.t.Settings.Set(b.chosen(conversation, message), digest)
}

// Unchoose deletes what Choose has recorded, if anything.
func (b Outbox) Unchoose(conversation, message string) error {
	return b.t.exec(`DELETE FROM settings WHERE name = $1`, b.chosen(conversation, message))
}

// list returns messages; the condition comes first.
func (b Outbox) list(where string, args ...any) (out []*Outgoing, err error) {
	var o Outgoing
	var sealed []byte
	var envelope string // in base64
	err = b.t.each([]any{&o.ID, &o.Conversation, &o.Message, &o.Wire, &envelope, &sealed}, func() error {
		var body outgoingBody
		err := b.t.openJSON("outbox", strconv.FormatInt(o.ID, 10), "body", sealed, &body)
		row := o
		if err == nil && envelope != "" {
			row.Envelope, err = base64.StdEncoding.DecodeString(envelope)
		}
		row.Content, row.Text, row.Time = body.Content, body.Text, body.Time
		if body.ID != "" {
			row.Message = body.ID
		}
		out = append(out, &row)
		sealed = nil
		return err
	}, `SELECT id, conversation, message, wire, coalesce(envelope, ''), body FROM outbox WHERE `+where, args...)
	return out, err
}

func (b Outbox) one(where string, args ...any) (*Outgoing, error) {
	list, err := b.list(where+` LIMIT 1`, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// Get returns the message in the row id, or nil.
func (b Outbox) Get(id int64) (*Outgoing, error) { return b.one(`id = $1`, id) }

// Next returns the conversation's first message after the row after, or nil.
func (b Outbox) Next(conversation string, after int64) (*Outgoing, error) {
	return b.one(`conversation = $1 AND id > $2 ORDER BY id`, conversation, after)
}

// ByWire returns the message with that id at the server, or nil.
func (b Outbox) ByWire(conversation, wire string) (*Outgoing, error) {
	return b.one(`conversation = $1 AND wire = $2`, conversation, wire)
}

// Waiting returns the messages of a conversation in their order.
func (b Outbox) Waiting(conversation string) ([]*Outgoing, error) {
	return b.list(`conversation = $1 ORDER BY id`, conversation)
}

// SetEnvelope writes the ciphertext.
func (b Outbox) SetEnvelope(id int64, envelope []byte) error {
	return b.t.exec(`UPDATE outbox SET envelope = $1 WHERE id = $2`,
		base64.StdEncoding.EncodeToString(envelope), id)
}

// ClearEnvelope deletes the ciphertext, so that the message is encrypted again.
func (b Outbox) ClearEnvelope(id int64) error {
	return b.t.exec(`UPDATE outbox SET envelope = NULL WHERE id = $1`, id)
}

// Rename gives a message a new id for the server and deletes the ciphertext.
func (b Outbox) Rename(id int64, wire string) error {
	return b.t.exec(`UPDATE outbox SET wire = $1, envelope = NULL WHERE id = $2`, wire, id)
}

// Remove deletes a message. It wakes readers, since not every one is reported as an event.
func (b Outbox) Remove(id int64) error {
	b.t.After(b.t.home.wakeReaders)
	return b.t.exec(`DELETE FROM outbox WHERE id = $1`, id)
}
