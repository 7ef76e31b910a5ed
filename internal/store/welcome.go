package store

import (
	"slices"

	"waxwing.im/waxwing/internal/ds"
)

// WelcomeRecipient is one recipient of a Welcome. It waits until it is confirmed or given up,
// so that a Welcome can also be queried and not only be received as an event.
type WelcomeRecipient struct {
	WelcomeID     string
	Conversation  ds.ConversationID
	Account       ds.AccountID
	Device        ds.DeviceID // "": any device of the account
	KeyPackageRef string      // lower-case hex; "": unknown
}

// insertRecipients inserts the recipients of a batch's Welcomes. Repeated ones count once.
func (w Welcomes) insertRecipients(list []WelcomeRecipient) error {
	for chunk := range slices.Chunk(list, 64) {
		args := make([]any, 0, len(chunk)*6)
		for _, r := range chunk {
			args = append(args, r.WelcomeID, string(ds.ConversationLog(r.Conversation)), string(r.Account), string(r.Device), r.KeyPackageRef, w.tx.nowMS)
		}
		if err := w.tx.later(`INSERT INTO welcome_recipients (welcome_id, log_id, account, device, key_package_ref, created_ms) VALUES `+
			placeholders(len(chunk), 6, 0)+` ON CONFLICT DO NOTHING`, args...); err != nil {
			return err
		}
	}
	return nil
}

// WelcomeSizeFor returns the size of a Welcome that still exists and is addressed to a device;
// ErrNotFound otherwise.
func (w Welcomes) WelcomeSizeFor(id string, device ds.Device) (size int64, err error) {
	err = w.tx.row(`SELECT length(body) FROM welcomes WHERE welcome_id = $1 AND expires_ms > $2 AND EXISTS (
			SELECT 1 FROM welcome_recipients WHERE welcome_id = $1 AND account = $3 AND (device = $4 OR device = ''))`,
		id, w.tx.nowMS, string(device.Account), string(device.ID)).Scan(&size)
	return size, notFound(err)
}

// Sweep deletes Welcomes past their lifetime, and their recipients.
func (w Welcomes) Sweep() error {
	if _, err := w.tx.exec(`DELETE FROM welcome_recipients WHERE welcome_id IN (SELECT welcome_id FROM welcomes WHERE expires_ms <= $1)`, w.tx.nowMS); err != nil {
		return err
	}
	_, err := w.tx.exec(`DELETE FROM welcomes WHERE expires_ms <= $1`, w.tx.nowMS)
	return err
}

// PackageOwners returns the devices that have published the key packages of these refs, as far
// as they are stored: claimed ones too, until they expire.
func (w Welcomes) PackageOwners(refs []string) (map[string]ds.Device, error) {
	found := make(map[string]ds.Device, len(refs))
	if len(refs) == 0 {
		return found, nil
	}
	err := w.tx.each(func(scan func(...any) error) error {
		var ref string
		var d ds.Device
		err := scan(&ref, &d.Account, &d.ID)
		found[ref] = d
		return err
	}, `SELECT ref, account, device FROM key_packages WHERE key_package_id `+w.tx.in(1)+` AND ref IS NOT NULL`, w.tx.setOf(refs))
	return found, err
}

// Publishers returns those of the accounts that have a key package with a ref here, claimed or
// not.
func (w Welcomes) Publishers(accounts []ds.AccountID) (map[ds.AccountID]bool, error) {
	found := make(map[ds.AccountID]bool, len(accounts))
	if len(accounts) == 0 {
		return found, nil
	}
	err := w.tx.each(func(scan func(...any) error) error {
		var account ds.AccountID
		err := scan(&account)
		found[account] = true
		return err
	}, `SELECT DISTINCT account FROM key_packages WHERE account `+w.tx.in(1)+` AND ref IS NOT NULL`, w.tx.setOf(texts(accounts)))
	return found, err
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
func (w Welcomes) enter(list []Entered) error {
	for _, e := range list {
		if len(e.Devices) > 0 {
			accounts, devices := make([]string, len(e.Devices)), make([]string, len(e.Devices))
			for i, d := range e.Devices {
				accounts[i], devices[i] = string(d.Account), string(d.ID)
			}
			a, b := w.tx.pairsOf(accounts, devices)
			if err := w.tx.later(`UPDATE additions SET status = 'completed' WHERE log_id = $3 AND status <> 'completed'
					AND (account, device) IN (SELECT k.a, k.b FROM `+w.tx.pairs(1)+`)`, a, b, string(ds.ConversationLog(e.Conversation))); err != nil {
				return err
			}
		}
		if len(e.Packages) > 0 {
			if err := w.tx.later(`UPDATE key_packages SET claimed_ms = $2, claimed_by = $3
				WHERE key_package_id `+w.tx.in(1)+` AND claimed_ms IS NULL AND last_resort = 0`, w.tx.setOf(e.Packages), w.tx.nowMS, string(e.By)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Waiting lists the recipients of an account for which Welcomes of a conversation wait,
// the newest first, at most max.
func (w Welcomes) Waiting(account ds.AccountID, conversation ds.ConversationID, max int) ([]WelcomeRecipient, error) {
	var list []WelcomeRecipient
	err := w.tx.each(func(scan func(...any) error) error {
		r := WelcomeRecipient{Conversation: conversation, Account: account}
		err := scan(&r.WelcomeID, &r.Device, &r.KeyPackageRef)
		list = append(list, r)
		return err
	}, `SELECT r.welcome_id, r.device, r.key_package_ref FROM welcome_recipients r JOIN welcomes w ON w.welcome_id = r.welcome_id
		WHERE r.account = $1 AND r.log_id = $2 AND r.consumed_ms IS NULL AND w.expires_ms > $3
		ORDER BY w.pos DESC, r.device, r.key_package_ref LIMIT `+bound(4), string(account), string(ds.ConversationLog(conversation)), w.tx.nowMS, int64(max))
	return list, err
}

// Consume ends the waiting of these recipients, with a reason if the Welcome was given
// up, and returns how many still waited.
func (w Welcomes) Consume(list []WelcomeRecipient, reason string) (int64, error) {
	var total int64
	for _, r := range list {
		n, err := w.tx.exec(`UPDATE welcome_recipients SET consumed_ms = $5, reason = $6
			WHERE welcome_id = $1 AND account = $2 AND device = $3 AND key_package_ref = $4 AND consumed_ms IS NULL`,
			r.WelcomeID, string(r.Account), string(r.Device), r.KeyPackageRef, w.tx.nowMS, null(reason))
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}
