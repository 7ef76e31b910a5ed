package home

import (
	"crypto/sha256"
	"encoding/hex"
)

// Journal holds the digests of the events received from each log, and for own messages and
// commits the request that sent them, sealed. With it a log that was rewound is detected, and
// own records can be sent again.
type Journal struct{ t *Tx }

// The bounds of the journal in each conversation, in events: for digests, for own messages with
// their bytes, and for own commits with theirs, which are large.
const (
	JournalEvents   = 4096
	journalMessages = 2048
	journalCommits  = 128
	journalTrim     = 64 // the interval at which older ones are deleted
)

// The kinds of requests.
const (
	KindSend   = "conv.send"
	KindCommit = "conv.commit"
)

// Note enters the event at seq; for an own one with the kind of the request that sent it, ""
// for others, and its body.
func (j Journal) Note(conversation string, seq int64, digest [sha256.Size]byte, kind string, request []byte) error {
	var of, sealed any
	if kind != "" {
		// A commit names accounts, which a thief of the home must not read.
		of, sealed = kind, j.t.home.sealer.seal("log", logRow(conversation, digest[:]), "frame", request)
	}
	if seq%journalTrim == 0 {
		if err := j.ForgetBefore(conversation, seq-JournalEvents); err != nil {
			return err
		}
		if err := j.t.exec(`UPDATE log SET type = NULL, frame = NULL WHERE conversation = $1 AND frame IS NOT NULL
			AND (seq < $2 OR seq < $3 AND type = $4)`, conversation, seq-journalMessages, seq-journalCommits, KindCommit); err != nil {
			return err
		}
	}
	return j.t.exec(`INSERT INTO log (conversation, digest, seq, type, frame) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (conversation, digest) DO NOTHING`, conversation, digest[:], seq, of, sealed)
}

func logRow(conversation string, digest []byte) string {
	return conversation + "\x00" + hex.EncodeToString(digest)
}

// sealFrames seals the requests in a home of version 2, which stored them in plain text.
func (j Journal) sealFrames() error {
	type row struct {
		conversation  string
		digest, frame []byte
	}
	var rows []row
	var r row
	if err := j.t.each([]any{&r.conversation, &r.digest, &r.frame}, func() error {
		rows = append(rows, r)
		r.digest, r.frame = nil, nil
		return nil
	}, `SELECT conversation, digest, CAST(frame AS BLOB) FROM log WHERE typeof(frame) = 'text'`); err != nil {
		return err
	}
	for _, r := range rows {
		sealed := j.t.home.sealer.seal("log", logRow(r.conversation, r.digest), "frame", r.frame)
		if err := j.t.exec(`UPDATE log SET frame = $1 WHERE conversation = $2 AND digest = $3`, sealed, r.conversation, r.digest); err != nil {
			return err
		}
	}
	return nil
}

// Find returns the place of the event with that digest; isLost reports that the log has lost it
// since it was rewound.
func (j Journal) Find(conversation string, digest [sha256.Size]byte) (seq int64, isLost, found bool, err error) {
	found, err = j.t.get([]any{&seq, &isLost}, `SELECT seq, lost <> 0 FROM log WHERE conversation = $1 AND digest = $2`, conversation, digest[:])
	return seq, isLost, found, err
}

// Has reports whether the journal has the event at seq.
func (j Journal) Has(conversation string, seq int64) (bool, error) {
	var one int
	return j.t.get([]any{&one}, `SELECT 1 FROM log WHERE conversation = $1 AND seq = $2 AND lost = 0`, conversation, seq)
}

// LastOwn returns the place of the last own event from seq on.
func (j Journal) LastOwn(conversation string, seq int64) (last int64, found bool, err error) {
	found, err = j.t.get([]any{&last}, `SELECT seq FROM log WHERE conversation = $1 AND seq >= $2 AND lost = 0 AND type IS NOT NULL
		ORDER BY seq DESC LIMIT 1`, conversation, seq)
	return last, found, err
}

// HasUpTo reports whether the journal has any event up to seq.
func (j Journal) HasUpTo(conversation string, seq int64) (bool, error) {
	var one int
	return j.t.get([]any{&one}, `SELECT 1 FROM log WHERE conversation = $1 AND seq <= $2 LIMIT 1`, conversation, seq)
}

// First returns the place of the earliest event.
func (j Journal) First(conversation string) (first int64, found bool, err error) {
	found, err = j.t.get([]any{&first}, `SELECT seq FROM log WHERE conversation = $1 ORDER BY seq LIMIT 1`, conversation)
	return first, found, err
}

// MarkLost marks the events from seq on as lost by the log.
func (j Journal) MarkLost(conversation string, from int64) error {
	return j.t.exec(`UPDATE log SET lost = 1 WHERE conversation = $1 AND seq >= $2`, conversation, from)
}

// Unmark marks the events from a place on up to before another as not lost, except for messages
// that are detached, and returns the last one's place, 0 without any.
func (j Journal) Unmark(conversation string, from, to int64) (last int64, err error) {
	if err := j.t.exec(`UPDATE log SET lost = 0 WHERE conversation = $1 AND seq >= $2 AND seq < $3 AND NOT EXISTS
		(SELECT 1 FROM messages WHERE messages.conversation = $1 AND messages.digest = log.digest AND messages.seq < 0)`, conversation, from, to); err != nil {
		return 0, err
	}
	_, err = j.t.get([]any{&last}, `SELECT coalesce(max(seq), 0) FROM log WHERE conversation = $1 AND seq >= $2 AND seq < $3 AND lost = 0`, conversation, from, to)
	return last, err
}

// Restore sets the new place of an event that the log has again.
func (j Journal) Restore(conversation string, digest [sha256.Size]byte, seq int64) error {
	return j.t.exec(`UPDATE log SET seq = $1, lost = 0 WHERE conversation = $2 AND digest = $3`, seq, conversation, digest[:])
}

// Request is an own message or commit that the log has lost.
type Request struct {
	Kind   string
	Body   []byte
	Digest []byte
}

// Lost returns the own requests that the log has lost and that were not sent again, in its former
// order.
func (j Journal) Lost(conversation string) (out []Request, err error) {
	var r Request
	err = j.t.each([]any{&r.Kind, &r.Body, &r.Digest}, func() error {
		body, err := j.t.home.sealer.open("log", logRow(conversation, r.Digest), "frame", r.Body)
		out = append(out, Request{r.Kind, body, r.Digest})
		r.Body, r.Digest = nil, nil
		return err
	}, `SELECT type, frame, digest FROM log WHERE conversation = $1 AND lost = 1 AND frame IS NOT NULL ORDER BY seq`, conversation)
	return out, err
}

// Resent records that a lost event was sent again. Its request stays: the log may lose it again.
func (j Journal) Resent(conversation string, digest []byte) error {
	return j.t.exec(`UPDATE log SET lost = 2 WHERE conversation = $1 AND digest = $2 AND lost = 1`, conversation, digest)
}

// Forget erases an event.
func (j Journal) Forget(conversation string, digest []byte) error {
	return j.t.exec(`DELETE FROM log WHERE conversation = $1 AND digest = $2`, conversation, digest)
}

// ForgetBefore erases the events before seq.
func (j Journal) ForgetBefore(conversation string, seq int64) error {
	return j.t.exec(`DELETE FROM log WHERE conversation = $1 AND seq < $2`, conversation, seq)
}

// ForgetFrom erases the events from seq on.
func (j Journal) ForgetFrom(conversation string, seq int64) error {
	return j.t.exec(`DELETE FROM log WHERE conversation = $1 AND seq >= $2`, conversation, seq)
}
