package core

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// conversation holds the state of one conversation in one batch: the head and the data that
// its requests loaded, updated by the decisions of the same batch. Rules read it and change it
// only through the methods below; they touch no database.
type conversation struct {
	head    ds.Conversation
	exists  bool
	created bool // by this batch
	touched bool // written to by this batch
	trusted bool // taken from memory, not locked
	// hasMoved: memory was outdated, and the decisions on it are void.
	hasMoved bool

	before ds.Conversation
	now    time.Time // of the batch, for limits
	bill   *bill     // of the request that is decided

	known     *knownConversation             // its state in memory, never written to here; or nil
	intervals map[ds.AccountID][]ds.Interval // stays that the batch has loaded or changed; they override known
	current   map[ds.AccountID]ds.Interval   // the stay of each member, if a request needs everyone; else nil
	answers   map[ds.MessageID]store.Answer
	reactions map[store.ReactionKey][]string // those that requests need

	infoEpoch int64 // of the stored GroupInfo, if requests need it; -1 if there is none or it is unknown

	out *store.Batch // what the batch writes, shared by its conversations
}

// isMember reports whether account is in the conversation now.
func (c *conversation) isMember(account ds.AccountID) bool { return c.role(account) != ds.NoRole }

// stays lists the stays of an account, oldest first. The list must not be written to.
func (c *conversation) stays(account ds.AccountID) []ds.Interval {
	if stays, isHere := c.intervals[account]; isHere || c.known == nil {
		return stays
	}
	return c.known.intervals[account]
}

// hasStays reports whether stays need not be loaded for account: they are in memory or have
// been loaded, even if there are none.
func (c *conversation) hasStays(account ds.AccountID) bool {
	_, isHere := c.intervals[account]
	if !isHere && c.known != nil {
		_, isHere = c.known.intervals[account]
	}
	return isHere
}

// setStays stores the stays of an account in the batch.
func (c *conversation) setStays(account ds.AccountID, stays []ds.Interval) {
	if c.intervals == nil {
		c.intervals = map[ds.AccountID][]ds.Interval{}
	}
	c.intervals[account] = stays
}

// stay returns the present stay of a member.
func (c *conversation) stay(account ds.AccountID) (stay ds.Interval, isMember bool) {
	if stay, isMember = c.current[account]; isMember {
		return stay, true
	}
	if stays := c.stays(account); len(stays) > 0 && stays[len(stays)-1].Until == 0 {
		return stays[len(stays)-1], true
	}
	return ds.Interval{}, false
}

// change replaces the present stay of a member, which its Until may end. It modifies neither
// known nor loaded stays: if the batch fails, they remain valid.
func (c *conversation) change(account ds.AccountID, stay ds.Interval) {
	if stays := slices.Clone(c.stays(account)); len(stays) > 0 {
		stays[len(stays)-1] = stay
		c.setStays(account, stays)
	}
	if c.current == nil {
		return
	}
	if c.current[account] = stay; stay.Until != 0 {
		delete(c.current, account)
	}
}

// enter begins a stay.
func (c *conversation) enter(account ds.AccountID, stay ds.Interval) {
	c.setStays(account, append(slices.Clip(c.stays(account)), stay))
	if c.current != nil {
		c.current[account] = stay
	}
}

// role returns the role of a member, or NoRole.
func (c *conversation) role(account ds.AccountID) ds.Role {
	stay, _ := c.stay(account)
	return stay.Role
}

// wasMemberAt reports whether account was in the conversation at the record pos.
func (c *conversation) wasMemberAt(account ds.AccountID, pos int64) bool {
	for _, i := range c.stays(account) {
		if i.From <= pos && (i.Until == 0 || pos <= i.Until) {
			return true
		}
	}
	return false
}

// isMemberSince reports whether account is a member and has been one, without interruption,
// since the record pos or longer.
func (c *conversation) isMemberSince(account ds.AccountID, pos int64) bool {
	stay, isMember := c.stay(account)
	return isMember && stay.From <= pos
}

// appendMessage adds a message at the head. A commit's record has the epoch that it opens,
// which the caller has set in the head before.
func (c *conversation) appendMessage(r ds.Record, nowMS int64) ds.Record {
	c.head.Seq++
	r.Seq = c.head.Seq
	r = c.append(r, nowMS)
	c.head.LatestMS = r.CreatedMS
	c.answer(r.MessageID, store.Answer{Pos: r.Pos, Seq: r.Seq, Epoch: r.Epoch, CreatedMS: r.CreatedMS, Kind: r.Kind})
	return r
}

// answer stores the answer of a message id in the batch.
func (c *conversation) answer(id ds.MessageID, a store.Answer) {
	if c.answers == nil {
		c.answers = map[ds.MessageID]store.Answer{}
	}
	c.answers[id] = a
}

// append adds a record at the head. Its time is not before that of the previous record,
// whatever the clock says: clocks are set back, and those of two nodes differ.
func (c *conversation) append(r ds.Record, nowMS int64) ds.Record {
	c.touched = true
	c.head.Pos++
	c.head.LastMS = max(nowMS, c.head.LastMS, c.head.LatestMS, c.head.CreatedMS) // earlier versions do not write the first
	r.Log, r.Pos, r.CreatedMS = ds.ConversationLog(c.head.ID), c.head.Pos, c.head.LastMS
	r.Generation, r.Epoch, r.Term = c.head.Generation, c.head.Epoch, c.head.Term
	r.Hash = ChainHash(c.head.Hash, &r)
	c.head.Hash = r.Hash
	c.out.Records = append(c.out.Records, r)
	return r
}

// note appends a control record with its body, a struct of ds.
func (c *conversation) note(kind ds.Kind, body any, nowMS int64) ds.Record {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and flags always marshal
	}
	return c.append(ds.Record{Kind: kind, Encoding: ds.JSON, Body: text}, nowMS)
}

// changeMembers adds and removes accounts by one control record, begins and ends their stays
// with it, and notifies each of them in its account log. Accounts that already have the
// requested state are omitted; without any change there is no record. A new conversation's
// first account is its owner. asked is not modified.
func (c *conversation) changeMembers(asked ds.MembershipChange, nowMS int64) {
	change := ds.MembershipChange{By: asked.By, Settings: asked.Settings}
	for _, account := range asked.Add {
		if c.isMember(account) || slices.Contains(change.Add, account) {
			continue
		}
		change.Add = append(change.Add, account)
		if at, isElsewhere := asked.At[account]; isElsewhere {
			if change.At == nil {
				change.At = map[ds.AccountID]ds.Binding{}
			}
			change.At[account] = at
		}
	}
	for _, account := range asked.Remove {
		if c.isMember(account) && !slices.Contains(change.Remove, account) {
			change.Remove = append(change.Remove, account)
		}
	}
	if len(change.Add) == 0 && len(change.Remove) == 0 {
		return
	}
	r := c.note(ds.Membership, change, nowMS)
	for _, account := range change.Remove {
		stay, _ := c.stay(account)
		stay.Until = r.Pos
		c.change(account, stay)
		c.out.Stays = append(c.out.Stays, store.Stay{Conversation: c.head.ID, Account: account, Interval: stay})
		c.tell(account, "", ds.MembersEvent, ds.DeviceEvent{Remove: []ds.AccountID{account}})
	}
	for _, account := range change.Add {
		role := ds.Plain
		if r.Pos == 1 && c.head.Members == 0 {
			role = ds.Owner
		}
		stay := ds.Interval{From: r.Pos, Role: role, Service: change.At[account].Service}
		c.enter(account, stay)
		c.out.Stays = append(c.out.Stays, store.Stay{Conversation: c.head.ID, Account: account, Interval: stay, AtMS: r.CreatedMS})
		c.tell(account, "", ds.MembersEvent, ds.DeviceEvent{Add: []ds.AccountID{account}})
		c.head.Members++
	}
	c.head.Members -= int64(len(change.Remove))
}

// tell adds an event about this conversation to an account log.
func (c *conversation) tell(account ds.AccountID, device ds.DeviceID, kind ds.Kind, e ds.DeviceEvent) {
	e.ConversationID = c.head.ID
	c.out.Events = append(c.out.Events, store.Event{Account: account, Recipient: device, Kind: kind, Event: e})
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
