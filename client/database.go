package client

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite" // also the driver "sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// databaseFile is all there is in a home, beside SQLite's own -wal and lockFile, which
// is empty: whoever has that locked has the home open. SQLite's lock alone would let a
// second client in until the first one writes.
const (
	databaseFile = "waxwing.db"
	lockFile     = "waxwing.lock"
)

// schemaVersion is kept in SQLite's user_version.
const schemaVersion = 4

// migrations make the database, one after the other. Columns named body, info, mls
// and pending are sealed; what stands beside them are counters, identifiers and
// ciphertexts that the server knows as well.
var migrations = [schemaVersion]string{schema, `
ALTER TABLE messages ADD COLUMN own INTEGER NOT NULL DEFAULT 0;
CREATE TABLE log (
	conversation TEXT NOT NULL,
	digest BLOB NOT NULL,      -- SHA-256 of the ciphertext
	seq INTEGER NOT NULL,      -- its place
	lost INTEGER NOT NULL DEFAULT 0, -- the server's log no longer has it
	type TEXT,                 -- of an own message or commit: the frame that sent it
	frame BLOB,                -- and its body, sealed
	PRIMARY KEY (conversation, digest)
) WITHOUT ROWID;
CREATE INDEX log_seq ON log (conversation, seq);
INSERT INTO log (conversation, digest, seq) SELECT conversation, digest, seq FROM messages;
`, `-- The frames in log are sealed: sealFrames.`, `
ALTER TABLE key_packages ADD COLUMN used_ms INTEGER; -- of one of last resort: when a Welcome first used it
`}

const schema = `
CREATE TABLE settings (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conversations (
	id TEXT PRIMARY KEY,
	phase INTEGER NOT NULL,
	next_seq INTEGER NOT NULL, -- the server's cursor: the first message not yet taken in
	created_ms INTEGER NOT NULL,
	info BLOB NOT NULL,
	mls BLOB,                  -- the group; its ratchets move in the same transaction as next_seq
	pending BLOB               -- the commit under way, with the group it leads to
);
CREATE TABLE messages (
	conversation TEXT NOT NULL,
	seq INTEGER NOT NULL,
	digest BLOB NOT NULL,      -- SHA-256 of the ciphertext: the same bytes are never taken in twice
	body BLOB NOT NULL,
	PRIMARY KEY (conversation, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX messages_digest ON messages (conversation, digest);
CREATE TABLE outbox (
	id INTEGER PRIMARY KEY,
	conversation TEXT NOT NULL,
	message TEXT NOT NULL,     -- the id that the application knows it by
	wire TEXT NOT NULL,        -- the msg_id that the server sees; nearly always the same
	envelope TEXT,             -- the ciphertext, from the moment it is first sent
	body BLOB NOT NULL
);
CREATE UNIQUE INDEX outbox_wire ON outbox (conversation, wire);
CREATE INDEX outbox_order ON outbox (conversation, id);
CREATE TABLE events (id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE key_packages (
	ref TEXT PRIMARY KEY,
	last_resort INTEGER NOT NULL,
	published INTEGER NOT NULL,
	expires_ms INTEGER NOT NULL,
	body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE devices (name BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE welcomes (pos INTEGER PRIMARY KEY, conversation TEXT NOT NULL, body BLOB NOT NULL);
`

// database is the home: everything this device knows, in one SQLite file. There is
// one connection and one transaction at a time, held together with the memory of
// conversations by mu, so a transaction that does not commit leaves no trace there
// either.
type database struct {
	sql    *sql.DB
	lock   io.Closer // nil once closed; guarded by mu
	sealer *sealer
	load   func(*conversationRow) (*conversation, error)

	mu    sync.Mutex
	cache map[string]*conversation // by id; as committed; guarded by mu
	all   bool                     // cache holds every conversation; guarded by mu
	dead  error                    // set once nothing may be read or written any more; guarded by mu
	died  chan struct{}            // closed with it

	readMu  sync.Mutex
	readers chan struct{} // closed when there are new events; nil when nobody waits; guarded by readMu

	// crash is called before and after each commit when tests stop a client between
	// any two writes: an error ends the database as a power cut would.
	crash func(stage string) error
	// changed is told of conversations as they were and are, when tests observe them.
	changed func(before, after *conversation)
}

// openDatabase opens or makes the home in dir.
func openDatabase(ctx context.Context, dir string, s *sealer, crash func(stage string) error) (*database, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make home: %w", err)
	}
	lock, err := lockHome(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	db, err := openLocked(ctx, dir, s, crash)
	if err != nil {
		lock.Close()
		return nil, err
	}
	db.lock = lock
	return db, nil
}

func openLocked(ctx context.Context, dir string, s *sealer, crash func(stage string) error) (*database, error) {
	path := filepath.Join(dir, databaseFile)
	// SQLite gives new files the mode of the first one; only the owner may read it.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make home: %w", err)
	}
	file.Close()
	query := url.Values{}
	for _, pragma := range []string{"busy_timeout(200)", "locking_mode(EXCLUSIVE)", "journal_mode(WAL)",
		// An encrypted message must not be sent again with the same ratchet after a
		// power cut, so a transaction is on disk before its bytes leave.
		"synchronous(FULL)", "secure_delete(ON)", "temp_store(MEMORY)"} {
		query.Add("_pragma", pragma)
	}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	handle, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	handle.SetMaxOpenConns(1)
	handle.SetMaxIdleConns(1)
	db := &database{sql: handle, sealer: s, cache: map[string]*conversation{}, died: make(chan struct{}), crash: crash}
	if err := db.prepare(ctx); err != nil {
		handle.Close()
		return nil, err
	}
	return db, nil
}

// prepare takes the file's lock, makes the tables of a new home and checks the
// storage key of an old one.
func (db *database) prepare(ctx context.Context) error {
	err := db.update(ctx, func(tx *tx) error {
		var version int
		if _, err := tx.get([]any{&version}, `PRAGMA user_version`); err != nil {
			return err
		}
		if version > schemaVersion {
			return fmt.Errorf("%w: written by a newer version", ErrHome)
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
			return tx.setSetting("check", "waxwing")
		}
		var check string
		found, err := tx.setting("check", &check)
		if err == nil && !found {
			err = ErrStorageKey
		}
		if err == nil && version < 3 {
			err = tx.sealFrames()
		}
		return err
	})
	var locked *sqlite.Error
	if errors.As(err, &locked) && locked.Code()&0xff == sqlitelib.SQLITE_BUSY {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	return nil
}

func (db *database) close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.fail(ErrClosed)
	err := db.sql.Close()
	if db.lock != nil {
		err = errors.Join(err, db.lock.Close())
		db.lock = nil
	}
	return err
}

// fail ends the database: what is on disk may not be what memory thinks. mu is held.
func (db *database) fail(why error) {
	if db.dead == nil {
		db.dead = why
		close(db.died)
	}
}

// failure is why the database has ended, or nil.
func (db *database) failure() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.dead
}

// tx is one transaction. It begins with its first statement, so that a look at the
// memory of conversations costs nothing.
type tx struct {
	db      *database
	sql     *sql.Tx
	changed map[string]*conversation
	after   []func() // run once committed, mu still held
}

// update runs fn in a transaction: all of it happens, or nothing. Everything in
// this package that changes the home, from whichever goroutine, goes through here.
func (db *database) update(ctx context.Context, fn func(tx *tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.dead != nil {
		return db.dead
	}
	t := &tx{db: db, changed: map[string]*conversation{}}
	err := fn(t)
	if err == nil {
		err = t.saveConversations()
	}
	if err == nil && t.sql != nil {
		err = t.commit()
	} else if t.sql != nil {
		t.sql.Rollback()
	}
	if err != nil {
		return err
	}
	for id, c := range t.changed {
		if db.changed != nil {
			db.changed(db.cache[id], c)
		}
		db.cache[id] = c.settled()
	}
	for _, f := range t.after {
		f()
	}
	return nil
}

func (t *tx) commit() error {
	if err := t.db.crashed("before commit"); err != nil {
		t.sql.Rollback()
		return err
	}
	if err := t.sql.Commit(); err != nil {
		t.db.fail(fmt.Errorf("commit to home: %w", err))
		return t.db.dead
	}
	return t.db.crashed("after commit")
}

func (db *database) crashed(stage string) error {
	if db.crash == nil {
		return nil
	}
	err := db.crash(stage)
	if err != nil {
		db.fail(err)
	}
	return err
}

// begin starts the transaction. It is short and local, so it does not end with a
// caller's context: cancelling would cost the connection, and with it the lock.
func (t *tx) begin() error {
	if t.sql != nil {
		return nil
	}
	var err error
	t.sql, err = t.db.sql.BeginTx(context.Background(), nil)
	return err
}

func (t *tx) exec(query string, args ...any) error {
	if err := t.begin(); err != nil {
		return err
	}
	_, err := t.sql.Exec(query, args...)
	return err
}

// get reads at most one row into dest.
func (t *tx) get(dest []any, query string, args ...any) (found bool, err error) {
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
func (t *tx) each(dest []any, fn func() error, query string, args ...any) error {
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

// setting reads a sealed value by name into out, as JSON.
func (t *tx) setting(name string, out any) (found bool, err error) {
	var body []byte
	found, err = t.get([]any{&body}, `SELECT body FROM settings WHERE name = $1`, name)
	if err != nil || !found {
		return false, err
	}
	return true, t.openJSON("settings", name, "body", body, out)
}

func (t *tx) setSetting(name string, value any) error {
	body, err := t.sealJSON("settings", name, "body", value)
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO settings (name, body) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET body = excluded.body`, name, body)
}

func (t *tx) sealJSON(table, row, column string, value any) ([]byte, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s.%s: %w", table, column, err)
	}
	return t.db.sealer.seal(table, row, column, plain), nil
}

func (t *tx) openJSON(table, row, column string, sealed []byte, out any) error {
	plain, err := t.db.sealer.open(table, row, column, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, out); err != nil {
		return fmt.Errorf("decode %s.%s: %w", table, column, err)
	}
	return nil
}

// counter is the number called name; 0 before it was set.
func (t *tx) counter(name string) (value int64, err error) {
	_, err = t.get([]any{&value}, `SELECT value FROM counters WHERE name = $1`, name)
	return value, err
}

func (t *tx) setCounter(name string, value int64) error {
	return t.exec(`INSERT INTO counters (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
}

// next is a number never given out before under that name: 1, 2, 3 …
func (t *tx) next(name string) (value int64, err error) {
	_, err = t.get([]any{&value}, `INSERT INTO counters (name, value) VALUES ($1, 1)
		ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value`, name)
	return value, err
}
