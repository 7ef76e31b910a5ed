package gatewayserver

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// The id of an event says where its stream stands behind the event (gateway decision
// 10). Where it stood before, in all of its logs, is stored once under a name; the id
// is that name and, for each log that has moved since then, by how much:
//
//	version, 16 bytes of name, then for each log that moved, in order:
//	the logs passed over since the one before, and by how much (both as uvarints)
//
// in base64url. So ids are exact at every event, on every node and after every crash,
// and the store is written to only when an id would become too long.
const (
	idVersion  = 1
	idBytesMax = 199                // of the text
	idRawMax   = idBytesMax * 3 / 4 // of what is encoded
	idHeadSize = 1 + len(core.StreamID{})
)

// position is where a stream stands: the next number it wants of each log. Logs are
// only ever added, so that a log keeps its index.
type position struct {
	index map[ds.LogID]int
	next  []ds.Cursor

	// base is next as it is stored under name; it is nil before the first time.
	name  core.StreamID
	base  []ds.Cursor
	moved []int // the indexes at which next is beyond base, sorted
}

// add notes a log that is read from next on; one that is there already stays.
func (p *position) add(log ds.LogID, next int64) {
	if _, ok := p.index[log]; ok {
		return
	}
	if p.index == nil {
		p.index = map[ds.LogID]int{}
	}
	p.index[log] = len(p.next)
	p.next = append(p.next, ds.Cursor{Log: log, Next: next})
}

// of is what the stream wants next of log, or 0 if it is not in the position.
func (p *position) of(log ds.LogID) int64 {
	if i, ok := p.index[log]; ok {
		return p.next[i].Next
	}
	return 0
}

// advance notes that everything of log before next has been sent.
func (p *position) advance(log ds.LogID, next int64) {
	i := p.index[log]
	if next <= p.next[i].Next {
		return
	}
	p.next[i].Next = next
	if at, isMoved := slices.BinarySearch(p.moved, i); !isMoved {
		p.moved = slices.Insert(p.moved, at, i)
	}
}

// rebase makes what is stored under name the base. It is what next was when stored
// was taken, and next has not moved since.
func (p *position) rebase(name core.StreamID, stored []ds.Cursor) {
	p.name, p.base, p.moved = name, stored, p.moved[:0]
}

// appendID appends the id of this position; false means that it would be too long,
// or that there is nothing stored yet that it could build upon.
func (p *position) appendID(dst []byte) ([]byte, bool) {
	if p.base == nil {
		return dst, false
	}
	var raw [idRawMax + 2*binary.MaxVarintLen64]byte
	raw[0] = idVersion
	copy(raw[1:], p.name[:])
	n, previous := idHeadSize, -1
	for _, i := range p.moved {
		if i >= len(p.base) {
			return dst, false
		}
		n += binary.PutUvarint(raw[n:], uint64(i-previous-1))
		n += binary.PutUvarint(raw[n:], uint64(p.next[i].Next-p.base[i].Next))
		if n > idRawMax {
			return dst, false
		}
		previous = i
	}
	return base64.RawURLEncoding.AppendEncode(dst, raw[:n]), true
}

// eventID is a decoded id.
type eventID struct {
	name  core.StreamID
	moves []move
}

// move is by how much a log had moved.
type move struct {
	index int
	by    int64
}

var errNotAnID = ds.Refuse(ds.InvalidRequest, "Last-Event-ID: not an id of an event")

// parseID reads exactly what appendID writes.
func parseID(text string) (eventID, error) {
	var id eventID
	if len(text) > idBytesMax {
		return id, errNotAnID
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodedLen(len(raw)) != len(text) || len(raw) < idHeadSize || raw[0] != idVersion {
		return id, errNotAnID
	}
	id.name = core.StreamID(raw[1:idHeadSize])
	index := -1
	for rest := raw[idHeadSize:]; len(rest) > 0; {
		gap, n, isGap := uvarint(rest)
		by, m, isBy := uvarint(rest[n:])
		if !isGap || !isBy || gap > 2*core.StreamConversationsMax || by == 0 || by > math.MaxInt64 {
			return id, errNotAnID
		}
		index += int(gap) + 1
		id.moves = append(id.moves, move{index, int64(by)})
		rest = rest[n+m:]
	}
	return id, nil
}

// uvarint reads a number that is written in its shortest form.
func uvarint(raw []byte) (value uint64, size int, ok bool) {
	value, size = binary.Uvarint(raw)
	if size <= 0 || size > 1 && raw[size-1] == 0 {
		return 0, 0, false
	}
	return value, size, true
}

// apply moves what is stored under the id's name to where the id says.
func (id eventID) apply(stored []ds.Cursor) (map[ds.LogID]int64, error) {
	next := make(map[ds.LogID]int64, len(stored))
	for _, c := range stored {
		next[c.Log] = c.Next
	}
	for _, m := range id.moves {
		if m.index >= len(stored) || stored[m.index].Next > math.MaxInt64-m.by {
			return nil, errNotAnID
		}
		next[stored[m.index].Log] += m.by
	}
	return next, nil
}
