package store

import (
	"waxwing.im/waxwing/internal/ds"
)

const recordColumns = `log_id, pos, seq, kind, generation, epoch, term, message_id, created_ms, hash, sender_account, sender_device, recipient, encoding, body`

// RecordsAfter reads a page of a log: the records after pos in order, at most
// count of them, and no further one once their bodies exceed bytesMax in total.
func (tx *Tx) RecordsAfter(log ds.LogID, pos int64, count, bytesMax int) ([]ds.Record, error) {
	rs, err := tx.query(`SELECT pos, COALESCE(seq, 0), kind, generation, epoch, term, COALESCE(message_id, ''), created_ms, hash,
			COALESCE(sender_account, ''), COALESCE(sender_device, ''), COALESCE(recipient, ''), encoding, body
		FROM records WHERE log_id = $1 AND pos > $2 ORDER BY pos LIMIT `+bound(3), string(log), pos, int64(count))
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	var list []ds.Record
	for total := 0; total <= bytesMax && rs.Next(); {
		r := ds.Record{Log: log}
		if err := rs.Scan(&r.Pos, &r.Seq, &r.Kind, &r.Generation, &r.Epoch, &r.Term, &r.MessageID, &r.CreatedMS, &r.Hash,
			&r.Sender.Account, &r.Sender.ID, &r.Recipient, &r.Encoding, &r.Body); err != nil {
			return nil, err
		}
		total += len(r.Body)
		list = append(list, r)
	}
	return list, rs.Err()
}

// WelcomeSizes returns the sizes in bytes of the Welcomes that still exist, by id.
func (tx *Tx) WelcomeSizes(ids []string) (map[string]int64, error) {
	found := make(map[string]int64, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	err := tx.each(func(scan func(...any) error) error {
		var id string
		var size int64
		err := scan(&id, &size)
		found[id] = size
		return err
	}, `SELECT welcome_id, length(body) FROM welcomes WHERE welcome_id `+tx.in(1)+` AND expires_ms > $2`, tx.setOf(ids), tx.nowMS)
	return found, err
}

// WelcomeBodies returns the Welcomes that still exist, by id.
func (tx *Tx) WelcomeBodies(ids []string) (map[string][]byte, error) {
	found := make(map[string][]byte, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	err := tx.each(func(scan func(...any) error) error {
		var id string
		var body []byte
		err := scan(&id, &body)
		found[id] = body
		return err
	}, `SELECT welcome_id, body FROM welcomes WHERE welcome_id `+tx.in(1)+` AND expires_ms > $2`, tx.setOf(ids), tx.nowMS)
	return found, err
}
