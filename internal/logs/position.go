package logs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// StreamID is the name of a stream with a stored position. It is random, and never 0.
type StreamID uint64

func (id StreamID) text() string { return fmt.Sprintf("%016x", uint64(id)) }

// Position holds the next number that a stream wants of each log, and how much of that is
// stored.
//
// All of it is stored once, as row 0 of the stream. Later rows, at most one a second, hold the
// changes since an earlier one. A door puts the stream's name, the number of the last row and
// the changes since it into each event, so that a client can resume the stream after any
// event, on any node and after a crash, with few writes.
//
// It belongs to one goroutine.
type Position struct {
	streams *Streams
	device  ds.Device

	index map[ds.LogID]int
	next  []ds.Cursor // logs are only ever added, so that each keeps its index

	id     StreamID // 0: not stored
	row    int64    // the number of the last row
	check  int64    // the number of the last row that builds upon row 0 alone
	origin []int64  // next as of row 0
	whole  []int64  // next as of row check
	base   []int64  // next as of row
	moved  []int    // the indexes at which next is beyond base, sorted

	due      time.Time     // before which no row is written
	patience time.Duration // after a failure
}

// NewPosition returns the position of a stream of the caller's device, without any log.
func (s *Streams) NewPosition(who ds.Caller) *Position {
	return &Position{streams: s, device: who.AsDevice(), index: map[ds.LogID]int{}}
}

// Len returns the number of logs.
func (p *Position) Len() int { return len(p.next) }

// IsFull reports whether the stream has read so many logs, left ones included, that it should
// end and be resumed, which removes those.
func (p *Position) IsFull() bool { return len(p.next) >= 2*StreamConversationsMax }

// Add adds a log that is read from next on, and returns its index; an existing one is left
// unchanged.
func (p *Position) Add(log ds.LogID, next int64) int {
	if i, ok := p.index[log]; ok {
		return i
	}
	p.index[log] = len(p.next)
	p.next = append(p.next, ds.Cursor{Log: log, Next: next})
	return len(p.next) - 1
}

// Index returns the index of a log.
func (p *Position) Index(log ds.LogID) (int, bool) {
	i, ok := p.index[log]
	return i, ok
}

// Log returns the log with that index, and the next number that the stream wants of it.
func (p *Position) Log(i int) (ds.LogID, int64) { return p.next[i].Log, p.next[i].Next }

// At returns the next number that the stream wants of the log with that index.
func (p *Position) At(i int) int64 { return p.next[i].Next }

// Of returns the next number that the stream wants of a log, 0 for one that it never read.
func (p *Position) Of(log ds.LogID) int64 {
	if i, ok := p.index[log]; ok {
		return p.next[i].Next
	}
	return 0
}

// Advance records that everything of a log before next has been sent. It reports whether that
// is new.
func (p *Position) Advance(i int, next int64) bool {
	if next <= p.next[i].Next {
		return false
	}
	p.next[i].Next = next
	if i < len(p.base) {
		if at, isMoved := slices.BinarySearch(p.moved, i); !isMoved {
			p.moved = slices.Insert(p.moved, at, i)
		}
	}
	return true
}

// ID returns the name of the stream, 0 before Open.
func (p *Position) ID() StreamID { return p.id }

// AppendMoves appends the number of the last row and the moves since it, in at most max bytes:
// for each log that moved, in order, the number of logs skipped since the previous one and the
// distance that it moved, all as uvarints. It returns false if that does not fit, or a log was
// added since that row; until the next row there are then only older bytes, with which a
// resumed stream repeats some events.
func (p *Position) AppendMoves(dst []byte, max int) ([]byte, bool) {
	if p.id == 0 || len(p.next) > len(p.base) {
		return dst, false
	}
	begin := len(dst)
	out := binary.AppendUvarint(dst, uint64(p.row))
	previous := -1
	for _, i := range p.moved {
		out = binary.AppendUvarint(out, uint64(i-previous-1))
		if out = binary.AppendUvarint(out, uint64(p.next[i].Next-p.base[i])); len(out)-begin > max {
			return dst, false
		}
		previous = i
	}
	return out, len(out)-begin <= max
}

// Open stores the whole position under a new name, which costs bytes in proportion to the
// logs, and renews it from then on until Close.
func (p *Position) Open(ctx context.Context) error {
	var name [8]byte
	_, _ = rand.Read(name[:]) // never fails (crypto/rand)
	id := StreamID(binary.BigEndian.Uint64(name[:]) | 1)
	row := store.StreamRow{Stream: id.text(), Device: p.device, Opens: true, Moves: p.appendAdded([]byte{0}, id, 0)}
	row.Size = storedSize(len(row.Moves), len(p.next))
	if _, err := p.streams.rows.ask(ctx, row); err != nil {
		return err
	}
	p.streams.open.remove(p.id)
	p.streams.open.add(id)
	p.id, p.row, p.check = id, 0, 0
	p.rebase()
	p.origin, p.whole = slices.Clone(p.base), slices.Clone(p.base)
	return nil
}

// Close ends the renewal of what Open stored.
func (p *Position) Close() { p.streams.open.remove(p.id) }

// Save writes a row of the changes, if the last one is at least a second old, or older after a
// long one, and reports whether it did. It returns no fault that may pass: events need not
// wait for it, and it does not try again for a while.
func (p *Position) Save(ctx context.Context) (bool, error) {
	if p.id == 0 || time.Now().Before(p.due) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, streamSaveTimeout)
	defer cancel()
	err := p.save(ctx)
	switch {
	case err == nil:
		p.patience = 0
		return true, nil
	case !ds.IsUnavailable(err):
		return false, err
	}
	p.patience = min(max(2*p.patience, streamInterval), streamPatienceMax)
	p.due = time.Now().Add(p.patience)
	return false, nil
}

func (p *Position) save(ctx context.Context) error {
	row := store.StreamRow{Stream: p.id.text(), N: p.row + 1, Since: p.check}
	moves, count := p.since(p.whole)
	isCheck := row.N%streamCheckEvery == 0 || count+len(p.next)-len(p.whole) > streamMovesMax
	if isCheck {
		moves, _ = p.since(p.origin)
		row.Since = 0
	}
	row.Moves = moves
	isKept, err := p.streams.rows.ask(ctx, row)
	if err != nil {
		return err
	}
	if !isKept { // evicted for later streams of the account, which may happen again
		err := p.Open(ctx)
		p.wait(storedLogBytes * len(p.next))
		return err
	}
	p.row = row.N
	p.rebase()
	p.wait(len(moves))
	if isCheck {
		p.check, p.whole = row.N, slices.Clone(p.base)
	}
	return nil
}

// storedLogBytes estimates the size of a log in a row.
const storedLogBytes = 10

// wait delays the next row after one of that many bytes.
func (p *Position) wait(bytes int) {
	p.due = time.Now().Add(max(streamInterval, time.Duration(bytes)*time.Second/streamBytesPerSecond))
}

// rebase makes the state that was just stored the base.
func (p *Position) rebase() {
	p.base, p.moved = p.base[:0], p.moved[:0]
	for _, c := range p.next {
		p.base = append(p.base, c.Next)
	}
}

// since encodes the moves since a state, and the logs added since then, and counts the former.
func (p *Position) since(state []int64) (row []byte, count int) {
	var moves []byte
	previous := -1
	for i, at := range state {
		if by := p.next[i].Next - at; by > 0 {
			moves = binary.AppendUvarint(moves, uint64(i-previous-1))
			moves = binary.AppendUvarint(moves, uint64(by))
			previous = i
			count++
		}
	}
	row = append(binary.AppendUvarint(nil, uint64(count)), moves...)
	return p.appendAdded(row, p.id, len(state)), count
}

// appendAdded appends the logs from an index on. Each is stored as a hash, since names may be
// long and strangers choose them.
func (p *Position) appendAdded(row []byte, id StreamID, from int) []byte {
	for _, c := range p.next[from:] {
		row = binary.BigEndian.AppendUint64(row, nameHash(id, c.Log))
		row = binary.AppendUvarint(row, uint64(c.Next))
	}
	return row
}

// nameHash returns the hash of a log's name in a stream. It is keyed by the stream's random
// name, so that a collision of two conversations cannot be prepared.
func nameHash(id StreamID, log ds.LogID) uint64 {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64([]byte("waxwing stream "), uint64(id)), log...))
	return binary.BigEndian.Uint64(sum[:])
}

// storedSize bounds the bytes that a stream of that many logs ever has in the store, later
// rows included.
func storedSize(first, logs int) int64 {
	const moveBytes, rowBytes = 6, 64
	fine, checks := streamRowsKept*(rowBytes+moveBytes*min(logs, streamMovesMax)), streamChecksKept*(rowBytes+moveBytes*logs)
	return int64(first + rowBytes + fine + checks)
}

// Resumed holds the position of a stream that is to be resumed.
type Resumed struct {
	// IsExact reports whether it is the position that the client sent; otherwise it is an
	// earlier one, and some events will be repeated.
	IsExact bool

	id   StreamID
	next []storedLog
	of   map[uint64]int
}

type storedLog struct {
	hash uint64
	next int64
}

// Resume finds the position of a stream of the caller's device by the name and the moves that
// the client has kept. It returns nil for one that is unknown, too old or of another device.
// Refusals: invalid_request for moves that no stream can have written.
func (s *Streams) Resume(ctx context.Context, who ds.Caller, id StreamID, moves []byte) (*Resumed, error) {
	n, size, ok := uvarint(moves)
	if !ok || n > math.MaxInt64 {
		return nil, refuseMoves
	}
	rows, err := store.Get(ctx, s.store.Read, func(tx *store.Tx) (store.StreamRows, error) {
		return tx.Streams.Rows(id.text(), who.AsDevice(), int64(n), streamLifetime)
	})
	if err != nil {
		return nil, err
	}
	r := &Resumed{id: id, IsExact: rows.N == int64(n)}
	list := [][]byte{rows.First, rows.Check, rows.Last}
	if r.IsExact {
		// A row begins with the count of its moves, those of an event end with their bytes.
		list = append(list, append(binary.AppendUvarint(nil, math.MaxUint32), moves[size:]...))
	}
	if rows.First == nil {
		return nil, nil
	}
	for i, row := range list {
		if len(row) == 0 {
			continue
		}
		if !r.apply(row) {
			if i == 3 {
				return nil, refuseMoves
			}
			return nil, fmt.Errorf("stream %x: row %d cannot be read", uint64(id), i)
		}
	}
	r.of = make(map[uint64]int, len(r.next))
	for i, c := range r.next {
		r.of[c.hash] = i
	}
	return r, nil
}

var refuseMoves = ds.Refuse(ds.InvalidRequest, "not a position of a stream")

// apply advances r by a row, and reports whether the row is valid.
func (r *Resumed) apply(row []byte) bool {
	count, size, ok := uvarint(row)
	if !ok {
		return false
	}
	row = row[size:]
	index := uint64(0)
	for ; count > 0 && len(row) > 0; count-- {
		gap, n, isGap := uvarint(row)
		by, m, isBy := uvarint(row[n:])
		if !isGap || !isBy || gap > math.MaxInt32 || by == 0 || by > math.MaxInt64 {
			return false
		}
		row = row[n+m:]
		if index += gap; index >= uint64(len(r.next)) || r.next[index].next > math.MaxInt64-int64(by) {
			return false
		}
		r.next[index].next += int64(by)
		index++
	}
	for len(row) > 0 {
		if len(row) < 9 {
			return false
		}
		next, n, ok := uvarint(row[8:])
		if !ok || next > math.MaxInt64 {
			return false
		}
		r.next = append(r.next, storedLog{binary.BigEndian.Uint64(row), int64(next)})
		row = row[8+n:]
	}
	return true
}

// uvarint reads a number that is in its shortest form.
func uvarint(raw []byte) (value uint64, size int, ok bool) {
	value, size = binary.Uvarint(raw)
	if size <= 0 || size > 1 && raw[size-1] == 0 {
		return 0, 0, false
	}
	return value, size, true
}

// Of returns the next number that the stream wanted of a log, and the log's index; 0 for a log
// that it did not read.
func (r *Resumed) Of(log ds.LogID) (next int64, index int) {
	if r == nil {
		return 0, -1
	}
	if i, ok := r.of[nameHash(r.id, log)]; ok {
		return r.next[i].next, i
	}
	return 0, -1
}

// Len returns the number of logs that the stream read.
func (r *Resumed) Len() int { return len(r.next) }
