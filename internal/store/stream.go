package store

import (
	"encoding/json"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// StreamPosition is where a stream of one device stood: what it wanted next of each
// log, in the order in which it began to follow them.
type StreamPosition struct {
	ID     [16]byte
	Device ds.Device
	Next   []ds.Cursor
}

// positionNext is the stored form of a cursor.
type positionNext struct {
	Log  ds.LogID `json:"l"`
	Next int64    `json:"n"`
}

// InsertStreamPositions keeps positions. They are never changed.
func (tx *Tx) InsertStreamPositions(list []StreamPosition) error {
	for chunk := range slices.Chunk(list, 16) {
		args := make([]any, 0, 5*len(chunk))
		for _, p := range chunk {
			next := make([]positionNext, len(p.Next))
			for i, c := range p.Next {
				next[i] = positionNext(c)
			}
			args = append(args, p.ID[:], string(p.Device.Account), string(p.Device.ID), asJSON(next), tx.nowMS)
		}
		if _, err := tx.exec(`INSERT INTO stream_positions (position_id, account, device, next, created_ms) VALUES `+
			placeholders(len(chunk), 5, 0), args...); err != nil {
			return err
		}
	}
	return nil
}

// StreamPosition is a position of that device which is at most lifetime old, or
// ErrNotFound.
func (tx *Tx) StreamPosition(id [16]byte, device ds.Device, lifetime time.Duration) ([]ds.Cursor, error) {
	var text string
	err := tx.row(`SELECT next FROM stream_positions WHERE position_id = $1 AND account = $2 AND device = $3 AND created_ms > $4`,
		id[:], string(device.Account), string(device.ID), tx.nowMS-lifetime.Milliseconds()).Scan(&text)
	if err != nil {
		return nil, notFound(err)
	}
	var next []positionNext
	if err := json.Unmarshal([]byte(text), &next); err != nil {
		return nil, err
	}
	list := make([]ds.Cursor, len(next))
	for i, n := range next {
		list[i] = ds.Cursor(n)
	}
	return list, nil
}

// SweepStreamPositions forgets positions that are older than lifetime.
func (tx *Tx) SweepStreamPositions(lifetime time.Duration) error {
	_, err := tx.exec(`DELETE FROM stream_positions WHERE created_ms <= $1`, tx.nowMS-lifetime.Milliseconds())
	return err
}

// ConversationIDs lists what account is in now, at most max of them.
func (tx *Tx) ConversationIDs(account ds.AccountID, max int) ([]ds.ConversationID, error) {
	var list []ds.ConversationID
	err := tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		err := scan(&log)
		list = append(list, log.Conversation())
		return err
	}, `SELECT log_id FROM intervals WHERE account = $1 AND until_pos IS NULL ORDER BY log_id LIMIT `+bound(2), string(account), int64(max))
	return list, err
}
