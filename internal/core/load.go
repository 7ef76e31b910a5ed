package core

import (
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

type loadedBatch struct {
	conversations map[ds.ConversationID]*conversation
	locked        map[ds.ConversationID]bool // held by another node
}

// load locks the heads of a batch that are not trusted, and then, in later
// statements, reads what its rules need: under READ COMMITTED the locking statement
// would see stale neighbours.
func (f *flusher) load(tx *store.Tx, batch []*request, mayTrust bool) (loadedBatch, error) {
	var first, others []ds.ConversationID
	conversations := make(map[ds.ConversationID]*conversation, len(batch))
	for _, r := range batch {
		if conversations[r.conversation] != nil {
			continue
		}
		c := &conversation{head: ds.Conversation{ID: r.conversation}}
		conversations[r.conversation] = c
		switch {
		case mayTrust && f.known.trust(c, !f.s.store.IsShared()):
		case r.isAlone():
			first = append(first, r.conversation)
		default:
			others = append(others, r.conversation)
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
		conversations[key.Conversation].setStays(key.Account, intervals[key])
	}
	for key, answer := range answers {
		conversations[key.Conversation].answer(key.ID, answer)
	}
	return loadedBatch{conversations, locked}, nil
}

// lockHeads waits for the lock of a conversation with a request that runs alone, and skips
// others that another transaction holds.
func lockHeads(tx *store.Tx, conversations map[ds.ConversationID]*conversation, first, others []ds.ConversationID) error {
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
			c.head, c.exists = head, true
		}
	}
	return nil
}

// missing distinguishes conversations that another node holds from those that do not exist.
func missing(tx *store.Tx, conversations map[ds.ConversationID]*conversation) (map[ds.ConversationID]bool, error) {
	var absent []ds.ConversationID
	for id, c := range conversations {
		if !c.exists {
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
func wanted(batch []*request, conversations map[ds.ConversationID]*conversation) ([]store.MemberKey, []store.MessageKey) {
	members := make(map[store.MemberKey]bool, len(batch))
	messages := make(map[store.MessageKey]bool, len(batch))
	memberKeys, messageKeys := make([]store.MemberKey, 0, len(batch)), make([]store.MessageKey, 0, len(batch))
	for _, r := range batch {
		if !conversations[r.conversation].exists {
			continue
		}
		for _, account := range append([]ds.AccountID{r.who.Account}, r.needs.Accounts...) {
			key := store.MemberKey{Conversation: r.conversation, Account: account}
			if !members[key] && !conversations[r.conversation].hasStays(account) {
				members[key] = true
				memberKeys = append(memberKeys, key)
			}
		}
		for _, id := range [...]ds.MessageID{r.messageID, r.needs.Message} {
			if key := (store.MessageKey{Conversation: r.conversation, ID: id}); id != "" && !messages[key] {
				messages[key] = true
				messageKeys = append(messageKeys, key)
			}
		}
	}
	return memberKeys, messageKeys
}

// loadReactions reads the reactions that the rules of a batch need. Most batches need none,
// and then it makes no query.
func loadReactions(tx *store.Tx, batch []*request, conversations map[ds.ConversationID]*conversation) error {
	var keys []store.ReactionKey
	for _, r := range batch {
		if !r.needs.Reactions {
			continue
		}
		key := store.ReactionKey{Conversation: r.conversation, MessageID: r.needs.Message, Account: r.who.Account}
		c := conversations[r.conversation]
		if c.reactions == nil { // also of one that this batch may yet create
			c.reactions = map[store.ReactionKey][]string{}
		}
		if c.exists && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	found, err := tx.Conversations.Reactions(keys)
	for key, said := range found {
		conversations[key.Conversation].reactions[key] = said
	}
	return err
}

// loadWhole reads data that few requests need: all present members of their conversations, and
// the epoch of the stored GroupInfo.
func loadWhole(tx *store.Tx, batch []*request, conversations map[ds.ConversationID]*conversation) error {
	var everyone, infos []ds.ConversationID
	for _, r := range batch {
		c := conversations[r.conversation]
		if r.needs.Everyone && c.current == nil {
			everyone = append(everyone, r.conversation)
			c.current = map[ds.AccountID]ds.Interval{}
		}
		if r.needs.GroupInfo {
			infos = append(infos, r.conversation)
			c.infoEpoch = -1
		}
	}
	stays, err := tx.Conversations.PresentStays(everyone)
	if err != nil {
		return err
	}
	for key, stay := range stays {
		conversations[key.Conversation].current[key.Account] = stay
	}
	epochs, err := tx.Conversations.GroupInfoEpochs(infos)
	for id, epoch := range epochs {
		conversations[id].infoEpoch = epoch
	}
	return err
}
