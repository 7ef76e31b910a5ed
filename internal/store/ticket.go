package store

import (
	"encoding/json"

	"waxwing.im/waxwing/internal/ds"
)

// Ticket authorizes one subscription. Only the hash of its secret is stored.
type Ticket struct {
	Hash          [32]byte
	Account       ds.AccountID
	Generation    int                 // of the API that the account's clients use; see Registration
	Conversations []ds.ConversationID // empty: all of the account
	ExpiresMS     int64
}

// Insert stores a ticket. Its generation is the known one of the account's devices; that
// of t is ignored.
func (q Tickets) Insert(t Ticket) error {
	_, err := q.tx.exec(`INSERT INTO tickets (ticket_hash, account, generation, conversations, expires_ms)
		SELECT $1, $2, COALESCE((SELECT MAX(d.generation) FROM devices d WHERE d.account = $2), 0), $3, CAST($4 AS BIGINT)`,
		t.Hash[:], string(t.Account), asJSON(append([]ds.ConversationID{}, t.Conversations...)), t.ExpiresMS)
	return err
}

// Take deletes a ticket and returns it, expired or not: only one caller ever gets it. The
// others get ErrNotFound.
func (q Tickets) Take(hash [32]byte) (Ticket, error) {
	t := Ticket{Hash: hash}
	var generation int64
	var list string
	err := q.tx.row(`DELETE FROM tickets WHERE ticket_hash = $1 RETURNING account, generation, conversations, expires_ms`, hash[:]).
		Scan(&t.Account, &generation, &list, &t.ExpiresMS)
	if err != nil {
		return t, notFound(err)
	}
	t.Generation = int(generation)
	return t, json.Unmarshal([]byte(list), &t.Conversations)
}

// Sweep deletes expired tickets.
func (q Tickets) Sweep() error {
	_, err := q.tx.exec(`DELETE FROM tickets WHERE expires_ms <= $1`, q.tx.nowMS)
	return err
}
