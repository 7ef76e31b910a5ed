package core

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/condition"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// cursorBuffer gathers acknowledgements, so that a reader who acks every message
// costs one row a second. Cursors are hints: one lost with the process means that
// some records are delivered again, never that one is missed.
type cursorBuffer struct {
	seed   maphash.Seed
	shards [cursorShards]cursorShard // by device: a thousand readers must not queue for one lock

	turn    chan struct{} // is full while FlushCursors writes
	mu      sync.Mutex
	waiting map[ds.Device]*cursorJob // mu guards it; those that call for one device share a job
}

// cursorJob is a device whose cursors somebody waits to see written.
type cursorJob struct {
	device ds.Device
	isDone bool // turn guards isDone and err
	err    error
}

type cursorShard struct {
	mu      sync.Mutex
	devices map[ds.Device]map[ds.LogID]int64 // mu guards devices and count
	count   int                              // of cursors
}

func newCursorBuffer() *cursorBuffer {
	b := &cursorBuffer{seed: maphash.MakeSeed(), turn: make(chan struct{}, 1), waiting: map[ds.Device]*cursorJob{}}
	for i := range b.shards {
		b.shards[i].devices = map[ds.Device]map[ds.LogID]int64{}
	}
	return b
}

func (b *cursorBuffer) shard(device ds.Device) *cursorShard {
	return &b.shards[maphash.Comparable(b.seed, device)%cursorShards]
}

// put notes a cursor, and reports whether there was room for it. Where it is a hint, one
// that is lost only delivers again.
func (b *cursorBuffer) put(device ds.Device, log ds.LogID, next int64) bool {
	s := b.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := s.devices[device]
	if logs[log] == 0 && s.count >= cursorShardMax {
		return false
	}
	if logs[log] == 0 {
		s.count++
	}
	if logs == nil {
		logs = map[ds.LogID]int64{}
		s.devices[device] = logs
	}
	if logs[log] < next {
		logs[log] = next
	}
	return true
}

// pending is a cursor that is not written yet, or 0.
func (b *cursorBuffer) pending(device ds.Device, log ds.LogID) int64 {
	s := b.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[device][log]
}

// of lists the pending cursors of one device.
func (b *cursorBuffer) of(device ds.Device) []store.DeviceCursor {
	s := b.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	return appendCursors(nil, device, s.devices[device])
}

func (b *cursorBuffer) all() []store.DeviceCursor {
	var list []store.DeviceCursor
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		for device, logs := range s.devices {
			list = appendCursors(list, device, logs)
		}
		s.mu.Unlock()
	}
	return list
}

func appendCursors(list []store.DeviceCursor, device ds.Device, logs map[ds.LogID]int64) []store.DeviceCursor {
	for log, next := range logs {
		list = append(list, store.DeviceCursor{Device: device, Cursor: ds.Cursor{Log: log, Next: next}})
	}
	return list
}

// written forgets cursors that are now stored, unless they have moved on.
func (b *cursorBuffer) written(list []store.DeviceCursor) {
	for _, c := range list {
		s := b.shard(c.Device)
		s.mu.Lock()
		if logs := s.devices[c.Device]; logs[c.Log] != 0 && logs[c.Log] <= c.Next {
			s.count--
			if delete(logs, c.Log); len(logs) == 0 {
				delete(s.devices, c.Device)
			}
		}
		s.mu.Unlock()
	}
}

func (s *Service) writeCursors(ctx context.Context, list []store.DeviceCursor) error {
	if len(list) == 0 {
		return nil
	}
	err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.Cursors.Advance(list) })
	if err == nil {
		s.cursors.written(list)
	}
	return err
}

// flushCursors writes the buffer once an interval until ctx ends.
func (s *Service) flushCursors(ctx context.Context) {
	ticker := time.NewTicker(cursorInterval)
	defer ticker.Stop()
	writing := condition.New(s.logger, "the writing of cursors, which stay in the buffer,", 0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := s.writeCursors(ctx, s.cursors.all())
		s.metrics.storeFailed(err)
		if ctx.Err() == nil && !ds.IsUnavailable(err) { // a database that is away is logged by the store
			writing.Note(err)
		}
	}
}

// FlushCursors writes what is buffered for a device, when its connection closes. Those
// that come while a transaction is under way share the next one: a thousand readers
// that go away together are not a thousand transactions.
func (s *Service) FlushCursors(ctx context.Context, device ds.Device) error {
	b := s.cursors
	if len(b.of(device)) == 0 {
		return nil
	}
	b.mu.Lock()
	job := b.waiting[device]
	if job == nil {
		job = &cursorJob{device: device}
		if len(b.waiting) < cursorJobsMax { // else it is written by itself, not with others
			b.waiting[device] = job
		}
	}
	b.mu.Unlock()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done(): // the next to have the turn writes them
		return ds.Unavailable(ctx.Err())
	}
	if job.isDone { // by whoever had the turn before
		return job.err
	}
	b.mu.Lock()
	jobs := b.waiting
	b.waiting = map[ds.Device]*cursorJob{}
	b.mu.Unlock()
	jobs[device] = job
	var list []store.DeviceCursor
	for device := range jobs {
		list = append(list, b.of(device)...)
	}
	// No single caller may cancel it for the others.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	err := s.writeCursors(writing, list)
	for _, j := range jobs {
		j.isDone, j.err = true, err
	}
	return err
}

// Acknowledge notes that the device has everything up to message seq. The note is
// written within a second; a seq beyond the head counts as the head. Refusals:
// forbidden, invalid_request.
func (s *Service) Acknowledge(ctx context.Context, who ds.Caller, id ds.ConversationID, seq int64) error {
	next, err := s.checkAck(ctx, who, id, seq)
	if err == nil {
		s.cursors.put(who.AsDevice(), ds.ConversationLog(id), next)
	}
	return err
}

// AcknowledgeNow is Acknowledge for a caller that waits for the answer: the note is
// durable when it returns.
func (s *Service) AcknowledgeNow(ctx context.Context, who ds.Caller, id ds.ConversationID, seq int64) error {
	next, err := s.checkAck(ctx, who, id, seq)
	if err != nil {
		return err
	}
	return s.writeCursor(ctx, who.AsDevice(), ds.ConversationLog(id), next)
}

// writeCursor writes a cursor together with what is buffered for its device, or by itself
// where the buffer has no room.
func (s *Service) writeCursor(ctx context.Context, device ds.Device, log ds.LogID, next int64) error {
	if s.cursors.put(device, log, next) {
		return s.FlushCursors(ctx, device)
	}
	return s.writeCursors(ctx, []store.DeviceCursor{{Device: device, Cursor: ds.Cursor{Log: log, Next: next}}})
}

func (s *Service) checkAck(ctx context.Context, who ds.Caller, id ds.ConversationID, seq int64) (int64, error) {
	if seq < 0 {
		return 0, ds.Refuse(ds.InvalidRequest, "seq must not be negative")
	}
	if !ds.IsValidID(string(id)) {
		return 0, refuseNotMember
	}
	var head int64
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		readings, err := tx.Logs.Readings([]store.Start{{Device: who.AsDevice(), Conversation: id}})
		if err != nil {
			return err
		}
		at := readings[0]
		if at.Stay.From == 0 || at.Stay.Until != 0 {
			return refuseNotMember
		}
		head = at.Seq
		return nil
	})
	return min(seq, head) + 1, err
}

// AcknowledgeDevice notes that the device has handled its account log up to pos. The
// note is written within a second; a pos beyond the head counts as the head. Refusals:
// invalid_request.
func (s *Service) AcknowledgeDevice(ctx context.Context, who ds.Caller, pos int64) error {
	next, err := s.checkDeviceAck(ctx, who, pos)
	if err == nil && next > 1 {
		s.cursors.put(who.AsDevice(), ds.AccountLog(who.Account), next)
	}
	return err
}

func (s *Service) checkDeviceAck(ctx context.Context, who ds.Caller, pos int64) (next int64, err error) {
	if pos < 0 {
		return 0, ds.Refuse(ds.InvalidRequest, "pos must not be negative")
	}
	var head int64
	err = s.store.Read(ctx, func(tx *store.Tx) (err error) {
		// Now, for what comes before the note is written must not be skipped.
		head, _, err = tx.Logs.DeviceReading(who.AsDevice())
		return err
	})
	return min(pos, head) + 1, err
}

// AcknowledgeDeviceNow is AcknowledgeDevice for a caller that waits for the answer:
// the note is durable when it returns.
func (s *Service) AcknowledgeDeviceNow(ctx context.Context, who ds.Caller, pos int64) error {
	next, err := s.checkDeviceAck(ctx, who, pos)
	if err != nil || next <= 1 {
		return err
	}
	return s.writeCursor(ctx, who.AsDevice(), ds.AccountLog(who.Account), next)
}

// Cursors lists how far the caller's device has acknowledged its logs, by log, what
// is still buffered included: of those that moved last, as many as cursorsListMax.
func (s *Service) Cursors(ctx context.Context, who ds.Caller) ([]ds.Cursor, error) {
	device := who.AsDevice()
	if err := s.FlushCursors(ctx, device); err != nil {
		return nil, err
	}
	var list []ds.Cursor
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		list, err = tx.Cursors.Of(device, cursorsListMax)
		return err
	})
	slices.SortFunc(list, func(a, b ds.Cursor) int { return strings.Compare(string(a.Log), string(b.Log)) })
	return list, err
}
