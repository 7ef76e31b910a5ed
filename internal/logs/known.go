package logs

import (
	"container/list"
	"strings"

	"waxwing.im/waxwing/internal/ds"
)

// known holds a flusher's memory of its conversations. Every change of a conversation moves
// its head, so what was true at a head is true whenever the same head is found again,
// whichever nodes wrote before: memberships loaded once are valid until the head moves, and a
// conversation that only this node writes to is decided from memory. The write then names the
// head that it was decided on, and fails if that head has moved meanwhile. It belongs to the
// flusher's goroutine.
//
// It is bounded by the bytes of all that it keeps alive. Only present members are kept:
// otherwise strangers could fill it with requested names of accounts that never were members
// or have left. The least recently used conversations are evicted first.
type known struct {
	conversations map[ds.ConversationID]*knownConversation
	recent        list.List // of *knownConversation, the latest used first
	bytes         int
	bytesMax      int
}

type knownConversation struct {
	head      ds.Conversation
	intervals map[ds.AccountID][]ds.Interval // all stays of accounts that are members
	names     int                            // bytes of intervals
	streak    int
	place     *list.Element
}

func newKnown() *known {
	return &known{conversations: map[ds.ConversationID]*knownConversation{}, bytesMax: knownBytesMax}
}

// trust fills c from memory, if the conversation may be decided without its lock. A
// node that is alone with its store needs no confirmation.
func (k *known) trust(c *Conversation, alone bool) bool {
	r := k.conversations[c.Head.ID]
	if r == nil || !alone && r.streak < knownTrust {
		return false
	}
	c.Head, c.Exists, c.known, c.trusted = r.head, true, r, !alone
	return true
}

// recall attaches the known state to a locked conversation, or forgets it if the head has
// moved.
func (k *known) recall(c *Conversation) {
	r := k.conversations[c.Head.ID]
	switch {
	case r == nil || c.known != nil:
	case !r.head.Version().IsEqual(c.Head.Version()):
		k.forget(c.Head.ID)
	default:
		c.known = r
	}
}

// remember stores the conversations of a batch as it left them. One that was not known and
// that the batch did not change is not stored.
func (k *known) remember(conversations map[ds.ConversationID]*Conversation) {
	for id, c := range conversations {
		r := k.conversations[id]
		switch {
		case c.hasMoved || !c.Exists && r != nil:
			k.forget(id)
			continue
		case r != nil:
			k.bytes -= r.size()
			r.streak++
			k.recent.MoveToFront(r.place)
		case c.touched:
			r = &knownConversation{intervals: map[ds.AccountID][]ds.Interval{}}
			r.place = k.recent.PushFront(r)
			c.Head.ID = ds.ConversationID(strings.Clone(string(id)))
			k.conversations[c.Head.ID] = r
		default:
			continue
		}
		r.head = c.Head
		for account, stays := range c.intervals {
			r.note(account, stays)
		}
		k.bytes += r.size()
	}
	for k.bytes > k.bytesMax {
		k.forget(k.recent.Back().Value.(*knownConversation).head.ID)
	}
}

// forget removes a conversation that has moved, or may have.
func (k *known) forget(id ds.ConversationID) {
	if r := k.conversations[id]; r != nil {
		k.bytes -= r.size()
		k.recent.Remove(r.place)
		delete(k.conversations, id)
	}
}

// note stores the stays of a member, and removes an account that is not one, or that joined
// and left too often: loading its stays each time costs little.
func (r *knownConversation) note(account ds.AccountID, stays []ds.Interval) {
	old, isKnown := r.intervals[account]
	if isKnown {
		r.names -= stayBytes(account, old)
	}
	if len(stays) == 0 || stays[len(stays)-1].Until != 0 || len(stays) > knownStays {
		delete(r.intervals, account)
		return
	}
	if !isKnown {
		account = ds.AccountID(strings.Clone(string(account))) // not the string that it was cut from
	}
	r.intervals[account] = stays
	r.names += stayBytes(account, stays)
}

func stayBytes(account ds.AccountID, stays []ds.Interval) int {
	n := knownAccountBytes + len(account) + knownStayBytes*cap(stays)
	for i := range stays {
		n += len(stays[i].Service)
	}
	return n
}

// size estimates the bytes that are kept alive, rather too high than too low.
func (r *knownConversation) size() int {
	h := &r.head
	return knownConversationBytes + r.names + 2*len(h.ID) + cap(h.Hash) + cap(h.GroupID) + cap(h.ConfirmationTag) +
		len(h.Home) + len(h.Committer.Account) + len(h.Committer.ID)
}

// isVerified reports whether the batch's decisions on c are final: it was locked, or its write
// fails if it has moved. Decisions without a write (a refusal, a change without effect, a
// repeat) need another check of the head.
func (c *Conversation) isVerified() bool { return !c.trusted || c.touched }
