package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// NewDetails holds the details with which a conversation is created.
type NewDetails struct {
	Conversation       ds.ConversationID
	Creator            ds.AccountID
	Suite              string
	Title, Description string
}

// PolicyChange records a change of the rules of a conversation, which are in its head.
type PolicyChange struct {
	Conversation ds.ConversationID
	By           ds.AccountID
	AtMS         int64 // the time of its record
}

// writeSettings writes the parts of a batch that belong to the details of conversations.
func (co Conversations) writeSettings(b *Batch) error {
	for _, d := range b.Details {
		if err := co.tx.later(`INSERT INTO conversation_details (log_id, creator, suite, title, description) VALUES ($1, $2, $3, $4, $5)`,
			string(ds.ConversationLog(d.Conversation)), string(d.Creator), d.Suite, d.Title, d.Description); err != nil {
			return err
		}
	}
	for _, p := range b.Policies {
		if err := co.tx.later(`INSERT INTO conversation_details (log_id, policy_ms, policy_by) VALUES ($1, $2, $3)
			ON CONFLICT (log_id) DO UPDATE SET policy_ms = excluded.policy_ms, policy_by = excluded.policy_by`,
			string(ds.ConversationLog(p.Conversation)), p.AtMS, string(p.By)); err != nil {
			return err
		}
	}
	for _, g := range b.Infos {
		if err := co.tx.later(`INSERT INTO conversation_details (log_id, group_info, group_info_pos, group_info_epoch) VALUES ($1, $2, $3, $4)
			ON CONFLICT (log_id) DO UPDATE SET group_info = excluded.group_info, group_info_pos = excluded.group_info_pos,
				group_info_epoch = excluded.group_info_epoch`,
			string(ds.ConversationLog(g.Conversation)), storedBody(g.Body), g.Pos, g.Epoch); err != nil {
			return err
		}
	}
	return nil
}

// GroupInfoEpochs returns the epochs of the conversations' GroupInfos, as far as they are
// known. The caller holds the heads, or names them when it writes.
func (co Conversations) GroupInfoEpochs(ids []ds.ConversationID) (map[ds.ConversationID]int64, error) {
	found := make(map[ds.ConversationID]int64, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	err := co.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var epoch int64
		err := scan(&log, &epoch)
		found[log.Conversation()] = epoch
		return err
	}, `SELECT log_id, group_info_epoch FROM conversation_details WHERE log_id `+co.tx.in(1)+` AND group_info_epoch IS NOT NULL`,
		co.tx.setOf(conversationLogs(ids)))
	return found, err
}
