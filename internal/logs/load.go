package logs

import (
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

type loadedBatch struct {
	conversations map[ds.ConversationID]*Conversation
	locked        map[ds.ConversationID]bool // held by another node
}

// load locks the heads of a batch that are not trusted, and then, in later
// statements, reads what its rules need: under READ COMMITTED the locking statement
// would see stale neighbours.
func (f *flusher) load(tx *store.Tx, batch []*Request, mayTrust bool) (loadedBatch, error) {
	var first, others []ds.ConversationID
	conversations := make(map[ds.ConversationID]*Conversation, len(batch))
	for _, r := range batch {
		if conversations[r.Conversation] != nil {
			continue
		}
		c := &Conversation{Head: ds.Conversation{ID: r.Conversation}}
		conversations[r.Conversation] = c
		switch {
		case mayTrust && f.known.trust(c, !f.engine.store.IsShared()):
		case r.isAlone():
			first = append(first, r.Conversation)
		default:
			others = append(others, r.Conversation)
		}
	}
	if err := lockHeads(tx, conversations, first, others); err != nil {
		return loadedBatch{}, err
	}
	locked, err := missing(tx, conversations)
	if err != nil {
		return loadedBatch{}, err
	}
	for _, c := range conversations {
		f.known.recall(c)
	}
	if err := loadReactions(tx, batch, conversations); err != nil {
		return loadedBatch{}, err
	}
	members, messages := wanted(batch, conversations)
	intervals, err := tx.Conversations.Intervals(members)
	if err != nil {
		return loadedBatch{}, err
	}
	answers, err := tx.Logs.Answers(messages)
	if err != nil {
		return loadedBatch{}, err
	}
	if err := loadWhole(tx, batch, conversations); err != nil {
		return loadedBatch{}, err
	}
	for _, key := range members { // those without any stay are known too
		conversations[key.Conversation].SetStays(key.Account, intervals[key])
	}
	for key, answer := range answers {
		conversations[key.Conversation].answer(key.ID, answer)
	}
	return loadedBatch{conversations, locked}, nil
}

// lockHeads waits for the lock of a conversation with a request that runs alone, and skips
// others that another transaction holds.
func lockHeads(tx *store.Tx, conversations map[ds.ConversationID]*Conversation, first, others []ds.ConversationID) error {
	for _, group := range []struct {
		ids  []ds.ConversationID
		wait bool
	}{{first, true}, {others, false}} {
		heads, err := tx.Logs.LockHeads(group.ids, group.wait)
		if err != nil {
			return err
		}
		for _, head := range heads {
			c := conversations[head.ID]
			c.Head, c.Exists = head, true
		}
	}
	return nil
}

// missing distinguishes conversations that another node holds from those that do not exist.
func missing(tx *store.Tx, conversations map[ds.ConversationID]*Conversation) (map[ds.ConversationID]bool, error) {
	var absent []ds.ConversationID
	for id, c := range conversations {
		if !c.Exists {
			absent = append(absent, id)
		}
	}
	if len(absent) == 0 {
		return nil, nil
	}
	held, err := tx.Logs.HeldHeads(absent)
	locked := make(map[ds.ConversationID]bool, len(held))
	for _, id := range held {
		locked[id] = true
	}
	return locked, err
}

// wanted lists the data that the rules of a batch read and that is not known yet, once each.
func wanted(batch []*Request, conversations map[ds.ConversationID]*Conversation) ([]store.MemberKey, []store.MessageKey) {
	members := make(map[store.MemberKey]bool, len(batch))
	messages := make(map[store.MessageKey]bool, len(batch))
	memberKeys, messageKeys := make([]store.MemberKey, 0, len(batch)), make([]store.MessageKey, 0, len(batch))
	for _, r := range batch {
		if !conversations[r.Conversation].Exists {
			continue
		}
		for _, account := range append([]ds.AccountID{r.Account}, r.Needs.Accounts...) {
			key := store.MemberKey{Conversation: r.Conversation, Account: account}
			if !members[key] && !conversations[r.Conversation].hasStays(account) {
				members[key] = true
				memberKeys = append(memberKeys, key)
			}
		}
		for _, id := range [...]ds.MessageID{r.Message, r.Needs.Message} {
			if key := (store.MessageKey{Conversation: r.Conversation, ID: id}); id != "" && !messages[key] {
				messages[key] = true
				messageKeys = append(messageKeys, key)
			}
		}
	}
	return memberKeys, messageKeys
}

// loadReactions reads the reactions that the rules of a batch need. Most batches need none,
// and then it makes no query.
func loadReactions(tx *store.Tx, batch []*Request, conversations map[ds.ConversationID]*Conversation) error {
	var keys []store.ReactionKey
	for _, r := range batch {
		if !r.Needs.Reactions {
			continue
		}
		key := store.ReactionKey{Conversation: r.Conversation, MessageID: r.Needs.Message, Account: r.Account}
		c := conversations[r.Conversation]
		if c.Reactions == nil { // also of one that this batch may yet create
			c.Reactions = map[store.ReactionKey][]string{}
		}
		if c.Exists && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	found, err := tx.Conversations.Reactions(keys)
	for key, said := range found {
		conversations[key.Conversation].Reactions[key] = said
	}
	return err
}

// loadWhole reads data that few requests need: all present members of their conversations, and
// the epoch of the stored GroupInfo.
func loadWhole(tx *store.Tx, batch []*Request, conversations map[ds.ConversationID]*Conversation) error {
	var everyone, infos []ds.ConversationID
	for _, r := range batch {
		c := conversations[r.Conversation]
		if r.Needs.Everyone && c.Present == nil {
			everyone = append(everyone, r.Conversation)
			c.Present = map[ds.AccountID]ds.Interval{}
		}
		if r.Needs.GroupInfo {
			infos = append(infos, r.Conversation)
			c.InfoEpoch = -1
		}
	}
	stays, err := tx.Conversations.PresentStays(everyone)
	if err != nil {
		return err
	}
	for key, stay := range stays {
		conversations[key.Conversation].Present[key.Account] = stay
	}
	epochs, err := tx.Conversations.GroupInfoEpochs(infos)
	for id, epoch := range epochs {
		conversations[id].InfoEpoch = epoch
	}
	return err
}
