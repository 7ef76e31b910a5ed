package store

import "waxwing.im/waxwing/internal/ds"

// DeviceCursor is the position up to which one device has acknowledged one log.
type DeviceCursor struct {
	Device ds.Device
	ds.Cursor
}

// Advance moves cursors forwards, never back. Each is first lowered to the head of its
// log, so that a device cannot skip future records.
func (q Cursors) Advance(list []DeviceCursor) error {
	if len(list) == 0 {
		return nil
	}
	moved := q.tx.table(2, len(list), "account text", "device text", "log_id text", "next bigint")
	for _, c := range list {
		moved.add(string(c.Device.Account), string(c.Device.ID), string(c.Log), c.Next)
	}
	// All nodes use one order: two that write the same rows do not deadlock.
	_, err := q.tx.exec(`INSERT INTO cursors (account, device, log_id, next, updated_ms)
		SELECT k.account, k.device, k.log_id, CASE WHEN k.next < `+nextOf+` THEN k.next ELSE `+nextOf+` END, CAST($1 AS BIGINT)
		FROM `+moved.from+` JOIN logs l ON l.log_id = k.log_id
		WHERE true
		ORDER BY k.account, k.device, k.log_id
		ON CONFLICT (account, device, log_id) DO UPDATE SET next = excluded.next, updated_ms = excluded.updated_ms
		WHERE cursors.next < excluded.next`, moved.args(q.tx.nowMS)...)
	return err
}

// nextOf is the cursor of a device that has acknowledged all of log l.
const nextOf = `CASE WHEN substr(l.log_id, 1, 1) = 'c' THEN l.seq + 1 ELSE l.pos + 1 END`

// Get returns the next number that device wants of log, 1 if it never acknowledged any.
func (q Cursors) Get(device ds.Device, log ds.LogID) (int64, error) {
	next := int64(1)
	err := q.tx.row(`SELECT next FROM cursors WHERE account = $1 AND device = $2 AND log_id = $3`,
		string(device.Account), string(device.ID), string(log)).Scan(&next)
	if notFound(err) == ErrNotFound {
		return 1, nil
	}
	return next, err
}

// Of lists the cursors of a device, those that moved last first, at most max of them; that
// of the account log is always among them.
func (q Cursors) Of(device ds.Device, max int) ([]ds.Cursor, error) {
	var list []ds.Cursor
	err := q.tx.each(func(scan func(...any) error) error {
		var c ds.Cursor
		err := scan(&c.Log, &c.Next)
		list = append(list, c)
		return err
	}, `SELECT log_id, next FROM cursors WHERE account = $1 AND device = $2
		ORDER BY CASE WHEN substr(log_id, 1, 1) = 'c' THEN 1 ELSE 0 END, updated_ms DESC, log_id LIMIT `+bound(3),
		string(device.Account), string(device.ID), int64(max))
	return list, err
}
