package store

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
)

// Read runs fn, which makes exactly one statement that only reads, in the statement's own
// snapshot: View takes three round trips, this takes one. A second statement, or one that
// writes, is an error.
func (db *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	err := db.engine.read(ctx, db.nowMS(), func(tx *Tx) error {
		if db.hook != nil {
			tx.conn = hookedConn{tx.conn, db.hook}
		}
		tx.conn = &single{to: tx.conn}
		return fn(tx)
	})
	err = hookFault(err)
	db.note(ctx, err)
	return err
}

// UpdateOne does the work of Update for fn that makes one statement, which returns rows: that
// is a transaction by itself, and if the database is across a network one round trip in place
// of three.
func (db *DB) UpdateOne(ctx context.Context, fn func(*Tx) error) error {
	if !db.IsShared() {
		return db.Update(ctx, fn)
	}
	for try := 0; ; try++ {
		err := db.Read(ctx, fn)
		if try < transactionRetries && IsLockLost(err) && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// single is a connection for one query.
type single struct {
	to      conn
	hasRead bool
}

var errNotSingle = errors.New("a second statement, or one without rows, in place of one query")

func (c *single) exec(context.Context, string, []any) (int64, error) { return 0, errNotSingle }

func (c *single) query(ctx context.Context, sql string, args []any) (rows, error) {
	if c.hasRead {
		return nil, errNotSingle
	}
	c.hasRead = true
	return c.to.query(ctx, sql, args)
}

// Start is the position from which a device wants to read a conversation.
type Start struct {
	Device       ds.Device
	Conversation ds.ConversationID
	FromSeq      int64 // the first message; 0 means the device's cursor
	Pending      int64 // that cursor if it is higher and not written yet
}

// Reading holds the data that a device needs to begin reading a conversation.
type Reading struct {
	Home        string
	Pos, Seq    int64       // of the head
	EarliestSeq int64       // the lowest message seq that is still stored
	Stay        ds.Interval // the account's last; zero if it was never a member, or there is no such conversation
	FromSeq     int64       // the first message that is wanted; 1 if the device never acknowledged any
	// Before is the pos after which a reader of that message starts, or the earliest one if
	// that is pruned. Beyond the head it is Pos.
	Before int64
}

// Readings loads the Reading of each start in one statement. The result is parallel to starts.
func (l Logs) Readings(starts []Start) ([]Reading, error) {
	found := make([]Reading, len(starts))
	if len(starts) == 0 {
		return found, nil
	}
	wanted, args := l.starts(starts)
	err := l.tx.each(func(scan func(...any) error) error {
		var n int
		var r Reading
		err := scan(&n, &r.Home, &r.Pos, &r.Seq, &r.EarliestSeq, &r.Stay.From, &r.Stay.Until, &r.Stay.Role, &r.FromSeq, &r.Before)
		found[n] = r // rows are ordered by stay
		return err
	}, `SELECT w.n, w.home, w.pos, w.seq, w.earliest_seq, w.from_pos, w.until_pos, w.role, w.from_seq,
			COALESCE((SELECT r.pos - 1 FROM records r WHERE r.log_id = w.log_id
				AND r.seq >= CASE WHEN w.from_seq > w.earliest_seq THEN w.from_seq ELSE w.earliest_seq END -- one bound: SQLite looks for one only
				ORDER BY r.seq LIMIT 1), w.pos)
		FROM (SELECT k.n, l.log_id, COALESCE(l.home, '') AS home, l.pos, l.seq, l.earliest_seq, i.from_pos, COALESCE(i.until_pos, 0) AS until_pos, i.role,
				CASE WHEN k.from_seq > 0 THEN k.from_seq WHEN c.next > -k.from_seq THEN c.next WHEN k.from_seq < 0 THEN -k.from_seq ELSE 1 END AS from_seq
			FROM `+wanted+` JOIN logs l ON l.log_id = k.log_id
				JOIN intervals i ON i.log_id = l.log_id AND i.account = k.account
				LEFT JOIN cursors c ON c.account = k.account AND c.device = k.device AND c.log_id = l.log_id) AS w
		ORDER BY w.from_pos`, args...)
	return found, err
}

// starts returns a table expression k over a list of starts, with their indexes, and its
// arguments. In from_seq a cursor that is not written yet is negative.
func (l Logs) starts(list []Start) (string, []any) {
	n := len(list)
	logs, accounts, devices, from := make([]string, n), make([]string, n), make([]string, n), make([]int64, n)
	for i, s := range list {
		logs[i], accounts[i], devices[i] = string(ds.ConversationLog(s.Conversation)), string(s.Device.Account), string(s.Device.ID)
		if from[i] = s.FromSeq; s.FromSeq == 0 {
			from[i] = -s.Pending
		}
	}
	switch {
	case n == 1: // a list costs more
		return `(SELECT 0 AS n, CAST($1 AS TEXT) AS log_id, CAST($2 AS TEXT) AS account, CAST($3 AS TEXT) AS device, CAST($4 AS BIGINT) AS from_seq) AS k`,
			[]any{logs[0], accounts[0], devices[0], from[0]}
	case l.tx.dialect.name == "postgres":
		return `(SELECT u.n - 1 AS n, u.log_id, u.account, u.device, u.from_seq
			FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS u(log_id, account, device, from_seq, n)) AS k`,
			[]any{logs, accounts, devices, from}
	}
	rows := make([][4]any, n)
	for i := range rows {
		rows[i] = [4]any{logs[i], accounts[i], devices[i], from[i]}
	}
	return `(SELECT key AS n, value->>0 AS log_id, value->>1 AS account, value->>2 AS device, value->>3 AS from_seq FROM json_each($1)) AS k`,
		[]any{asJSON(rows)}
}

// DeviceReading returns the data that a device needs to begin reading its account log: the pos
// of the head, 0 if there is no such log, and the pos that the device wants next.
func (l Logs) DeviceReading(device ds.Device) (head, cursor int64, err error) {
	log := string(ds.AccountLog(device.Account))
	err = l.tx.row(`SELECT COALESCE((SELECT pos FROM logs WHERE log_id = $1), 0),
		COALESCE((SELECT next FROM cursors WHERE account = $2 AND device = $3 AND log_id = $1), 1)`,
		log, string(device.Account), string(device.ID)).Scan(&head, &cursor)
	return head, cursor, err
}
