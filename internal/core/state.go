package core

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// conversation is what one batch knows of one conversation: the head and whatever
// its requests asked to have loaded, moved on by the decisions of the same batch.
// Rules read it and change it only through the methods below; they touch no database.
type conversation struct {
	head    ds.Conversation
	exists  bool
	created bool // by this batch
	touched bool // written to by this batch
	trusted bool // taken from memory, not locked
	before  ds.Conversation
	told    *spent // what the request that is decided was told by the limiter

	intervals map[ds.AccountID][]ds.Interval
	answers   map[ds.MessageID]store.Answer
	reactions map[store.ReactionKey][]string // those that requests asked for

	infoEpoch int64 // of the stored GroupInfo, where requests asked for it; -1 where there is none or it is unknown

	out *store.Batch // what the batch writes, shared by its conversations
}

// isMember says whether account is in the conversation now.
func (c *conversation) isMember(account ds.AccountID) bool { return c.role(account) != ds.NoRole }

// role is the role of a member, or NoRole.
func (c *conversation) role(account ds.AccountID) ds.Role {
	stays := c.intervals[account]
	if len(stays) == 0 || stays[len(stays)-1].Until != 0 {
		return ds.NoRole
	}
	return stays[len(stays)-1].Role
}

// wasMemberAt says whether account was in the conversation at the record pos.
func (c *conversation) wasMemberAt(account ds.AccountID, pos int64) bool {
	for _, i := range c.intervals[account] {
		if i.From <= pos && (i.Until == 0 || pos <= i.Until) {
			return true
		}
	}
	return false
}

// isMemberSince says whether account is a member, and was one at the record pos already
// without having left in between.
func (c *conversation) isMemberSince(account ds.AccountID, pos int64) bool {
	stays := c.intervals[account]
	return c.isMember(account) && stays[len(stays)-1].From <= pos
}

// appendMessage adds a message at the head. A commit's record carries the epoch
// that it opens, which the caller has put into the head before.
func (c *conversation) appendMessage(r ds.Record, nowMS int64) ds.Record {
	c.head.Seq++
	r.Seq = c.head.Seq
	c.head.LatestMS = nowMS
	r = c.append(r, nowMS)
	c.answers[r.MessageID] = store.Answer{Pos: r.Pos, Seq: r.Seq, Epoch: r.Epoch, CreatedMS: r.CreatedMS, Kind: r.Kind}
	return r
}

func (c *conversation) append(r ds.Record, nowMS int64) ds.Record {
	c.touched = true
	c.head.Pos++
	r.Log, r.Pos, r.CreatedMS = ds.ConversationLog(c.head.ID), c.head.Pos, nowMS
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

// changeMembers adds and removes accounts by one control record, opens and ends
// their intervals with it, and tells each of them in its account log. Accounts that
// are already what they would become are left out; without any change there is no
// record. A new conversation's first account is its owner.
func (c *conversation) changeMembers(by ds.AccountID, add, remove []ds.AccountID, nowMS int64) {
	change := ds.MembershipChange{By: by}
	for _, account := range add {
		if !c.isMember(account) && !slices.Contains(change.Add, account) {
			change.Add = append(change.Add, account)
		}
	}
	for _, account := range remove {
		if c.isMember(account) && !slices.Contains(change.Remove, account) {
			change.Remove = append(change.Remove, account)
		}
	}
	if len(change.Add) == 0 && len(change.Remove) == 0 {
		return
	}
	r := c.note(ds.Membership, change, nowMS)
	for _, account := range change.Remove {
		stays := c.intervals[account]
		stays[len(stays)-1].Until = r.Pos
		c.out.Stays = append(c.out.Stays, store.Stay{Conversation: c.head.ID, Account: account, Interval: stays[len(stays)-1]})
		c.tell(account, "", ds.MembersEvent, ds.DeviceEvent{Remove: []ds.AccountID{account}})
	}
	for _, account := range change.Add {
		role := ds.Plain
		if c.head.Members == 0 {
			role = ds.Owner
		}
		stay := ds.Interval{From: r.Pos, Role: role}
		c.intervals[account] = append(c.intervals[account], stay)
		c.out.Stays = append(c.out.Stays, store.Stay{Conversation: c.head.ID, Account: account, Interval: stay, AtMS: nowMS})
		c.tell(account, "", ds.MembersEvent, ds.DeviceEvent{Add: []ds.AccountID{account}})
		c.head.Members++
	}
	c.head.Members -= int64(len(change.Remove))
}

// tell puts an event about this conversation into an account log.
func (c *conversation) tell(account ds.AccountID, device ds.DeviceID, kind ds.Kind, e ds.DeviceEvent) {
	e.ConversationID = c.head.ID
	c.out.Events = append(c.out.Events, store.Event{Account: account, Recipient: device, Kind: kind, Event: e})
}

// ChainHash is the hash of a record given the one before it (nil for the first):
// SHA-256 over a version label, the previous hash and every field that a reader
// sees, each with its length. The body enters as its own hash, so that the chain
// can still be verified where the body has been purged.
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

var (
	refuseNotMember = ds.Refuse(ds.Forbidden, "not a member").Because(ds.NotMember)
	refuseRights    = ds.Refuse(ds.Forbidden, "forbidden").Because(ds.NotAllowed)
	refuseGroup     = ds.Refuse(ds.InvalidRequest, "the message belongs to another MLS group")
	refuseGroupUsed = ds.Refuse(ds.InvalidRequest, "the MLS group belongs to another conversation")
	refuseExists    = ds.Refuse(ds.InvalidRequest, "conversation already exists").Because(ds.Taken)
	refuseReused    = ds.Refuse(ds.InvalidRequest, "msg_id stands for a record of another kind")
)

func refuseEpoch(current int64) *ds.Refusal {
	return &ds.Refusal{Code: ds.EpochConflict, Message: fmt.Sprintf("the current epoch is %d", current), CurrentEpoch: current}
}

// admit is the first half of the order of decisions (design 4), the same for every
// request on a conversation: the caller is a member, or was one at the record that
// the message id names, else nothing is revealed. It returns that record's answer.
func (c *conversation) admit(who ds.Caller, id ds.MessageID) (store.Answer, bool, error) {
	if !c.exists {
		return store.Answer{}, false, refuseNotMember
	}
	if id != "" {
		answer, ok := c.answers[id]
		if ok && (c.wasMemberAt(who.Account, answer.Pos) || c.isMember(who.Account)) {
			return answer, true, nil
		}
	}
	if !c.isMember(who.Account) {
		return store.Answer{}, false, refuseNotMember
	}
	return store.Answer{}, false, nil
}

// charge counts a call under a limit per account and conversation, once for each
// request however often its rule runs.
func (s *Service) charge(c *conversation, name string, who ds.Caller) *ds.Refusal {
	if c.told == nil {
		c.told = &spent{}
	}
	return s.limits.takeOnce(c.told, name, string(who.Account), string(c.head.ID), 1)
}

// chargeBytes counts what a request stores against what its account may, once for
// each request.
func (s *Service) chargeBytes(c *conversation, who ds.Caller, bytes int) *ds.Refusal {
	if c.told == nil {
		c.told = &spent{}
	}
	return s.limits.takeOnce(c.told, LimitStoredBytes, string(who.Account), "", int64(bytes))
}

// isHome refuses, as a fault that may pass, what only the home may decide. There is
// no forwarding in this version.
func (c *conversation) isHome() error {
	if c.head.Home != "" {
		return ds.Unavailable(errors.New("the home of the conversation is away"))
	}
	return nil
}
