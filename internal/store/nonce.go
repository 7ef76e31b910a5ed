package store

import (
	"bytes"
	"slices"
)

// NonceBatchMax bounds the nonces of one call of ConsumeNonces.
const NonceBatchMax = 256

// Nonce represents a token that may be used once. Hash is the SHA-256 of the token's issuer and
// id; after ExpiresMS the token is refused for its age, so that the nonce may be deleted.
type Nonce struct {
	Hash      [32]byte
	ExpiresMS int64
}

// ConsumeNonces stores the nonces and reports for each whether it was fresh: whether neither an
// earlier transaction nor an earlier item of the list had it. Of concurrent transactions with
// one nonce, on any node, exactly one finds it fresh; the others wait for its commit.
func (q Sessions) ConsumeNonces(nonces []Nonce) ([]bool, error) {
	fresh := make([]bool, len(nonces))
	if len(nonces) == 0 {
		return fresh, nil
	}
	// Every node inserts in the same order, so that two lists that share nonces wait for each
	// other instead of for a deadlock to be found.
	sorted := slices.SortedFunc(slices.Values(nonces), func(a, b Nonce) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	list := q.tx.table(1, len(sorted), "nonce bytea", "expires_ms bigint")
	for _, n := range sorted {
		list.add(n.Hash[:], n.ExpiresMS)
	}
	inserted, err := q.hashes(`INSERT INTO nonces (nonce, expires_ms) SELECT nonce, expires_ms FROM `+list.from+` WHERE true
		ON CONFLICT (nonce) DO NOTHING RETURNING nonce`, list.args()...)
	if err != nil {
		return nil, err
	}
	for i, n := range nonces {
		fresh[i] = inserted[n.Hash]
		delete(inserted, n.Hash) // a second one in the same list is a replay
	}
	return fresh, nil
}

// DeleteNonces deletes at most max nonces that expired before beforeMS and returns how many.
func (q Sessions) DeleteNonces(beforeMS int64, max int) (int64, error) {
	return q.tx.exec(`
		DELETE FROM nonces WHERE nonce IN (
			SELECT nonce FROM nonces WHERE expires_ms < $1 ORDER BY expires_ms, nonce LIMIT `+bound(2)+` `+q.tx.dialect.skipLocked+`)`,
		beforeMS, max)
}
