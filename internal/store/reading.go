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
	wanted := l.tx.table(1, len(starts), "n bigint", "log_id text", "account text", "device text", "from_seq bigint")
	for i, s := range starts {
		from := s.FromSeq
		if from == 0 {
			from = -s.Pending // negative: a cursor that is not written yet
		}
		wanted.add(int64(i), string(ds.ConversationLog(s.Conversation)), string(s.Device.Account), string(s.Device.ID), from)
	}
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
			FROM `+wanted.from+` JOIN logs l ON l.log_id = k.log_id
				JOIN intervals i ON i.log_id = l.log_id AND i.account = k.account
				LEFT JOIN cursors c ON c.account = k.account AND c.device = k.device AND c.log_id = l.log_id) AS w
		ORDER BY w.from_pos`, wanted.args()...)
	return found, err
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
