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
	sorted := slices.Clone(nonces)
	slices.SortFunc(sorted, func(a, b Nonce) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	args := make([]any, 0, 2*len(nonces))
	for _, n := range sorted {
		args = append(args, n.Hash[:], n.ExpiresMS)
	}
	args = padded(args, 2)
	inserted := make(map[[32]byte]bool, len(nonces))
	err := q.tx.each(func(scan func(...any) error) error {
		var hash []byte
		if err := scan(&hash); err != nil {
			return err
		}
		inserted[[32]byte(hash)] = true
		return nil
	}, `INSERT INTO nonces (nonce, expires_ms) VALUES `+placeholders(len(args)/2, 2, 0)+`
		ON CONFLICT (nonce) DO NOTHING RETURNING nonce`, args...)
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

// padded repeats the last row of width values until the number of rows is a power of two.
// Statements over lists then have few sizes, each prepared once; it is for statements to which
// a repeated row makes no difference.
func padded(args []any, width int) []any {
	rows := len(args) / width
	last := args[len(args)-width:]
	for size := 1; ; size *= 2 {
		if size >= rows {
			for ; rows < size; rows++ {
				args = append(args, last...)
			}
			return args
		}
	}
}
