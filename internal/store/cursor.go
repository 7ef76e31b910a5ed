package store

import (
	"fmt"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
)

// DeviceCursor is the position up to which one device has acknowledged one log.
type DeviceCursor struct {
	Device ds.Device
	ds.Cursor
}

// Advance moves cursors forwards, never back. Each is first lowered to the head of its
// log, so that a device cannot skip future records.
func (q Cursors) Advance(list []DeviceCursor) error {
	// All nodes use one order: two that write the same rows do not deadlock.
	slices.SortFunc(list, func(a, b DeviceCursor) int {
		for _, c := range []int{strings.Compare(string(a.Device.Account), string(b.Device.Account)), strings.Compare(string(a.Device.ID), string(b.Device.ID)), strings.Compare(string(a.Log), string(b.Log))} {
			if c != 0 {
				return c
			}
		}
		return 0
	})
	for chunk := range slices.Chunk(list, 64) {
		args := []any{q.tx.nowMS}
		for _, c := range chunk {
			args = append(args, string(c.Device.Account), string(c.Device.ID), string(c.Log), c.Next)
		}
		next := `CASE WHEN substr(l.log_id, 1, 1) = 'c' THEN l.seq + 1 ELSE l.pos + 1 END`
		if _, err := q.tx.exec(`INSERT INTO cursors (account, device, log_id, next, updated_ms)
			SELECT n.account, n.device, n.log_id, CASE WHEN n.next < `+next+` THEN n.next ELSE `+next+` END, CAST($1 AS BIGINT)
			FROM (`+values(len(chunk))+`) AS n JOIN logs l ON l.log_id = n.log_id
			WHERE true
			ON CONFLICT (account, device, log_id) DO UPDATE SET next = excluded.next, updated_ms = excluded.updated_ms
			WHERE cursors.next < excluded.next`, args...); err != nil {
			return err
		}
	}
	return nil
}

// values returns a sub-select of (account, device, log_id, next) with arguments that start
// after the first. The casts tell PostgreSQL the types of its parameters.
func values(count int) string {
	var b strings.Builder
	for i := range count {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		n := 2 + i*4
		fmt.Fprintf(&b, "SELECT CAST($%d AS TEXT) AS account, CAST($%d AS TEXT) AS device, CAST($%d AS TEXT) AS log_id, CAST($%d AS BIGINT) AS next", n, n+1, n+2, n+3)
	}
	return b.String()
}

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
