package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// Registration is a device that its owner has registered.
type Registration struct {
	Device       ds.Device
	Name         string
	UUID         string // the device's own permanent id; "" if it has none
	SignatureKey []byte
	PushToken    string // "" if it has none
	Generation   int    // of the API that it uses: 0 unknown, 1 A, 2 B
	RegisteredMS int64
	SeenMS       int64
	KeyPackages  int64 // one-time packages that can still be claimed
}

// RememberedGeneration returns the newest generation that the account's devices were seen to
// use, or 0.
func (d Devices) RememberedGeneration(account ds.AccountID) (int, error) {
	var generation int64
	err := d.tx.row(`SELECT COALESCE(MAX(generation), 0) FROM devices WHERE account = $1`, string(account)).Scan(&generation)
	return int(generation), err
}

// LockAccount keeps other transactions from registering devices for the account, and from
// publishing key packages for it, until the transaction ends. SQLite has one writer anyway.
func (d Devices) LockAccount(account ds.AccountID) error {
	if d.tx.dialect.name != "postgres" {
		return nil
	}
	_, err := d.tx.exec(`SELECT pg_advisory_xact_lock(hashtextextended('account/' || CAST($1 AS TEXT), 0))`, string(account))
	return err
}

const registrationColumns = `d.account, d.device, d.name, COALESCE(d.uuid, ''), d.signature_key, COALESCE(d.push_token, ''), d.generation, d.registered_ms, d.seen_ms,
	(SELECT COUNT(*) FROM key_packages k WHERE k.account = d.account AND k.device = d.device
		AND k.claimed_ms IS NULL AND k.last_resort = 0 AND k.expires_ms > $1)`

// Of lists the registered devices of an account, last seen first.
func (d Devices) Of(account ds.AccountID) ([]Registration, error) {
	var list []Registration
	err := d.tx.each(func(scan func(...any) error) error {
		var r Registration
		var generation int64
		err := scan(&r.Device.Account, &r.Device.ID, &r.Name, &r.UUID, &r.SignatureKey, &r.PushToken, &generation, &r.RegisteredMS, &r.SeenMS, &r.KeyPackages)
		r.Generation = int(generation)
		list = append(list, r)
		return err
	}, `SELECT `+registrationColumns+` FROM devices d WHERE d.account = $2 ORDER BY d.seen_ms DESC, d.registered_ms DESC, d.device`,
		d.tx.nowMS, string(account))
	return list, err
}

// Has reports whether any account has a registered device with that id.
func (d Devices) Has(id ds.DeviceID) (bool, error) {
	var n int64
	err := d.tx.row(`SELECT COUNT(*) FROM devices WHERE device = $1`, string(id)).Scan(&n)
	return n > 0, err
}

// Register writes a registration, new or changed. The caller has checked that no other
// device of the account has the UUID or the signature key.
func (d Devices) Register(r Registration) error {
	_, err := d.tx.exec(`INSERT INTO devices (account, device, name, uuid, signature_key, push_token, generation, registered_ms, seen_ms)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
		ON CONFLICT (account, device) DO UPDATE SET name = excluded.name, uuid = excluded.uuid, signature_key = excluded.signature_key,
			push_token = excluded.push_token, generation = excluded.generation, seen_ms = excluded.seen_ms`,
		string(r.Device.Account), string(r.Device.ID), r.Name, null(r.UUID), notNil(r.SignatureKey), null(r.PushToken), int64(r.Generation), d.tx.nowMS)
	return err
}

// Touch records that a device was seen, and the generation that it used, if it is newer
// than the stored one.
func (d Devices) Touch(device ds.Device, generation int) error {
	_, err := d.tx.exec(`UPDATE devices SET seen_ms = $3, generation = CASE WHEN generation < $4 THEN $4 ELSE generation END
		WHERE account = $1 AND device = $2`, string(device.Account), string(device.ID), d.tx.nowMS, int64(generation))
	return err
}

// SetPushToken changes or, with "", removes the push token of a device, and records that it was
// seen.
func (d Devices) SetPushToken(device ds.Device, token string) error {
	_, err := d.tx.exec(`UPDATE devices SET push_token = $3, seen_ms = $4 WHERE account = $1 AND device = $2`,
		string(device.Account), string(device.ID), null(token), d.tx.nowMS)
	return err
}

// Reset deletes data that only the former state of a device could use: its unclaimed
// packages, and the Welcomes that wait for it. Data of the packages in keep stays, because the
// device has their keys.
func (d Devices) Reset(device ds.Device, keep []string, reason string) error {
	kept := d.tx.setOf(append([]string{}, keep...)) // nil would not be an empty list
	if _, err := d.tx.exec(`DELETE FROM key_packages WHERE account = $2 AND device = $3 AND claimed_ms IS NULL AND NOT COALESCE(ref, '') `+d.tx.in(1),
		kept, string(device.Account), string(device.ID)); err != nil {
		return err
	}
	_, err := d.tx.exec(`UPDATE welcome_recipients SET consumed_ms = $4, reason = $5
		WHERE account = $2 AND consumed_ms IS NULL AND NOT key_package_ref `+d.tx.in(1)+`
			AND (device = $3 OR key_package_ref IN (SELECT ref FROM key_packages WHERE account = $2 AND device = $3 AND ref IS NOT NULL))`,
		kept, string(device.Account), string(device.ID), d.tx.nowMS, reason)
	return err
}

// Delete deletes a device with all its data, and reports whether it existed and how many
// unclaimed packages were deleted. The references of claimed ones stay until they expire, so
// that none of them can be claimed again.
func (d Devices) Delete(device ds.Device, reason string) (isDeleted bool, packages int64, err error) {
	account, id := string(device.Account), string(device.ID)
	n, err := d.tx.exec(`DELETE FROM devices WHERE account = $1 AND device = $2`, account, id)
	if err != nil || n == 0 {
		return false, 0, err
	}
	if err := d.tx.row(`SELECT COUNT(*) FROM key_packages WHERE account = $1 AND device = $2 AND claimed_ms IS NULL`, account, id).Scan(&packages); err != nil {
		return false, 0, err
	}
	if err := d.Reset(device, nil, reason); err != nil {
		return false, 0, err
	}
	for _, sql := range []string{
		`DELETE FROM additions WHERE account = $1 AND device = $2`,
		`DELETE FROM welcome_recipients WHERE account = $1 AND device = $2`,
		`DELETE FROM cursors WHERE account = $1 AND device = $2`,
	} {
		if _, err := d.tx.exec(sql, account, id); err != nil {
			return false, 0, err
		}
	}
	_, err = d.tx.exec(`UPDATE key_packages SET device = '', body = $3 WHERE account = $1 AND device = $2`, account, id, []byte{})
	return true, packages, err
}
