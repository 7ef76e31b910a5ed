package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// PublishKeyPackages adds packages to a device's pool, in order. One that was ever published
// before is left unchanged: a claimed package does not become available again.
func (tx *Tx) PublishKeyPackages(list []ds.KeyPackage, ids []string) error {
	_, _, err := tx.AddKeyPackages(list, ids)
	return err
}

// AddKeyPackages does the work of PublishKeyPackages, and returns the number of new ones and
// their bytes.
func (tx *Tx) AddKeyPackages(list []ds.KeyPackage, ids []string) (added, bytes int64, err error) {
	// Two publishes may share a millisecond; the ordinal continues from there.
	var base int64
	if len(list) > 0 {
		d := list[0].Device
		if err := tx.row(`SELECT COALESCE(MAX(ordinal), 0) FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL`,
			string(d.Account), string(d.ID)).Scan(&base); err != nil {
			return 0, 0, err
		}
	}
	for i, p := range list {
		expires := p.ExpiresMS
		if expires == 0 {
			expires = neverMS
		}
		n, err := tx.exec(`INSERT INTO key_packages (key_package_id, ref, account, device, suite, encoding, body, last_resort, published_ms, ordinal, expires_ms)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (key_package_id) DO NOTHING`,
			ids[i], null(p.Ref), string(p.Device.Account), string(p.Device.ID), p.Suite, int64(p.Encoding), notNil(p.Body), flag(p.LastResort),
			tx.nowMS, base+int64(i)+1, expires)
		if err != nil {
			return 0, 0, err
		}
		added, bytes = added+n, bytes+n*int64(len(p.Body))
	}
	return added, bytes, nil
}

const neverMS = 1 << 62

// TrimKeyPackages deletes the oldest unclaimed packages of a device beyond the newest keep, and
// all last-resort ones but the newest of each suite.
func (tx *Tx) TrimKeyPackages(device ds.Device, keep int64) error {
	if _, err := tx.exec(`DELETE FROM key_packages WHERE key_package_id IN (
			SELECT key_package_id FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND last_resort = 0
			ORDER BY published_ms DESC, ordinal DESC LIMIT 1000000 OFFSET $3)`, string(device.Account), string(device.ID), keep); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND last_resort = 1
		AND EXISTS (SELECT 1 FROM key_packages n WHERE n.account = $1 AND n.device = $2 AND n.claimed_ms IS NULL AND n.last_resort = 1
			AND n.suite = key_packages.suite AND (n.published_ms > key_packages.published_ms
				OR n.published_ms = key_packages.published_ms AND n.ordinal > key_packages.ordinal))`, string(device.Account), string(device.ID))
	return err
}

// RevokeKeyPackages voids the unclaimed packages of a device.
func (tx *Tx) RevokeKeyPackages(device ds.Device) error {
	_, err := tx.exec(`DELETE FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL`,
		string(device.Account), string(device.ID))
	return err
}

// AvailableKeyPackages counts the claimable one-time packages of a device.
func (tx *Tx) AvailableKeyPackages(device ds.Device) (int64, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND last_resort = 0 AND expires_ms > $3`,
		string(device.Account), string(device.ID), tx.nowMS).Scan(&n)
	return n, err
}

// ClaimKeyPackage takes the oldest unclaimed one-time package of an account, of one device or
// of any (""), so that no other caller gets it. It returns ErrNotFound if only last-resort ones
// are left.
func (tx *Tx) ClaimKeyPackage(owner ds.AccountID, device ds.DeviceID, by ds.AccountID) (ds.KeyPackage, error) {
	return tx.keyPackage(`UPDATE key_packages SET claimed_ms = $1, claimed_by = $2
		WHERE key_package_id = (SELECT key_package_id FROM key_packages
			WHERE account = $3 AND ($4 = '' OR device = $4) AND claimed_ms IS NULL AND last_resort = 0 AND expires_ms > $1
			ORDER BY published_ms, ordinal, key_package_id LIMIT 1 `+tx.dialect.skipLocked+`)
		RETURNING `+keyPackageColumns, tx.nowMS, string(by), string(owner), string(device))
}

// LastResortKeyPackage returns the newest last-resort package of an account, of one device or
// of any (""). It stays in the pool.
func (tx *Tx) LastResortKeyPackage(owner ds.AccountID, device ds.DeviceID) (ds.KeyPackage, error) {
	return tx.keyPackage(`SELECT `+keyPackageColumns+` FROM key_packages
		WHERE account = $2 AND ($3 = '' OR device = $3) AND claimed_ms IS NULL AND last_resort = 1 AND expires_ms > $1
		ORDER BY published_ms DESC, ordinal DESC LIMIT 1`, tx.nowMS, string(owner), string(device))
}

// KeyPackageDevices lists the devices of an account that have claimable packages.
func (tx *Tx) KeyPackageDevices(owner ds.AccountID, max int) ([]ds.DeviceID, error) {
	var list []ds.DeviceID
	err := tx.each(func(scan func(...any) error) error {
		var d ds.DeviceID
		err := scan(&d)
		list = append(list, d)
		return err
	}, `SELECT DISTINCT device FROM key_packages WHERE account = $1 AND claimed_ms IS NULL AND expires_ms > $2 ORDER BY device LIMIT `+bound(3),
		string(owner), tx.nowMS, int64(max))
	return list, err
}

// SweepKeyPackages deletes packages that can no longer be used, claimed ones included: an
// expired package cannot be published again, and an opaque one never equals another.
func (tx *Tx) SweepKeyPackages() error {
	_, err := tx.exec(`DELETE FROM key_packages WHERE expires_ms <= $1 OR (ref IS NULL AND claimed_ms IS NOT NULL)`, tx.nowMS)
	return err
}

const keyPackageColumns = `COALESCE(ref, ''), account, device, suite, encoding, body, last_resort, expires_ms`

func (tx *Tx) keyPackage(sql string, args ...any) (ds.KeyPackage, error) {
	var p ds.KeyPackage
	var last int64
	err := tx.row(sql, args...).Scan(&p.Ref, &p.Device.Account, &p.Device.ID, &p.Suite, &p.Encoding, &p.Body, &last, &p.ExpiresMS)
	p.LastResort = last != 0
	if p.ExpiresMS == neverMS {
		p.ExpiresMS = 0
	}
	return p, notFound(err)
}
