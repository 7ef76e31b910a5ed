package identity

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

const (
	// keptBytesMax bounds a document in the store. There is one for each account that was here
	// within documentStaleMax.
	keptBytesMax = 4 << 10
	// saveEvery is the interval at which an unchanged document is written again: its age in the
	// store is too great by as much.
	saveEvery = time.Hour
	// savesMax bounds the documents that are written or wait for that.
	savesMax = 16
	// saveTimeout ends a write that does not come back.
	saveTimeout = 10 * time.Second
)

// prove records that a document belongs to an account that was here before: documents of
// strangers do not displace it, and the store keeps it.
func (r *Resolver) prove(did string) {
	if strings.HasPrefix(did, didKeyPrefix) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.documents.prove(did)
	if r.isClosed || !r.maySave(did) {
		return // one of the next tokens is as good
	}
	did = strings.Clone(did)
	r.running.Go(func() { r.save(did) })
}

// isSaveDue reports whether the stored copy is out of date. The caller holds mu.
func (r *Resolver) isSaveDue(entry *cached) bool {
	switch {
	case r.o.Store == nil || entry == nil || !entry.isProven:
		return false
	case entry.document == nil:
		return entry.err != nil && entry.err.Kind != ResolveFailed && entry.saved.hash != [32]byte{}
	case entry.err != nil || entry.fetched.Before(entry.saved.at):
		return false
	}
	return entry.fetched.Sub(entry.saved.at) >= saveEvery || entry.saved.document != entry.document
}

// maySave reports whether a document is to be written and may wait for that. The caller
// holds mu.
func (r *Resolver) maySave(did string) bool {
	return !r.saves[did] && len(r.saves) < savesMax && r.isSaveDue(r.documents.get(did))
}

// save brings the store up to what is known of a DID. Where nothing is to be written it
// does not wait for those that write, and of those that wait there are few: a database that
// hangs must not gather the fetches of all accounts, which Close would wait for one by one.
// The next token or refresh tries again.
func (r *Resolver) save(did string) {
	r.mu.Lock()
	if !r.maySave(did) {
		r.mu.Unlock()
		return
	}
	r.saves[did] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.saves, did)
		r.mu.Unlock()
	}()
	r.saving <- struct{}{} // its holder ends within saveTimeout
	defer func() { <-r.saving }()
	r.mu.Lock()
	entry := r.documents.get(did)
	if !r.isSaveDue(entry) {
		r.mu.Unlock()
		return
	}
	document, asked := entry.document, r.o.Now()
	last, fetched := entry.saved, entry.fetched
	r.mu.Unlock()
	now := saved{at: fetched, document: document}
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout) // Close waits for it
	defer cancel()
	var err error
	if document == nil {
		now = saved{}
		err = r.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.Documents.Forget(did, asked.UnixMilli()) })
	} else if text, textErr := document.text(); textErr != nil || len(text) > keptBytesMax {
		now.hash = last.hash // too large to be kept
	} else if now.hash = sha256.Sum256(text); now.hash != last.hash || fetched.Sub(last.at) >= saveEvery {
		err = r.o.Store.Update(ctx, func(tx *store.Tx) error {
			isAdmitted, err := tx.Admission.Has(ds.AccountID(did))
			if err != nil || !isAdmitted {
				return err
			}
			return tx.Documents.Put(store.DIDDocument{DID: did, Text: text, FetchedMS: fetched.UnixMilli()})
		})
	} else {
		now.at = last.at
	}
	if err != nil {
		return // the next refresh tries again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if entry := r.documents.get(did); entry != nil {
		entry.saved = now
	}
}

// load reads the document of an unknown DID from the store. It is too old to be used without a
// fetch.
func (r *Resolver) load(ctx context.Context, did string) {
	if r.o.Store == nil {
		return
	}
	row, err := store.Get(ctx, r.o.Store.Read, func(tx *store.Tx) (store.DIDDocument, error) { return tx.Documents.Get(did) })
	if err != nil {
		return // none, or the database is away, which its other users report
	}
	document, err := parseDocument(did, row.Text)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.documents.get(did) != nil {
		return
	}
	fetched := time.UnixMilli(row.FetchedMS)
	r.documents.put(&cached{did: strings.Clone(did), document: document, fetched: fetched, isProven: true,
		saved: saved{hash: sha256.Sum256(row.Text), at: fetched, document: document}})
}
