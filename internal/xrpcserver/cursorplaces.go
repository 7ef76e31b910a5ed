package xrpcserver

import (
	"encoding/binary"
	"math"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// The 26 characters of a cursor of a stream of several conversations are followed, in the
// same base32, by up to restMax bytes with the positions in all of them:
//
//	8 bytes of the stream's name; 0 or, if a part of the next record of a conversation was
//	sent, 1 and the index of that one, and how many of its events (as uvarints); then what
//	has moved since the last stored row, as logs.Position writes it
//
// So cursors are exact at every event, on every node and after every crash, while few
// conversations move in a second: that is how often a row is stored. A cursor that has no
// room for what moved has the rest of an earlier one; a stream that is resumed from there
// repeats some events.
const (
	restMax     = (cursorTextMax - cursorSize) * 5 / 8
	restNameLen = 8
)

// places holds the position of a stream in its conversations, which have the same indexes in
// position and in list.
type places struct {
	position *logs.Position
	list     []spot
	partial  int // 1 and the index of the conversation with a skip, or 0
}

// spot holds the position of a stream in one conversation, except its pos.
type spot struct {
	id    ds.ConversationID
	check uint16
	sub   int64 // of the last event behind pos
	skip  int   // how many events of the next record were sent before the stream was resumed
}

// index returns that of a conversation.
func (p *places) index(id ds.ConversationID) (int, bool) {
	return p.position.Index(ds.ConversationLog(id))
}

// pos returns up to which record every event of a conversation was sent.
func (p *places) pos(i int) int64 { return p.position.At(i) - 1 }

// add notes a conversation that is read behind pos; one that is there already stays.
func (p *places) add(id ds.ConversationID, pos int64) (i int, at *spot) {
	if i = p.position.Add(ds.ConversationLog(id), pos+1); i == len(p.list) {
		p.list = append(p.list, spot{id: id, check: checkOf(id)})
	}
	return i, &p.list[i]
}

// advance notes that all records of a conversation up to pos were sent.
func (p *places) advance(i int, pos int64) {
	if !p.position.Advance(i, pos+1) {
		return
	}
	at := &p.list[i]
	if at.sub, at.skip = 0, 0; p.partial == i+1 {
		p.partial = 0
	}
}

// sent notes that some events of the next record of a conversation were sent. That is so
// of one conversation at a time: the parts of a record are sent one after the other.
func (p *places) sent(i, count int) {
	p.list[i].skip, p.partial = count, i+1
}

// appendRest appends what follows the 26 characters; false means that it would be too
// long, or that nothing is stored yet that it could build upon.
func (p *places) appendRest(dst []byte) ([]byte, bool) {
	raw := binary.BigEndian.AppendUint64(make([]byte, 0, restMax+16), uint64(p.position.ID()))
	raw = binary.AppendUvarint(raw, uint64(p.partial))
	if p.partial != 0 {
		raw = binary.AppendUvarint(raw, uint64(p.list[p.partial-1].skip))
	}
	raw, ok := p.position.AppendMoves(raw, restMax-len(raw))
	if !ok {
		return dst, false
	}
	return crockford.AppendEncode(dst, raw), true
}

// placesCursor is a decoded cursor of several conversations.
type placesCursor struct {
	stream   logs.StreamID
	pos, sub int64
	check    uint16
	partial  int // and skip: see places
	skip     int
	moves    []byte
}

// parsePlaces reads a cursor of several conversations.
func parsePlaces(text string) (placesCursor, bool) {
	var c placesCursor
	var ok bool
	if c.pos, c.sub, c.check, ok = readCursor(text); !ok || len(text) == cursorSize {
		return c, false
	}
	raw, err := crockford.DecodeString(text[cursorSize:])
	if err != nil || len(raw) < restNameLen || crockford.EncodeToString(raw) != text[cursorSize:] {
		return c, false
	}
	c.stream = logs.StreamID(binary.BigEndian.Uint64(raw))
	rest := raw[restNameLen:]
	next := func() int {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > math.MaxInt64 || size > 1 && rest[size-1] == 0 {
			ok, rest = false, nil
			return 0
		}
		rest = rest[size:]
		return int(min(n, 1<<20))
	}
	if c.partial = next(); c.partial != 0 {
		c.skip = next()
	}
	c.moves = rest
	return c, ok && len(rest) > 0
}

// earlier holds the last positions of a stream that is resumed.
type earlier map[ds.ConversationID]earlierSpot

type earlierSpot struct {
	pos, sub int64
	skip     int
}

// note adds the stored position of a conversation and reports whether there is one.
func (e earlier) note(c placesCursor, stored *logs.Resumed, id ds.ConversationID) bool {
	next, i := stored.Of(ds.ConversationLog(id))
	if next < 1 || next > cursorMaxNo {
		return false
	}
	at := earlierSpot{pos: next - 1}
	if c.sub < partSub/2 && at.pos == c.pos && checkOf(id) == c.check {
		at.sub = c.sub // of another conversation with the same check this does no harm
	}
	if stored.IsExact && i == c.partial-1 {
		at.skip = c.skip
	}
	e[id] = at
	return true
}
