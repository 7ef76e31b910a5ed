package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// onIdentityDatabases runs a test on a fresh database of each kind.
func onIdentityDatabases(t *testing.T, test func(t *testing.T, db *DB)) {
	run := func(t *testing.T, url string) {
		db, err := Open(context.Background(), Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(t, db)
	}
	t.Run("sqlite", func(t *testing.T) { run(t, "sqlite:"+t.TempDir()) })
	t.Run("postgres", func(t *testing.T) { run(t, pgtest.Start(t, pgtest.Options{}).Database(t)) })
}

func mustUpdate(t *testing.T, db *DB, fn func(tx *Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func hashOf(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

func TestSessions(t *testing.T) {
	onIdentityDatabases(t, func(t *testing.T, db *DB) {
		session := func(name, account, device string) Session {
			return Session{
				Hash: hashOf("session " + name), ID: "sid_" + name, Device: ds.Device{Account: ds.AccountID(account), ID: ds.DeviceID(device)},
				Label: "label", Features: []string{"bundle", "marker"}, CreatedMS: 10, LastSeenMS: 10, ExpiresMS: 1000,
				ResumeHash: hashOf("resume " + name), ResumeSealed: []byte("sealed " + name),
			}
		}
		one, two, other := session("1", "did:ex:ann", "b"), session("2", "did:ex:ann", "a"), session("3", "did:ex:eve", "a")
		two.Features = nil
		mustUpdate(t, db, func(tx *Tx) error {
			return tx.Sessions.Insert([]Session{one, two, other})
		})
		if err := db.Update(context.Background(), func(tx *Tx) error { return tx.Sessions.Insert([]Session{one}) }); err == nil || ds.IsUnavailable(err) {
			t.Errorf("the same session twice: %v", err)
		}
		byResume := func(tx *Tx, hash []byte) (Session, error) {
			found, err := tx.Sessions.ByResume([][32]byte{[32]byte(hash), [32]byte(hashOf("none")), [32]byte(hashOf("no one"))})
			if err != nil || len(found) == 0 {
				return Session{}, errors.Join(ErrNotFound, err)
			}
			for _, s := range found {
				return s, nil
			}
			return Session{}, ErrNotFound
		}
		rotate := func(tx *Tx, s Session, resumeHash []byte, expiresMS int64) (bool, error) {
			done, err := tx.Sessions.Rotate([]Rotation{{s, [32]byte(resumeHash), []byte("sealed next")}}, 20, expiresMS)
			return done[[32]byte(s.Hash)], err
		}
		limit := func(tx *Tx, s Session, resumeHash []byte, untilMS int64) error {
			return tx.Sessions.LimitPredecessors([]Successor{{[32]byte(s.Hash), [32]byte(resumeHash)}}, untilMS)
		}
		find := func(find func(tx *Tx, hash []byte) (Session, error), hash []byte) string {
			var s Session
			err := db.View(context.Background(), func(tx *Tx) (err error) {
				s, err = find(tx, hash)
				return err
			})
			if errors.Is(err, ErrNotFound) {
				return ""
			}
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprint(s.ID, s.Device, s.Label, s.Features, s.CreatedMS, s.LastSeenMS, s.ExpiresMS, string(s.ResumeSealed))
		}
		bySession := func(tx *Tx, hash []byte) (Session, error) { return tx.Sessions.Get(hash) }
		const asStored = "sid_1{did:ex:ann b}label[bundle marker] 10 10 1000sealed 1"
		for _, test := range []struct{ name, got, want string }{
			{"by session token", find(bySession, one.Hash), asStored},
			{"by resume token", find(byResume, one.ResumeHash), asStored},
			{"by the wrong one", find(bySession, one.ResumeHash), ""},
			{"by the other wrong one", find(byResume, one.Hash), ""},
		} {
			if test.got != test.want {
				t.Errorf("%s: got %q, want %q", test.name, test.got, test.want)
			}
		}

		mustUpdate(t, db, func(tx *Tx) error {
			next := hashOf("next")
			if ok, err := rotate(tx, one, next, 2000); err != nil || !ok {
				t.Errorf("rotate: %v, %v", ok, err)
			}
			if ok, err := rotate(tx, one, hashOf("rival"), 2000); err != nil || ok {
				t.Errorf("rotate after another: %v, %v", ok, err)
			}
			s, err := byResume(tx, one.ResumeHash)
			if err != nil || !slices.Equal(s.PreviousHash, one.ResumeHash) || !slices.Equal(s.ResumeHash, next) || s.ExpiresMS != 2000 {
				t.Errorf("got %+v, %v", s, err)
			}
			if ok, err := tx.Sessions.Repeat(s, 30, 3000); err != nil || !ok {
				t.Errorf("repeat: %v, %v", ok, err)
			}
			if err := limit(tx, s, one.ResumeHash, 35); err != nil { // not the current one
				t.Error(err)
			}
			if s, err = byResume(tx, one.ResumeHash); err != nil || s.PreviousUntilMS != 0 {
				t.Errorf("limited by mistake: %+v, %v", s, err)
			}
			if err := limit(tx, s, next, 40); err != nil {
				t.Error(err)
			}
			if ok, err := tx.Sessions.Repeat(s, 39, 3000); err != nil || !ok {
				t.Errorf("repeat of the limited: %v, %v", ok, err)
			}
			if ok, err := tx.Sessions.Repeat(s, 40, 4000); err != nil || ok {
				t.Errorf("repeat of what has ended: %v, %v", ok, err)
			}
			for _, want := range []struct{ nowMS, n int64 }{{39, 0}, {40, 1}, {41, 0}} {
				if n, err := tx.Sessions.ForgetPredecessors(want.nowMS, len("sealed"), 10); err != nil || n != want.n {
					t.Errorf("forgotten at %d: %d, %v", want.nowMS, n, err)
				}
			}
			if _, err := byResume(tx, one.ResumeHash); !errors.Is(err, ErrNotFound) {
				t.Errorf("the forgotten one is found: %v", err)
			}
			if s, err := byResume(tx, next); err != nil || string(s.ResumeSealed) != "sealed" || s.PreviousUntilMS != 0 {
				t.Errorf("got %+v, %v", s, err)
			}
			return nil
		})

		mustUpdate(t, db, func(tx *Tx) error {
			hashes := [][32]byte{[32]byte(one.Hash), [32]byte(two.Hash), [32]byte(hashOf("none"))}
			alive, err := tx.Sessions.Extend(hashes, 50, 2500)
			if err != nil || len(alive) != 2 || alive[hashes[2]] {
				t.Errorf("extend: %v, %v", alive, err)
			}
			if err := errors.Join(tx.Sessions.See(two.Hash, 60), tx.Sessions.See(two.Hash, 55)); err != nil {
				t.Error(err)
			}
			list, err := tx.Sessions.Of("did:ex:ann", 2600)
			if err != nil || len(list) != 1 || list[0].ID != "sid_1" || list[0].ExpiresMS != 3000 {
				t.Errorf("extending has shortened, or the expired are listed: %+v, %v", list, err)
			}
			list, err = tx.Sessions.Of("did:ex:ann", 100)
			if err != nil || len(list) != 2 || list[0].ID != "sid_2" || list[0].LastSeenMS != 60 || list[0].Features != nil {
				t.Errorf("list: %+v, %v", list, err)
			}
			return nil
		})

		mustUpdate(t, db, func(tx *Tx) error {
			revoke := func(id string, device ds.DeviceID, keep []byte, want int) {
				t.Helper()
				list, err := tx.Sessions.Revoke("did:ex:ann", id, device, keep, 70)
				if err != nil || len(list) != want {
					t.Errorf("revoke %q %q: %+v, %v", id, device, list, err)
				}
			}
			revoke("sid_3", "", nil, 0)
			revoke("", "a", two.Hash, 0)
			revoke("", "a", nil, 1)
			revoke("", "a", nil, 0)
			revoke("", "", one.Hash, 0)
			revoke("sid_1", "", nil, 1)
			for _, find := range []func() (Session, error){
				func() (Session, error) { return tx.Sessions.Get(one.Hash) },
				func() (Session, error) { return byResume(tx, hashOf("next")) },
			} {
				if _, err := find(); !errors.Is(err, ErrNotFound) {
					t.Errorf("a revoked session is found: %v", err)
				}
			}
			if ok, err := rotate(tx, two, hashOf("x"), 8000); err != nil || ok {
				t.Errorf("a revoked session is resumed: %v, %v", ok, err)
			}
			alive, err := tx.Sessions.Extend([][32]byte{[32]byte(one.Hash)}, 80, 8000)
			if err != nil || len(alive) != 0 {
				t.Errorf("a revoked session is extended: %v, %v", alive, err)
			}
			for _, want := range []int64{2, 1, 0} {
				if n, err := tx.Sessions.Delete(5000, 2); err != nil || n != want {
					t.Errorf("deleted %d, want %d: %v", n, want, err)
				}
			}
			return nil
		})
	})
}

func TestConsumeNonces(t *testing.T) {
	onIdentityDatabases(t, func(t *testing.T, db *DB) {
		nonce := func(i int) Nonce {
			return Nonce{Hash: sha256.Sum256([]byte{byte(i), byte(i >> 8)}), ExpiresMS: int64(1000 + i)}
		}
		consume := func(nonces []Nonce) (fresh []bool) {
			mustUpdate(t, db, func(tx *Tx) (err error) {
				fresh, err = tx.Sessions.ConsumeNonces(nonces)
				return err
			})
			return fresh
		}
		if fresh := consume(nil); len(fresh) != 0 {
			t.Errorf("got %v of nothing", fresh)
		}
		if fresh := consume([]Nonce{nonce(1), nonce(2), nonce(1)}); !slices.Equal(fresh, []bool{true, true, false}) {
			t.Errorf("got %v", fresh)
		}
		if fresh := consume([]Nonce{nonce(3), nonce(2), nonce(4), nonce(1), nonce(5)}); !slices.Equal(fresh, []bool{true, false, true, false, true}) {
			t.Errorf("got %v", fresh)
		}
		var many []Nonce
		for i := range NonceBatchMax {
			many = append(many, nonce(10+i))
		}
		for _, want := range []bool{true, false} {
			if fresh := consume(many); slices.Contains(fresh, !want) {
				t.Errorf("a full batch is not all %v", want)
			}
		}
		boom := errors.New("boom")
		err := db.Update(context.Background(), func(tx *Tx) error {
			if _, err := tx.Sessions.ConsumeNonces([]Nonce{nonce(1000)}); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if fresh := consume([]Nonce{nonce(1000)}); !fresh[0] {
			t.Error("a nonce was used up by a transaction that failed")
		}
		mustUpdate(t, db, func(tx *Tx) error {
			for _, want := range []int64{3, 2, 0} { // those that expire at 1001 … 1005
				if n, err := tx.Sessions.DeleteNonces(1006, 3); err != nil || n != want {
					t.Errorf("deleted %d, want %d: %v", n, want, err)
				}
			}
			return nil
		})
		if fresh := consume([]Nonce{nonce(5), nonce(10)}); !slices.Equal(fresh, []bool{true, false}) {
			t.Errorf("got %v", fresh)
		}
	})
}
