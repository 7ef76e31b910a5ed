// Package store keeps all durable data of the service in one SQL database, SQLite or
// PostgreSQL, behind transactions.
//
// There is one set of portable queries; the append path and the claims have one statement per
// database where speed needs it. A conformance suite tests both databases for the same results.
// A method does one thing to one noun, and takes and returns ds values; permissions are checked
// in core and never here.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/condition"
	"waxwing.im/waxwing/internal/ds"
)

// ErrNotFound is returned by methods that look for one thing and do not find it.
var ErrNotFound = errors.New("not found")

// transactionTimeout is the longest duration of a transaction on PostgreSQL, and of the wait
// for its turn on SQLite, whatever its caller would accept: a database that does not answer is
// unavailable.
const transactionTimeout = 10 * time.Second

// Options names the database and the store's clock.
type Options struct {
	// URL is "sqlite:DIRECTORY" (created if missing) or "postgres://…".
	URL string
	// Now is the store's clock, see DB.Now; nil is the database's.
	Now func() time.Time
	// Local is the clock of this machine; nil is the system's.
	Local  func() time.Time
	Logger *slog.Logger // nil: discard
	// ConnectionsMax bounds the connections to PostgreSQL; 0 means 16.
	ConnectionsMax int
	// Hook is called for every statement; for tests only.
	Hook Hook
}

// DB is an open database with the schema of this version. It is safe for
// concurrent use.
type DB struct {
	engine engine
	now    func() time.Time
	logger *slog.Logger
	hook   Hook // nil but in tests

	reckoning *reckoning // nil where now is not the time of a database elsewhere

	refusedMS atomic.Int64 // when the last write was refused, or 0
	condition *condition.Condition
	errors    prometheus.Counter
	closing   context.Context // ends with Close
	close     context.CancelFunc
	upkeep    sync.WaitGroup
}

// engine holds the differences between the two databases.
type engine interface {
	// update runs fn in a read-write transaction and commits it durably.
	update(ctx context.Context, nowMS int64, fn func(*Tx) error) error
	// append runs a transaction like update, but fn only once.
	append(ctx context.Context, nowMS int64, fn func(*Tx) error) error
	// view runs fn in a read-only transaction over one snapshot.
	view(ctx context.Context, nowMS int64, fn func(*Tx) error) error
	// read runs fn, which makes one query, outside of any transaction.
	read(ctx context.Context, nowMS int64, fn func(*Tx) error) error
	migrate(ctx context.Context) error
	// maintain does the periodic maintenance; it is called every upkeepInterval.
	maintain(ctx context.Context) error
	// walBytes returns the size of the write-ahead log, if the engine has its own.
	walBytes() int64
	// pool returns the state of the connections.
	pool() pool
	ping(ctx context.Context) error
	name() string
	close() error
}

// Open opens the database and brings its schema up to this version. If the database is away,
// the error is an ds.Unavailable fault; a schema of a version that this one cannot run beside,
// and a directory that another process holds, are plain errors.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Local == nil {
		o.Local = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ConnectionsMax == 0 {
		o.ConnectionsMax = 16
	}
	var (
		e   engine
		err error
	)
	switch {
	case strings.HasPrefix(o.URL, "sqlite:"):
		e, err = openSQLite(ctx, strings.TrimPrefix(o.URL, "sqlite:"))
	case strings.HasPrefix(o.URL, "postgres://"), strings.HasPrefix(o.URL, "postgresql://"):
		e, err = openPostgres(ctx, o.URL, o.ConnectionsMax)
	default:
		return nil, errors.New(`store URL: want "sqlite:DIRECTORY" or "postgres://…"`)
	}
	if err != nil {
		return nil, err
	}
	db := &DB{engine: e, now: o.Now, logger: o.Logger, hook: o.Hook,
		condition: condition.New(o.Logger, "the database", unreadyFor), errors: newErrors()}
	db.closing, db.close = context.WithCancel(context.Background())
	if postgres, ok := e.(*postgresEngine); o.Now == nil && ok {
		err = db.reckon(ctx, postgres, o.Local)
	} else if o.Now == nil {
		db.now = o.Local // the database is in this process and uses this clock
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clock: %w", err), e.close())
	}
	if err := e.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate: %w", err), db.Close())
	}
	db.upkeep.Go(db.maintain)
	return db, nil
}

// Close waits for running transactions and closes the database.
func (db *DB) Close() error {
	if db.reckoning != nil {
		db.reckoning.stop()
		<-db.reckoning.finished
	}
	db.close()
	db.upkeep.Wait()
	return db.engine.close()
}

// Ping checks that the database answers.
func (db *DB) Ping(ctx context.Context) error {
	err := db.engine.ping(ctx)
	db.note(ctx, err)
	return err
}

// IsShared reports whether other nodes may write to the same database.
func (db *DB) IsShared() bool { return db.engine.name() == "postgres" }

// Update runs fn in a read-write transaction. When Update returns nil, the writes of fn are
// durable. An error of fn rolls back and is returned unchanged; an error with an unknown
// outcome is ds.Unavailable. Update may run fn again, so fn only reads, writes through tx and
// assigns its result.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	return db.run(ctx, db.engine.update, fn)
}

// View runs fn in a read-only transaction over one consistent snapshot.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	return db.run(ctx, db.engine.view, fn)
}

// run carries out a transaction and records its outcome as evidence about the database.
func (db *DB) run(ctx context.Context, transact func(context.Context, int64, func(*Tx) error) error, fn func(*Tx) error) error {
	isOwn := false
	watched := func(tx *Tx) error {
		err := fn(tx)
		isOwn = err != nil && ds.IsUnavailable(err) // marked by fn itself: the database's faults are not marked yet
		return err
	}
	var err error
	if db.hook != nil {
		err = db.hooked(ctx, transact, watched)
	} else {
		err = transact(ctx, db.nowMS(), watched)
	}
	if !isOwn {
		db.note(ctx, err)
	}
	return err
}

func (db *DB) nowMS() int64 { return db.now().UnixMilli() }

// NowMS returns the time of the transaction's start, in milliseconds.
func (tx *Tx) NowMS() int64 { return tx.nowMS }

type dialect struct {
	name       string
	skipLocked string // appended to a row-locking sub-select
}

// conn is the common part of the two drivers' connections.
type conn interface {
	exec(ctx context.Context, sql string, args []any) (int64, error)
	query(ctx context.Context, sql string, args []any) (rows, error)
}

type rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

func (tx *Tx) exec(sql string, args ...any) (int64, error) {
	return tx.conn.exec(tx.ctx, sql, args)
}

// later runs a statement and ignores its result: in a batch on PostgreSQL it is sent with a
// later one or with COMMIT, and fails there.
func (tx *Tx) later(sql string, args ...any) error {
	if p, ok := tx.conn.(interface{ later(string, []any) }); ok {
		p.later(sql, args)
		return nil
	}
	_, err := tx.exec(sql, args...)
	return err
}

func (tx *Tx) query(sql string, args ...any) (rows, error) {
	return tx.conn.query(tx.ctx, sql, args)
}

// row runs a query for one row; errors are returned when it is scanned.
func (tx *Tx) row(sql string, args ...any) row {
	rs, err := tx.query(sql, args...)
	return row{rs, err}
}

type row struct {
	rows rows
	err  error
}

// Scan reads the row, or returns errNoRows.
func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return errNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

var errNoRows = errors.New("no rows")

// notFound turns the absence of a row into ErrNotFound.
func notFound(err error) error {
	if errors.Is(err, errNoRows) {
		return ErrNotFound
	}
	return err
}

// each scans every row of a query: scan is called with the row's Scan.
func (tx *Tx) each(scan func(scan func(...any) error) error, sql string, args ...any) error {
	rs, err := tx.query(sql, args...)
	if err != nil {
		return err
	}
	defer rs.Close()
	for rs.Next() {
		if err := scan(rs.Scan); err != nil {
			return err
		}
	}
	return rs.Err()
}

// null returns nil for the empty string, to store it as NULL.
func null[S ~string](s S) any {
	if s == "" {
		return nil
	}
	return string(s)
}

// placeholders returns "($1,$2),($3,$4)…" for a list of rows of width columns.
func placeholders(rows, width int) string {
	list := make([]byte, 0, rows*width*len("$123,")+len("()"))
	for n := range rows * width {
		switch {
		case n == 0:
			list = append(list, '(')
		case n%width == 0:
			list = append(list, "),("...)
		default:
			list = append(list, ',')
		}
		list = strconv.AppendInt(append(list, '$'), int64(n+1), 10)
	}
	return string(append(list, ')'))
}

// anonymous returns placeholders for SQLite's long lists: binding a named parameter costs
// SQLite a search through all of them.
func anonymous(rows, width int) string {
	list := strings.Repeat("("+strings.Repeat("?,", width-1)+"?),", rows)
	return list[:len(list)-1]
}
