package store

// Revocation is a position in the order in which sessions were revoked, on any node: that of a
// session by its number and its hash.
type Revocation struct {
	Seq  int64
	Hash []byte
}

// LockRevocations gives the transaction its number among those that revoke sessions and keeps
// others from getting one until it has ended. So the numbers become visible in their order, and
// a reader that has seen one has seen all before it: no clock is compared. Revoke calls
// it; a transaction that locks anything else calls it first, to avoid a deadlock.
func (q Sessions) LockRevocations() error {
	if q.tx.revocation != 0 {
		return nil
	}
	return q.tx.row(`UPDATE counters SET value = value + 1 WHERE name = 'revocations' RETURNING value`).Scan(&q.tx.revocation)
}

// LastRevocation returns the position after every session that was revoked until now.
func (q Sessions) LastRevocation() (Revocation, error) {
	var last int64
	err := q.tx.row(`SELECT value FROM counters WHERE name = 'revocations'`).Scan(&last)
	return Revocation{Seq: last + 1, Hash: []byte{}}, err // no hash is empty
}

// RevokedAfter returns the positions of at most max sessions that were revoked after a
// position, in their order.
func (q Sessions) RevokedAfter(after Revocation, max int) ([]Revocation, error) {
	var list []Revocation
	err := q.tx.each(func(scan func(...any) error) error {
		var r Revocation
		err := scan(&r.Seq, &r.Hash)
		list = append(list, r)
		return err
	}, // The first condition is the one that the index serves.
		`SELECT revoked_seq, session_hash FROM sessions
		WHERE revoked_seq >= $1 AND (revoked_seq, session_hash) > ($1, $2)
		ORDER BY revoked_seq, session_hash LIMIT `+bound(3), after.Seq, after.Hash, max)
	return list, err
}
