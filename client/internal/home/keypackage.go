package home

import (
	"database/sql"
	"strconv"
	"time"
)

// KeyPackage is a key package of this device.
type KeyPackage struct {
	Ref         string
	Private     []byte // with its private keys, opened
	LastResort  bool
	IsPublished bool // the server is known to have it
	IsUsed      bool // a Welcome has used it, one of last resort
	Expires     time.Time
}

// KeyPackages holds the key packages with private keys in this home.
type KeyPackages struct{ t *Tx }

// Add writes a package, which the server does not have yet. Private is sealed.
func (k KeyPackages) Add(p KeyPackage) error {
	body := k.t.home.sealer.seal("key_packages", p.Ref, "body", p.Private)
	return k.t.exec(`INSERT INTO key_packages (ref, last_resort, published, expires_ms, body) VALUES ($1, $2, 0, $3, $4)`,
		p.Ref, p.LastResort, p.Expires.UnixMilli(), body)
}

func (k KeyPackages) list(where string, args ...any) (out []KeyPackage, err error) {
	var p KeyPackage
	var body []byte
	var expiresMS int64
	err = k.t.each([]any{&p.Ref, &body, &p.LastResort, &p.IsPublished, &p.IsUsed, &expiresMS}, func() (err error) {
		row := p
		row.Expires = time.UnixMilli(expiresMS)
		row.Private, err = k.t.home.sealer.open("key_packages", p.Ref, "body", body)
		out = append(out, row)
		body = nil
		return err
	}, `SELECT ref, body, last_resort, published, used_ms IS NOT NULL, expires_ms FROM key_packages WHERE `+where, args...)
	return out, err
}

// Get returns the package with that ref, or nil.
func (k KeyPackages) Get(ref string) (*KeyPackage, error) {
	list, err := k.list(`ref = $1`, ref)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// All returns all packages, in order of their refs.
func (k KeyPackages) All() ([]KeyPackage, error) { return k.list(`true ORDER BY ref`) }

// Unpublished returns the packages that the server is not known to have, those of last resort
// first.
func (k KeyPackages) Unpublished() ([]KeyPackage, error) {
	return k.list(`published = 0 AND used_ms IS NULL ORDER BY last_resort DESC, ref`)
}

// Refs returns the refs of all packages.
func (k KeyPackages) Refs() (refs []string, err error) {
	var ref string
	err = k.t.each([]any{&ref}, func() error { refs = append(refs, ref); return nil }, `SELECT ref FROM key_packages`)
	return refs, err
}

// Use erases a package that a Welcome has used. One of last resort stays and is marked as used;
// isLast reports that it is one.
func (k KeyPackages) Use(ref string, now time.Time) (isLast bool, err error) {
	if _, err := k.t.get([]any{&isLast}, `SELECT last_resort FROM key_packages WHERE ref = $1`, ref); err != nil {
		return false, err
	}
	if !isLast {
		return false, k.t.exec(`DELETE FROM key_packages WHERE ref = $1`, ref)
	}
	return true, k.t.exec(`UPDATE key_packages SET used_ms = $1 WHERE ref = $2 AND used_ms IS NULL`, now.UnixMilli(), ref)
}

// FirstUsed returns the earliest time at which a package was marked as used; zero if none is.
func (k KeyPackages) FirstUsed() (time.Time, error) {
	var first sql.NullInt64
	if _, err := k.t.get([]any{&first}, `SELECT min(used_ms) FROM key_packages`); err != nil || !first.Valid {
		return time.Time{}, err
	}
	return time.UnixMilli(first.Int64), nil
}

// Forget erases the packages that expired before the first time, those used up to the second,
// and those that would expire before the third and never reached the server.
func (k KeyPackages) Forget(expired, used, unpublished time.Time) error {
	if err := k.t.exec(`DELETE FROM key_packages WHERE expires_ms < $1`, expired.UnixMilli()); err != nil {
		return err
	}
	if err := k.t.exec(`DELETE FROM key_packages WHERE used_ms <= $1`, used.UnixMilli()); err != nil {
		return err
	}
	return k.t.exec(`DELETE FROM key_packages WHERE published = 0 AND expires_ms < $1`, unpublished.UnixMilli())
}

// Count returns the number of unused packages, of last resort or not, that expire after a time;
// with isUnpublished only of those that the server is not known to have.
func (k KeyPackages) Count(isLastResort bool, expiringAfter time.Time, isUnpublished bool) (count int, err error) {
	_, err = k.t.get([]any{&count}, `SELECT count(*) FROM key_packages WHERE last_resort = $1 AND used_ms IS NULL AND expires_ms > $2
		AND (NOT $3 OR published = 0)`, isLastResort, expiringAfter.UnixMilli(), isUnpublished)
	return count, err
}

// Published marks packages as published.
func (k KeyPackages) Published(refs []string) error {
	for _, ref := range refs {
		if err := k.t.exec(`UPDATE key_packages SET published = 1 WHERE ref = $1`, ref); err != nil {
			return err
		}
	}
	return nil
}

// Welcomes holds Welcomes that cannot be used yet, at most one for each conversation.
type Welcomes struct{ t *Tx }

// Keep stores a Welcome, in place of an earlier one of its conversation. pos is its own. value
// is sealed as JSON.
func (w Welcomes) Keep(pos int64, conversation string, value any) error {
	if err := w.t.exec(`DELETE FROM welcomes WHERE conversation = $1`, conversation); err != nil {
		return err
	}
	return w.t.exec(`INSERT INTO welcomes (pos, conversation, body) VALUES ($1, $2, $3)`,
		pos, conversation, w.t.sealJSON("welcomes", strconv.FormatInt(pos, 10), "body", value))
}

// Take decodes the Welcome of a conversation into out and erases it.
func (w Welcomes) Take(conversation string, out any) (found bool, err error) {
	var pos int64
	var body []byte
	found, err = w.t.get([]any{&pos, &body}, `SELECT pos, body FROM welcomes WHERE conversation = $1`, conversation)
	if err != nil || !found {
		return false, err
	}
	if err := w.t.openJSON("welcomes", strconv.FormatInt(pos, 10), "body", body, out); err != nil {
		return false, err
	}
	return true, w.t.exec(`DELETE FROM welcomes WHERE pos = $1`, pos)
}
