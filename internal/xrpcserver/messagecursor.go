package xrpcserver

import (
	"context"
	"strconv"
	"strings"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// announceMessage announces a message that is not stored. A message without an id is given
// one when it is encoded. It returns the cursor of the event.
func (m messages) announceMessage(ctx context.Context, who ds.Caller, id ds.ConversationID, message ds.MessageID, body []byte, epoch int64) (string, error) {
	a, err := m.core.AnnounceAt(ctx, who, id, logs.Announcement{Kind: logs.Ephemeral, MessageID: message, Body: body, Epoch: epoch})
	return formatCursor(id, a.Pos, a.AtMS), err
}

// announceTyping announces that the caller types.
func (m messages) announceTyping(ctx context.Context, who ds.Caller, id ds.ConversationID) error {
	return m.core.Announce(ctx, who, id, logs.Announcement{Kind: logs.Typing, IsTyping: true})
}

// updateCursor stores the caller's read mark and, with messageId or markRead, announces it.
// A cursor may be one of ours or a seq; a ULID made by a client is accepted and has no
// effect.
func (m messages) updateCursor(ctx context.Context, who ds.Caller, in *xrpc.UpdateCursorInput) (*xrpc.UpdateCursorOutput, error) {
	id := ds.ConversationID(in.ConvoID)
	isReceipt := in.MarkRead != nil && *in.MarkRead || in.MessageID != ""
	mark := core.ReadMark{MessageID: ds.MessageID(in.MessageID)}
	switch {
	case in.Cursor != "":
		if !readMark(&mark, id, string(in.Cursor)) {
			return nil, &Error{Status: 400, Name: "InvalidCursor", Message: "the cursor is neither an event's nor a seq"}
		}
	case isReceipt:
		mark.All = in.MessageID == ""
	default:
		return nil, badInput("cursor", "is required")
	}
	if err := m.core.MarkRead(ctx, who, id, mark); err != nil {
		return nil, err
	}
	out := &xrpc.UpdateCursorOutput{UpdatedAt: xrpc.TimeMS(m.core.Now())}
	if isReceipt {
		a, err := m.core.AnnounceAt(ctx, who, id, logs.Announcement{Kind: logs.Read, MessageID: mark.MessageID})
		if err != nil {
			return nil, err
		}
		out.ReadAt = coarse(a.AtMS) // as announced
	}
	return out, nil
}

// readMark decodes a cursor and reports whether it has a valid form.
func readMark(mark *core.ReadMark, id ds.ConversationID, cursor string) bool {
	if len(cursor) > cursorTextMax {
		return false
	}
	if pos, _, ok := parseCursor(id, cursor); ok {
		mark.Pos = &pos
		return true
	}
	if len(cursor) < cursorSize && isMadeOf(cursor, isDigit) {
		seq, err := strconv.ParseInt(cursor, 10, 64)
		mark.Seq = &seq
		return err == nil
	}
	if _, _, _, isOurs := readCursor(cursor); isOurs {
		return true // of another conversation
	}
	return len(cursor) == cursorSize && isULID(cursor)
}

// isULID reports whether text is a ULID: 128 bits of Crockford's base32.
func isULID(text string) bool {
	_, err := crockford.DecodeString(strings.ToUpper(text))
	return err == nil && text[0] <= '7'
}
