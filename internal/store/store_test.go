package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOpenSQLiteTwice(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	db, err := Open(ctx, Options{URL: "sqlite:" + dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Options{URL: "sqlite:" + dir}); err == nil {
		t.Fatal("a second process must be refused")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err = Open(ctx, Options{URL: "sqlite:" + dir})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	files, err := filepath.Glob(filepath.Join(dir, sqliteFile+"*"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func TestOpenRefusesNewerSchema(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	db, err := Open(ctx, Options{URL: "sqlite:" + dir})
	if err != nil {
		t.Fatal(err)
	}
	add := func(version, lowest int64) {
		t.Helper()
		err := db.Update(ctx, func(tx *Tx) error {
			_, err := tx.exec(`INSERT INTO schema_versions (version, lowest_compatible, checksum, applied_ms) VALUES ($1, $2, 'x', 0)`, version, lowest)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add(1001, 1) // a newer schema that this program can live beside
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(ctx, Options{URL: "sqlite:" + dir}); err != nil {
		t.Fatalf("an expanded schema must be accepted: %v", err)
	}
	add(1002, 1002)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Options{URL: "sqlite:" + dir}); err == nil {
		t.Fatal("a contracted schema must be refused")
	}
}

func TestUpdateRollsBack(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{URL: "sqlite:" + t.TempDir(), Now: func() time.Time { return time.UnixMilli(5) }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	boom := errors.New("boom")
	err = db.Update(ctx, func(tx *Tx) error {
		if _, err := tx.exec(`INSERT INTO nonces (nonce, expires_ms) VALUES ($1, $2)`, []byte("n"), tx.nowMS); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	var n int
	if err := db.View(ctx, func(tx *Tx) error { return tx.row(`SELECT count(*) FROM nonces`).Scan(&n) }); err != nil || n != 0 {
		t.Fatal(n, err)
	}
}
