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
	list := co.tx.table(1, len(keys), "log_id text", "message_id text", "account text")
	for _, k := range keys {
		list.add(string(ds.ConversationLog(k.Conversation)), string(k.MessageID), string(k.Account))
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
		FROM `+list.from+` CROSS JOIN reactions r
		WHERE r.log_id = k.log_id AND r.message_id = k.message_id AND r.account = k.account ORDER BY r.reaction`, list.args()...)
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
	if len(come) == 0 {
		return nil
	}
	added := co.tx.table(2, len(come), "log_id text", "message_id text", "account text", "reaction text")
	for _, r := range come {
		added.add(string(ds.ConversationLog(r.Conversation)), string(r.MessageID), string(r.Account), r.Reaction)
	}
	return co.tx.later(`INSERT INTO reactions (log_id, message_id, account, reaction, created_ms)
		SELECT log_id, message_id, account, reaction, CAST($1 AS BIGINT) FROM `+added.from+` WHERE true ON CONFLICT DO NOTHING`, added.args(co.tx.nowMS)...)
}
