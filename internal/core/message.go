package core

import (
	"bytes"
	"encoding/base64"
	"math"
	"unicode/utf8"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// Send is an Op that appends a message to its conversation's log, or returns the position of
// an earlier one with the same id. The record of its result has Pos, Seq, Kind, Epoch and
// CreatedMS. Body is kept and must not be changed afterwards. Refusals: also epoch_conflict.
type Send struct {
	ConversationID ds.ConversationID
	ID             ds.MessageID
	Body           []byte
	Encoding       ds.Encoding
	// StatedEpoch, if StatesEpoch is set, is the epoch that the sender states next to the
	// message; RequireCurrent refuses every epoch but the current one.
	StatedEpoch    int64
	StatesEpoch    bool
	RequireCurrent bool
	// Application means that the message must be an application message: a handshake is
	// refused, and a message that the server cannot parse is accepted whatever the
	// conversation's rule.
	Application bool
	// ConfirmationTag is that of the sender's epoch, nil if the sender does not report it.
	ConfirmationTag []byte
}

func (m Send) place() (ds.ConversationID, ds.MessageID) { return m.ConversationID, m.ID }

func (m Send) check(a *action) error {
	if err := CheckIDs(m.ConversationID, m.ID); err != nil {
		return err
	}
	if a.service.isTooLarge(m) {
		return ds.Refuse(ds.InvalidRequest, "env too large").Because(ds.TooLarge)
	}
	a.seen, a.bytes = look(m.Body, m.Encoding), len(m.Body)
	if m.Application && a.seen.kind != ds.App {
		return ds.Refuse(ds.InvalidRequest, "commits and proposals are not sent as messages")
	}
	return nil
}

var limitsOfSend = []string{limits.Sends}

func (Send) limits() []string { return limitsOfSend }

func (m Send) repeat(c *logs.Conversation, a *action, answer store.Answer) (result Result, isDone bool, err error) {
	switch {
	case answer.Pos == 0:
		return Result{}, false, nil
	case answer.Kind != a.seen.kind && answer.Kind != ds.App: // a handshake may have been kept as opaque app before the conversation was bound
		return Result{}, false, refuseReused
	}
	return Result{Record: recordOf(m.ConversationID, m.ID, answer)}, true, nil
}

func (Send) may(*logs.Conversation, *action, int64) error { return nil }

// judge applies the rules of epochs.
func (m Send) judge(c *logs.Conversation, a *action) (verdict, error) {
	seen, err := judgeMessage(c, a.who, m, a.seen)
	if err == nil && hasDiverged(c, m.ConfirmationTag) {
		err = ds.Refuse(ds.EpochConflict, "the group of the conversation is another one").Because(ds.TreeDiverged)
	}
	return verdict{seen, len(m.Body)}, err
}

func (m Send) do(c *logs.Conversation, a *action, v verdict, nowMS int64) Result {
	applyMessage(c, a.who, v.seen)
	r := ds.Record{Kind: v.seen.kind, MessageID: m.ID, Encoding: m.Encoding, Body: m.Body}
	if c.Head.RecordSenders && a.who.Device != "" { // without a device it would only reveal the account
		r.Sender = a.who.AsDevice()
	}
	return Result{Record: c.AppendMessage(r, nowMS)}
}

// isTooLarge checks a message against the limit of the gateway, which counts the
// characters of the transmitted string.
func (s *Service) isTooLarge(m Send) bool {
	switch m.Encoding {
	case ds.Text:
		return len(m.Body) > envCharactersMax && utf8.RuneCount(m.Body) > envCharactersMax
	case ds.Base64:
		return base64.StdEncoding.EncodedLen(len(m.Body)) > envCharactersMax
	}
	return len(m.Body) > s.messageBytes
}

// MessageBytesMax returns the maximum size of a message sent as bytes.
func (s *Service) MessageBytesMax() int { return s.messageBytes }

func checkConversationID(id ds.ConversationID) error {
	if !ds.IsValidID(string(id)) {
		return ds.Refuse(ds.InvalidRequest, "conv_id must be 1 to 128 bytes of UTF-8 without NUL")
	}
	return nil
}

// CheckIDs refuses invalid ids of conversations and messages. Doors call it before they keep
// either.
func CheckIDs(conversation ds.ConversationID, message ds.MessageID) error {
	if err := checkConversationID(conversation); err != nil {
		return err
	}
	if !ds.IsValidID(string(message)) {
		return ds.Refuse(ds.InvalidRequest, "msg_id must be 1 to 128 bytes of UTF-8 without NUL")
	}
	return nil
}

// checkNames refuses invalid names, before anything of an operation is kept.
func checkNames(who ds.Caller, id ds.ConversationID, message ds.MessageID) error {
	switch {
	case len(who.Account) > ds.AccountBytesMax || len(who.Device) > deviceNameBytesMax:
		return ds.Refuse(ds.InvalidRequest, "the caller's name is too long")
	case message != "":
		return CheckIDs(id, message)
	}
	return checkConversationID(id)
}

// sight holds the visible properties of a message: its kind, and for MLS messages the group
// and the epoch. Anything but a complete PublicMessage or PrivateMessage is opaque.
type sight struct {
	kind   ds.Kind
	opaque bool
	group  []byte
	epoch  int64
	// external: a commit by a sender that is not in the group yet.
	external bool
}

// IsMLSMessage reports whether body is a complete PublicMessage or PrivateMessage.
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

// judgeMessage returns the final kind of a message that may be sent, or the refusal by group, kind or
// epoch.
func judgeMessage(c *logs.Conversation, who ds.Caller, m Send, seen sight) (sight, error) {
	if !c.Head.IsBound() && !seen.opaque && seen.kind != ds.App && !c.Role(who.Account).MayManage() {
		return sight{kind: ds.App, opaque: true}, nil // only owner and admins bind
	}
	if seen.external {
		return seen, ds.Refuse(ds.InvalidRequest, "an external commit comes by conv.commit")
	}
	current := c.Head.Epoch
	if seen.opaque {
		if c.Head.IsBound() && c.Head.RefuseOpaque && !m.Application {
			return seen, ds.Refuse(ds.InvalidRequest, "this conversation takes MLS messages only")
		}
		if m.StatesEpoch {
			return seen, judgeAppEpoch(c, m.StatedEpoch, m.RequireCurrent)
		}
		return seen, nil
	}
	if m.StatesEpoch && m.StatedEpoch != seen.epoch {
		return seen, ds.Refuse(ds.InvalidRequest, "the stated epoch is not the message's")
	}
	if !c.Head.IsBound() {
		if m.StatesEpoch && m.RequireCurrent {
			return seen, judgeAppEpoch(c, m.StatedEpoch, true)
		}
		return seen, nil // a handshake binds; an application message is kept as it is
	}
	if !bytes.Equal(seen.group, c.Head.GroupID) {
		return seen, refuseGroup
	}
	if seen.kind == ds.App {
		return seen, judgeAppEpoch(c, seen.epoch, m.RequireCurrent)
	}
	if seen.epoch != current {
		return seen, refuseEpoch(current)
	}
	return seen, nil
}

// hasDiverged reports whether the sender's tag differs from that of the committer of the
// current epoch. Without both tags it returns false.
func hasDiverged(c *logs.Conversation, tag []byte) bool {
	return len(tag) > 0 && len(c.Head.ConfirmationTag) > 0 && !bytes.Equal(tag, c.Head.ConfirmationTag)
}

// judgeAppEpoch applies the row of application messages in the epoch table.
func judgeAppEpoch(c *logs.Conversation, epoch int64, requireCurrent bool) error {
	current := c.Head.Epoch
	if epoch > current || epoch < current-epochWindow || requireCurrent && epoch != current {
		return refuseEpoch(current)
	}
	return nil
}

// applyMessage updates the head for an accepted message: a handshake binds an unbound conversation to
// its group, a commit opens the next epoch.
func applyMessage(c *logs.Conversation, who ds.Caller, seen sight) {
	if seen.opaque || seen.kind == ds.App {
		return
	}
	if !c.Head.IsBound() {
		c.Head.GroupID, c.Head.Generation, c.Head.Epoch = bytes.Clone(seen.group), 1, seen.epoch // not the whole message: the head is kept in memory
	}
	if seen.kind == ds.Commit {
		c.Head.Epoch = seen.epoch + 1
		c.Head.Committer = who.AsDevice()
		c.Head.ConfirmationTag = nil // until that of the new epoch is reported
	}
}

// recordOf returns the record of a repeated message id, as far as it is known without its
// body.
func recordOf(conversation ds.ConversationID, id ds.MessageID, a store.Answer) ds.Record {
	return ds.Record{Log: ds.ConversationLog(conversation), MessageID: id, Pos: a.Pos, Seq: a.Seq, Epoch: a.Epoch, Kind: a.Kind, CreatedMS: a.CreatedMS}
}
