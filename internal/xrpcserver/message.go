package xrpcserver

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// messages holds the methods of messages, reactions and read marks.
type messages struct{ core *core.Service }

func (m messages) register(s *Server) {
	procedure(s, xrpc.SendMessage, m.sendMessage)
	procedure(s, xrpc.SendEphemeral, m.sendEphemeral)
	bulky(s, xrpc.GetMessages, m.getMessages)
	procedure(s, xrpc.UpdateCursor, m.updateCursor)
}

const (
	tagBytesMax  = 64
	timeStepMS   = 2000 // the resolution of the times of messages
	limitDefault = 50
)

// sendMessage stores a message or, with delivery ephemeral, changes a reaction or announces
// an event to the current readers.
func (m messages) sendMessage(ctx context.Context, who ds.Caller, in *xrpc.SendMessageInput) (*xrpc.SendMessageOutput, error) {
	if err := checkMessage(in, m.core.MessageBytesMax()); err != nil {
		return nil, err
	}
	switch {
	case in.Delivery != deliveryEphemeral:
		return m.sendPersistent(ctx, who, in)
	case in.Action != "":
		return m.react(ctx, who, in)
	}
	return m.sendPassing(ctx, who, in)
}

const (
	deliveryPersistent = "persistent"
	deliveryEphemeral  = "ephemeral"
)

// checkMessage checks a message alone. An ephemeral one needs neither
// padding nor an epoch: clients send arbitrary bytes as a sign of typing.
func checkMessage(in *xrpc.SendMessageInput, bytesMax int) error {
	switch {
	case !isMessageID(in.MsgID):
		return badInput("msgId", "must be a ULID or a UUID")
	case in.Delivery != "" && in.Delivery != deliveryPersistent && in.Delivery != deliveryEphemeral:
		return badInput("delivery", "must be persistent or ephemeral")
	case len(in.ConfirmationTag) > tagBytesMax:
		return badInput("confirmationTag", "is too long")
	case len(in.Ciphertext) > bytesMax || int64(in.PaddedSize) > int64(bytesMax):
		return tooLarge(bytesMax)
	case in.Delivery == deliveryEphemeral:
		return nil
	case len(in.Ciphertext) == 0:
		return badInput("ciphertext", "must not be empty")
	case int64(in.PaddedSize) != int64(len(in.Ciphertext)):
		return badInput("paddedSize", "must be the length of ciphertext")
	case !isPadded(len(in.Ciphertext)):
		return badInput("paddedSize", "must be 512, 1024, 2048, 4096 or a multiple of 8192")
	}
	return nil
}

// isPadded reports whether a message has one of the sizes that messages are padded to.
func isPadded(bytes int) bool {
	switch bytes {
	case 512, 1024, 2048, 4096:
		return true
	}
	return bytes > 0 && bytes%8192 == 0
}

// isMessageID reports whether id has the form of a ULID, 26 letters and digits, or of a UUID,
// 36 of hexadecimal digits and dashes.
func isMessageID(id string) bool {
	switch len(id) {
	case 26:
		return isMadeOf(id, func(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' })
	case 36:
		return isMadeOf(id, func(c byte) bool { return isDigit(c) || c == '-' || c|0x20 >= 'a' && c|0x20 <= 'f' })
	}
	return false
}

func isMadeOf(text string, of func(c byte) bool) bool {
	for i := range len(text) {
		if !of(text[i]) {
			return false
		}
	}
	return text != ""
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func badInput(field, problem string) error {
	return &xrpc.InputError{Field: field, Problem: problem}
}

func tooLarge(bytesMax int) error {
	return &Error{http.StatusBadRequest, "MessageTooLarge", fmt.Sprintf("ciphertext is at most %d bytes", bytesMax)}
}

func (m messages) sendPersistent(ctx context.Context, who ds.Caller, in *xrpc.SendMessageInput) (*xrpc.SendMessageOutput, error) {
	done, err := m.core.Apply(ctx, who, core.Send{
		ConversationID: ds.ConversationID(in.ConvoID), ID: ds.MessageID(in.MsgID), Body: in.Ciphertext, Encoding: ds.Binary,
		StatedEpoch: int64(in.Epoch), StatesEpoch: true, RequireCurrent: true, Application: true, ConfirmationTag: in.ConfirmationTag,
	})
	if err != nil {
		return nil, err
	}
	return &xrpc.SendMessageOutput{MessageID: in.MsgID, ReceivedAt: coarse(done.Record.CreatedMS), Seq: done.Record.Seq, Epoch: done.Record.Epoch}, nil
}

// coarse rounds the time of a message down: exact times would reveal its sender's typing.
func coarse(ms int64) xrpc.Time { return xrpc.TimeMS(ms - ms%timeStepMS) }

// sendPassing announces a message that is not stored. Bytes that are not an MLS message,
// which no client could open, are announced as typing: clients of generation B send those.
func (m messages) sendPassing(ctx context.Context, who ds.Caller, in *xrpc.SendMessageInput) (*xrpc.SendMessageOutput, error) {
	id := ds.ConversationID(in.ConvoID)
	var err error
	if core.IsMLSMessage(in.Ciphertext) {
		_, err = m.announceMessage(ctx, who, id, ds.MessageID(in.MsgID), in.Ciphertext, int64(in.Epoch))
	} else {
		err = m.announceTyping(ctx, who, id)
	}
	if err != nil {
		return nil, err
	}
	return &xrpc.SendMessageOutput{MessageID: in.MsgID, ReceivedAt: coarse(m.core.Now()), Epoch: int64(in.Epoch)}, nil
}

// sendEphemeral announces a message that is not stored to the current readers.
func (m messages) sendEphemeral(ctx context.Context, who ds.Caller, in *xrpc.SendEphemeralInput) (*xrpc.SendEphemeralOutput, error) {
	switch {
	case len(in.Ciphertext) > m.core.MessageBytesMax() || len(in.Ciphertext) == 0:
		return nil, badInput("ciphertext", fmt.Sprintf("must be of 1 to %d bytes", m.core.MessageBytesMax()))
	case int64(in.PaddedSize) != int64(len(in.Ciphertext)):
		return nil, &Error{http.StatusBadRequest, "InvalidPadding", "paddedSize must be the length of ciphertext"}
	}
	cursor, err := m.announceMessage(ctx, who, ds.ConversationID(in.ConvoID), "", in.Ciphertext, int64(in.Epoch))
	if err != nil {
		return nil, err
	}
	return &xrpc.SendEphemeralOutput{Cursor: cursor}, nil
}

// getMessages returns a page of messages, in the order of seq.
func (m messages) getMessages(ctx context.Context, who ds.Caller, in *xrpc.GetMessagesParams, room *room) (*xrpc.GetMessagesOutput, error) {
	q := core.HistoryQuery{Limit: limitDefault, FromEpoch: (*int64)(in.FromEpoch), ToEpoch: (*int64)(in.ToEpoch), JoinEpoch: (*int64)(in.JoinEpoch),
		Bytes: base64.StdEncoding.DecodedLen(answerBytes(m.core)), Body: base64.StdEncoding.DecodedLen(answerBytes(m.core) - pageFieldBytes),
		Room: func() error { return room.take(ctx, 3*answerBytes(m.core)) }} // the bodies, and the answer as it grows
	if in.Limit != nil {
		q.Limit = int(min(*in.Limit, 1000))
	}
	if in.SinceSeq != nil {
		q.SinceSeq = int64(*in.SinceSeq)
	}
	switch in.Kind() {
	case "all":
	case "app":
		q.Apps = true
	case "commit":
		q.Commits = true
	default:
		return nil, badInput("type", "must be all, app or commit")
	}
	h, err := m.core.History(ctx, who, ds.ConversationID(in.ConvoID), q)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetMessagesOutput{Messages: make([]xrpc.MessageView, 0, len(h.Records)),
		GapInfo: &xrpc.GapInfo{HasGaps: h.HasGaps, MissingSeqs: h.Missing, TotalMessages: h.Seq}}
	for size, i := pageFieldBytes, 0; i < len(h.Records); i++ {
		view := messageView(ds.ConversationID(in.ConvoID), &h.Records[i])
		if size += viewBytes(&view); size > answerBytes(m.core) && i > 0 {
			break
		}
		out.Messages = append(out.Messages, view)
		out.LastSeq = &view.Seq
	}
	if in.JoinEpoch != nil {
		out.SuppressedBeforeJoin = &h.Suppressed
	}
	return out, nil
}

// messageView encodes a message for both generations. No field names its sender. Clients
// know commits and application messages only: a proposal, which their MLS library
// recognizes by itself, has the type of the latter.
func messageView(id ds.ConversationID, r *ds.Record) xrpc.MessageView {
	view := xrpc.MessageView{ID: string(r.MessageID), ConvoID: string(id), Ciphertext: r.Body, Epoch: r.Epoch, Seq: r.Seq,
		CreatedAt: coarse(r.CreatedMS), MessageType: "app"}
	if r.Kind == ds.Commit {
		view.MessageType = "commit"
	}
	return view
}

// answerBytesMax bounds the JSON of an answer that carries bodies: a PDS cuts answers at
// 10 MiB.
const answerBytesMax = 7 << 20

// The bytes of the fields of a page except its messages, and of the fields of a message
// except its ciphertext and names.
const (
	pageFieldBytes    = 32 << 10
	messageFieldBytes = 256
)

// answerBytes returns the most bytes of JSON in an answer that carries bodies: one message
// fits always, also where the operator has chosen larger ones than fit through a PDS.
func answerBytes(c *core.Service) int {
	return max(answerBytesMax, base64.StdEncoding.EncodedLen(c.MessageBytesMax())+2*pageFieldBytes)
}

// viewBytes returns the most bytes that a message takes as JSON. Each byte of a name may
// be escaped.
func viewBytes(m *xrpc.MessageView) int {
	return base64.StdEncoding.EncodedLen(len(m.Ciphertext)) + 6*(len(m.ID)+len(m.ConvoID)) + messageFieldBytes
}
