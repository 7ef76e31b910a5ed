package store

import (
	"errors"
	"testing"
)

// testDIDDocuments: the latest fetch of a document stays, and goes with its account or its age.
func testDIDDocuments(t *testing.T, db *DB) {
	get := func(did string) string {
		t.Helper()
		return read(t, db, func(tx *Tx) (string, error) {
			d, err := tx.Documents.Get(did)
			if errors.Is(err, ErrNotFound) {
				return "none", nil
			}
			return string(d.Text), err
		})
	}
	put := func(did, text string, fetchedMS int64) {
		t.Helper()
		db.must(t, func(tx *Tx) error { return tx.Documents.Put(DIDDocument{did, []byte(text), fetchedMS}) })
	}
	put("did:web:ann", "one", 10)
	put("did:web:bob", "bob", 20)
	same(t, "the first", get("did:web:ann"), "one")
	put("did:web:ann", "earlier", 9)
	same(t, "an earlier one", get("did:web:ann"), "one")
	put("did:web:ann", "two", 11)
	same(t, "a later one", get("did:web:ann"), "two")
	db.must(t, func(tx *Tx) error { return tx.Documents.Forget("did:web:ann", 10) })
	same(t, "gone before it was fetched", get("did:web:ann"), "two")
	db.must(t, func(tx *Tx) error { return tx.Documents.Forget("did:web:ann", 11) })
	same(t, "gone", get("did:web:ann"), "none")
	put("did:web:ann", "three", 30)
	db.must(t, func(tx *Tx) error {
		if err := tx.Admission.Forget("did:web:ann"); !errors.Is(err, ErrNotFound) {
			t.Errorf("an account that was not here: %v", err)
		}
		return nil
	})
	same(t, "of an account that was put out", get("did:web:ann"), "none")
	put("did:web:cem", "cem", 40)
	for _, want := range []int64{1, 1, 0} {
		db.must(t, func(tx *Tx) error {
			n, err := tx.Documents.Delete(41, 1)
			same(t, "swept", n, want)
			return err
		})
	}
	same(t, "swept", get("did:web:cem"), "none")
}
