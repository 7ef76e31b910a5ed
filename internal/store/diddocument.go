package store

// DIDDocument holds the used parts of the document of an account's DID.
type DIDDocument struct {
	DID       string
	Text      []byte
	FetchedMS int64 // by the clock of the database
}

// Put stores a document in place of one that was fetched earlier.
func (q Documents) Put(d DIDDocument) error {
	_, err := q.tx.exec(`
		INSERT INTO did_documents (did, document, fetched_ms) VALUES ($1, $2, $3)
		ON CONFLICT (did) DO UPDATE SET document = excluded.document, fetched_ms = excluded.fetched_ms
		WHERE did_documents.fetched_ms <= excluded.fetched_ms`, d.DID, d.Text, d.FetchedMS)
	return err
}

// Get returns the document of a DID, or ErrNotFound.
func (q Documents) Get(did string) (DIDDocument, error) {
	d := DIDDocument{DID: did}
	err := q.tx.row(`SELECT document, fetched_ms FROM did_documents WHERE did = $1`, did).Scan(&d.Text, &d.FetchedMS)
	return d, notFound(err)
}

// Forget deletes the document of a DID, unless it was fetched after askedMS.
func (q Documents) Forget(did string, askedMS int64) error {
	_, err := q.tx.exec(`DELETE FROM did_documents WHERE did = $1 AND fetched_ms <= $2`, did, askedMS)
	return err
}

// Delete deletes at most max documents that were fetched before beforeMS and
// returns how many.
func (q Documents) Delete(beforeMS int64, max int) (int64, error) {
	return q.tx.exec(`
		DELETE FROM did_documents WHERE did IN (
			SELECT did FROM did_documents WHERE fetched_ms < $1 ORDER BY fetched_ms, did LIMIT `+bound(2)+` `+q.tx.dialect.skipLocked+`)`,
		beforeMS, max)
}
