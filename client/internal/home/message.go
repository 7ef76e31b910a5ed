package home

import (
	"crypto/sha256"
	"fmt"
	"strconv"
)

// Messages holds the received messages: the history. Values are sealed as JSON. After the
// server's log was rewound a lost message is detached, at its negative seq, until the log has
// it again.
type Messages struct{ t *Tx }

func messageRow(conversation string, seq int64) string {
	if seq < 0 {
		seq = -seq // detached, since the log was rewound
	}
	return conversation + "\x00" + strconv.FormatInt(seq, 10)
}

// Add writes a message; digest is the digest of its ciphertext. isRead reports that this
// account has sent it.
func (m Messages) Add(conversation string, seq int64, digest [sha256.Size]byte, value any, isRead bool) error {
	return m.t.exec(`INSERT INTO messages (conversation, seq, digest, body, own) VALUES ($1, $2, $3, $4, $5)`,
		conversation, seq, digest[:], m.t.sealJSON("messages", messageRow(conversation, seq), "body", value), isRead)
}

// Has reports whether a message of exactly these bytes was received.
func (m Messages) Has(conversation string, digest [sha256.Size]byte) (bool, error) {
	var one int
	return m.t.get([]any{&one}, `SELECT 1 FROM messages WHERE conversation = $1 AND digest = $2`, conversation, digest[:])
}

// Get decodes the message at seq into out.
func (m Messages) Get(conversation string, seq int64, out any) error {
	body, err := m.sealed(conversation, seq)
	if err != nil {
		return err
	}
	return m.t.openJSON("messages", messageRow(conversation, seq), "body", body, out)
}

func (m Messages) sealed(conversation string, seq int64) (body []byte, err error) {
	found, err := m.t.get([]any{&body}, `SELECT body FROM messages WHERE conversation = $1 AND seq = $2`, conversation, seq)
	if err == nil && !found {
		err = fmt.Errorf("message %d is missing in the home", seq)
	}
	return body, err
}

// LastSeq returns the place of a conversation's last message.
func (m Messages) LastSeq(conversation string) (seq int64, found bool, err error) {
	found, err = m.t.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND seq > 0 ORDER BY seq DESC LIMIT 1`, conversation)
	return seq, found, err
}

// Before calls fn for the last messages below before, newest first, at most limit of them. fn
// gets a function that decodes the message into out, and may not use the transaction.
func (m Messages) Before(conversation string, before int64, limit int, fn func(read func(out any) error) error) error {
	var seq int64
	var body []byte
	return m.t.each([]any{&seq, &body}, func() error {
		return fn(func(out any) error {
			return m.t.openJSON("messages", messageRow(conversation, seq), "body", body, out)
		})
	}, `SELECT seq, body FROM messages WHERE conversation = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3`, conversation, before, limit)
}

// Conversations returns the conversations that have messages, in order of their ids.
func (m Messages) Conversations() (ids []string, err error) {
	var id string
	err = m.t.each([]any{&id}, func() error { ids = append(ids, id); return nil },
		`SELECT DISTINCT conversation FROM messages ORDER BY conversation`)
	return ids, err
}

// CountOthers returns the number of messages after seq that other accounts sent.
func (m Messages) CountOthers(conversation string, seq int64) (count int, err error) {
	_, err = m.t.get([]any{&count}, `SELECT count(*) FROM messages WHERE conversation = $1 AND seq > $2 AND own = 0`, conversation, seq)
	return count, err
}

// SeqOf returns the place of the message with that digest, negative if it is detached.
func (m Messages) SeqOf(conversation string, digest []byte) (seq int64, found bool, err error) {
	found, err = m.t.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND digest = $2`, conversation, digest)
	return seq, found, err
}

// Detach frees the places of the messages from seq on for other messages.
func (m Messages) Detach(conversation string, from int64) error {
	return m.t.exec(`UPDATE messages SET seq = -seq WHERE conversation = $1 AND seq >= $2`, conversation, from)
}

// CountDetached returns the number of detached messages, in all conversations.
func (m Messages) CountDetached() (count int, err error) {
	_, err = m.t.get([]any{&count}, `SELECT count(*) FROM messages WHERE seq < 0`)
	return count, err
}

// Restore sets the new place and value of the message with that digest.
func (m Messages) Restore(conversation string, digest []byte, seq int64, value any) error {
	return m.t.exec(`UPDATE messages SET seq = $1, body = $2 WHERE conversation = $3 AND digest = $4`,
		seq, m.t.sealJSON("messages", messageRow(conversation, seq), "body", value), conversation, digest)
}
