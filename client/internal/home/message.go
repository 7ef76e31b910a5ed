package home

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strconv"
)

// Messages holds the received messages, and changes of their conversations: the history. Values
// are sealed as JSON, for the place at which the message was last in the log. After the server's
// log was rewound a lost message is detached until the log has it again: it keeps that place,
// and its seq is a negative number which no other message of the conversation has. A change that
// is not a record of the log has such a seq, too, and the place of the record before it.
type Messages struct{ t *Tx }

func messageRow(conversation string, place int64) string {
	return conversation + "\x00" + strconv.FormatInt(place, 10)
}

// Add writes a message; digest is the digest of its ciphertext. isRead reports that this
// account has sent it.
func (m Messages) Add(conversation string, seq int64, digest [sha256.Size]byte, value any, isRead bool) error {
	return m.t.exec(`INSERT INTO messages (conversation, seq, place, digest, body, own) VALUES ($1, $2, $2, $3, $4, $5)`,
		conversation, seq, digest[:], m.t.sealJSON("messages", messageRow(conversation, seq), "body", value), isRead)
}

// AddChange writes a change, which does not count as a message: of the record at seq with that
// digest or, if it is not a record, after the one at seq.
func (m Messages) AddChange(conversation string, seq int64, digest []byte, value any) error {
	kind, place := 1, seq
	if digest == nil {
		kind, digest = 2, make([]byte, sha256.Size)
		rand.Read(digest)
		if _, err := m.t.get([]any{&seq}, `SELECT min(0, coalesce(min(seq), 0)) - 1 FROM messages WHERE conversation = $1`, conversation); err != nil {
			return err
		}
	}
	return m.t.exec(`INSERT INTO messages (conversation, seq, place, digest, body, own, change) VALUES ($1, $2, $3, $4, $5, 1, $6)`,
		conversation, seq, place, digest, m.t.sealJSON("messages", messageRow(conversation, place), "body", value), kind)
}

// Has reports whether a message of exactly these bytes was received.
func (m Messages) Has(conversation string, digest [sha256.Size]byte) (bool, error) {
	var one int
	return m.t.get([]any{&one}, `SELECT 1 FROM messages WHERE conversation = $1 AND digest = $2`, conversation, digest[:])
}

// Get decodes the message at seq into out.
func (m Messages) Get(conversation string, seq int64, out any) error {
	row, body, err := m.sealed(conversation, seq)
	if err != nil {
		return err
	}
	return m.t.openJSON("messages", row, "body", body, out)
}

// sealed returns the value of the message at seq, and the row that it is sealed for.
func (m Messages) sealed(conversation string, seq int64) (row string, body []byte, err error) {
	var place int64
	found, err := m.t.get([]any{&place, &body}, `SELECT place, body FROM messages WHERE conversation = $1 AND seq = $2`, conversation, seq)
	if err == nil && !found {
		err = fmt.Errorf("message %d is missing in the home", seq)
	}
	return messageRow(conversation, place), body, err
}

// LastSeq returns the seq of a conversation's last message.
func (m Messages) LastSeq(conversation string) (seq int64, found bool, err error) {
	found, err = m.t.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND seq > 0 AND change = 0 ORDER BY seq DESC LIMIT 1`, conversation)
	return seq, found, err
}

// Before calls fn for the last messages and changes with a place below before, the last one
// first, at most limit of them and the others at the place of the last of these: a detached
// message has the place of the one that replaced it, and is before it; a change that is not a
// record is after that of its place. fn gets a function that decodes the
// message into out, and may not use the transaction.
func (m Messages) Before(conversation string, before int64, limit int, fn func(read func(out any) error) error) error {
	var place int64
	var body []byte
	return m.t.each([]any{&place, &body}, func() error {
		return fn(func(out any) error {
			return m.t.openJSON("messages", messageRow(conversation, place), "body", body, out)
		})
	}, `SELECT place, body FROM messages WHERE conversation = $1 AND place < $2 AND place >=
		(SELECT min(place) FROM (SELECT place FROM messages WHERE conversation = $1 AND place < $2 ORDER BY place DESC LIMIT $3))
		ORDER BY place DESC, change = 2 DESC, CASE change WHEN 2 THEN seq ELSE -seq END`, conversation, before, limit)
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

// SeqOf returns the seq of the message with that digest, negative if it is detached.
func (m Messages) SeqOf(conversation string, digest []byte) (seq int64, found bool, err error) {
	found, err = m.t.get([]any{&seq}, `SELECT seq FROM messages WHERE conversation = $1 AND digest = $2`, conversation, digest)
	return seq, found, err
}

// Detach frees the seqs of the messages from seq on for other messages.
func (m Messages) Detach(conversation string, from int64) error {
	var lowest int64 // below it no seq is in use
	if _, err := m.t.get([]any{&lowest}, `SELECT min(0, coalesce(min(seq), 0)) FROM messages WHERE conversation = $1`, conversation); err != nil {
		return err
	}
	return m.t.exec(`UPDATE messages SET seq = $1 - 1 - (seq - $2) WHERE conversation = $3 AND seq >= $2`, lowest, from, conversation)
}

// Attach returns the messages that were last detached to their places from one on up to before
// another.
func (m Messages) Attach(conversation string, from, to int64) error {
	return m.t.exec(`UPDATE OR IGNORE messages SET seq = place WHERE conversation = $1 AND seq < 0 AND change <> 2 AND place >= $2 AND place < $3
		AND seq = (SELECT min(seq) FROM messages other WHERE other.conversation = $1 AND other.place = messages.place AND change <> 2)`, conversation, from, to)
}

// CountDetached returns the number of detached messages, in all conversations.
func (m Messages) CountDetached() (count int, err error) {
	_, err = m.t.get([]any{&count}, `SELECT count(*) FROM messages WHERE seq < 0 AND change <> 2`)
	return count, err
}

// Restore sets the new place in the log and the value of the message with that digest.
func (m Messages) Restore(conversation string, digest []byte, seq int64, value any) error {
	return m.t.exec(`UPDATE messages SET seq = $1, place = $1, body = $2 WHERE conversation = $3 AND digest = $4`,
		seq, m.t.sealJSON("messages", messageRow(conversation, seq), "body", value), conversation, digest)
}
