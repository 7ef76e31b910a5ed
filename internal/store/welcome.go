package store

import "waxwing.im/waxwing/internal/ds"

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
	if len(list) == 0 {
		return nil
	}
	added := w.tx.table(2, len(list), "welcome_id text", "log_id text", "account text", "device text", "key_package_ref text")
	for _, r := range list {
		added.add(r.WelcomeID, string(ds.ConversationLog(r.Conversation)), string(r.Account), string(r.Device), r.KeyPackageRef)
	}
	return w.tx.later(`INSERT INTO welcome_recipients (welcome_id, log_id, account, device, key_package_ref, created_ms)
		SELECT welcome_id, log_id, account, device, key_package_ref, CAST($1 AS BIGINT) FROM `+added.from+` WHERE true ON CONFLICT DO NOTHING`,
		added.args(w.tx.nowMS)...)
}

// SizeFor returns the size of a Welcome that still exists and is addressed to a device;
// ErrNotFound otherwise.
func (w Welcomes) SizeFor(id string, device ds.Device) (size int64, err error) {
	err = w.tx.row(`SELECT `+bodyBytes+` FROM welcomes WHERE welcome_id = $1 AND expires_ms > $2 AND EXISTS (
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

// Sizes returns the sizes in bytes of the Welcomes that still exist, by id.
func (w Welcomes) Sizes(ids []string) (map[string]int64, error) {
	found := make(map[string]int64, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	err := w.tx.each(func(scan func(...any) error) error {
		var id string
		var size int64
		err := scan(&id, &size)
		found[id] = size
		return err
	}, `SELECT welcome_id, `+bodyBytes+` FROM welcomes WHERE welcome_id `+w.tx.in(1)+` AND expires_ms > $2`, w.tx.setOf(ids), w.tx.nowMS)
	return found, err
}

// Bodies returns the Welcomes that still exist, by id.
func (w Welcomes) Bodies(ids []string) (map[string][]byte, error) {
	found := make(map[string][]byte, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	err := w.tx.each(func(scan func(...any) error) error {
		var id string
		var body []byte
		err := scan(&id, bodyInto(&body))
		found[id] = body
		return err
	}, `SELECT welcome_id, body FROM welcomes WHERE welcome_id `+w.tx.in(1)+` AND expires_ms > $2`, w.tx.setOf(ids), w.tx.nowMS)
	return found, err
}
