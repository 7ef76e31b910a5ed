package logs

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// cursorBuffer collects acknowledgements, so that a reader who acks every message costs one
// row a second. Cursors are hints: if one is lost with the process, some records are delivered
// again, but none is missed.
type cursorBuffer struct {
	seed   maphash.Seed
	shards [cursorShards]cursorShard // by device: a thousand readers must not queue for one lock
}

type cursorShard struct {
	mu      sync.Mutex
	devices map[ds.Device]map[ds.LogID]int64 // mu guards devices and count
	count   int                              // of cursors
}

func newCursorBuffer() *cursorBuffer {
	b := &cursorBuffer{seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].devices = map[ds.Device]map[ds.LogID]int64{}
	}
	return b
}

func (b *cursorBuffer) shard(device ds.Device) *cursorShard {
	return &b.shards[maphash.Comparable(b.seed, device)%cursorShards]
}

// put buffers a cursor, and reports whether there was room for it. A lost hint only causes
// repeated delivery.
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

// pending returns a cursor that is not written yet, or 0.
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

// written removes cursors that are now stored, unless they have advanced.
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

func (e *Engine) writeCursors(ctx context.Context, list []store.DeviceCursor) error {
	if len(list) == 0 {
		return nil
	}
	err := e.store.Update(ctx, func(tx *store.Tx) error { return tx.Cursors.Advance(list) })
	if err == nil {
		e.cursors.written(list)
	}
	return err
}

// FlushCursors writes the buffered cursors of a device, when its connection closes. Calls
// during a transaction share the next one, so that a thousand readers that disconnect together
// do not cause a thousand transactions.
func (e *Engine) FlushCursors(ctx context.Context, device ds.Device) error {
	if len(e.cursors.of(device)) == 0 {
		return nil
	}
	_, err := e.flushes.ask(ctx, device)
	return err
}

// writeDevices writes the buffered cursors of devices.
func (e *Engine) writeDevices(ctx context.Context, devices []ds.Device) ([]struct{}, error) {
	var list []store.DeviceCursor
	isWritten := make(map[ds.Device]bool, len(devices))
	for _, device := range devices {
		if !isWritten[device] {
			isWritten[device] = true
			list = append(list, e.cursors.of(device)...)
		}
	}
	return make([]struct{}, len(devices)), e.writeCursors(ctx, list)
}

// Acknowledge records that the device has everything of a log up to n: a seq of a conversation,
// or a pos of its own account log. The cursor is written within a second; an n beyond the head
// counts as the head. Refusals: forbidden, invalid_request.
func (e *Engine) Acknowledge(ctx context.Context, who ds.Caller, log ds.LogID, n int64) error {
	next, err := e.checkAck(ctx, who, log, n)
	if err == nil && next > 0 {
		e.cursors.put(who.AsDevice(), log, next)
	}
	return err
}

// AcknowledgeNow does the work of Acknowledge, and returns when the cursor is durable.
func (e *Engine) AcknowledgeNow(ctx context.Context, who ds.Caller, log ds.LogID, n int64) error {
	next, err := e.checkAck(ctx, who, log, n)
	if err != nil || next == 0 {
		return err
	}
	return e.WriteCursor(ctx, who.AsDevice(), log, next)
}

// WriteCursor writes a cursor together with the buffered ones of its device, or alone if there
// is no room for it in the buffer or among the jobs.
func (e *Engine) WriteCursor(ctx context.Context, device ds.Device, log ds.LogID, next int64) error {
	if e.cursors.put(device, log, next) {
		if err := e.FlushCursors(ctx, device); !errors.Is(err, errSharedFull) {
			return err
		}
	}
	return e.writeCursors(ctx, []store.DeviceCursor{{Device: device, Cursor: ds.Cursor{Log: log, Next: next}}})
}

// checkAck returns the cursor after n, or 0 for the beginning of an account log, which needs
// none.
func (e *Engine) checkAck(ctx context.Context, who ds.Caller, log ds.LogID, n int64) (next int64, err error) {
	id, isOwn := log.Conversation(), log == ds.AccountLog(who.Account)
	switch {
	case n < 0 && isOwn:
		return 0, ds.Refuse(ds.InvalidRequest, "pos must not be negative")
	case n < 0:
		return 0, ds.Refuse(ds.InvalidRequest, "seq must not be negative")
	case !isOwn && !ds.IsValidID(string(id)):
		return 0, RefuseNotMember
	}
	var head int64
	err = e.store.Read(ctx, func(tx *store.Tx) (err error) {
		if isOwn {
			// Now: records appended before the cursor is written must not be skipped.
			head, _, err = tx.Logs.DeviceReading(who.AsDevice())
			return err
		}
		readings, err := tx.Logs.Readings([]store.Start{{Device: who.AsDevice(), Conversation: id}})
		if err != nil {
			return err
		}
		at := readings[0]
		if at.Stay.From == 0 || at.Stay.Until != 0 {
			return RefuseNotMember
		}
		head = at.Seq
		return nil
	})
	if next = min(n, head) + 1; isOwn && next == 1 {
		next = 0
	}
	return next, err
}

// Cursors lists the cursors of the caller's device, buffered ones included, by log: those that
// moved last, at most cursorsListMax.
func (e *Engine) Cursors(ctx context.Context, who ds.Caller) ([]ds.Cursor, error) {
	device := who.AsDevice()
	if err := e.FlushCursors(ctx, device); err != nil {
		return nil, err
	}
	list, err := store.Get(ctx, e.store.Read, func(tx *store.Tx) ([]ds.Cursor, error) { return tx.Cursors.Of(device, cursorsListMax) })
	slices.SortFunc(list, func(a, b ds.Cursor) int { return strings.Compare(string(a.Log), string(b.Log)) })
	return list, err
}
