package logs

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"waxwing.im/waxwing/internal/ds"
)

// Formats is the number of encodings of a record that are kept.
const Formats = 4

// Frames holds the encodings of one record that every reader shares, by format. The doors
// define the formats; a record is encoded once for each.
type Frames struct {
	slots [Formats]atomic.Pointer[[]byte]
	mu    sync.Mutex // held while value is made
	value atomic.Pointer[any]
}

// Value returns the value, other than bytes, that one door keeps with the record. encode makes
// it, once, if it does not exist yet. It must not be changed. A nil Frames always encodes.
func (f *Frames) Value(encode func() any) any {
	if f == nil {
		return encode()
	}
	if value := f.value.Load(); value != nil {
		return *value
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if value := f.value.Load(); value != nil {
		return *value
	}
	value := encode()
	f.value.Store(&value)
	return value
}

// Get returns the frame in a format, which encode makes if it does not exist yet. The bytes
// must not be changed. A nil Frames always encodes.
func (f *Frames) Get(format int, encode func() []byte) []byte {
	if f == nil {
		return encode()
	}
	if frame := f.slots[format].Load(); frame != nil {
		return *frame
	}
	frame := encode()
	f.slots[format].Store(&frame)
	return frame
}

// tailCache keeps the last records of active conversations, one contiguous range per log, so
// that readers at the head share new records. It is only a cache of the store: records that do
// not continue a range replace it, and a reader outside the range queries the store.
type tailCache struct {
	seed   maphash.Seed
	bytes  atomic.Int64
	shards [tailShards]tailShard
}

type tailShard struct {
	mu   sync.RWMutex
	logs map[ds.LogID]*tail // mu guards it and what it points to
}

// tail is a range of a log. Its slices are only appended to or replaced, so that readers may
// keep parts of them.
type tail struct {
	records []ds.Record
	frames  []*Frames
	bytes   int
	term    int64
}

func newTailCache() *tailCache {
	c := &tailCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].logs = map[ds.LogID]*tail{}
	}
	return c
}

func (c *tailCache) shard(log ds.LogID) *tailShard {
	return &c.shards[maphash.String(c.seed, string(log))%tailShards]
}

// addBatch adds the records that one batch committed, of logs that are followed here.
func (c *tailCache) addBatch(records []ds.Record, isFollowed func(ds.LogID) bool) {
	for len(records) > 0 { // mostly runs of one log; a run that is cut only costs a lock
		n := 1
		for n < len(records) && records[n].Log == records[0].Log {
			n++
		}
		if isFollowed(records[0].Log) {
			c.add(records[:n])
		}
		records = records[n:]
	}
}

// add adds records of one log that were just committed, in order. They continue the range, or
// begin a new one.
func (c *tailCache) add(records []ds.Record) {
	if len(records) == 0 {
		return
	}
	s := c.shard(records[0].Log)
	s.mu.Lock()
	t := s.logs[records[0].Log]
	if t != nil && (t.records[len(t.records)-1].Pos+1 != records[0].Pos || t.term != records[0].Term) {
		c.bytes.Add(-int64(t.bytes))
		t = nil
	}
	if t == nil {
		t = &tail{term: records[0].Term}
		s.logs[records[0].Log] = t
	}
	before := t.bytes
	for i := range records {
		t.records, t.frames = append(t.records, records[i]), append(t.frames, &Frames{})
		t.bytes += costOf(&records[i])
	}
	t.trim()
	total := c.bytes.Add(int64(t.bytes - before))
	s.mu.Unlock()
	if total > tailTotalBytes {
		c.shrink()
	}
}

// costOf returns the memory of a record: its body, as much again and a third for each of the
// two frames in use (WebSocket with and without features), and as much again for the value.
func costOf(r *ds.Record) int { return tailRecordBytes + 2*len(r.ConfirmationTag) + len(r.Body)*14/3 }

// trim drops the oldest records beyond the bounds, half of them at a time, into new slices:
// those that readers hold are unchanged.
func (t *tail) trim() {
	if len(t.records) <= tailRecords && t.bytes <= tailBytes {
		return
	}
	keep, bytes := 0, 0
	for keep < len(t.records) && keep < tailRecords/2 {
		next := costOf(&t.records[len(t.records)-1-keep])
		if keep > 0 && bytes+next > tailBytes/2 {
			break
		}
		keep, bytes = keep+1, bytes+next
	}
	from := len(t.records) - keep
	t.records = append(make([]ds.Record, 0, 2*keep), t.records[from:]...)
	t.frames = append(make([]*Frames, 0, 2*keep), t.frames[from:]...)
	t.bytes = bytes
}

// after returns the records after pos, at most count of them and no more once their bodies
// exceed bytesMax, and whether the range contains them. A reader at its end is not in the
// range: another node may have written more.
func (c *tailCache) after(log ds.LogID, pos int64, count, bytesMax int) ([]ds.Record, []*Frames, bool) {
	s := c.shard(log)
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.logs[log]
	if t == nil || pos < t.records[0].Pos-1 || pos >= t.records[len(t.records)-1].Pos {
		return nil, nil, false
	}
	from := int(pos - t.records[0].Pos + 1)
	to, bytes := from, 0
	for to < len(t.records) && to-from < count && bytes <= bytesMax {
		bytes += len(t.records[to].Body)
		to++
	}
	// Copies: a slow reader must not keep the whole range alive.
	return slices.Clone(t.records[from:to]), slices.Clone(t.frames[from:to]), true
}

// evict removes a log: it has no followers, its records were purged, or its term has changed.
func (c *tailCache) evict(log ds.LogID) {
	s := c.shard(log)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.logs[log]; t != nil {
		c.bytes.Add(-int64(t.bytes))
		delete(s.logs, log)
	}
}

// shrink removes logs, in no particular order, until a quarter of the room is free. An active
// log returns with its next record.
func (c *tailCache) shrink() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for log, t := range s.logs {
			if c.bytes.Load() <= tailTotalBytes*3/4 {
				break
			}
			c.bytes.Add(-int64(t.bytes))
			delete(s.logs, log)
		}
		s.mu.Unlock()
	}
}
