package core

import (
	"bytes"

	"waxwing.im/waxwing/internal/ds"
)

// The bounds of what a flusher remembers.
const (
	knownConversations = 8192
	knownAccounts      = 2048 // per conversation
)

// known is what a flusher remembers of the memberships of its conversations. Every
// change of a conversation moves its head, so what was true at a head is true for
// whoever finds the same head under its lock, whichever nodes wrote before. It
// belongs to the flusher's goroutine.
type known map[ds.ConversationID]*knownConversation

type knownConversation struct {
	pos       int64
	hash      []byte
	intervals map[ds.AccountID][]ds.Interval // accounts that never were there have none, but are listed
}

// recall puts what is known of a locked conversation into c.
func (k known) recall(c *conversation) {
	r := k[c.head.ID]
	if r == nil {
		return
	}
	if r.pos != c.head.Pos || !bytes.Equal(r.hash, c.head.Hash) {
		delete(k, c.head.ID)
		return
	}
	c.intervals = r.intervals
}

// remember notes the conversations of a batch as it left them.
func (k known) remember(conversations map[ds.ConversationID]*conversation) {
	for id, c := range conversations {
		if !c.exists || len(c.intervals) > knownAccounts {
			delete(k, id)
			continue
		}
		if k[id] == nil && len(k) >= knownConversations {
			for any := range k { // whichever comes first makes room
				delete(k, any)
				break
			}
		}
		k[id] = &knownConversation{pos: c.head.Pos, hash: c.head.Hash, intervals: c.intervals}
	}
}

// forget drops the conversations of a batch that may or may not have been written.
func (k known) forget(batch []*request) {
	for _, r := range batch {
		delete(k, r.conversation)
	}
}
