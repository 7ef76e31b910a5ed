package store

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testwait"
)

// TestWriteAheadLogIsCut: readers that overlap, so that there is never a moment without
// any, do not keep the write-ahead log from being cut, and neither they nor the writer
// fail meanwhile.
func TestWriteAheadLogIsCut(t *testing.T) {
	const (
		readers   = 8
		reading   = 20 * time.Millisecond // how long each keeps its snapshot
		rowBytes  = 256 << 10
		rows      = 600 // 150 MiB
		bytesMax  = 64 << 20
		patienceS = 60
	)
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	db, err := Open(ctx, Options{URL: "sqlite:" + dir})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, sqliteFile+"-wal"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if _, err := db.engine.(*sqliteEngine).db.Exec(`CREATE TABLE filler (n INTEGER PRIMARY KEY, body BLOB)`); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for range readers {
		running.Go(func() {
			for ctx.Err() == nil {
				var n int64
				err := db.View(context.Background(), func(tx *Tx) error {
					if err := tx.row(`SELECT count(*) FROM filler`).Scan(&n); err != nil {
						return err
					}
					time.Sleep(reading)
					return nil
				})
				if err != nil {
					t.Errorf("a reader: %v", err)
					return
				}
			}
		})
	}
	body, largest := make([]byte, rowBytes), int64(0)
	for n := range rows {
		err := db.Update(ctx, func(tx *Tx) error {
			_, err := tx.exec(`INSERT INTO filler (n, body) VALUES ($1, $2)`, n, body)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, size())
	}
	t.Logf("the write-ahead log had up to %d MiB", largest>>20)
	testwait.Until(t, "the write-ahead log is cut", func() bool { return size() <= bytesMax })
}

// TestWriteAheadLogOfOtherProcesses: a reader that no server knows of, such as a backup,
// keeps the log from being cut, and delays no other reader or writer.
func TestWriteAheadLogOfOtherProcesses(t *testing.T) {
	ctx := t.Context()
	db, err := Open(ctx, Options{URL: "sqlite:" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.close() // the upkeep of the test is its own
	db.upkeep.Wait()
	e := db.engine.(*sqliteEngine)
	if _, err := e.db.Exec(`CREATE TABLE filler (n INTEGER PRIMARY KEY, body BLOB)`); err != nil {
		t.Fatal(err)
	}
	backup, err := e.db.Begin() // on a connection that is not the engine's
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := backup.QueryRow(`SELECT count(*) FROM filler`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 1<<20)
	for n := 0; e.walBytes() <= walBytesMax; n++ {
		if err := db.Update(ctx, func(tx *Tx) error {
			_, err := tx.exec(`INSERT INTO filler (n, body) VALUES ($1, $2)`, n, body)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.maintain(ctx); err != nil {
		t.Errorf("beside another reader: %v", err)
	}
	if e.walBytes() <= walBytesMax {
		t.Error("the log was cut under a reader")
	}
	if err := db.Update(ctx, (*Tx).probe); err != nil {
		t.Error(err)
	}
	if err := backup.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := e.maintain(ctx); err != nil || e.walBytes() > 1<<20 {
		t.Errorf("with the reader gone: %v, %d MiB", err, e.walBytes()>>20)
	}
}
