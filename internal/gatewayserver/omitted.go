package gatewayserver

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// frameBytesMax returns the most bytes that a session is sent in one frame.
func frameBytesMax(reader identity.Session) int {
	if reader.Has(gateway.FeatureLarge) {
		return gateway.LargeFrameBytesMax
	}
	return gateway.FrameBytesMax
}

// bodyBytesMax returns the most bytes of a body that may fit a frame for a session. Longer
// ones need not be read. As text a body fits as it is, as base64 it takes a third more.
func bodyBytesMax(reader identity.Session) int { return frameBytesMax(reader) }

// frameFieldBytes bounds the bytes of a frame except its env: identifiers of which each byte
// may be escaped, and the names of services.
const frameFieldBytes = 8 << 10

// envBytes returns the size of a record's env on the wire.
func envBytes(r *ds.Record) int {
	size := max(len(r.Body), r.Left)
	if r.Encoding == ds.Text {
		return size
	}
	return base64.StdEncoding.EncodedLen(size)
}

// isTooLong reports whether a record fits no frame for the reader. Of text, which may be
// escaped, that is known once the frame is made.
func (e *eventFrame) isTooLong(r *ds.Record) bool {
	return r.Left > 0 || r.Encoding != ds.Text && envBytes(r)+frameFieldBytes > e.bytesMax
}

// appendOmitted appends the event of a record without its env.
func (e *eventFrame) appendOmitted(dst []byte, r *ds.Record) []byte {
	without := *r
	without.Body = nil
	dst = e.append(dst, &without)
	dst = append(dst[:len(dst)-len("}}")], `,"omitted":{"bytes":`...)
	return append(strconv.AppendInt(dst, int64(envBytes(r)), 10), "}}}"...)
}

// fitted returns a frame about a conversation or a device that is short enough for the reader.
// A longer one omits its env, or the accounts other than the reader's.
func fitted(frameType string, body any, reader identity.Session) []byte {
	frame := frameOf(frameType, nil, body)
	if len(frame) <= frameBytesMax(reader) {
		return frame
	}
	only := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return name != string(reader.Account) })
	}
	omitted := &gateway.Omitted{Bytes: int64(len(frame))}
	switch b := body.(type) {
	case *gateway.Welcome:
		without := *b
		without.Env, without.Omitted = "", &gateway.Omitted{Bytes: int64(len(b.Env))}
		body = &without
	case *gateway.Members:
		body = &gateway.Members{Pos: b.Pos, ConvID: b.ConvID, Add: only(b.Add), Remove: only(b.Remove), Omitted: omitted}
	case *gateway.Roster:
		body = &gateway.Roster{ConvID: b.ConvID, Add: only(b.Add), Remove: only(b.Remove), Omitted: omitted}
	}
	return frameOf(frameType, nil, body)
}

// fitReady omits cursors from a session.ready that would be too long.
func fitReady(ready *gateway.Ready) {
	size := frameFieldBytes
	for i := range ready.Cursors {
		if size += 6*len(ready.Cursors[i].ConvID) + 64; size > gateway.FrameBytesMax {
			ready.CursorsOmitted = int64(len(ready.Cursors) - i)
			ready.Cursors = ready.Cursors[:i]
			return
		}
	}
}

// record returns a record that a frame has omitted: a message of a conversation, or a Welcome
// for the caller's device.
func (s *Server) record(w http.ResponseWriter, r *http.Request) {
	who, err := s.authenticate(r)
	var out any
	var whole *core.Whole
	if err == nil {
		whole, out, err = s.messages.wholeRecord(r.Context(), who, r, cutter(w))
	}
	var turn *logs.Turn
	if whole != nil {
		turn = whole.Turn
		whole.Record.Body, whole.Welcome = nil, nil // out has them
		defer turn.Release()
	}
	s.answerHeld(w, r, who.Caller, turn, out, err)
}

func (m messages) wholeRecord(ctx context.Context, who identity.Session, r *http.Request, cut func()) (*core.Whole, any, error) {
	q := r.URL.Query()
	if id := q.Get("welcome_id"); id != "" {
		if !who.Has(gateway.FeatureDevice) {
			return nil, nil, errNoDevice
		}
		if !ds.IsValidID(id) {
			return nil, nil, ds.Refuse(ds.InvalidRequest, "welcome_id: not 1 to %d bytes of text", ds.IDBytesMax)
		}
		whole, err := m.core.Welcome(ctx, who.Caller, id, cut)
		if err != nil {
			return nil, nil, err
		}
		return whole, &gateway.StoredWelcome{WelcomeID: id, Env: base64.StdEncoding.EncodeToString(whole.Welcome)}, nil
	}
	id, err := conversationID(q.Get("conv_id"))
	if err != nil {
		return nil, nil, err
	}
	seqs, err := integersOf(q, "seq")
	if err != nil {
		return nil, nil, err
	}
	if len(seqs) != 1 || seqs[0] < 1 {
		return nil, nil, ds.Refuse(ds.InvalidRequest, "seq: want one of 1 or more")
	}
	whole, err := m.core.Record(ctx, who.Caller, id, seqs[0], who.Has(gateway.FeatureDevice), cut)
	if err != nil {
		return nil, nil, err
	}
	return whole, m.eventOf(id, whole, who), nil
}

// eventOf returns a record as the body of conv.event.
func (m messages) eventOf(id ds.ConversationID, whole *core.Whole, reader identity.Session) *gateway.Event {
	r := &whole.Record
	event := &gateway.Event{ConvID: string(id), Seq: r.Seq, MsgID: string(r.MessageID), Env: textOf(r.Body, r.Encoding),
		SenderDeviceID: string(r.Sender.ID), ConvHome: homeOf(whole.Home, m.did()), OriginGateway: m.did()}
	if len(reader.Features) > 0 {
		event.Kind, event.Epoch = r.Kind.String(), &r.Epoch
	}
	return event
}
