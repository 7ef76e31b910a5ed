package home

import (
	"strconv"
)

// Events holds the events that the application has not acknowledged yet, in the order of their
// ids. The body of a message is stored once, in Messages, and outlives the event.
type Events struct{ t *Tx }

// Event is a row of events.
type Event struct {
	ID           int64
	Conversation string
	Seq          int64
	body         []byte
}

// Add appends an event; value is sealed as JSON, nil for the message at seq.
func (e Events) Add(conversation string, seq int64, value any) error {
	id, err := e.t.Counters.Next("event")
	if err != nil {
		return err
	}
	var body any = []byte{}
	if value != nil {
		body = e.t.sealJSON("events", strconv.FormatInt(id, 10), "body", value)
	}
	e.t.After(e.t.home.wakeReaders)
	return e.t.exec(`INSERT INTO events (id, conversation, seq, body) VALUES ($1, $2, $3, $4)`, id, conversation, seq, body)
}

// After returns the first events after an id, at most limit of them.
func (e Events) After(after int64, limit int) (out []Event, err error) {
	var r Event
	err = e.t.each([]any{&r.ID, &r.Conversation, &r.Seq, &r.body}, func() error {
		out = append(out, r)
		r.body = nil
		return nil
	}, `SELECT id, conversation, seq, body FROM events WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	return out, err
}

// Read decodes the value of an event into out.
func (e Events) Read(r *Event, out any) error {
	if len(r.body) == 0 {
		return e.t.Messages.Get(r.Conversation, r.Seq, out)
	}
	return e.t.openJSON("events", strconv.FormatInt(r.ID, 10), "body", r.body, out)
}

// Last returns the id of the last event that was added.
func (e Events) Last() (int64, error) { return e.t.Counters.Get("event") }

// Forget erases the events up to id.
func (e Events) Forget(id int64) error { return e.t.exec(`DELETE FROM events WHERE id <= $1`, id) }

// Settle copies messages from seq on into the events that refer to them by their place, before
// the places change.
func (e Events) Settle(conversation string, from int64) error {
	var id, seq int64
	events := map[int64]int64{}
	if err := e.t.each([]any{&id, &seq}, func() error { events[id] = seq; return nil },
		`SELECT id, seq FROM events WHERE conversation = $1 AND seq >= $2 AND length(body) = 0`, conversation, from); err != nil {
		return err
	}
	for id, seq := range events {
		row, sealed, err := e.t.Messages.sealed(conversation, seq)
		if err != nil {
			return err
		}
		plain, err := e.t.home.sealer.open("messages", row, "body", sealed)
		if err != nil {
			return err
		}
		body := e.t.home.sealer.seal("events", strconv.FormatInt(id, 10), "body", plain)
		if err := e.t.exec(`UPDATE events SET body = $1 WHERE id = $2`, body, id); err != nil {
			return err
		}
	}
	return nil
}

// wakeReaders wakes all readers that wait for events; mu is held.
func (h *Home) wakeReaders() {
	h.readMu.Lock()
	defer h.readMu.Unlock()
	if h.readers != nil {
		close(h.readers)
		h.readers = nil
	}
}

// NewEvents returns a channel that is closed when there may be new events.
func (h *Home) NewEvents() <-chan struct{} {
	h.readMu.Lock()
	defer h.readMu.Unlock()
	if h.readers == nil {
		h.readers = make(chan struct{})
	}
	return h.readers
}
