package store

import (
	"cmp"
	"maps"
	"slices"

	"waxwing.im/waxwing/internal/ds"
)

// Account is an admitted or expelled account. Times are 0 where they are unknown or do not apply.
type Account struct {
	ID         ds.AccountID `json:"account"`
	AdmittedMS int64        `json:"admitted_ms,omitempty"` // 0 too for an account that was here before there was admission
	Invite     string       `json:"invite,omitempty"`      // the id of the one that it used
	ExpelledMS int64        `json:"expelled_ms,omitempty"`
	ExpelledBy string       `json:"expelled_by,omitempty"` // an operator
	// FinishedMS is the time when an expelled account was found to be in no conversation and to
	// have no key packages; 0 before that.
	FinishedMS int64 `json:"finished_ms,omitempty"`
}

// List lists at most max accounts with a prefix that follow the account after, by account.
func (q Admission) List(prefix string, after ds.AccountID, max int) ([]Account, error) {
	return q.accounts(`account > $1 AND account >= $2 AND account < $3`, `LIMIT `+bound(4), string(after), prefix, prefix+"\U0010FFFF", int64(max))
}

// Get returns an admitted or expelled account, or ErrNotFound.
func (q Admission) Get(account ds.AccountID) (Account, error) {
	list, err := q.accounts(`account = $1`, `LIMIT 1`, string(account))
	if err != nil || len(list) == 0 {
		return Account{}, cmp.Or(err, ErrNotFound)
	}
	return list[0], nil
}

func (q Admission) accounts(where, limit string, args ...any) ([]Account, error) {
	list := []Account{}
	err := q.tx.each(func(scan func(...any) error) error {
		var a Account
		err := scan((*string)(&a.ID), &a.AdmittedMS, &a.Invite, &a.ExpelledMS, &a.ExpelledBy, &a.FinishedMS)
		list = append(list, a)
		return err
	}, `SELECT account, admitted_ms, invite, expelled_ms, expelled_by, finished_ms FROM (
			SELECT * FROM (SELECT account, admitted_ms, COALESCE(invite_id, '') AS invite, 0 AS expelled_ms, '' AS expelled_by, 0 AS finished_ms
				FROM accounts WHERE `+where+` ORDER BY account `+limit+`) AS a
			UNION ALL
			SELECT * FROM (SELECT account, 0, '', expelled_ms, expelled_by, COALESCE(finished_ms, 0)
				FROM expelled_accounts WHERE `+where+` ORDER BY account `+limit+`) AS b) AS known
		ORDER BY account `+limit, args...)
	return list, err
}

// Bounds of the details of one account.
const (
	detailRowsMax    = 10_000
	detailDevicesMax = 1000 // rows of each kind with the name of a device
)

// AccountDevice is a device of an account, as far as it is known.
type AccountDevice struct {
	ID          ds.DeviceID `json:"device"`
	Name        string      `json:"name,omitempty"`    // by which it was registered, or that its client gave
	SeenMS      int64       `json:"seen_ms,omitempty"` // to within a minute
	Sessions    int64       `json:"sessions"`
	KeyPackages int64       `json:"key_packages"` // that can be claimed, besides last-resort ones
	LastResort  int64       `json:"last_resort"`
}

// AccountDetails describes the data of one account. Counts end at detailRowsMax.
type AccountDetails struct {
	Conversations int `json:"conversations"`
	// StoredBytes is the size of its key packages and device events. Messages are stored
	// without their senders.
	StoredBytes int64           `json:"stored_bytes"`
	Devices     []AccountDevice `json:"devices"` // by id
}

// Details returns the details of an account.
func (q Admission) Details(account ds.AccountID) (AccountDetails, error) {
	var d AccountDetails
	var err error
	if d.Conversations, err = q.tx.Conversations.Count(account, detailRowsMax); err != nil {
		return d, err
	}
	log := string(ds.AccountLog(account))
	if err := q.tx.row(`SELECT COALESCE(SUM(LENGTH(body)), 0) FROM (SELECT body FROM records WHERE log_id = $1 ORDER BY pos DESC LIMIT `+bound(2)+`) AS few`,
		log, detailRowsMax).Scan(&d.StoredBytes); err != nil {
		return d, err
	}
	devices := map[ds.DeviceID]AccountDevice{}
	add := func(sql string, args ...any) {
		if err != nil {
			return
		}
		err = q.tx.each(func(scan func(...any) error) error {
			var row AccountDevice
			var bytes int64
			err := scan((*string)(&row.ID), &row.Name, &row.SeenMS, &row.Sessions, &row.KeyPackages, &row.LastResort, &bytes)
			old := devices[row.ID]
			devices[row.ID] = AccountDevice{row.ID, cmp.Or(old.Name, row.Name), max(old.SeenMS, row.SeenMS), old.Sessions + row.Sessions,
				old.KeyPackages + row.KeyPackages, old.LastResort + row.LastResort}
			d.StoredBytes += bytes
			return err
		}, sql, args...)
	}
	add(`SELECT device, name, seen_ms, 0, 0, 0, 0 FROM devices WHERE account = $1 LIMIT `+bound(2), string(account), detailDevicesMax)
	add(`SELECT device, client_label, last_seen_ms, 1, 0, 0, 0 FROM sessions WHERE account = $1 AND revoked_ms IS NULL AND expires_ms > $2 LIMIT `+bound(3),
		string(account), q.tx.nowMS, detailDevicesMax)
	add(`SELECT device, '', updated_ms, 0, 0, 0, 0 FROM cursors WHERE log_id = $1 LIMIT `+bound(2), log, detailDevicesMax)
	add(`SELECT device, '', 0, 0, COUNT(*) - SUM(last_resort), SUM(last_resort), SUM(LENGTH(body)) FROM (
			SELECT device, last_resort, body FROM key_packages WHERE account = $1 AND claimed_ms IS NULL AND expires_ms > $2 LIMIT `+bound(3)+`) AS few
		GROUP BY device`, string(account), q.tx.nowMS, detailRowsMax)
	d.Devices = slices.SortedFunc(maps.Values(devices), func(a, b AccountDevice) int { return cmp.Compare(a.ID, b.ID) })
	return d, err
}
