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
type postgresEngine struct{ pool *pgxpool.Pool }

// transactionRetries bounds how often a transaction that lost a deadlock or a
// serialization conflict is run again.
const transactionRetries = 4

func openPostgres(ctx context.Context, url string, connectionsMax int) (engine, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("postgres: the database URL does not parse") // the URL holds a password
	}
	config.MaxConns = int32(connectionsMax)
	config.MinIdleConns = 2
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	for key, value := range map[string]string{
		"application_name":                    "waxwing",
		"synchronous_commit":                  "on", // an acknowledged record is on disk
		"statement_timeout":                   "15000",
		"lock_timeout":                        "5000",
		"idle_in_transaction_session_timeout": "15000",
		"timezone":                            "UTC",
	} {
		config.ConnConfig.RuntimeParams[key] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	e := &postgresEngine{pool: pool}
	if err := e.ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return e, nil
}

func (e *postgresEngine) name() string { return "postgres" }

func (e *postgresEngine) ping(ctx context.Context) error { return postgresFault(e.pool.Ping(ctx)) }

func (e *postgresEngine) close() error { e.pool.Close(); return nil }

func (e *postgresEngine) update(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	for try := 0; ; try++ {
		err := e.once(ctx, pgx.TxOptions{}, nowMS, fn)
		if try < transactionRetries && isConflict(err) && ctx.Err() == nil {
			continue
		}
		return err
	}
}

func (e *postgresEngine) append(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	return e.once(ctx, pgx.TxOptions{}, nowMS, fn)
}

func (e *postgresEngine) view(ctx context.Context, nowMS int64, fn func(*Tx) error) error {
	return e.once(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, nowMS, fn)
}

func (e *postgresEngine) once(ctx context.Context, o pgx.TxOptions, nowMS int64, fn func(*Tx) error) error {
	t, err := e.pool.BeginTx(ctx, o)
	if err != nil {
		return ds.Unavailable(fmt.Errorf("begin: %w", err))
	}
	defer func() { _ = t.Rollback(context.WithoutCancel(ctx)) }() // does nothing after a commit
	if err := fn(&Tx{ctx: ctx, conn: postgresConn{t}, dialect: postgresDialect, nowMS: nowMS}); err != nil {
		return postgresFault(err)
	}
	if err := t.Commit(ctx); err != nil {
		return postgresFault(ds.Unavailable(fmt.Errorf("commit: %w", err)))
	}
	return nil
}

var postgresDialect = dialect{name: "postgres", skipLocked: "FOR UPDATE SKIP LOCKED"}

// isConflict says whether the transaction lost to another one and may simply run again.
func isConflict(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// postgresFault marks errors that say nothing about the request as worth a retry:
// a lost connection, a server that shuts down or is full, a timeout, a lost race.
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

// isConnectionLoss recognises what pgx reports when the server goes away under a
// running query.
func isConnectionLoss(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "conn closed")
}

func isPostgresCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// IsLockTimeout says whether err is PostgreSQL's refusal to wait any longer for a
// row that another transaction holds.
func IsLockTimeout(err error) bool { return err != nil && isPostgresCode(err, "55P03") }
