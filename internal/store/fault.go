package store

import "context"

// Hook is called for every statement of every transaction, including BEGIN and COMMIT: before
// it goes to the database, and once it has succeeded or its rows can be read. Tests use it to
// stop a process at any statement, slow one down, or count them; a service has none. With a
// hook statements are sent one by one and not in pipelines. It is called from many goroutines
// concurrently.
type Hook func(sql string, done bool)

// hooked runs a transaction in which the hook is called for every statement.
func (db *DB) hooked(ctx context.Context, run func(context.Context, int64, func(*Tx) error) error, fn func(*Tx) error) error {
	db.hook("BEGIN", false)
	err := run(ctx, db.nowMS(), func(tx *Tx) error {
		db.hook("BEGIN", true)
		told := hookedConn{tx.conn, db.hook}
		if to, ok := tx.conn.(copier); ok {
			tx.conn = hookedCopier{told, to}
		} else {
			tx.conn = told
		}
		if err := fn(tx); err != nil {
			return err
		}
		db.hook("COMMIT", false)
		return nil
	})
	if err == nil {
		db.hook("COMMIT", true)
	}
	return err
}

// hookedConn is a connection without a queue: it has no method later.
type hookedConn struct {
	to   conn
	hook Hook
}

func (c hookedConn) exec(ctx context.Context, sql string, args []any) (int64, error) {
	c.hook(sql, false)
	n, err := c.to.exec(ctx, sql, args)
	if err == nil {
		c.hook(sql, true)
	}
	return n, err
}

func (c hookedConn) query(ctx context.Context, sql string, args []any) (rows, error) {
	c.hook(sql, false)
	rs, err := c.to.query(ctx, sql, args)
	if err == nil {
		c.hook(sql, true)
	}
	return rs, err
}

// hookedCopier is a hookedConn with COPY.
type hookedCopier struct {
	hookedConn
	copier copier
}

func (c hookedCopier) copyFrom(ctx context.Context, statement string, data []byte) error {
	c.hook(statement, false)
	err := c.copier.copyFrom(ctx, statement, data)
	if err == nil {
		c.hook(statement, true)
	}
	return err
}
