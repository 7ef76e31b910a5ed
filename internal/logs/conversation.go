package logs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Conversation holds the state of one conversation in one batch: the head and the data that
// its requests loaded, updated by the decisions of the same batch. Rules read and change it;
// they touch no database.
type Conversation struct {
	Head      ds.Conversation
	Exists    bool
	Answers   map[ds.MessageID]store.Answer  // the records of the message ids that requests name
	Present   map[ds.AccountID]ds.Interval   // the stay of each member, if a request needs everyone; else nil
	Reactions map[store.ReactionKey][]string // those that requests need
	InfoEpoch int64                          // of the stored GroupInfo, if requests need it; -1 if there is none or it is unknown
	// Out holds the rows that the batch writes besides heads, records and events. Its
	// conversations share it.
	Out *store.Batch

	created bool // by this batch
	touched bool // written to by this batch
	trusted bool // taken from memory, not locked
	// hasMoved: memory was outdated, and the decisions on it are void.
	hasMoved bool

	before    ds.Conversation                // the head that the batch found
	known     *knownConversation             // its state in memory, never written to here; or nil
	intervals map[ds.AccountID][]ds.Interval // stays that the batch has loaded or changed; they override known
}

// Open creates the conversation within the batch.
func (c *Conversation) Open(head ds.Conversation) {
	c.Exists, c.created, c.touched = true, true, true
	c.Head = head
	c.known, c.intervals, c.Answers = nil, nil, nil
}

// IsMember reports whether account is in the conversation now.
func (c *Conversation) IsMember(account ds.AccountID) bool { return c.Role(account) != ds.NoRole }

// Stays lists the stays of an account, oldest first. The list must not be written to.
func (c *Conversation) Stays(account ds.AccountID) []ds.Interval {
	if stays, isHere := c.intervals[account]; isHere || c.known == nil {
		return stays
	}
	return c.known.intervals[account]
}

// hasStays reports whether stays need not be loaded for account: they are in memory or have
// been loaded, even if there are none.
func (c *Conversation) hasStays(account ds.AccountID) bool {
	_, isHere := c.intervals[account]
	if !isHere && c.known != nil {
		_, isHere = c.known.intervals[account]
	}
	return isHere
}

// SetStays stores the stays of an account in the batch.
func (c *Conversation) SetStays(account ds.AccountID, stays []ds.Interval) {
	if c.intervals == nil {
		c.intervals = map[ds.AccountID][]ds.Interval{}
	}
	c.intervals[account] = stays
}

// Stay returns the present stay of a member.
func (c *Conversation) Stay(account ds.AccountID) (stay ds.Interval, isMember bool) {
	if stay, isMember = c.Present[account]; isMember {
		return stay, true
	}
	if stays := c.Stays(account); len(stays) > 0 && stays[len(stays)-1].Until == 0 {
		return stays[len(stays)-1], true
	}
	return ds.Interval{}, false
}

// ChangeStay replaces the present stay of a member, which its Until may end. It modifies neither
// known nor loaded stays: if the batch fails, they remain valid.
func (c *Conversation) ChangeStay(account ds.AccountID, stay ds.Interval) {
	if stays := slices.Clone(c.Stays(account)); len(stays) > 0 {
		stays[len(stays)-1] = stay
		c.SetStays(account, stays)
	}
	if c.Present == nil {
		return
	}
	if c.Present[account] = stay; stay.Until != 0 {
		delete(c.Present, account)
	}
}

// BeginStay begins a stay.
func (c *Conversation) BeginStay(account ds.AccountID, stay ds.Interval) {
	c.SetStays(account, append(slices.Clip(c.Stays(account)), stay))
	if c.Present != nil {
		c.Present[account] = stay
	}
}

// Role returns the role of a member, or NoRole.
func (c *Conversation) Role(account ds.AccountID) ds.Role {
	stay, _ := c.Stay(account)
	return stay.Role
}

// WasMemberAt reports whether account was in the conversation at the record pos.
func (c *Conversation) WasMemberAt(account ds.AccountID, pos int64) bool {
	for _, i := range c.Stays(account) {
		if i.From <= pos && (i.Until == 0 || pos <= i.Until) {
			return true
		}
	}
	return false
}

// IsMemberSince reports whether account is a member and has been one, without interruption,
// since the record pos or longer.
func (c *Conversation) IsMemberSince(account ds.AccountID, pos int64) bool {
	stay, isMember := c.Stay(account)
	return isMember && stay.From <= pos
}

// AppendMessage adds a message at the head. A commit's record has the epoch that it opens,
// which the caller has set in the head before.
func (c *Conversation) AppendMessage(r ds.Record, nowMS int64) ds.Record {
	c.Head.Seq++
	r.Seq = c.Head.Seq
	r = c.append(r, nowMS)
	c.Head.LatestMS = r.CreatedMS
	c.answer(r.MessageID, store.Answer{Pos: r.Pos, Seq: r.Seq, Epoch: r.Epoch, CreatedMS: r.CreatedMS, Kind: r.Kind})
	return r
}

// answer stores the answer of a message id in the batch.
func (c *Conversation) answer(id ds.MessageID, a store.Answer) {
	if c.Answers == nil {
		c.Answers = map[ds.MessageID]store.Answer{}
	}
	c.Answers[id] = a
}

// append adds a record at the head. Its time is not before that of the previous record,
// whatever the clock says: clocks are set back, and those of two nodes differ.
func (c *Conversation) append(r ds.Record, nowMS int64) ds.Record {
	c.touched = true
	c.Head.Pos++
	c.Head.LastMS = max(nowMS, c.Head.LastMS, c.Head.LatestMS, c.Head.CreatedMS) // earlier versions do not write the first
	r.Log, r.Pos, r.CreatedMS = ds.ConversationLog(c.Head.ID), c.Head.Pos, c.Head.LastMS
	r.Generation, r.Epoch, r.Term = c.Head.Generation, c.Head.Epoch, c.Head.Term
	r.Hash = ChainHash(c.Head.Hash, &r)
	c.Head.Hash = r.Hash
	c.Out.Records = append(c.Out.Records, r)
	return r
}

// Note appends a control record with its body, a struct of ds.
func (c *Conversation) Note(kind ds.Kind, body any, nowMS int64) ds.Record {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and flags always marshal
	}
	return c.append(ds.Record{Kind: kind, Encoding: ds.JSON, Body: text}, nowMS)
}

// Notify adds an event about this conversation to an account log.
func (c *Conversation) Notify(account ds.AccountID, device ds.DeviceID, kind ds.Kind, e ds.DeviceEvent) {
	e.ConversationID = c.Head.ID
	c.Out.Events = append(c.Out.Events, store.Event{Account: account, Recipient: device, Kind: kind, Event: e})
}

// ChainHash returns the hash of a record given that of the previous one (nil for the first):
// SHA-256 over a version label, the previous hash and every field that a reader sees, each
// with its length. The body enters as its own hash, so that the chain can still be verified if
// the body has been purged.
func ChainHash(previous []byte, r *ds.Record) []byte {
	body := sha256.Sum256(r.Body)
	b := make([]byte, 0, 256)
	text := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	text("waxwing record v1")
	text(string(previous))
	text(string(r.Log))
	for _, n := range []int64{r.Pos, r.Seq, int64(r.Kind), r.Generation, r.Epoch, r.Term, r.CreatedMS, int64(r.Encoding)} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	text(string(r.MessageID))
	text(string(r.Sender.Account))
	text(string(r.Sender.ID))
	b = append(b, body[:]...)
	sum := sha256.Sum256(b)
	return sum[:]
}
