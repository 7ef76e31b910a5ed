package core

import (
	"bytes"
	"context"
	"encoding/base64"
	"math"
	"unicode/utf8"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// Message is a send: the bytes and the encoding that they came in. Body is kept
// and must not be changed afterwards.
type Message struct {
	ConversationID ds.ConversationID
	ID             ds.MessageID
	Body           []byte
	Encoding       ds.Encoding
	// StatedEpoch, when StatesEpoch is set, is what the sender says next to the
	// message; RequireCurrent refuses every other epoch than the current one.
	StatedEpoch    int64
	StatesEpoch    bool
	RequireCurrent bool
	// Application says that nothing but an application message is meant: a handshake is
	// refused, and what the server cannot read is taken whatever the conversation's rule.
	Application bool
	// ConfirmationTag is that of the sender's epoch, nil where the sender does not say it.
	ConfirmationTag []byte
}

// Send puts a message into its conversation's log, or answers where an earlier one
// with the same id stands. The record has Pos, Seq, Kind, Epoch and CreatedMS; it
// is durable when Send returns. Refusals: invalid_request, forbidden, rate_limited,
// epoch_conflict.
func (s *Service) Send(ctx context.Context, who ds.Caller, m Message) (ds.Record, error) {
	r := &request{}
	if err := s.prepareSend(r, who, m); err != nil {
		return ds.Record{}, err
	}
	if err := s.submit(ctx, r); err != nil {
		return ds.Record{}, err
	}
	return r.record, nil
}

// BeginSend is Send for a caller that goes on before it is answered: tell is called
// once, with what Send would have returned. It is called by a goroutine that
// answers many, so it must not block, and perhaps before BeginSend returns. What a
// caller begins in one conversation, one after the other, takes effect in that order.
func (s *Service) BeginSend(who ds.Caller, m Message, tell func(ds.Record, error)) {
	r := &request{}
	if err := s.prepareSend(r, who, m); err != nil {
		tell(ds.Record{}, err)
		return
	}
	r.tell = func() {
		if r.err != nil { // the rule may still be at the record
			tell(ds.Record{}, r.err)
			return
		}
		tell(r.record, nil)
	}
	if err := s.begin(r); err != nil {
		tell(ds.Record{}, err)
	}
}

// prepareSend makes a request of a message, or refuses what needs no look at the
// conversation.
func (s *Service) prepareSend(r *request, who ds.Caller, m Message) error {
	if err := CheckIDs(m.ConversationID, m.ID); err != nil {
		return err
	}
	if s.isTooLarge(m) {
		return ds.Refuse(ds.InvalidRequest, "env too large").Because(ds.TooLarge)
	}
	seen := look(m.Body, m.Encoding)
	if m.Application && seen.kind != ds.App {
		return ds.Refuse(ds.InvalidRequest, "commits and proposals are not sent as messages")
	}
	r.conversation, r.who, r.messageID, r.bytes = m.ConversationID, who, m.ID, len(m.Body)
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		r.record, err = s.decideSend(c, who, m, seen, nowMS)
		return err
	}
	return nil
}

// isTooLarge holds a message against the limit of gateway v1, section 14, which
// counts the characters of the string that travels.
func (s *Service) isTooLarge(m Message) bool {
	switch m.Encoding {
	case ds.Text:
		return len(m.Body) > envCharactersMax && utf8.RuneCount(m.Body) > envCharactersMax
	case ds.Base64:
		return base64.StdEncoding.EncodedLen(len(m.Body)) > envCharactersMax
	}
	return len(m.Body) > s.messageBytes
}

// MessageBytesMax returns the most bytes that a message may have which came as bytes.
func (s *Service) MessageBytesMax() int { return s.messageBytes }

func checkConversationID(id ds.ConversationID) error {
	if !ds.IsValidID(string(id)) {
		return ds.Refuse(ds.InvalidRequest, "conv_id must be 1 to 128 bytes of UTF-8 without NUL")
	}
	return nil
}

// CheckIDs refuses what cannot name a conversation or a message. Doors call it before
// they keep either.
func CheckIDs(conversation ds.ConversationID, message ds.MessageID) error {
	if err := checkConversationID(conversation); err != nil {
		return err
	}
	if !ds.IsValidID(string(message)) {
		return ds.Refuse(ds.InvalidRequest, "msg_id must be 1 to 128 bytes of UTF-8 without NUL")
	}
	return nil
}

// sight is what the server can see of a message: its kind, and for MLS messages
// the group and the epoch. Whatever is no complete PublicMessage or PrivateMessage
// is opaque.
type sight struct {
	kind   ds.Kind
	opaque bool
	group  []byte
	epoch  int64
	// external: a commit by somebody who is not in the group yet. What is wrong with
	// it, or nil, is found before it is queued where it may come (checkExternal).
	external bool
	refused  error
}

// IsMLSMessage says whether body is a complete PublicMessage or PrivateMessage.
func IsMLSMessage(body []byte) bool { return !look(body, ds.Binary).opaque }

func look(body []byte, encoding ds.Encoding) sight {
	opaque := sight{kind: ds.App, opaque: true}
	if encoding == ds.Text {
		return opaque
	}
	h, err := wire.ParseHeader(body)
	if err != nil || h.Epoch > math.MaxInt64-1 {
		return opaque
	}
	seen := sight{group: h.GroupID, epoch: int64(h.Epoch)}
	switch {
	case h.WireFormat != wire.PublicMessageFormat && h.WireFormat != wire.PrivateMessageFormat:
		return opaque
	case h.ContentType == wire.CommitContent:
		seen.kind, seen.external = ds.Commit, h.Sender.Type == wire.NewMemberCommitSender
	case h.ContentType == wire.ProposalContent:
		seen.kind = ds.Proposal
	default:
		seen.kind = ds.App
	}
	return seen
}

// decideSend is the rule of Send: the order of decisions and the epoch table of
// design 4. It changes c only when it accepts.
func (s *Service) decideSend(c *conversation, who ds.Caller, m Message, seen sight, nowMS int64) (ds.Record, error) {
	answer, isRepeat, err := c.admit(who, m.ID)
	if err != nil {
		return ds.Record{}, err
	}
	if isRepeat {
		// A handshake may have been kept as opaque app before the conversation was bound.
		if answer.Kind != seen.kind && answer.Kind != ds.App {
			return ds.Record{}, refuseReused
		}
		c.bill.isRepeat = true
		return recordOf(m.ConversationID, m.ID, answer), nil
	}
	if r := s.charge(c, limits.Sends, who); r != nil {
		return ds.Record{}, r
	}
	if err := c.isHome(); err != nil {
		return ds.Record{}, err
	}
	seen, err = c.judge(who, m, seen)
	if err != nil {
		return ds.Record{}, err
	}
	if c.hasDiverged(m.ConfirmationTag) {
		return ds.Record{}, ds.Refuse(ds.EpochConflict, "the group of the conversation is another one").Because(ds.TreeDiverged)
	}
	if r := s.chargeBytes(c, who, len(m.Body)); r != nil {
		return ds.Record{}, r
	}
	c.apply(who, seen)
	r := ds.Record{Kind: seen.kind, MessageID: m.ID, Encoding: m.Encoding, Body: m.Body}
	if c.head.RecordSenders && who.Device != "" { // what names no device would name the account for nothing
		r.Sender = who.AsDevice()
	}
	return c.appendMessage(r, nowMS), nil
}

// judge gives the verdict on a message that may be sent: its final kind, or the
// refusal by group, kind or epoch.
func (c *conversation) judge(who ds.Caller, m Message, seen sight) (sight, error) {
	if !c.head.IsBound() && !seen.opaque && seen.kind != ds.App && !c.role(who.Account).MayManage() {
		return sight{kind: ds.App, opaque: true}, nil // design 5: only owner and admins bind
	}
	if seen.external {
		return seen, ds.Refuse(ds.InvalidRequest, "an external commit comes by conv.commit")
	}
	current := c.head.Epoch
	if seen.opaque {
		if c.head.IsBound() && c.head.RefuseOpaque && !m.Application {
			return seen, ds.Refuse(ds.InvalidRequest, "this conversation takes MLS messages only")
		}
		if m.StatesEpoch {
			return seen, c.judgeAppEpoch(m.StatedEpoch, m.RequireCurrent)
		}
		return seen, nil
	}
	if m.StatesEpoch && m.StatedEpoch != seen.epoch {
		return seen, ds.Refuse(ds.InvalidRequest, "the stated epoch is not the message's")
	}
	if !c.head.IsBound() {
		if m.StatesEpoch && m.RequireCurrent {
			return seen, c.judgeAppEpoch(m.StatedEpoch, true)
		}
		return seen, nil // a handshake binds; an application message is kept as it is
	}
	if !bytes.Equal(seen.group, c.head.GroupID) {
		return seen, refuseGroup
	}
	if seen.kind == ds.App {
		return seen, c.judgeAppEpoch(seen.epoch, m.RequireCurrent)
	}
	if seen.epoch != current {
		return seen, refuseEpoch(current)
	}
	return seen, nil
}

// hasDiverged says whether the sender's group is another one than the committer of the
// current epoch said. What either of them does not say differs from nothing.
func (c *conversation) hasDiverged(tag []byte) bool {
	return len(tag) > 0 && len(c.head.ConfirmationTag) > 0 && !bytes.Equal(tag, c.head.ConfirmationTag)
}

// judgeAppEpoch is the row of application messages in the epoch table.
func (c *conversation) judgeAppEpoch(epoch int64, requireCurrent bool) error {
	current := c.head.Epoch
	if epoch > current || epoch < current-epochWindow || requireCurrent && epoch != current {
		return refuseEpoch(current)
	}
	return nil
}

// apply moves the head as an accepted message asks: a handshake binds an unbound
// conversation to its group, a commit opens the next epoch.
func (c *conversation) apply(who ds.Caller, seen sight) {
	if seen.opaque || seen.kind == ds.App {
		return
	}
	if !c.head.IsBound() {
		c.head.GroupID, c.head.Generation, c.head.Epoch = bytes.Clone(seen.group), 1, seen.epoch // not the whole message, for the head is remembered
	}
	if seen.kind == ds.Commit {
		c.head.Epoch = seen.epoch + 1
		c.head.Committer = who.AsDevice()
		c.head.ConfirmationTag = nil // until somebody says that of the new epoch
	}
}

// recordOf is the record that a repeated message id stands for, as far as it is
// remembered without its body.
func recordOf(conversation ds.ConversationID, id ds.MessageID, a store.Answer) ds.Record {
	return ds.Record{Log: ds.ConversationLog(conversation), MessageID: id, Pos: a.Pos, Seq: a.Seq, Epoch: a.Epoch, Kind: a.Kind, CreatedMS: a.CreatedMS}
}
