package core

import (
	"bytes"

	"waxwing.im/waxwing/internal/ds"
)

// known is what a flusher remembers of its conversations. Every change of a
// conversation moves its head, so what was true at a head is true for whoever finds
// the same head again, whichever nodes wrote before: the memberships loaded once
// serve until the head has moved, and a conversation that only this node writes to
// is decided from memory. The write then names the head that it was decided over,
// and a head that has moved in the meantime refuses it. It belongs to the flusher's
// goroutine.
type known map[ds.ConversationID]*knownConversation

type knownConversation struct {
	head      ds.Conversation
	intervals map[ds.AccountID][]ds.Interval // accounts that never were there have none, but are listed
	streak    int
}

// trust fills c from memory, if the conversation may be decided without its lock. A
// node that is alone with its store needs no confirmation.
func (k known) trust(c *conversation, alone bool) bool {
	r := k[c.head.ID]
	if r == nil || !alone && r.streak < knownTrust {
		return false
	}
	c.head, c.exists, c.intervals, c.trusted = r.head, true, r.intervals, !alone
	return true
}

// recall puts what is known of a locked conversation into c, or forgets it where the
// head is another one.
func (k known) recall(c *conversation) {
	r := k[c.head.ID]
	switch {
	case r == nil || c.trusted:
	case r.head.Pos != c.head.Pos || !bytes.Equal(r.head.Hash, c.head.Hash):
		delete(k, c.head.ID)
	default:
		c.intervals = r.intervals
	}
}

// remember notes the conversations of a batch as it left them.
func (k known) remember(conversations map[ds.ConversationID]*conversation) {
	for id, c := range conversations {
		if !c.exists || len(c.intervals) > knownAccounts {
			delete(k, id)
			continue
		}
		if r := k[id]; r != nil {
			r.head, r.intervals = c.head, c.intervals
			r.streak++
			continue
		}
		if len(k) >= knownConversations {
			for any := range k { // whichever comes first makes room
				delete(k, any)
				break
			}
		}
		k[id] = &knownConversation{head: c.head, intervals: c.intervals}
	}
}

// forget drops the conversations of a batch whose outcome is unknown, or which were
// found to have moved.
func (k known) forget(batch []*request) {
	for _, r := range batch {
		delete(k, r.conversation)
	}
}

// isVerified says whether the batch's decisions on c stand: it was locked, or its
// write will be refused if it has moved. Whatever was decided without a write (a
// refusal, a change that changes nothing, a repeat) needs the lock.
func (c *conversation) isVerified() bool { return !c.trusted || c.touched }
