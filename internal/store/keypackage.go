package store

import (
	"errors"
	"fmt"

	"waxwing.im/waxwing/internal/ds"
)

// Publish adds packages to a device's pool, in order, and returns the number of new
// ones and their bytes. One that was ever published before is left unchanged: a claimed package
// does not become available again.
func (q Packages) Publish(list []ds.KeyPackage, ids []string) (added, bytes int64, err error) {
	// Two publishes may share a millisecond; the ordinal continues from there.
	var base int64
	if len(list) > 0 {
		d := list[0].Device
		if err := q.tx.row(`SELECT COALESCE(MAX(ordinal), 0) FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL`,
			string(d.Account), string(d.ID)).Scan(&base); err != nil {
			return 0, 0, err
		}
	}
	for i, p := range list {
		expires := p.ExpiresMS
		if expires == 0 {
			expires = neverMS
		}
		n, err := q.tx.exec(`INSERT INTO key_packages (key_package_id, ref, account, device, suite, encoding, body, last_resort, published_ms, ordinal, expires_ms)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (key_package_id) DO NOTHING`,
			ids[i], null(p.Ref), string(p.Device.Account), string(p.Device.ID), p.Suite, int64(p.Encoding), notNil(p.Body), flag(p.LastResort),
			q.tx.nowMS, base+int64(i)+1, expires)
		if err != nil {
			return 0, 0, err
		}
		added, bytes = added+n, bytes+n*int64(len(p.Body))
	}
	return added, bytes, nil
}

const neverMS = 1 << 62

// Trim deletes the oldest unclaimed packages of a device beyond the newest keep, and
// all last-resort ones but the newest of each suite.
func (q Packages) Trim(device ds.Device, keep int64) error {
	if _, err := q.tx.exec(`DELETE FROM key_packages WHERE key_package_id IN (
			SELECT key_package_id FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND last_resort = 0
			ORDER BY published_ms DESC, ordinal DESC LIMIT 1000000 OFFSET $3)`, string(device.Account), string(device.ID), keep); err != nil {
		return err
	}
	_, err := q.tx.exec(`DELETE FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND last_resort = 1
		AND EXISTS (SELECT 1 FROM key_packages n WHERE n.account = $1 AND n.device = $2 AND n.claimed_ms IS NULL AND n.last_resort = 1
			AND n.suite = key_packages.suite AND (n.published_ms > key_packages.published_ms
				OR n.published_ms = key_packages.published_ms AND n.ordinal > key_packages.ordinal))`, string(device.Account), string(device.ID))
	return err
}

// Revoke voids the unclaimed packages of a device.
func (q Packages) Revoke(device ds.Device) error {
	_, err := q.tx.exec(`DELETE FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL`,
		string(device.Account), string(device.ID))
	return err
}

// Available counts the claimable one-time packages of a device.
func (q Packages) Available(device ds.Device) (int64, error) {
	var n int64
	err := q.tx.row(`SELECT COUNT(*) FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND last_resort = 0 AND expires_ms > $3`,
		string(device.Account), string(device.ID), q.tx.nowMS).Scan(&n)
	return n, err
}

// LockPools lets the transactions that take packages of these accounts run one after the other,
// so that each finds what the earlier ones have left: one that counts does not see what others
// that still run have taken. It is called before the first package is taken. SQLite has one
// writer anyway.
func (q Packages) LockPools(owners []ds.AccountID) error {
	if q.tx.dialect.name != "postgres" || len(owners) == 0 {
		return nil
	}
	_, err := q.tx.exec(`SELECT pg_advisory_xact_lock(pool) FROM (
		SELECT DISTINCT hashtextextended('pool/' || account, 0) AS pool FROM unnest($1::text[]) AS account ORDER BY pool) AS pools`, q.tx.setOf(texts(owners)))
	return err
}

// Pool selects unclaimed key packages.
type Pool struct {
	Account ds.AccountID
	Device  ds.DeviceID // "": of any device
	Suite   int64       // 0: of any suite
	OnlyMLS bool        // without opaque packages
}

// where returns the condition of a pool and of packages that have not expired. Its arguments
// begin with the time, as $1.
func (p Pool) where(nowMS int64) (condition string, args []any) {
	condition, args = `account = $2 AND claimed_ms IS NULL AND expires_ms > $1`, []any{nowMS, string(p.Account)}
	if p.Device != "" {
		args = append(args, string(p.Device))
		condition += fmt.Sprint(` AND device = $`, len(args))
	}
	if p.Suite != 0 {
		args = append(args, p.Suite)
		condition += fmt.Sprint(` AND suite = $`, len(args))
	}
	if p.OnlyMLS {
		condition += ` AND ref IS NOT NULL`
	}
	return condition, args
}

// Claim takes the oldest one-time package of a pool, so that no other caller gets it;
// else it returns the newest last-resort one, which stays in the pool. Without either it
// returns ErrNotFound.
func (q Packages) Claim(from Pool, by ds.AccountID) (ds.KeyPackage, error) {
	condition, args := from.where(q.tx.nowMS)
	p, err := q.keyPackage(fmt.Sprintf(`UPDATE key_packages SET claimed_ms = $1, claimed_by = $%d
		WHERE key_package_id = (SELECT key_package_id FROM key_packages WHERE %s AND last_resort = 0
			ORDER BY published_ms, ordinal, key_package_id LIMIT 1 %s)
		RETURNING %s`, len(args)+1, condition, q.tx.dialect.skipLocked, keyPackageColumns), append(args, string(by))...)
	if !errors.Is(err, ErrNotFound) {
		return p, err
	}
	return q.keyPackage(`SELECT `+keyPackageColumns+` FROM key_packages WHERE `+condition+` AND last_resort = 1
		ORDER BY published_ms DESC, ordinal DESC LIMIT 1`, args...)
}

// Sweep deletes packages that can no longer be used, claimed ones included: an
// expired package cannot be published again, and an opaque one never equals another.
func (q Packages) Sweep() error {
	_, err := q.tx.exec(`DELETE FROM key_packages WHERE expires_ms <= $1 OR (ref IS NULL AND claimed_ms IS NOT NULL)`, q.tx.nowMS)
	return err
}

const keyPackageColumns = `COALESCE(ref, ''), account, device, suite, encoding, body, last_resort, expires_ms`

func (q Packages) keyPackage(sql string, args ...any) (ds.KeyPackage, error) {
	var p ds.KeyPackage
	var last int64
	err := q.tx.row(sql, args...).Scan(&p.Ref, &p.Device.Account, &p.Device.ID, &p.Suite, &p.Encoding, &p.Body, &last, &p.ExpiresMS)
	p.LastResort = last != 0
	if p.ExpiresMS == neverMS {
		p.ExpiresMS = 0
	}
	return p, notFound(err)
}

// Owners returns the devices that have published the key packages of these refs, as far
// as they are stored: claimed ones too, until they expire.
func (q Packages) Owners(refs []string) (map[string]ds.Device, error) {
	found := make(map[string]ds.Device, len(refs))
	if len(refs) == 0 {
		return found, nil
	}
	err := q.tx.each(func(scan func(...any) error) error {
		var ref string
		var d ds.Device
		err := scan(&ref, &d.Account, &d.ID)
		found[ref] = d
		return err
	}, `SELECT ref, account, device FROM key_packages WHERE key_package_id `+q.tx.in(1)+` AND ref IS NOT NULL`, q.tx.setOf(refs))
	return found, err
}

// Publishers returns those of the accounts that have a key package with a ref here, claimed or
// not.
func (q Packages) Publishers(accounts []ds.AccountID) (map[ds.AccountID]bool, error) {
	found := make(map[ds.AccountID]bool, len(accounts))
	if len(accounts) == 0 {
		return found, nil
	}
	err := q.tx.each(func(scan func(...any) error) error {
		var account ds.AccountID
		err := scan(&account)
		found[account] = true
		return err
	}, `SELECT DISTINCT account FROM key_packages WHERE account `+q.tx.in(1)+` AND ref IS NOT NULL`, q.tx.setOf(texts(accounts)))
	return found, err
}
