package store

import (
	"slices"

	"waxwing.im/waxwing/internal/ds"
)

// WelcomeRecipient is one of those whom a Welcome is for. It waits until it is
// confirmed or given up, so that a Welcome can be asked for and not only be told of.
type WelcomeRecipient struct {
	WelcomeID     string
	Conversation  ds.ConversationID
	Account       ds.AccountID
	Device        ds.DeviceID // "": any device of the account
	KeyPackageRef string      // lower-case hex; "": unknown
}

// insertRecipients writes the recipients of a batch's Welcomes. One that is named
// twice counts once.
func (tx *Tx) insertRecipients(list []WelcomeRecipient) error {
	for chunk := range slices.Chunk(list, 64) {
		args := make([]any, 0, len(chunk)*6)
		for _, r := range chunk {
			args = append(args, r.WelcomeID, string(ds.ConversationLog(r.Conversation)), string(r.Account), string(r.Device), r.KeyPackageRef, tx.nowMS)
		}
		if err := tx.later(`INSERT INTO welcome_recipients (welcome_id, log_id, account, device, key_package_ref, created_ms) VALUES `+
			placeholders(len(chunk), 6, 0)+` ON CONFLICT DO NOTHING`, args...); err != nil {
			return err
		}
	}
	return nil
}

// SweepWelcomes forgets Welcomes past their lifetime, and whom they were for.
func (tx *Tx) SweepWelcomes() error {
	if _, err := tx.exec(`DELETE FROM welcome_recipients WHERE welcome_id IN (SELECT welcome_id FROM welcomes WHERE expires_ms <= $1)`, tx.nowMS); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM welcomes WHERE expires_ms <= $1`, tx.nowMS)
	return err
}
