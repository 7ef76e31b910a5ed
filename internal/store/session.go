package store

import (
	"strconv"
	"strings"

	"waxwing.im/waxwing/internal/ds"
)

// SessionBatchMax bounds how many sessions one call of ExtendSessions takes.
const SessionBatchMax = 256

// Session is a row of a session. Its tokens are not in it: the row has their
// SHA-256 and, in ResumeSealed, what only the holder of a resume token can open.
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
}

const sessionColumns = `session_hash, session_id, account, device, client_label, features, created_ms, last_seen_ms, expires_ms, resume_hash, resume_sealed, previous_hash`

func scanSession(scan func(...any) error) (Session, error) {
	var (
		s        Session
		features string
	)
	err := scan(&s.Hash, &s.ID, (*string)(&s.Device.Account), (*string)(&s.Device.ID), &s.Label, &features,
		&s.CreatedMS, &s.LastSeenMS, &s.ExpiresMS, &s.ResumeHash, &s.ResumeSealed, &s.PreviousHash)
	if features != "" {
		s.Features = strings.Split(features, ",")
	}
	return s, err
}

// InsertSession begins a session. It never replaces another one.
func (tx *Tx) InsertSession(s Session) error {
	_, err := tx.exec(`
		INSERT INTO sessions (`+sessionColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, NULL)`,
		s.Hash, s.ID, string(s.Device.Account), string(s.Device.ID), s.Label, strings.Join(s.Features, ","),
		s.CreatedMS, s.LastSeenMS, s.ExpiresMS, s.ResumeHash, s.ResumeSealed)
	return err
}

// Session finds the session with that hash of its token, expired or not. A revoked
// one is ErrNotFound.
func (tx *Tx) Session(hash []byte) (Session, error) {
	s, err := scanSession(tx.row(`
		SELECT `+sessionColumns+` FROM sessions WHERE session_hash = $1 AND revoked_ms IS NULL`, hash).Scan)
	return s, notFound(err)
}

// SessionByResume finds the session of which hash belongs to the resume token or to
// its predecessor, expired or not. A revoked one is ErrNotFound.
func (tx *Tx) SessionByResume(hash []byte) (Session, error) {
	s, err := scanSession(tx.row(`
		SELECT `+sessionColumns+` FROM sessions
		WHERE (resume_hash = $1 OR previous_hash = $1) AND revoked_ms IS NULL`, hash).Scan)
	return s, notFound(err)
}

// RotateSession replaces the resume token of a session, which must still be the
// one that s was read with: of callers that race, on any node, one gets true. The
// replaced token becomes the predecessor.
func (tx *Tx) RotateSession(s Session, resumeHash, resumeSealed []byte, nowMS, expiresMS int64) (bool, error) {
	n, err := tx.exec(`
		UPDATE sessions SET previous_hash = resume_hash, resume_hash = $1, resume_sealed = $2, last_seen_ms = $3, expires_ms = $4
		WHERE session_hash = $5 AND resume_hash = $6 AND revoked_ms IS NULL`,
		resumeHash, resumeSealed, nowMS, expiresMS, s.Hash, s.ResumeHash)
	return n == 1, err
}

// RepeatSession slides a session of which the predecessor's answer is given again;
// false means that the predecessor has died since s was read.
func (tx *Tx) RepeatSession(s Session, nowMS, expiresMS int64) (bool, error) {
	n, err := tx.exec(`
		UPDATE sessions SET last_seen_ms = $1, expires_ms = $2
		WHERE session_hash = $3 AND previous_hash = $4 AND revoked_ms IS NULL`,
		nowMS, expiresMS, s.Hash, s.PreviousHash)
	return n == 1, err
}

// ForgetPredecessor ends the predecessor of the resume token with that hash, and
// keeps of what is sealed only resumeSealed. It does nothing where the token has
// been replaced or has no predecessor.
func (tx *Tx) ForgetPredecessor(hash, resumeHash, resumeSealed []byte) error {
	_, err := tx.exec(`
		UPDATE sessions SET previous_hash = NULL, resume_sealed = $1
		WHERE session_hash = $2 AND resume_hash = $3 AND previous_hash IS NOT NULL`,
		resumeSealed, hash, resumeHash)
	return err
}

// SeeSession notes that a session was used, without sliding its expiry.
func (tx *Tx) SeeSession(hash []byte, nowMS int64) error {
	_, err := tx.exec(`UPDATE sessions SET last_seen_ms = $1 WHERE session_hash = $2 AND last_seen_ms < $1`, nowMS, hash)
	return err
}

// ExtendSessions slides the expiry of at most SessionBatchMax sessions and returns
// the hashes of those that exist and are not revoked.
func (tx *Tx) ExtendSessions(hashes [][32]byte, nowMS, expiresMS int64) (map[[32]byte]bool, error) {
	alive := make(map[[32]byte]bool, len(hashes))
	if len(hashes) == 0 {
		return alive, nil
	}
	list := make([]any, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	list = padded(list, 1)
	err := tx.each(func(scan func(...any) error) error {
		var hash []byte
		if err := scan(&hash); err != nil {
			return err
		}
		alive[[32]byte(hash)] = true
		return nil
	}, `UPDATE sessions SET last_seen_ms = $1, expires_ms = CASE WHEN expires_ms > $2 THEN expires_ms ELSE $2 END
		WHERE revoked_ms IS NULL AND session_hash IN (`+numbered(len(list), 2)+`) RETURNING session_hash`,
		append([]any{nowMS, expiresMS}, list...)...)
	return alive, err
}

// numbered writes "$3,$4…" for a list of count values after offset others.
func numbered(count, offset int) string {
	var b strings.Builder
	for i := range count {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(offset + i + 1))
	}
	return b.String()
}

// Sessions lists the sessions of an account that are neither revoked nor expired,
// by device and id.
func (tx *Tx) Sessions(account ds.AccountID, nowMS int64) ([]Session, error) {
	var list []Session
	err := tx.each(func(scan func(...any) error) error {
		s, err := scanSession(scan)
		list = append(list, s)
		return err
	}, `SELECT `+sessionColumns+` FROM sessions
		WHERE account = $1 AND revoked_ms IS NULL AND expires_ms > $2 ORDER BY device, session_id`,
		string(account), nowMS)
	return list, err
}

// RevokeSessions ends the sessions of an account that are alive: the one with that
// id, those of that device, or all where both are empty; but never the one with the
// hash keep (nil: no exception). It returns Hash and ID of what it ended, in no order.
func (tx *Tx) RevokeSessions(account ds.AccountID, id string, device ds.DeviceID, keep []byte, nowMS int64) ([]Session, error) {
	if keep == nil {
		keep = []byte{0} // no hash of ours
	}
	var list []Session
	err := tx.each(func(scan func(...any) error) error {
		var s Session
		err := scan(&s.Hash, &s.ID)
		list = append(list, s)
		return err
	}, `UPDATE sessions SET revoked_ms = $1
		WHERE account = $2 AND (session_id = $3 OR $3 = '') AND (device = $4 OR $4 = '') AND session_hash <> $5
			AND revoked_ms IS NULL AND expires_ms > $1
		RETURNING session_hash, session_id`,
		nowMS, string(account), id, string(device), keep)
	return list, err
}

// DeleteSessions forgets at most max sessions that expired before beforeMS and returns how many.
func (tx *Tx) DeleteSessions(beforeMS int64, max int) (int64, error) {
	return tx.exec(`
		DELETE FROM sessions WHERE expires_ms < $1 AND session_hash IN (
			SELECT session_hash FROM sessions WHERE expires_ms < $1 ORDER BY expires_ms, session_hash LIMIT $2 `+tx.dialect.skipLocked+`)`,
		beforeMS, max)
}
