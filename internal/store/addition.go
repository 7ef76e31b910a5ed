package store

import (
	"fmt"

	"waxwing.im/waxwing/internal/ds"
)

// Addition is a device of a member that is to be added to the group of a conversation.
type Addition struct {
	ID           string
	Conversation ds.ConversationID
	Device       ds.Device
	DeviceName   string
	Status       string       // AdditionPending, AdditionClaimed or AdditionCompleted
	ClaimedBy    ds.AccountID // "" while it is pending
	CreatedMS    int64
}

// The states of an addition. An expired claim is pending again.
const (
	AdditionPending   = "pending"
	AdditionClaimed   = "in_progress"
	AdditionCompleted = "completed"
)

// OpenAdditions creates an addition of device to each conversation, or reopens the existing one
// unless it is completed. ids are for the new ones, parallel to conversations. It returns the
// additions that the members were not notified of yet.
func (d Devices) OpenAdditions(device ds.Device, conversations []ds.ConversationID, ids []string) ([]Addition, error) {
	if len(conversations) == 0 {
		return nil, nil
	}
	opened := d.tx.table(4, len(conversations), "log_id text", "addition_id text")
	for i, id := range conversations {
		opened.add(string(ds.ConversationLog(id)), ids[i])
	}
	if _, err := d.tx.exec(`INSERT INTO additions (addition_id, log_id, account, device, status, created_ms)
		SELECT k.addition_id, k.log_id, CAST($1 AS TEXT), CAST($2 AS TEXT), 'pending', CAST($3 AS BIGINT) FROM `+opened.from+` WHERE true
		ON CONFLICT (log_id, account, device) DO UPDATE SET status = 'pending', claimed_by = NULL, claimed_ms = NULL, key_package_ref = NULL,
			noted_ms = CASE WHEN additions.status = 'pending' THEN additions.noted_ms END
		WHERE additions.status <> 'completed'`,
		opened.args(string(device.Account), string(device.ID), d.tx.nowMS)...); err != nil {
		return nil, err
	}
	return d.additions(`WHERE a.account = $2 AND a.device = $3 AND a.status <> 'completed' AND a.noted_ms IS NULL
		ORDER BY a.created_ms, a.addition_id`, int64(0), string(device.Account), string(device.ID))
}

// NoteAdditions records that the members were notified.
func (d Devices) NoteAdditions(ids []string) error {
	_, err := d.tx.exec(`UPDATE additions SET noted_ms = $2 WHERE addition_id `+d.tx.in(1), d.tx.setOf(ids), d.tx.nowMS)
	return err
}

// PendingAdditions lists, oldest first, the devices of other members that wait in the
// conversations that account is a member of, only in the given ones unless conversations is
// nil. Claims made at claimedBeforeMS or earlier have expired.
func (d Devices) PendingAdditions(account ds.AccountID, conversations []ds.ConversationID, claimedBeforeMS int64, max int) ([]Addition, error) {
	args, only := []any{claimedBeforeMS, string(account), int64(max)}, ""
	if conversations != nil {
		args, only = append(args, d.tx.setOf(conversationLogs(conversations))), " AND a.log_id "+d.tx.in(4)
	}
	return d.additions(`JOIN intervals m ON m.log_id = a.log_id AND m.account = $2 AND m.until_pos IS NULL
			JOIN intervals o ON o.log_id = a.log_id AND o.account = a.account AND o.until_pos IS NULL
		WHERE a.account <> $2 AND a.status <> 'completed'`+only+`
		ORDER BY a.created_ms, a.addition_id LIMIT `+bound(3), args...)
}

// Addition returns the addition with that id, whatever its state, if account and the owner of
// the device are both members of its conversation; else ErrNotFound.
func (d Devices) Addition(account ds.AccountID, id string, claimedBeforeMS int64) (Addition, error) {
	list, err := d.additions(`JOIN intervals m ON m.log_id = a.log_id AND m.account = $2 AND m.until_pos IS NULL
			JOIN intervals o ON o.log_id = a.log_id AND o.account = a.account AND o.until_pos IS NULL
		WHERE a.addition_id = $3`, claimedBeforeMS, string(account), id)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Addition{}, err
	}
	return list[0], nil
}

// ClaimAddition gives an addition to a claimant, or renews its claim. It returns the ref of the
// key package that the claimant got before, or ErrNotFound if the addition is completed or
// claimed by another account.
func (d Devices) ClaimAddition(id string, by ds.AccountID, claimedBeforeMS int64) (packageRef string, err error) {
	err = d.tx.row(`UPDATE additions SET status = 'in_progress', claimed_by = $2, claimed_ms = $3,
			key_package_ref = CASE WHEN claimed_by = $2 THEN key_package_ref END
		WHERE addition_id = $1 AND (status = 'pending' OR status = 'in_progress' AND (claimed_by = $2 OR claimed_ms <= $4))
		RETURNING COALESCE(key_package_ref, '')`, id, string(by), d.tx.nowMS, claimedBeforeMS).Scan(&packageRef)
	return packageRef, notFound(err)
}

// HandToClaimant records the key package that the claimant of an addition got.
func (d Devices) HandToClaimant(id, packageRef string) error {
	_, err := d.tx.exec(`UPDATE additions SET key_package_ref = $2 WHERE addition_id = $1`, id, packageRef)
	return err
}

// CompleteAddition ends an addition that account has claimed, and reports whether it exists;
// completing it again is allowed.
func (d Devices) CompleteAddition(id string, account ds.AccountID) (bool, error) {
	n, err := d.tx.exec(`UPDATE additions SET status = 'completed' WHERE addition_id = $1 AND claimed_by = $2 AND status <> 'pending'`,
		id, string(account))
	return n > 0, err
}

// additions runs a select with the given clauses after FROM; $1 is the time of the latest claim
// that has expired.
func (d Devices) additions(where string, args ...any) ([]Addition, error) {
	var list []Addition
	err := d.tx.each(func(scan func(...any) error) error {
		var a Addition
		var log ds.LogID
		err := scan(&a.ID, &log, &a.Device.Account, &a.Device.ID, &a.DeviceName, &a.Status, &a.ClaimedBy, &a.CreatedMS)
		a.Conversation = log.Conversation()
		list = append(list, a)
		return err
	}, fmt.Sprintf(`SELECT a.addition_id, a.log_id, a.account, a.device, COALESCE(d.name, ''),
			CASE WHEN a.status = 'in_progress' AND a.claimed_ms <= $1 THEN 'pending' ELSE a.status END,
			CASE WHEN a.status = 'in_progress' AND a.claimed_ms <= $1 THEN '' ELSE COALESCE(a.claimed_by, '') END, a.created_ms
		FROM additions a LEFT JOIN devices d ON d.account = a.account AND d.device = a.device %s`, where), args...)
	return list, err
}

// Entered holds the effects of a commit on devices: those that it added to the group, and the
// key packages that it used.
type Entered struct {
	Conversation ds.ConversationID
	By           ds.AccountID
	Devices      []ds.Device
	Packages     []string // refs, lower-case hex
}

// enter completes the additions of devices that are in their groups now, and keeps used key
// packages from being claimed again, other than last-resort ones.
func (d Devices) enter(list []Entered) error {
	for _, e := range list {
		if len(e.Devices) > 0 {
			entered := d.tx.table(2, len(e.Devices), "account text", "device text")
			for _, device := range e.Devices {
				entered.add(string(device.Account), string(device.ID))
			}
			if err := d.tx.later(`UPDATE additions SET status = 'completed' WHERE log_id = $1 AND status <> 'completed'
					AND (account, device) IN (SELECT k.account, k.device FROM `+entered.from+`)`,
				entered.args(string(ds.ConversationLog(e.Conversation)))...); err != nil {
				return err
			}
		}
		if len(e.Packages) > 0 {
			if err := d.tx.later(`UPDATE key_packages SET claimed_ms = $2, claimed_by = $3
				WHERE key_package_id `+d.tx.in(1)+` AND claimed_ms IS NULL AND last_resort = 0`, d.tx.setOf(e.Packages), d.tx.nowMS, string(e.By)); err != nil {
				return err
			}
		}
	}
	return nil
}
