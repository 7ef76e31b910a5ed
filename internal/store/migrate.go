package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations
var migrationFiles embed.FS

// lowestCompatible maps each migration to the lowest schema version that a binary must support
// to run beside it (expand in N, contract in N+1). A migration that only adds repeats
// the number before it.
var lowestCompatible = map[int64]int64{1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1}

type migration struct {
	version  int64
	sql      string
	checksum string
}

// migrationsOf reads the numbered files of one database, in order.
func migrationsOf(database string) ([]migration, error) {
	dir := path.Join("migrations", database)
	entries, err := migrationFiles.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	list := make([]migration, 0, len(entries))
	for i, entry := range entries {
		number, _, _ := strings.Cut(entry.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil || version != int64(i+1) {
			return nil, fmt.Errorf("migration %s: want number %d", entry.Name(), i+1)
		}
		if _, ok := lowestCompatible[version]; !ok {
			return nil, fmt.Errorf("migration %s: no lowest compatible version", entry.Name())
		}
		text, err := migrationFiles.ReadFile(path.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		list = append(list, migration{version, string(text), hex.EncodeToString(sum[:])})
	}
	return list, nil
}

// migrate brings the schema up to date within one transaction, which excludes other migrations.
func (tx *Tx) migrate(list []migration) error {
	for _, statement := range []string{
		`CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, lowest_compatible BIGINT NOT NULL, checksum TEXT NOT NULL, applied_ms BIGINT NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS store_identity (id BIGINT PRIMARY KEY, store_id TEXT NOT NULL, incarnation BIGINT NOT NULL)`,
	} {
		if _, err := tx.exec(statement); err != nil {
			return err
		}
	}
	applied := map[int64]string{}
	var lowest int64
	err := tx.each(func(scan func(...any) error) error {
		var version, compatible int64
		var checksum string
		if err := scan(&version, &compatible, &checksum); err != nil {
			return err
		}
		applied[version], lowest = checksum, max(lowest, compatible)
		return nil
	}, `SELECT version, lowest_compatible, checksum FROM schema_versions`)
	if err != nil {
		return err
	}
	if known := int64(len(list)); lowest > known {
		return fmt.Errorf("the database needs schema version %d or later, this program knows %d: use a newer program", lowest, known)
	}
	for _, m := range list {
		if sum, ok := applied[m.version]; ok {
			if sum != m.checksum {
				return fmt.Errorf("migration %d differs from the one that was applied to this database", m.version)
			}
			continue
		}
		for _, statement := range statements(m.sql) {
			if _, err := tx.exec(statement); err != nil {
				return fmt.Errorf("migration %d: %w", m.version, err)
			}
		}
		if _, err := tx.exec(`INSERT INTO schema_versions (version, lowest_compatible, checksum, applied_ms) VALUES ($1, $2, $3, $4)`,
			m.version, lowestCompatible[m.version], m.checksum, tx.nowMS); err != nil {
			return err
		}
	}
	_, err = tx.exec(`INSERT INTO store_identity (id, store_id, incarnation) VALUES (1, $1, 1) ON CONFLICT (id) DO NOTHING`, rand.Text())
	return err
}

// statements splits a migration into its statements. Comments are removed first; no statement
// here has a semicolon in a string.
func statements(text string) []string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		code, _, _ := strings.Cut(line, "--")
		b.WriteString(strings.TrimRight(code, "\n"))
		b.WriteByte('\n')
	}
	var list []string
	for statement := range strings.SplitSeq(b.String(), ";") {
		if s := strings.TrimSpace(statement); s != "" {
			list = append(list, s)
		}
	}
	return list
}

func (e *sqliteEngine) migrate(ctx context.Context) error {
	list, err := migrationsOf("sqlite")
	if err != nil {
		return err
	}
	return e.update(ctx, 0, func(tx *Tx) error { return tx.migrate(list) })
}

// migrationLock is the advisory lock under which nodes that start together migrate one after
// the other.
const migrationLock = 0x77617877696e6701

func (e *postgresEngine) migrate(ctx context.Context) error {
	list, err := migrationsOf("postgres")
	if err != nil {
		return err
	}
	return e.once(ctx, pgx.TxOptions{}, 0, func(tx *Tx) error {
		if _, err := tx.exec(`SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		if _, err := tx.exec(`SET LOCAL lock_timeout = 0`); err != nil {
			return err
		}
		if _, err := tx.exec(`SELECT pg_advisory_xact_lock($1)`, int64(migrationLock)); err != nil {
			return err
		}
		return tx.migrate(list)
	})
}
