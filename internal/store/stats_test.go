package store

import (
	"context"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// TestStats: rows are counted, sizes are those of the database, and the oldest event is that of a
// device that acknowledges, and for which it is.
func TestStats(t *testing.T) {
	pgtest.OnBoth(t, func(t *testing.T, url string) {
		db, err := Open(t.Context(), Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if s, err := db.Stats(t.Context()); err != nil || s.Accounts.Count != 0 || s.OldestEventMS != 0 || s.DatabaseBytes == 0 {
			t.Fatalf("of an empty database: %+v, %v", s, err)
		}
		event := func(account, recipient string, pos, atMS int64) {
			t.Helper()
			if err := db.Update(context.Background(), func(tx *Tx) error {
				if _, err := tx.exec(`INSERT INTO records (log_id, pos, kind, generation, epoch, term, created_ms, recipient, encoding, body) VALUES ($1, $2, 20, 0, 0, 1, $3, $4, 1, $5)`,
					"a/"+account, pos, atMS, null(recipient), []byte("x")); err != nil {
					return err
				}
				_, err := tx.exec(`INSERT INTO logs (log_id, pos, seq, term, created_ms) VALUES ($1, $2, 0, 1, 0) ON CONFLICT (log_id) DO UPDATE SET pos = excluded.pos`, "a/"+account, pos)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		event("ann", "", 1, 1000)
		event("ann", "tablet", 2, 2000)
		event("ann", "", 3, 3000)
		event("bob", "", 1, 500) // has never acknowledged any
		session := Session{Hash: make([]byte, 32), ID: "sid", Device: ds.Device{Account: "ann", ID: "phone"}, ResumeHash: make([]byte, 32), ResumeSealed: []byte("x"),
			ExpiresMS: time.Now().Add(time.Hour).UnixMilli()}
		if err := db.Update(t.Context(), func(tx *Tx) error {
			if _, err := tx.Admission.Admit([]ds.AccountID{"ann", "bob"}, 1); err != nil {
				return err
			}
			if err := tx.Sessions.Insert([]Session{session}); err != nil {
				return err
			}
			return tx.Cursors.Advance([]DeviceCursor{{ds.Device{Account: "ann", ID: "phone"}, ds.Cursor{Log: "a/ann", Next: 2}}})
		}); err != nil {
			t.Fatal(err)
		}
		s, err := db.Stats(t.Context())
		if err != nil || s.Accounts != (Count{2, false}) || s.Records != (Count{4, false}) || s.Sessions != (Count{1, false}) || s.Conversations.Count != 0 {
			t.Errorf("counted %+v, %v", s, err)
		}
		if s.OldestEventMS != 3000 || s.IsOldestAbout {
			t.Errorf("the oldest event of ann's phone is of %d", s.OldestEventMS)
		}
		if s.StoredBytes == 0 || s.DatabaseBytes < s.StoredBytes || len(s.Sizes) < 2 || s.Sizes[0].Bytes < s.Sizes[1].Bytes {
			t.Errorf("sizes %+v", s)
		}
	})
}
