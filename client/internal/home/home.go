package home

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// The errors of Open and of opening sealed values.
var (
	// ErrStorageKey reports a storage key that is not the one of the home, or a damaged
	// database.
	ErrStorageKey = errors.New("wrong storage key or damaged home")
	// ErrInUse reports that another client, here or in another process, has the home open.
	ErrInUse = errors.New("home is in use by another client")
	// ErrHome reports a home that belongs to another account or device, or was written
	// by a newer version.
	ErrHome = errors.New("incompatible home")
	// ErrNoDatabase reports a platform for which there is no SQLite.
	ErrNoDatabase = errors.New("no database on this platform")
)

// databaseFile is the only file of a home, beside SQLite's own -wal and lockFile, which is
// empty: the process that has locked it has the home open. SQLite's lock alone would admit a
// second client until the first one writes.
const (
	databaseFile = "waxwing.db"
	lockFile     = "waxwing.lock"
)

// Home is an open home. Its transactions run one at a time, under mu, and callers may guard
// memory of their own by them: Update's function and the functions of Tx.After are never
// concurrent. So a transaction that does not commit leaves no trace there either.
type Home struct {
	sql    *sql.DB
	lock   io.Closer // nil once closed; guarded by mu
	sealer *sealer

	ctx context.Context // ends with the home; its cause is the reason
	end context.CancelCauseFunc

	mu sync.Mutex // held by a transaction

	readMu  sync.Mutex
	readers chan struct{} // closed when there are new events; nil without readers; guarded by readMu

	crash func(stage string) error
}

// Open opens or creates the home in dir. The storage key has StorageKeyBytes. crash, if not
// nil, is called before and after each commit, for tests that stop a client between any two
// writes: an error ends the home as a power cut would.
func Open(ctx context.Context, dir string, storageKey []byte, crash func(stage string) error) (*Home, error) {
	sealer, err := newSealer(storageKey)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create home: %w", err)
	}
	lock, err := lockHome(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	h, err := openLocked(ctx, dir, sealer, crash)
	if err != nil {
		lock.Close()
		return nil, err
	}
	h.lock = lock
	return h, nil
}

func openLocked(ctx context.Context, dir string, s *sealer, crash func(stage string) error) (*Home, error) {
	path := filepath.Join(dir, databaseFile)
	// SQLite gives new files the mode of the first one; only the owner may read it.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create home: %w", err)
	}
	file.Close()
	handle, err := openDatabase(path)
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	handle.SetMaxOpenConns(1)
	handle.SetMaxIdleConns(1)
	h := &Home{sql: handle, sealer: s, crash: crash}
	h.ctx, h.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := h.prepare(ctx); err != nil {
		h.end(err)
		handle.Close()
		return nil, err
	}
	return h, nil
}

// prepare takes the file's lock, creates the tables of a new home and checks the storage key of
// an old one.
func (h *Home) prepare(ctx context.Context) error {
	err := h.Update(ctx, func(tx *Tx) error {
		var version int
		if _, err := tx.get([]any{&version}, `PRAGMA user_version`); err != nil {
			return err
		}
		if version > schemaVersion {
			return fmt.Errorf("%w: written by a newer version of this package", ErrHome)
		}
		for _, migration := range migrations[version:] {
			if err := tx.exec(migration); err != nil {
				return err
			}
		}
		if version < schemaVersion {
			if err := tx.exec(fmt.Sprintf(`PRAGMA user_version = %d`, schemaVersion)); err != nil {
				return err
			}
		}
		if version == 0 {
			return tx.Settings.Set("check", "waxwing")
		}
		var check string
		found, err := tx.Settings.Get("check", &check)
		if err == nil && !found {
			err = ErrStorageKey
		}
		if err == nil && version < 3 {
			err = tx.Journal.sealFrames()
		}
		return err
	})
	if isBusy(err) {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	return nil
}

// Close closes the home. From then on Update returns reason.
func (h *Home) Close(reason error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(reason)
	err := h.sql.Close()
	if h.lock != nil {
		err = errors.Join(err, h.lock.Close())
		h.lock = nil
	}
	return err
}

// Context returns a context that ends with the home, with the reason as its cause.
func (h *Home) Context() context.Context { return h.ctx }

// Tx is one transaction. It begins with its first statement, so that a read of the caller's
// memory costs nothing. Its nouns are valid while the function of Update runs.
type Tx struct {
	home  *Home
	sql   *sql.Tx
	after []func()

	Settings      Settings
	Counters      Counters
	Conversations Conversations
	Messages      Messages
	Outbox        Outbox
	Events        Events
	Journal       Journal
	KeyPackages   KeyPackages
	People        People
	Welcomes      Welcomes
}

// Update runs fn in a transaction: all of its changes are made, or none. All changes of the
// home, from any goroutine, go through Update.
func (h *Home) Update(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return context.Cause(h.ctx)
	}
	t := &Tx{home: h}
	t.Settings, t.Counters, t.Conversations = Settings{t}, Counters{t}, Conversations{t}
	t.Messages, t.Outbox, t.Events, t.Journal = Messages{t}, Outbox{t}, Events{t}, Journal{t}
	t.KeyPackages, t.People, t.Welcomes = KeyPackages{t}, People{t}, Welcomes{t}
	err := fn(t)
	if err == nil && t.sql != nil {
		err = t.commit()
	} else if t.sql != nil {
		t.sql.Rollback()
	}
	if err != nil {
		return err
	}
	for _, f := range t.after {
		f()
	}
	return nil
}

// After registers f to run once the transaction is on disk, before the next one begins.
func (t *Tx) After(f func()) { t.after = append(t.after, f) }

func (t *Tx) commit() error {
	if err := t.home.crashed("before commit"); err != nil {
		t.sql.Rollback()
		return err
	}
	if err := t.sql.Commit(); err != nil {
		err = fmt.Errorf("commit to home: %w", err)
		t.home.end(err) // memory and disk may differ
		return err
	}
	return t.home.crashed("after commit")
}

func (h *Home) crashed(stage string) error {
	if h.crash == nil {
		return nil
	}
	err := h.crash(stage)
	if err != nil {
		h.end(err)
	}
	return err
}

// begin starts the transaction. It is short and local, so it does not end with a
// caller's context: cancelling would cost the connection, and with it the lock.
func (t *Tx) begin() error {
	if t.sql != nil {
		return nil
	}
	var err error
	t.sql, err = t.home.sql.BeginTx(context.Background(), nil)
	return err
}

func (t *Tx) exec(query string, args ...any) error {
	if err := t.begin(); err != nil {
		return err
	}
	_, err := t.sql.Exec(query, args...)
	return err
}

// get reads at most one row into dest.
func (t *Tx) get(dest []any, query string, args ...any) (found bool, err error) {
	if err := t.begin(); err != nil {
		return false, err
	}
	err = t.sql.QueryRow(query, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// each reads every row into dest and calls fn; fn may not use the transaction.
func (t *Tx) each(dest []any, fn func() error, query string, args ...any) error {
	if err := t.begin(); err != nil {
		return err
	}
	rows, err := t.sql.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		if err := fn(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// sealedJSON is an argument of a statement: value as JSON, sealed for a column.
type sealedJSON struct {
	sealer             *sealer
	table, row, column string
	value              any
}

func (t *Tx) sealJSON(table, row, column string, value any) sealedJSON {
	return sealedJSON{t.home.sealer, table, row, column, value}
}

// Value encodes and seals the argument.
func (s sealedJSON) Value() (driver.Value, error) {
	plain, err := json.Marshal(s.value)
	if err != nil {
		return nil, fmt.Errorf("encode %s.%s: %w", s.table, s.column, err)
	}
	return s.sealer.seal(s.table, s.row, s.column, plain), nil
}

// getJSON decodes the sealed column that a query returns into out.
func (t *Tx) getJSON(table, row, column string, out any, query string, args ...any) (found bool, err error) {
	var sealed []byte
	if found, err = t.get([]any{&sealed}, query, args...); err != nil || !found {
		return false, err
	}
	return true, t.openJSON(table, row, column, sealed, out)
}

func (t *Tx) openJSON(table, row, column string, sealed []byte, out any) error {
	plain, err := t.home.sealer.open(table, row, column, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, out); err != nil {
		return fmt.Errorf("decode %s.%s: %w", table, column, err)
	}
	return nil
}
