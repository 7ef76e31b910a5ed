package gatewayserver

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"sync"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// follow starts the goroutine that writes what the follower reads, if it does not
// run yet.
func (c *socket) follow() {
	if c.isFollowing {
		return
	}
	c.isFollowing = true
	c.following.Go(func() {
		defer func() {
			if reason := recover(); reason != nil {
				_ = c.panicked(reason)
				c.end(causeFault)
				c.conn.Abort()
			}
		}()
		err := c.writePages()
		if err == nil || c.ctx.Err() != nil || errors.Is(err, logs.ErrClosed) {
			return
		}
		c.server.logger.Error("follow", "err", err)
		c.end(causeFault)
		c.conn.Close(doors.CloseFault, "internal error")
	})
}

// writePages asks the follower for pages and writes them, until an error. It returns nil when
// the connection is broken or the session has ended.
func (c *socket) writePages() error {
	did := c.server.did()
	for {
		page, err := c.follower.Next(c.ctx)
		if err != nil {
			return err
		}
		if c.hasEnded() {
			return nil // its last frame says so
		}
		w := frameWriter{conn: c.conn, out: scratches.Get().(*[]byte)}
		c.writePage(&w, &page, did)
		if w.finish() != nil {
			c.conn.Abort()
			return nil
		}
	}
}

func (c *socket) writePage(w *frameWriter, page *logs.Page, did string) {
	if id := page.Log.Conversation(); id != "" {
		event := newEventFrame(id, homeOf(page.Home, c.server.did()), did, c.session)
		for i := range page.Records {
			if page.Records[i].Seq > 0 {
				w.event(&event, page, i)
			} else if roster := rosterOf(id, &page.Records[i], c.session); roster != nil {
				w.add(fitted(gateway.TypeRoster, roster, c.session))
			}
		}
		if page.CaughtUp && c.session.Has(gateway.FeatureMarker) {
			w.frame(gateway.TypeCaughtUp, &gateway.CaughtUp{ConvID: string(id), Seq: page.Head})
		}
		if page.Ended != nil {
			w.frame(gateway.TypeError, endOfPage(page, c.session))
		}
		return
	}
	for i := range page.Records {
		if frameType, body := deviceEvent(&page.Records[i], &page.Events[i]); frameType != "" {
			w.add(fitted(frameType, body, c.session))
		}
	}
}

// endOfPage returns the body of the error by which a reader learns that its access to a
// conversation has ended.
func endOfPage(page *logs.Page, reader identity.Session) *gateway.Error {
	_, body := refused(page.Ended)
	if len(reader.Features) > 0 {
		body.ConvID = string(page.Log.Conversation())
	}
	return body
}

// rosterOf decodes a record that changes the accounts of a conversation, for readers with the
// feature; nil for other records.
func rosterOf(id ds.ConversationID, r *ds.Record, reader identity.Session) *gateway.Roster {
	var change ds.MembershipChange
	if r.Kind != ds.Membership || !reader.Has(gateway.FeatureRoster) || json.Unmarshal(r.Body, &change) != nil {
		return nil
	}
	return &gateway.Roster{ConvID: string(id), Add: names(change.Add), Remove: names(change.Remove)}
}

// deviceEvent returns the frame of a record of an account log; the type is "" for kinds that
// this door does not know.
func deviceEvent(r *ds.Record, e *ds.DeviceEvent) (frameType string, body any) {
	switch r.Kind {
	case ds.WelcomeEvent:
		welcome := &gateway.Welcome{
			Pos: r.Pos, WelcomeID: e.WelcomeID, ConvID: string(e.ConversationID),
			Env:           base64.StdEncoding.EncodeToString(e.Welcome),
			KeyPackageRef: e.KeyPackageRef, Epoch: e.Epoch, NextSeq: e.NextSeq,
		}
		if e.WelcomeLeft > 0 {
			welcome.Omitted = &gateway.Omitted{Bytes: int64(base64.StdEncoding.EncodedLen(int(e.WelcomeLeft)))}
		}
		return gateway.TypeWelcome, welcome
	case ds.MembersEvent:
		return gateway.TypeMembers, &gateway.Members{
			Pos: r.Pos, ConvID: string(e.ConversationID), Add: names(e.Add), Remove: names(e.Remove)}
	case ds.KeyPackagesLow:
		return gateway.TypeKeyPackagesLow, &gateway.KeyPackagesLow{Pos: r.Pos, Available: e.Available}
	}
	return "", nil
}

func names(ids []ds.AccountID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

// frameWriter collects frames and hands them to conn together, a bounded number of
// bytes at a time.
type frameWriter struct {
	conn   conn
	frames [][]byte
	bytes  int     // of frames
	out    *[]byte // frames encoded for this reader alone
	err    error   // the first; nothing is written after it
}

var scratches = sync.Pool{New: func() any { return new([]byte) }}

// event adds a record of a page, as all its readers share it where they do.
func (w *frameWriter) event(event *eventFrame, page *logs.Page, i int) {
	if frame, isShared := event.shared(page, i); isShared {
		w.add(frame)
		return
	}
	begin := len(*w.out)
	*w.out = event.fit(*w.out, &page.Records[i])
	w.add((*w.out)[begin:]) // stays valid when out is reallocated
}

func (w *frameWriter) frame(frameType string, body any) { w.add(frameOf(frameType, nil, body)) }

func (w *frameWriter) add(frame []byte) {
	w.frames, w.bytes = append(w.frames, frame), w.bytes+len(frame)
	if w.bytes >= doors.WriteBytesMax {
		w.flush()
	}
}

func (w *frameWriter) flush() {
	if w.err == nil && len(w.frames) > 0 {
		w.err = w.conn.Write(w.frames...)
	}
	clear(w.frames)
	*w.out, w.frames, w.bytes = (*w.out)[:0], w.frames[:0], 0
}

func (w *frameWriter) finish() error {
	w.flush()
	if cap(*w.out) <= 4*doors.WriteBytesMax {
		scratches.Put(w.out)
	}
	return w.err
}

// frameOf encodes a frame of our own making, which cannot fail.
func frameOf(frameType string, id json.RawMessage, body any) []byte {
	frame, err := gateway.EncodeFrame(frameType, id, body)
	if err != nil {
		panic(err)
	}
	return frame
}

// eventFrame writes conv.event without a JSON encoder, since most frames are of that type. The
// common parts of all records of a page are encoded once.
type eventFrame struct {
	head, tail []byte
	format     int
	bytesMax   int // of a frame for the reader
}

// The formats of conv.event that readers share. Sessions with any feature receive
// kind and epoch too.
const (
	plainEvent = iota
	extendedEvent
)

// Each format needs a slot in logs.Frames.
const _ = uint(logs.Formats - 1 - extendedEvent)

func newEventFrame(id ds.ConversationID, home, did string, reader identity.Session) eventFrame {
	format := plainEvent
	if len(reader.Features) > 0 {
		format = extendedEvent
	}
	head := gateway.AppendHead(nil, gateway.TypeEvent, nil)
	head = appendText(append(head, `,"body":{"conv_id":`...), string(id))
	tail := appendText([]byte(`,"conv_home":`), home)
	tail = appendText(append(tail, `,"origin_gateway":`...), did)
	return eventFrame{head: append(head, `,"seq":`...), tail: tail, format: format, bytesMax: frameBytesMax(reader)}
}

// shared returns the frame of a record from the tail cache, and whether there is one that fits.
func (e *eventFrame) shared(page *logs.Page, i int) ([]byte, bool) {
	if page.Frames == nil || e.isTooLong(&page.Records[i]) {
		return nil, false
	}
	frame := page.Frames[i].Get(e.format, func() []byte { return e.append(nil, &page.Records[i]) })
	return frame, len(frame) <= e.bytesMax
}

// fit appends the frame of a record, without its env where it would be too long.
func (e *eventFrame) fit(dst []byte, r *ds.Record) []byte {
	if !e.isTooLong(r) {
		if frame := e.append(dst, r); len(frame)-len(dst) <= e.bytesMax {
			return frame
		}
	}
	return e.appendOmitted(dst, r)
}

func (e *eventFrame) append(dst []byte, r *ds.Record) []byte {
	dst = append(dst, e.head...)
	dst = strconv.AppendInt(dst, r.Seq, 10)
	dst = append(dst, `,"msg_id":`...)
	dst = appendText(dst, string(r.MessageID))
	dst = append(dst, `,"env":`...)
	if r.Encoding == ds.Text {
		dst = appendText(dst, r.Body)
	} else {
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, r.Body)
		dst = append(dst, '"')
	}
	if r.Sender.ID != "" {
		dst = append(dst, `,"sender_device_id":`...)
		dst = appendText(dst, string(r.Sender.ID))
	}
	dst = append(dst, e.tail...)
	if e.format == extendedEvent {
		dst = append(dst, `,"kind":"`...)
		dst = append(dst, r.Kind.String()...)
		dst = append(dst, `","epoch":`...)
		dst = strconv.AppendInt(dst, r.Epoch, 10)
	}
	return append(dst, "}}"...)
}

// appendText appends s as a JSON string.
func appendText[T string | []byte](dst []byte, s T) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			quoted, err := gateway.Marshal(string(s))
			if err != nil {
				panic(err) // a string always encodes
			}
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
