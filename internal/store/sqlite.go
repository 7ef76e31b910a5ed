package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite" // registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"waxwing.im/waxwing/internal/ds"
)

const (
	sqliteReaders = 4
	sqliteFile    = "waxwing.db"
	sqliteLock    = "waxwing.lock"
)

// sqliteEngine is the embedded database: one connection writes, a few read beside it. Writers
// queue for the connection, so no transaction ever sees SQLITE_BUSY.
type sqliteEngine struct {
	lock    *os.File
	file    string
	opened  os.FileInfo // of the database file
	held    []io.Closer // the database file and its lock; closed after SQLite's own: its locks end with any of ours
	db      *sql.DB
	writer  chan *sqliteConn // holds the one writing connection while it is free
	readers chan *sqliteConn
	copier  *sqliteConn // moves the write-ahead log into the database
	closing sync.Once
	closed  chan struct{}

	waits, waitedNS atomic.Int64 // for a connection
}

func openSQLite(ctx context.Context, dir string) (engine, error) {
	if dir == "" {
		return nil, errors.New("sqlite: no directory given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	e := &sqliteEngine{lock: lock, file: filepath.Join(dir, sqliteFile), writer: make(chan *sqliteConn, 1), readers: make(chan *sqliteConn, sqliteReaders),
		closed: make(chan struct{})}
	if err := e.connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: %w", err), e.close())
	}
	return e, nil
}

// lockDirectory keeps a second process away from the directory for as long as the file stays
// open.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, sqliteLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: lock the data directory: %w", err), f.Close())
	}
	return f, nil
}

var errLocked = errors.New("in use by another process; several servers share a database only on PostgreSQL (--database)")

// claim opens the database file for as long as the server runs and locks it.
func (e *sqliteEngine) claim() error {
	// Only the owner may read the database. The files that SQLite creates beside it inherit its
	// mode.
	f, err := os.OpenFile(e.file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	e.held = append(e.held, f)
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if e.opened, err = f.Stat(); err != nil {
		return err
	}
	lock, err := lockDatabase(f, filepath.Dir(e.file))
	if err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	e.held = append(e.held, lock)
	return nil
}

// errReplaced is the fault of every write after the database file was moved out of the data
// directory or replaced there.
var errReplaced = ds.Unavailable(errors.New("sqlite: the database file was moved or replaced while the server runs; restart it"))

// isInPlace checks that the data directory still contains the open file: writes to another one
// would be acknowledged and lost.
func (e *sqliteEngine) isInPlace() error {
	info, err := os.Stat(e.file)
	if err == nil && os.SameFile(info, e.opened) {
		return nil
	}
	return errReplaced
}

func (e *sqliteEngine) connect(ctx context.Context) error {
	if err := e.claim(); err != nil {
		return err
	}
	pragmas := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "secure_delete(ON)", "wal_autocheckpoint(8000)", fmt.Sprintf("journal_size_limit(%d)", walBytesKept), "temp_store(MEMORY)", "cache_size(-16384)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: e.file}).EscapedPath(), RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return err
	}
	e.db = db
	writer, err := newSQLiteConn(ctx, db)
	if err != nil {
		return err
	}
	e.writer <- writer
	for range sqliteReaders {
		reader, err := newSQLiteConn(ctx, db)
		if err != nil {
			return err
		}
		if _, err := reader.exec(ctx, "PRAGMA query_only(1)", nil); err != nil {
			return err
		}
		e.readers <- reader
	}
	if e.copier, err = newSQLiteConn(ctx, db); err != nil {
		return err
	}
	// It blocks all others while it works, so it must not wait itself.
	_, err = e.copier.exec(ctx, "PRAGMA busy_timeout(0)", nil)
	return err
}

// IsSQLite reports whether a directory has an SQLite database.
func IsSQLite(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, sqliteFile))
	return err == nil
}

func (e *sqliteEngine) name() string { return "sqlite" }

func (e *sqliteEngine) ping(ctx context.Context) error {
	if err := e.isInPlace(); err != nil {
		return err
	}
	return e.view(ctx, 0, func(tx *Tx) error {
		var one int
		return tx.row("SELECT 1").Scan(&one)
	})
}

func (e *sqliteEngine) close() error {
	var err error
	e.closing.Do(func() {
		close(e.closed)
		if e.db != nil {
			if e.copier != nil {
				err = e.copier.close()
			}
			for range cap(e.writer) {
				if c := e.drain(e.writer); c != nil {
					err = errors.Join(err, c.close())
				}
			}
			for range cap(e.readers) {
				if c := e.drain(e.readers); c != nil {
					err = errors.Join(err, c.close())
				}
			}
			err = errors.Join(err, e.db.Close())
		}
		for _, held := range e.held {
			if closing := held.Close(); !errors.Is(closing, os.ErrClosed) { // the file may be its own lock
				err = errors.Join(err, closing)
			}
		}
		err = errors.Join(err, e.lock.Close())
	})
	return err
}

// drain takes a connection out of service, after waiting for its transaction. Connections that
// were never opened are not waited for.
func (e *sqliteEngine) drain(pool chan *sqliteConn) *sqliteConn {
	if e.db.Stats().OpenConnections == 0 {
		return nil
	}
	select {
	case c := <-pool:
		return c
	default:
	}
	if e.db.Stats().InUse == 0 {
		return nil
	}
	return <-pool
}

func (e *sqliteEngine) take(ctx context.Context, pool chan *sqliteConn) (*sqliteConn, error) {
	select {
	case <-e.closed:
		return nil, ds.Unavailable(errors.New("sqlite: closed"))
	default:
	}
	select {
	case c := <-pool:
		return c, nil
	default:
	}
	began := time.Now()
	defer func() {
		e.waits.Add(1)
		e.waitedNS.Add(int64(time.Since(began)))
	}()
	patience := time.NewTimer(transactionTimeout)
	defer patience.Stop()
	select {
	case c := <-pool:
		return c, nil
	case <-patience.C:
		return nil, ds.Unavailable(errors.New("sqlite: transactions before this one take too long"))
	case <-ctx.Done():
		return nil, ds.Unavailable(ctx.Err())
	case <-e.closed:
		return nil, ds.Unavailable(errors.New("sqlite: closed"))
	}
}

func (e *sqliteEngine) pool() pool {
	idle := len(e.writer) + len(e.readers)
	return pool{inUse: int64(1 + sqliteReaders - idle), idle: int64(idle), waits: e.waits.Load(), waited: time.Duration(e.waitedNS.Load())}
}

func (e *sqliteEngine) update(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	if err := e.isInPlace(); err != nil {
		return err
	}
	return e.run(ctx, e.writer, "BEGIN IMMEDIATE", nowMS, fn)
}

func (e *sqliteEngine) append(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	return e.update(ctx, nowMS, fn)
}

func (e *sqliteEngine) view(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	// A reader keeps the write-ahead log from being cut.
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	return e.run(ctx, e.readers, "BEGIN", nowMS, fn)
}

func (e *sqliteEngine) read(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	c, err := e.take(ctx, e.readers)
	if err != nil {
		return err
	}
	defer func() { e.readers <- c }()
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	return sqliteFault(fn(newTx(ctx, c, dialect{name: "sqlite"}, nowMS)))
}

func (e *sqliteEngine) run(ctx context.Context, pool chan *sqliteConn, begin string, nowMS int64, fn func(*Tx) error) error {
	c, err := e.take(ctx, pool)
	if err != nil {
		return err
	}
	defer func() { pool <- c }()
	// A cancelled request must not interrupt BEGIN, COMMIT or ROLLBACK: they run on a context
	// of their own, the statements between them on the caller's.
	steady := context.WithoutCancel(ctx)
	if _, err := c.exec(steady, begin, nil); err != nil {
		return sqliteFault(err)
	}
	done := false
	defer func() {
		if !done { // fn failed or panicked
			_, _ = c.exec(steady, "ROLLBACK", nil)
		}
	}()
	if err := fn(newTx(ctx, c, dialect{name: "sqlite"}, nowMS)); err != nil {
		return sqliteFault(err)
	}
	if _, err := c.exec(steady, "COMMIT", nil); err != nil {
		return ds.Unavailable(fmt.Errorf("commit: %w", err))
	}
	done = true
	return nil
}

// sqliteFault marks errors that come from the state of disk or process, not from
// the request, as worth a retry.
func sqliteFault(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
			sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
			return ds.Unavailable(err)
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrConnDone) {
		return ds.Unavailable(err)
	}
	return err
}

// sqliteConn is one connection with its prepared statements.
type sqliteConn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func newSQLiteConn(ctx context.Context, db *sql.DB) (*sqliteConn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &sqliteConn{conn: c, stmts: map[string]*sql.Stmt{}}, nil
}

func (c *sqliteConn) close() error {
	var err error
	for _, s := range c.stmts {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, c.conn.Close())
}

func (c *sqliteConn) prepare(ctx context.Context, sql string) (*sql.Stmt, error) {
	if s := c.stmts[sql]; s != nil {
		return s, nil
	}
	s, err := c.conn.PrepareContext(context.WithoutCancel(ctx), sql)
	if err != nil {
		return nil, err
	}
	c.stmts[sql] = s
	return s, nil
}

func (c *sqliteConn) exec(ctx context.Context, query string, args []any) (int64, error) {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (c *sqliteConn) query(ctx context.Context, query string, args []any) (rows, error) {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	rs, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	return sqliteRows{rs}, nil
}

type sqliteRows struct{ *sql.Rows }

// Close ends the query; its error is returned by Err.
func (r sqliteRows) Close() { _ = r.Rows.Close() }
