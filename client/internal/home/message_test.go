package home

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"path/filepath"
	"slices"
	"testing"
)

// testMessage is a message of the tests.
type testMessage struct{ Text string }

// textsBefore returns the messages below a place, the last one first.
func textsBefore(t *testing.T, h *Home, before int64, limit int) (out []string) {
	t.Helper()
	if err := h.Update(t.Context(), func(tx *Tx) error {
		return tx.Messages.Before("c", before, limit, func(read func(any) error) error {
			var m testMessage
			err := read(&m)
			out = append(out, m.Text)
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDetach: messages that were detached repeatedly keep their places in the history, and may
// return to others.
func TestDetach(t *testing.T) {
	h, err := Open(t.Context(), t.TempDir(), bytes.Repeat([]byte{1}, StorageKeyBytes), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(nil)
	add := func(tx *Tx, seq int64, text string) error {
		return tx.Messages.Add("c", seq, sha256.Sum256([]byte(text)), testMessage{text}, false)
	}
	do := func(fns ...func(tx *Tx) error) {
		t.Helper()
		for _, fn := range fns {
			if err := h.Update(t.Context(), fn); err != nil {
				t.Fatal(err)
			}
		}
	}
	detach := func(tx *Tx) error { return tx.Messages.Detach("c", 2) }
	do(func(tx *Tx) error { return add(tx, 1, "1") },
		func(tx *Tx) error { return add(tx, 2, "2") },
		func(tx *Tx) error { return add(tx, 3, "3") },
		detach,
		func(tx *Tx) error { return add(tx, 2, "new 2") },
		detach,
		func(tx *Tx) error { return add(tx, 2, "newer 2") },
		func(tx *Tx) error { return add(tx, 4, "4") },
		detach, detach,
		func(tx *Tx) error { return add(tx, 2, "newest 2") })
	want := []string{"4", "3", "newest 2", "2", "new 2", "newer 2", "1"}
	if got := textsBefore(t, h, 9, 9); !slices.Equal(got, want) {
		t.Errorf("the history is %q, want %q", got, want)
	}
	if got := textsBefore(t, h, 4, 2); !slices.Equal(got, want[1:6]) {
		t.Errorf("a page that ends between messages with one place is %q", got)
	}
	if got := textsBefore(t, h, 2, 2); !slices.Equal(got, want[6:]) {
		t.Errorf("the page after it is %q", got)
	}
	digest := sha256.Sum256([]byte("2"))
	do(func(tx *Tx) error { return tx.Messages.Restore("c", digest[:], 5, testMessage{"2"}) })
	if got := textsBefore(t, h, 9, 1); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the restored message is not the last one: %q", got)
	}
}

// TestMigrateDetached: in a home of version 4 the detached messages are at their negative
// places.
func TestMigrateDetached(t *testing.T) {
	dir, key := t.TempDir(), bytes.Repeat([]byte{1}, StorageKeyBytes)
	open := func() *Home {
		t.Helper()
		h, err := Open(t.Context(), dir, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open()
	if err := h.Update(t.Context(), func(tx *Tx) error {
		for i, text := range []string{"1", "2", "3"} {
			if err := tx.Messages.Add("c", int64(i+1), sha256.Sum256([]byte(text)), testMessage{text}, false); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	h.Close(nil)
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`UPDATE messages SET seq = -seq WHERE seq >= 2;
		DROP INDEX messages_place; ALTER TABLE messages DROP COLUMN place; ALTER TABLE messages DROP COLUMN change; PRAGMA user_version = 4`)
	db.Close()
	if err != nil {
		t.Fatal(err)
	}
	h = open()
	defer h.Close(nil)
	if got := textsBefore(t, h, 9, 9); !slices.Equal(got, []string{"3", "2", "1"}) {
		t.Errorf("the history is %q", got)
	}
	var m testMessage
	if err := h.Update(t.Context(), func(tx *Tx) error { return tx.Messages.Get("c", -2, &m) }); err != nil || m.Text != "2" {
		t.Errorf("a detached message is %q, %v", m.Text, err)
	}
}
