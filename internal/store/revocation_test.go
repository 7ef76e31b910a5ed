package store

import (
	"context"
	"fmt"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

// TestRevocationsInOrder: what was revoked becomes visible in the order of its numbers,
// however long a transaction takes, and is read in pages that cut through one.
func TestRevocationsInOrder(t *testing.T) {
	onIdentityDatabases(t, func(t *testing.T, db *DB) {
		var list []Session
		for i := range 6 {
			list = append(list, Session{Hash: hashOf(fmt.Sprint(i)), ID: fmt.Sprint("sid_", i), Device: ds.Device{Account: ds.AccountID(fmt.Sprint("did:ex:", i/3)), ID: "d"},
				ExpiresMS: 1000, ResumeHash: hashOf(fmt.Sprint("resume", i)), ResumeSealed: []byte("s")})
		}
		mustUpdate(t, db, func(tx *Tx) error { return tx.Sessions.Insert(list) })
		start := read(t, db, func(tx *Tx) (Revocation, error) { return tx.Sessions.LastRevocation() })
		after := func(place Revocation, max int) []Revocation {
			t.Helper()
			return read(t, db, func(tx *Tx) ([]Revocation, error) {
				return tx.Sessions.RevokedAfter(place, max)
			})
		}
		revoke := func(account ds.AccountID, during func()) error {
			return db.Update(context.Background(), func(tx *Tx) error {
				_, err := tx.Sessions.Revoke(account, "", "", nil, 70)
				during()
				return err
			})
		}
		begun, goOn, done := make(chan struct{}, 100), make(chan struct{}), make(chan error, 2)
		go func() { done <- revoke("did:ex:0", func() { begun <- struct{}{}; <-goOn }) }()
		<-begun
		go func() { done <- revoke("did:ex:1", func() {}) }() // later, and could be faster
		if got := after(start, 10); len(got) != 0 {
			t.Errorf("seen before it was committed: %v", got)
		}
		close(goOn)
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		all := after(start, 10)
		if len(all) != 6 {
			t.Fatalf("got %v", all)
		}
		for i, r := range all {
			if want := all[0].Seq + int64(i/3); r.Seq != want {
				t.Errorf("session %d has number %d, want %d", i, r.Seq, want)
			}
		}
		place := start
		for _, want := range []int{4, 2, 0} {
			page := after(place, 4)
			if len(page) != want {
				t.Fatalf("a page of %d, want %d", len(page), want)
			}
			if want > 0 {
				place = page[want-1]
			}
		}
		if got := after(read(t, db, func(tx *Tx) (Revocation, error) { return tx.Sessions.LastRevocation() }), 10); len(got) != 0 {
			t.Errorf("behind all: %v", got)
		}
	})
}
