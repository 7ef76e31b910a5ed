package store

import (
	"bytes"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
)

// SessionBatchMax bounds the sessions of one call.
const SessionBatchMax = 256

// Session is a row of a session. It does not contain its tokens: it has their SHA-256 and, in
// ResumeSealed, data that only the holder of a resume token can open.
type Session struct {
	Hash     []byte // of the session token
	ID       string
	Device   ds.Device
	Label    string
	Features []string // without commas

	CreatedMS, LastSeenMS, ExpiresMS int64

	ResumeHash   []byte // of the resume token
	ResumeSealed []byte // opaque to the store
	PreviousHash []byte // of the predecessor of the resume token while it is accepted, else nil
	// PreviousUntilMS is the time when the predecessor expires; 0 while that is open.
	PreviousUntilMS int64
}

const sessionColumns = `session_hash, session_id, account, device, client_label, features, created_ms, last_seen_ms, expires_ms, resume_hash, resume_sealed, previous_hash, COALESCE(previous_until_ms, 0)`

func scanSession(scan func(...any) error) (Session, error) {
	var (
		s        Session
		features string
	)
	err := scan(&s.Hash, &s.ID, (*string)(&s.Device.Account), (*string)(&s.Device.ID), &s.Label, &features,
		&s.CreatedMS, &s.LastSeenMS, &s.ExpiresMS, &s.ResumeHash, &s.ResumeSealed, &s.PreviousHash, &s.PreviousUntilMS)
	if features != "" {
		s.Features = strings.Split(features, ",")
	}
	return s, err
}

// Insert inserts sessions, at most SessionBatchMax. They never replace others.
func (q Sessions) Insert(list []Session) error {
	if len(list) == 0 {
		return nil
	}
	rows := q.tx.table(1, len(list), "session_hash bytea", "session_id text", "account text", "device text", "client_label text", "features text",
		"created_ms bigint", "last_seen_ms bigint", "expires_ms bigint", "resume_hash bytea", "resume_sealed bytea")
	for _, s := range list {
		rows.add(s.Hash, s.ID, string(s.Device.Account), string(s.Device.ID), s.Label, strings.Join(s.Features, ","),
			s.CreatedMS, s.LastSeenMS, s.ExpiresMS, s.ResumeHash, s.ResumeSealed)
	}
	_, err := q.tx.exec(`
		INSERT INTO sessions (session_hash, session_id, account, device, client_label, features, created_ms, last_seen_ms,
			expires_ms, resume_hash, resume_sealed)
		SELECT session_hash, session_id, account, device, client_label, features, created_ms, last_seen_ms,
			expires_ms, resume_hash, resume_sealed FROM `+rows.from, rows.args()...)
	return err
}

// Get returns the session with that hash of its token, expired or not. A revoked one is
// ErrNotFound.
func (q Sessions) Get(hash []byte) (Session, error) {
	s, err := scanSession(q.tx.row(`
		SELECT `+sessionColumns+` FROM sessions WHERE session_hash = $1 AND revoked_ms IS NULL`, hash).Scan)
	return s, notFound(err)
}

// ByResume returns, by their hash, the sessions with a resume token or predecessor
// that has one of at most SessionBatchMax hashes, expired or not. Revoked ones are not found.
func (q Sessions) ByResume(hashes [][32]byte) (map[[32]byte]Session, error) {
	found := make(map[[32]byte]Session, len(hashes))
	if len(hashes) == 0 {
		return found, nil
	}
	list := q.tx.table(1, len(hashes), "hash bytea")
	for i := range hashes {
		list.add(hashes[i][:])
	}
	in := `IN (SELECT hash FROM ` + list.from + `)`
	// Two selects, because each has its own index.
	err := q.tx.each(func(scan func(...any) error) error {
		s, err := scanSession(scan)
		if err == nil {
			found[[32]byte(s.Hash)] = s
		}
		return err
	}, `SELECT `+sessionColumns+` FROM sessions WHERE resume_hash `+in+` AND revoked_ms IS NULL
		UNION ALL
		SELECT `+sessionColumns+` FROM sessions WHERE previous_hash `+in+` AND revoked_ms IS NULL`, list.args()...)
	return found, err
}

// Rotation gives a session a new resume token.
type Rotation struct {
	Session      Session // as it was read
	ResumeHash   [32]byte
	ResumeSealed []byte
}

// Rotate replaces the resume tokens of at most SessionBatchMax sessions and slides
// them. Each must still have the token that it was read with: of concurrent calls, on any node,
// one finds its session's hash in the result. The replaced token becomes the predecessor.
func (q Sessions) Rotate(list []Rotation, nowMS, expiresMS int64) (map[[32]byte]bool, error) {
	if len(list) == 0 {
		return nil, nil
	}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b Rotation) int { return bytes.Compare(a.Session.Hash, b.Session.Hash) }) // see ConsumeNonces
	rows := q.tx.table(3, len(sorted), "hash bytea", "old bytea", "resume bytea", "sealed bytea")
	for _, r := range sorted {
		rows.add(r.Session.Hash, r.Session.ResumeHash, r.ResumeHash[:], r.ResumeSealed)
	}
	return q.hashes(`
		UPDATE sessions SET previous_hash = resume_hash, resume_hash = k.resume, resume_sealed = k.sealed,
			previous_until_ms = NULL, last_seen_ms = $1, expires_ms = $2
		FROM `+rows.from+` WHERE session_hash = k.hash AND resume_hash = k.old AND revoked_ms IS NULL
		RETURNING session_hash`, rows.args(nowMS, expiresMS)...)
}

// Successor names a resume token that was issued as the successor of another.
type Successor struct {
	Hash, ResumeHash [32]byte // of the session and of the token
}

// LimitPredecessors expires the predecessors of at most SessionBatchMax resume tokens at
// untilMS. A token that has been replaced, or that has no predecessor, is ignored.
func (q Sessions) LimitPredecessors(list []Successor, untilMS int64) error {
	if len(list) == 0 {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b Successor) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	rows := q.tx.table(2, len(sorted), "hash bytea", "resume bytea")
	for _, a := range sorted {
		rows.add(a.Hash[:], a.ResumeHash[:])
	}
	_, err := q.tx.exec(`UPDATE sessions SET previous_until_ms = $1
		FROM `+rows.from+` WHERE session_hash = k.hash AND resume_hash = k.resume AND previous_hash IS NOT NULL`, rows.args(untilMS)...)
	return err
}

// ForgetPredecessors removes at most max predecessors that expired at nowMS or before, and
// their seals: all of resume_sealed after its first sealedBytes. It returns how many.
func (q Sessions) ForgetPredecessors(nowMS int64, sealedBytes, max int) (int64, error) {
	return q.tx.exec(`
		UPDATE sessions SET previous_hash = NULL, previous_until_ms = NULL, resume_sealed = substr(resume_sealed, 1, $2)
		WHERE previous_until_ms <= $1 AND session_hash IN (
			SELECT session_hash FROM sessions WHERE previous_until_ms <= $1 ORDER BY previous_until_ms LIMIT `+bound(3)+` `+q.tx.dialect.skipLocked+`)`,
		nowMS, sealedBytes, max)
}

// hashes runs a statement that returns hashes of sessions or nonces.
func (q Sessions) hashes(sql string, args ...any) (map[[32]byte]bool, error) {
	found := map[[32]byte]bool{}
	err := q.tx.each(func(scan func(...any) error) error {
		var hash []byte
		if err := scan(&hash); err != nil {
			return err
		}
		found[[32]byte(hash)] = true
		return nil
	}, sql, args...)
	return found, err
}

// Repeat slides a session for which the predecessor's answer is repeated; false means
// that the predecessor has expired since s was read.
func (q Sessions) Repeat(s Session, nowMS, expiresMS int64) (bool, error) {
	n, err := q.tx.exec(`
		UPDATE sessions SET last_seen_ms = $1, expires_ms = $2
		WHERE session_hash = $3 AND previous_hash = $4 AND revoked_ms IS NULL
			AND (previous_until_ms IS NULL OR previous_until_ms > $1)`,
		nowMS, expiresMS, s.Hash, s.PreviousHash)
	return n == 1, err
}

// See records that a session was used, without sliding its expiry.
func (q Sessions) See(hash []byte, nowMS int64) error {
	_, err := q.tx.exec(`UPDATE sessions SET last_seen_ms = $1 WHERE session_hash = $2 AND last_seen_ms < $1`, nowMS, hash)
	return err
}

// Extend slides the expiry of at most SessionBatchMax sessions and returns
// the hashes of those that exist and are not revoked.
func (q Sessions) Extend(hashes [][32]byte, nowMS, expiresMS int64) (map[[32]byte]bool, error) {
	if len(hashes) == 0 {
		return nil, nil
	}
	list := q.tx.table(3, len(hashes), "hash bytea")
	for i := range hashes {
		list.add(hashes[i][:])
	}
	return q.hashes(`UPDATE sessions SET last_seen_ms = $1, expires_ms = CASE WHEN expires_ms > $2 THEN expires_ms ELSE $2 END
		WHERE revoked_ms IS NULL AND session_hash IN (SELECT hash FROM `+list.from+`) RETURNING session_hash`, list.args(nowMS, expiresMS)...)
}

// Of lists the sessions of an account that are neither revoked nor expired,
// by device and id.
func (q Sessions) Of(account ds.AccountID, nowMS int64) ([]Session, error) {
	var list []Session
	err := q.tx.each(func(scan func(...any) error) error {
		s, err := scanSession(scan)
		list = append(list, s)
		return err
	}, `SELECT `+sessionColumns+` FROM sessions
		WHERE account = $1 AND revoked_ms IS NULL AND expires_ms > $2 ORDER BY device, session_id`,
		string(account), nowMS)
	return list, err
}

// Revoke ends the sessions of an account: the one with that id, those of that device,
// or all if both are empty; but never the one with the hash keep (nil: no exception). Those
// that seem to have expired are ended too, because an attached one lives on if its expiry could
// not be written. It returns Hash, ID and ExpiresMS of the ended ones, in no order. See
// LockRevocations.
func (q Sessions) Revoke(account ds.AccountID, id string, device ds.DeviceID, keep []byte, nowMS int64) ([]Session, error) {
	if err := q.LockRevocations(); err != nil {
		return nil, err
	}
	if keep == nil {
		keep = []byte{0} // not a possible hash
	}
	var list []Session
	err := q.tx.each(func(scan func(...any) error) error {
		var s Session
		err := scan(&s.Hash, &s.ID, &s.ExpiresMS)
		list = append(list, s)
		return err
	}, `UPDATE sessions SET revoked_ms = $1, revoked_seq = $6
		WHERE account = $2 AND (session_id = $3 OR $3 = '') AND (device = $4 OR $4 = '') AND session_hash <> $5
			AND revoked_ms IS NULL
		RETURNING session_hash, session_id, expires_ms`,
		nowMS, string(account), id, string(device), keep, q.tx.revocation)
	return list, err
}

// HasAccount reports whether any data belongs to an account: a session, a log or a key package.
func (q Sessions) HasAccount(account ds.AccountID) (bool, error) {
	var has int64
	err := q.tx.row(`SELECT CASE WHEN EXISTS (SELECT 1 FROM sessions WHERE account = $1)
			OR EXISTS (SELECT 1 FROM logs WHERE log_id = $2)
			OR EXISTS (SELECT 1 FROM key_packages WHERE account = $1 AND claimed_ms IS NULL) THEN 1 ELSE 0 END`,
		string(account), string(ds.AccountLog(account))).Scan(&has)
	return has == 1, err
}

// Delete deletes at most max sessions that expired before beforeMS and returns how
// many.
func (q Sessions) Delete(beforeMS int64, max int) (int64, error) {
	return q.tx.exec(`
		DELETE FROM sessions WHERE expires_ms < $1 AND session_hash IN (
			SELECT session_hash FROM sessions WHERE expires_ms < $1 ORDER BY expires_ms, session_hash LIMIT `+bound(2)+` `+q.tx.dialect.skipLocked+`)`,
		beforeMS, max)
}
