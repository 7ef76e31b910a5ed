package xrpcserver

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// Where a stream of several conversations stands in all of them is stored once, under a
// name; the cursor of an event names that and says, for each conversation that has moved
// since then, by how much. Behind the 26 characters of every cursor it has, in the same
// base32, up to restMax bytes:
//
//	8 bytes of name; 0 or, if a part of the next record of a conversation was sent, 1 and
//	the index of that one, and how many of its events; then for each conversation that
//	moved, in order: those passed over since the one before, and by how much (all numbers
//	as uvarints)
//
// So cursors are exact at every event, on every node and after every crash, and the store
// is written to only when a cursor would become too long. What is stored mostly builds
// upon a list that is whole, and is as short as what has moved since that one.
const (
	restMax     = (cursorTextMax - cursorSize) * 5 / 8
	wholeAge    = time.Hour
	wholeMoves  = 256 // moved conversations for which a list is stored whole
	restNameLen = 8
)

// places is where a stream stands. Conversations are only ever added, so that each keeps
// its index.
type places struct {
	index map[ds.ConversationID]int
	list  []spot

	// base is what is stored under name: the pos of each conversation. It builds upon
	// whole, which was stored at wholeAt and builds upon nothing.
	name, wholeName core.PlaceID
	base, whole     []int64
	wholeAt         time.Time
	moved           []int // the indexes at which the list is beyond base, sorted
	partial         int   // 1 and the index of the conversation with a skip, or 0
}

// spot is where a stream stands in one conversation.
type spot struct {
	id    ds.ConversationID
	check uint16
	pos   int64 // every event of the records up to it was sent
	sub   int64 // of the last event behind it
	skip  int   // how many events of the next record were sent before the stream was resumed
}

// add notes a conversation that is read behind pos; one that is there already stays.
func (p *places) add(id ds.ConversationID, pos, sub int64) *spot {
	if i, ok := p.index[id]; ok {
		return &p.list[i]
	}
	if p.index == nil {
		p.index = map[ds.ConversationID]int{}
	}
	p.index[id] = len(p.list)
	p.list = append(p.list, spot{id: id, check: checkOf(id), pos: pos, sub: sub})
	return &p.list[len(p.list)-1]
}

// advance notes that everything of a conversation up to pos was sent.
func (p *places) advance(i int, pos int64) {
	at := &p.list[i]
	if pos <= at.pos {
		return
	}
	at.pos, at.sub, at.skip = pos, 0, 0
	if p.partial == i+1 {
		p.partial = 0
	}
	if n, isMoved := slices.BinarySearch(p.moved, i); !isMoved {
		p.moved = slices.Insert(p.moved, n, i)
	}
}

// toStore is what has to be stored, and upon what, for cursors to become short again.
func (p *places) toStore(now time.Time) (next []ds.Cursor, upon core.PlaceID) {
	isWhole := p.wholeName == 0 || now.Sub(p.wholeAt) > wholeAge
	for i := range p.list {
		if isWhole || i >= len(p.whole) || p.list[i].pos != p.whole[i] {
			next = append(next, ds.Cursor{Log: ds.ConversationLog(p.list[i].id), Next: p.list[i].pos + 1})
		}
	}
	if !isWhole && len(next) > wholeMoves {
		p.wholeName = 0
		return p.toStore(now)
	}
	if !isWhole {
		upon = p.wholeName
	}
	return next, upon
}

// stored makes what toStore has returned, which is stored under name, the base.
func (p *places) stored(name, upon core.PlaceID, now time.Time) {
	p.name, p.moved, p.base = name, p.moved[:0], make([]int64, len(p.list))
	for i := range p.list {
		p.base[i] = p.list[i].pos
	}
	if upon == 0 {
		p.wholeName, p.whole, p.wholeAt = name, p.base, now
	}
}

// isStale says whether what is stored is so old that it should be stored anew.
func (p *places) isStale(now time.Time) bool { return now.Sub(p.wholeAt) > wholeAge }

// sent notes that some events of the next record of a conversation were sent. That is so
// of one conversation at a time: the parts of a record are sent one after the other.
func (p *places) sent(i, count int) {
	p.list[i].skip, p.partial = count, i+1
}

// appendRest appends what follows the 26 characters; false means that it would be too
// long, or that nothing is stored yet that it could build upon.
func (p *places) appendRest(dst []byte) ([]byte, bool) {
	if p.name == 0 {
		return dst, false
	}
	var raw [restMax + 2*binary.MaxVarintLen64]byte
	binary.BigEndian.PutUint64(raw[:], uint64(p.name))
	n, previous := restNameLen, -1
	n += binary.PutUvarint(raw[n:], uint64(p.partial))
	if p.partial != 0 {
		n += binary.PutUvarint(raw[n:], uint64(p.list[p.partial-1].skip))
	}
	for _, i := range p.moved {
		if i >= len(p.base) {
			return dst, false
		}
		n += binary.PutUvarint(raw[n:], uint64(i-previous-1))
		n += binary.PutUvarint(raw[n:], uint64(p.list[i].pos-p.base[i]))
		if n > restMax {
			return dst, false
		}
		previous = i
	}
	return crockford.AppendEncode(dst, raw[:n]), n <= restMax
}

// placesCursor is a decoded cursor of several conversations.
type placesCursor struct {
	name     core.PlaceID
	pos, sub int64
	check    uint16
	partial  int // and skip: see places
	skip     int
	moves    [][2]int64 // index, by how much
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
	c.name = core.PlaceID(binary.BigEndian.Uint64(raw))
	rest := raw[restNameLen:]
	next := func() int64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > math.MaxInt64 || size > 1 && rest[size-1] == 0 {
			ok, rest = false, nil
			return 0
		}
		rest = rest[size:]
		return int64(n)
	}
	if c.partial = int(min(next(), 1<<20)); c.partial != 0 {
		c.skip = int(min(next(), 1<<20))
	}
	index := int64(-1)
	for len(rest) > 0 && ok {
		gap, by := next(), next()
		if ok = ok && gap <= 2*core.StreamConversationsMax && by > 0 && by <= cursorMaxNo; ok {
			index += gap + 1
			c.moves = append(c.moves, [2]int64{index, by})
		}
	}
	return c, ok
}

// apply moves what is stored under the cursor's name to where the cursor says.
func (c placesCursor) apply(stored []ds.Cursor) (*places, bool) {
	p := &places{}
	for _, s := range stored {
		id := s.Log.Conversation()
		if id == "" || s.Next < 1 || s.Next > cursorMaxNo {
			return nil, false
		}
		p.add(id, s.Next-1, 0)
	}
	for _, m := range c.moves {
		if m[0] >= int64(len(p.list)) {
			return nil, false
		}
		p.list[m[0]].pos += m[1]
	}
	for i := range p.list {
		if at := &p.list[i]; c.sub < partSub/2 && at.pos == c.pos && at.check == c.check {
			at.sub = c.sub // of another conversation with the same check this does no harm
		}
	}
	if c.partial > len(p.list) {
		return nil, false
	}
	if c.partial != 0 {
		p.sent(c.partial-1, c.skip)
	}
	return p, true
}
