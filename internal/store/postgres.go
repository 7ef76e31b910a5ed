package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"waxwing.im/waxwing/internal/ds"
)

// postgresEngine is the production database, which several nodes may share.
type postgresEngine struct{ connections *pgxpool.Pool }

// transactionRetries bounds how often a transaction that lost a lock, a deadlock or a
// serialization conflict is repeated.
const transactionRetries = 16

func openPostgres(ctx context.Context, url string, connectionsMax int) (engine, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("postgres: the database URL does not parse") // the URL contains a password
	}
	config.MaxConns = int32(connectionsMax)
	config.MinIdleConns = 2
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	for key, value := range map[string]string{
		"application_name":                    "waxwing",
		"synchronous_commit":                  "on", // an acknowledged record is on disk
		"statement_timeout":                   "15000",
		"lock_timeout":                        "250", // a longer wait starts over
		"idle_in_transaction_session_timeout": "15000",
		"timezone":                            "UTC",
		// Every statement here finds its rows by key. A plan that was cached while a table was
		// small would always read all of it; these settings forbid that.
		"enable_seqscan":   "off",
		"enable_hashjoin":  "off",
		"enable_mergejoin": "off",
		"jit":              "off",
	} {
		config.ConnConfig.RuntimeParams[key] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	e := &postgresEngine{connections: pool}
	if err := e.ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return e, nil
}

func (e *postgresEngine) name() string { return "postgres" }

func (e *postgresEngine) ping(ctx context.Context) error {
	return postgresFault(e.connections.Ping(ctx))
}

// maintain does nothing: the server maintains itself.
func (e *postgresEngine) maintain(context.Context) error { return nil }

func (e *postgresEngine) walBytes() int64 { return 0 }

func (e *postgresEngine) pool() pool {
	s := e.connections.Stat()
	return pool{inUse: int64(s.AcquiredConns()), idle: int64(s.IdleConns()), waits: s.EmptyAcquireCount(), waited: s.EmptyAcquireWaitTime()}
}

func (e *postgresEngine) close() error { e.connections.Close(); return nil }

func (e *postgresEngine) update(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	for try := 0; ; try++ {
		err := e.once(ctx, pgx.TxOptions{}, nowMS, fn)
		if try < transactionRetries && IsLockLost(err) && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// append runs a batch in as few round trips as it can: BEGIN is sent with the first statement,
// and statements without a result are sent with COMMIT.
func (e *postgresEngine) append(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	c, err := e.connections.Acquire(ctx)
	if err != nil {
		return ds.Unavailable(fmt.Errorf("begin: %w", err))
	}
	defer c.Release() // the pool closes a connection that is not idle and clean
	p := &pipeline{conn: c.Conn(), queue: []statement{{sql: "BEGIN"}}}
	if err := fn(newTx(ctx, p, postgresDialect, nowMS)); err != nil {
		return postgresFault(errors.Join(err, p.rollback(ctx)))
	}
	p.later("COMMIT", nil)
	if err := p.flush(ctx); err != nil {
		return postgresFault(errors.Join(err, p.rollback(ctx)))
	}
	return nil
}

func (e *postgresEngine) view(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	return e.once(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, nowMS, fn)
}

func (e *postgresEngine) read(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	c, err := e.connections.Acquire(ctx)
	if err != nil {
		return ds.Unavailable(fmt.Errorf("acquire: %w", err))
	}
	defer c.Release()
	return postgresFault(fn(newTx(ctx, &pipeline{conn: c.Conn()}, postgresDialect, nowMS)))
}

func (e *postgresEngine) once(ctx context.Context, o pgx.TxOptions, nowMS int64, fn func(*Tx) error) error {
	// The server's own timeouts do not help if it is stopped or unreachable.
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	t, err := e.connections.BeginTx(ctx, o)
	if err != nil {
		return ds.Unavailable(fmt.Errorf("begin: %w", err))
	}
	defer func() { // does nothing after a commit
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = t.Rollback(ctx)
	}()
	if err := fn(newTx(ctx, postgresConn{t}, postgresDialect, nowMS)); err != nil {
		return postgresFault(err)
	}
	if err := t.Commit(ctx); err != nil {
		return postgresFault(ds.Unavailable(fmt.Errorf("commit: %w", err)))
	}
	return nil
}

var postgresDialect = dialect{name: "postgres", skipLocked: "FOR UPDATE SKIP LOCKED"}

// isConflict reports whether the transaction lost to another one and may simply be repeated.
func isConflict(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// postgresFault marks errors that are not about the request as worth a retry: a lost
// connection, a server that shuts down or is full, a timeout, a lost race.
func postgresFault(err error) error {
	if err == nil || ds.IsUnavailable(err) {
		return err
	}
	var e *pgconn.PgError
	if errors.As(err, &e) {
		switch e.Code[:2] {
		case "08", "25", "40", "53", "55", "57", "58", "F0", "XX":
			return ds.Unavailable(err)
		}
		return err
	}
	var c *pgconn.ConnectError
	var n net.Error
	if errors.As(err, &c) || errors.As(err, &n) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isConnectionLoss(err) {
		return ds.Unavailable(err)
	}
	return err
}

type postgresConn struct{ tx pgx.Tx }

func (c postgresConn) exec(ctx context.Context, sql string, args []any) (int64, error) {
	tag, err := c.tx.Exec(ctx, sql, args...)
	return tag.RowsAffected(), err
}

func (c postgresConn) query(ctx context.Context, sql string, args []any) (rows, error) {
	rs, err := c.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return rs, nil
}

// pipeline is a connection within a batch. Queued statements are sent with the next one that
// has its result read, and fail there.
type pipeline struct {
	conn  *pgx.Conn
	queue []statement
}

type statement struct {
	sql  string
	args []any
}

func (p *pipeline) later(sql string, args []any) { p.queue = append(p.queue, statement{sql, args}) }

func (p *pipeline) batch() *pgx.Batch {
	b := &pgx.Batch{}
	for _, s := range p.queue {
		b.Queue(s.sql, s.args...)
	}
	return b
}

// flush sends the queued statements. If a statement fails, those after it were not run.
func (p *pipeline) flush(ctx context.Context) error {
	if len(p.queue) == 0 {
		return nil
	}
	results := p.conn.SendBatch(ctx, p.batch())
	n := len(p.queue)
	p.queue = p.queue[:0]
	for range n {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // repeats the error
			return err
		}
	}
	return results.Close()
}

func (p *pipeline) exec(ctx context.Context, sql string, args []any) (int64, error) {
	if err := p.flush(ctx); err != nil {
		return 0, err
	}
	tag, err := p.conn.Exec(ctx, sql, args...)
	return tag.RowsAffected(), err
}

func (p *pipeline) query(ctx context.Context, sql string, args []any) (rows, error) {
	n := len(p.queue)
	if n == 0 {
		rs, err := p.conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return rs, nil
	}
	p.later(sql, args)
	results := p.conn.SendBatch(ctx, p.batch())
	p.queue = p.queue[:0]
	for range n {
		if _, err := results.Exec(); err != nil {
			_ = results.Close()
			return nil, err
		}
	}
	rs, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return &pipelineRows{Rows: rs, results: results}, nil
}

// rollback ends a transaction that was begun and failed. On a lost connection there is nothing
// to end.
func (p *pipeline) rollback(ctx context.Context) error {
	if p.conn.IsClosed() || p.conn.PgConn().TxStatus() == 'I' {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_, err := p.conn.Exec(ctx, "ROLLBACK")
	return err
}

const rollbackTimeout = 2 * time.Second

// pipelineRows holds the rows of the last statement of a pipeline.
type pipelineRows struct {
	pgx.Rows
	results pgx.BatchResults
	closed  bool
	err     error
}

// Close ends the pipeline too.
func (r *pipelineRows) Close() {
	if !r.closed {
		r.closed = true
		r.Rows.Close()
		r.err = r.results.Close()
	}
}

// Err returns the error of the rows or of ending the pipeline.
func (r *pipelineRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

// isConnectionLoss reports whether err is one of pgx's errors for a server that disappears
// under a running query.
func isConnectionLoss(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "conn closed")
}

func isPostgresCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// IsLockLost reports whether err is PostgreSQL's refusal to wait any longer for a row that
// another transaction holds, or its end of a deadlock.
func IsLockLost(err error) bool {
	return err != nil && (isPostgresCode(err, "55P03") || isConflict(err))
}
