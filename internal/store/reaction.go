package store

import (
	"slices"

	"waxwing.im/waxwing/internal/ds"
)

// ReactionKey selects the reactions of one account to one message.
type ReactionKey struct {
	Conversation ds.ConversationID
	MessageID    ds.MessageID
	Account      ds.AccountID
}

// Reaction is a reaction that is added or, if Removed, removed.
type Reaction struct {
	ReactionKey
	Reaction string
	Removed  bool
}

// Reactions loads the reactions of accounts to messages, in the order of their bytes. The
// caller holds the heads, or names them when it writes.
func (co Conversations) Reactions(keys []ReactionKey) (map[ReactionKey][]string, error) {
	found := make(map[ReactionKey][]string, len(keys))
	if len(keys) == 0 {
		return found, nil
	}
	list, args := `json_each($1)`, []any(nil)
	columns := `value->>0 AS log_id, value->>1 AS message_id, value->>2 AS account`
	if co.tx.dialect.name == "postgres" {
		logs, messages, accounts := make([]string, len(keys)), make([]string, len(keys)), make([]string, len(keys))
		for i, k := range keys {
			logs[i], messages[i], accounts[i] = string(ds.ConversationLog(k.Conversation)), string(k.MessageID), string(k.Account)
		}
		columns, list = `*`, `unnest($1::text[], $2::text[], $3::text[]) AS u(log_id, message_id, account)`
		args = []any{logs, messages, accounts}
	} else {
		rows := make([][3]string, len(keys))
		for i, k := range keys {
			rows[i] = [3]string{string(ds.ConversationLog(k.Conversation)), string(k.MessageID), string(k.Account)}
		}
		args = []any{asJSON(rows)}
	}
	err := co.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var k ReactionKey
		var reaction string
		if err := scan(&log, &k.MessageID, &k.Account, &reaction); err != nil {
			return err
		}
		k.Conversation = log.Conversation()
		found[k] = append(found[k], reaction)
		return nil
	}, `SELECT r.log_id, r.message_id, r.account, r.reaction
		FROM (SELECT `+columns+` FROM `+list+`) AS k CROSS JOIN reactions r
		WHERE r.log_id = k.log_id AND r.message_id = k.message_id AND r.account = k.account ORDER BY r.reaction`, args...)
	return found, err
}

// writeReactions writes the last state of each reaction of a list.
func (co Conversations) writeReactions(list []Reaction) error {
	type one struct {
		ReactionKey
		reaction string
	}
	isLast := make(map[one]bool, len(list))
	var come []Reaction
	for _, r := range slices.Backward(list) {
		if key := (one{r.ReactionKey, r.Reaction}); isLast[key] {
			continue
		} else {
			isLast[key] = true
		}
		if !r.Removed {
			come = append(come, r)
			continue
		}
		if err := co.tx.later(`DELETE FROM reactions WHERE log_id = $1 AND message_id = $2 AND account = $3 AND reaction = $4`,
			string(ds.ConversationLog(r.Conversation)), string(r.MessageID), string(r.Account), r.Reaction); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(come, 64) {
		args := make([]any, 0, 5*len(chunk))
		for _, r := range chunk {
			args = append(args, string(ds.ConversationLog(r.Conversation)), string(r.MessageID), string(r.Account), r.Reaction, co.tx.nowMS)
		}
		if err := co.tx.later(`INSERT INTO reactions (log_id, message_id, account, reaction, created_ms) VALUES `+placeholders(len(chunk), 5, 0)+
			` ON CONFLICT DO NOTHING`, args...); err != nil {
			return err
		}
	}
	return nil
}
