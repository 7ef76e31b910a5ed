package store

import (
	"errors"

	"waxwing.im/waxwing/internal/ds"
)

// Queries of the pool for the AT Protocol door: packages by suite, and the state of an
// account's own.

// DevicePools lists the pools of the devices of accounts that have claimable packages, of a
// suite or of any (0), by account and device, at most max of each account.
func (q Packages) DevicePools(owners []ds.AccountID, suite int64, onlyMLS bool, max int) ([]Pool, error) {
	var list []Pool
	count := map[ds.AccountID]int{}
	err := q.tx.each(func(scan func(...any) error) error {
		pool := Pool{Suite: suite, OnlyMLS: onlyMLS}
		err := scan(&pool.Account, &pool.Device)
		if count[pool.Account]++; count[pool.Account] <= max {
			list = append(list, pool)
		}
		return err
	}, `SELECT DISTINCT account, device FROM key_packages
		WHERE account `+q.tx.in(1)+` AND claimed_ms IS NULL AND expires_ms > $2 AND ($3 = 0 OR suite = $3) AND ($4 = 0 OR ref IS NOT NULL)
		ORDER BY account, device`, q.tx.setOf(texts(owners)), q.tx.nowMS, suite, flag(onlyMLS))
	return list, err
}

// ForClaimant returns the package that the claimant of an addition got before, or else
// one of the device's: the oldest one-time package, the last-resort one, or none.
func (q Packages) ForClaimant(additionID, packageRef string, device ds.Device, by ds.AccountID) ([]ds.KeyPackage, error) {
	if packageRef != "" {
		p, err := q.keyPackage(`SELECT `+keyPackageColumns+` FROM key_packages WHERE ref = $1 AND account = $2 AND expires_ms > $3`,
			packageRef, string(device.Account), q.tx.nowMS)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return []ds.KeyPackage{p}, err
		}
	}
	p, err := q.Claim(Pool{Account: device.Account, Device: device.ID, OnlyMLS: true}, by)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []ds.KeyPackage{p}, q.tx.Devices.HandToClaimant(additionID, p.Ref)
}

// PoolCounts counts an account's packages, of one device or of any (""), of one suite or of any
// (0).
type PoolCounts struct {
	Published int64 // in total, as far as it is stored
	Available int64 // claimable one-time packages
	Claimed   int64
	Expired   int64 // unclaimed
}

// PoolCounts counts the packages of an account.
func (q Packages) PoolCounts(account ds.AccountID, device ds.DeviceID, suite int64) (PoolCounts, error) {
	var c PoolCounts
	err := q.tx.row(`SELECT COUNT(*),
			COALESCE(SUM(CASE WHEN claimed_ms IS NULL AND last_resort = 0 AND expires_ms > $1 THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(CASE WHEN claimed_ms IS NOT NULL THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(CASE WHEN claimed_ms IS NULL AND expires_ms <= $1 THEN 1 ELSE 0 END), 0)
		FROM key_packages WHERE account = $2 AND ($3 = '' OR device = $3) AND ($4 = 0 OR suite = $4)`,
		q.tx.nowMS, string(account), string(device), suite).Scan(&c.Published, &c.Available, &c.Claimed, &c.Expired)
	return c, err
}

// PoolDevice is a device with the number of its claimable one-time packages.
type PoolDevice struct {
	ID        ds.DeviceID
	Available int64
}

// PoolDevices lists the devices of an account that have packages or are registered, with the
// number of claimable one-time packages of a suite, or of any (0).
func (q Packages) PoolDevices(account ds.AccountID, suite int64, max int) ([]PoolDevice, error) {
	var list []PoolDevice
	err := q.tx.each(func(scan func(...any) error) error {
		var d PoolDevice
		err := scan(&d.ID, &d.Available)
		list = append(list, d)
		return err
	}, `SELECT d.device, (SELECT COUNT(*) FROM key_packages k WHERE k.account = $1 AND k.device = d.device
				AND k.claimed_ms IS NULL AND k.last_resort = 0 AND k.expires_ms > $2 AND ($3 = 0 OR k.suite = $3))
		FROM (SELECT device FROM key_packages WHERE account = $1 AND device <> '' UNION SELECT device FROM devices WHERE account = $1) AS d
		ORDER BY d.device LIMIT `+bound(4), string(account), q.tx.nowMS, suite, int64(max))
	return list, err
}

// PublishedPackage is a package as its owner sees it.
type PublishedPackage struct {
	ID          string
	Device      ds.DeviceID
	Suite       int64
	PublishedMS int64
	ExpiresMS   int64 // 0: never
	ClaimedMS   int64 // 0: not claimed
	ClaimedBy   ds.AccountID
	IsExpired   bool
}

// Published lists packages of an account, the newest first, of one suite or of any (0):
// those after the one that was published at beforeMS and has the id afterID.
func (q Packages) Published(account ds.AccountID, suite, beforeMS int64, afterID string, max int) ([]PublishedPackage, error) {
	var list []PublishedPackage
	err := q.tx.each(func(scan func(...any) error) error {
		var p PublishedPackage
		err := scan(&p.ID, &p.Device, &p.Suite, &p.PublishedMS, &p.ExpiresMS, &p.ClaimedMS, &p.ClaimedBy)
		if p.IsExpired = p.ExpiresMS <= q.tx.nowMS; p.ExpiresMS == neverMS {
			p.ExpiresMS = 0
		}
		list = append(list, p)
		return err
	}, `SELECT key_package_id, device, suite, published_ms, expires_ms, COALESCE(claimed_ms, 0), COALESCE(claimed_by, '')
		FROM key_packages WHERE account = $1 AND ($2 = 0 OR suite = $2) AND (published_ms < $3 OR published_ms = $3 AND key_package_id > $4)
		ORDER BY published_ms DESC, key_package_id LIMIT `+bound(5), string(account), suite, beforeMS, afterID, int64(max))
	return list, err
}

// FreeRefs lists the refs of a device's unclaimed MLS packages, in order.
func (q Packages) FreeRefs(device ds.Device) ([]string, error) {
	var list []string
	err := q.tx.each(func(scan func(...any) error) error {
		var ref string
		err := scan(&ref)
		list = append(list, ref)
		return err
	}, `SELECT ref FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL AND ref IS NOT NULL
		ORDER BY published_ms, ordinal, key_package_id`, string(device.Account), string(device.ID))
	return list, err
}

// DeleteFree deletes unclaimed packages of a device by their refs, gives up the
// Welcomes that were made with them, and returns the number of deleted ones.
func (q Packages) DeleteFree(device ds.Device, refs []string, reason string) (int64, error) {
	if len(refs) == 0 {
		return 0, nil
	}
	n, err := q.tx.exec(`DELETE FROM key_packages WHERE account = $2 AND device = $3 AND claimed_ms IS NULL AND ref `+q.tx.in(1),
		q.tx.setOf(refs), string(device.Account), string(device.ID))
	if err != nil {
		return 0, err
	}
	_, err = q.tx.exec(`UPDATE welcome_recipients SET consumed_ms = $3, reason = $4
		WHERE account = $2 AND consumed_ms IS NULL AND key_package_ref `+q.tx.in(1), q.tx.setOf(refs), string(device.Account), q.tx.nowMS, reason)
	return n, err
}
