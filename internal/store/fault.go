package store

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
)

// Hook is called for every statement of every transaction, including BEGIN and COMMIT: before
// it goes to the database, and once it has succeeded or its rows can be read. Tests use it to
// stop a process at any statement, to slow one down, to fail or to count them; a service has
// none. With a hook statements are sent one by one and not in pipelines. It is called from many
// goroutines concurrently.
//
// An error of the hook fails the statement as if the database had gone away: before the
// statement nothing is sent; after it, its effect is rolled back, or with COMMIT kept.
type Hook func(sql string, done bool) error

// Watch returns a Hook that calls watch and fails no statement.
func Watch(watch func(sql string, done bool)) Hook {
	if watch == nil {
		return nil
	}
	return func(sql string, done bool) error {
		watch(sql, done)
		return nil
	}
}

// hookError is an error of a hook.
type hookError struct{ error }

func (e hookError) Unwrap() error { return e.error }

// hookFault marks errors of a hook as those of a database that is away. It is called outside of
// the transaction, where other faults of the database are marked.
func hookFault(err error) error {
	if _, isHooks := errors.AsType[hookError](err); isHooks {
		return ds.Unavailable(err)
	}
	return err
}

func (h Hook) call(sql string, done bool) error {
	if err := h(sql, done); err != nil {
		return hookError{err}
	}
	return nil
}

// hooked runs a transaction in which the hook is called for every statement.
func (db *DB) hooked(ctx context.Context, run func(context.Context, int64, func(*Tx) error) error, fn func(*Tx) error) error {
	if err := db.hook.call("BEGIN", false); err != nil {
		return hookFault(err)
	}
	err := run(ctx, db.nowMS(), func(tx *Tx) error {
		if err := db.hook.call("BEGIN", true); err != nil {
			return err
		}
		told := hookedConn{tx.conn, db.hook}
		if to, ok := tx.conn.(copier); ok {
			tx.conn = hookedCopier{told, to}
		} else {
			tx.conn = told
		}
		if err := fn(tx); err != nil {
			return err
		}
		return db.hook.call("COMMIT", false)
	})
	if err == nil {
		err = db.hook.call("COMMIT", true)
	}
	return hookFault(err)
}

// hookedConn is a connection without a queue: it has no method later.
type hookedConn struct {
	to   conn
	hook Hook
}

func (c hookedConn) exec(ctx context.Context, sql string, args []any) (int64, error) {
	if err := c.hook.call(sql, false); err != nil {
		return 0, err
	}
	n, err := c.to.exec(ctx, sql, args)
	if err == nil {
		err = c.hook.call(sql, true)
	}
	return n, err
}

func (c hookedConn) query(ctx context.Context, sql string, args []any) (rows, error) {
	if err := c.hook.call(sql, false); err != nil {
		return nil, err
	}
	rs, err := c.to.query(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	if err := c.hook.call(sql, true); err != nil {
		rs.Close()
		return nil, err
	}
	return rs, nil
}

// hookedCopier is a hookedConn with COPY.
type hookedCopier struct {
	hookedConn
	copier copier
}

func (c hookedCopier) copyFrom(ctx context.Context, statement string, data []byte) error {
	if err := c.hook.call(statement, false); err != nil {
		return err
	}
	err := c.copier.copyFrom(ctx, statement, data)
	if err == nil {
		err = c.hook.call(statement, true)
	}
	return err
}
