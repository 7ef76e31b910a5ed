package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// Reading is what a device needs to know to begin to read a conversation.
type Reading struct {
	Home        string
	Pos, Seq    int64       // of the head
	EarliestSeq int64       // the lowest message seq that is still kept
	Stay        ds.Interval // the account's last
	Cursor      int64       // the message seq that the device wants next; 1 when it never acknowledged any
}

// Readings loads all of that in one statement. Conversations that do not exist, and
// those that the account was never in, are not in the answer.
func (tx *Tx) Readings(device ds.Device, ids []ds.ConversationID) (map[ds.ConversationID]Reading, error) {
	found := make(map[ds.ConversationID]Reading, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	are, logs := tx.in(1), any(nil)
	if len(ids) == 1 { // what subscribes asks for one, and a list costs more
		are, logs = "= $1", string(ds.ConversationLog(ids[0]))
	} else {
		logs = tx.setOf(conversationLogs(ids))
	}
	err := tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var r Reading
		err := scan(&log, &r.Home, &r.Pos, &r.Seq, &r.EarliestSeq, &r.Stay.From, &r.Stay.Until, &r.Stay.Role, &r.Cursor)
		found[log.Conversation()] = r // the last stay comes last
		return err
	}, `SELECT l.log_id, COALESCE(l.home, ''), l.pos, l.seq, l.earliest_seq, i.from_pos, COALESCE(i.until_pos, 0), i.role, COALESCE(c.next, 1)
		FROM logs l JOIN intervals i ON i.log_id = l.log_id AND i.account = $2
			LEFT JOIN cursors c ON c.account = $2 AND c.device = $3 AND c.log_id = l.log_id
		WHERE l.log_id `+are+` ORDER BY i.from_pos`, logs, string(device.Account), string(device.ID))
	return found, err
}
