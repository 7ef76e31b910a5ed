package logs

import (
	"context"
	"slices"
	"sync"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Streams holds the stored positions of streams, so that each can be resumed on any node.
type Streams struct {
	store  *store.DB
	rows   *shared[store.StreamRow, bool]
	open   openStreams
	opened streamCounts
}

func newStreams(db *store.DB, closing <-chan struct{}) *Streams {
	s := &Streams{store: db, opened: streamCounts{}}
	s.rows = newShared(closing, positionsMax, func(r store.StreamRow) int {
		return len(r.Stream) + len(r.Device.Account) + len(r.Device.ID) + cap(r.Moves)
	}, s.write)
	return s
}

// openStreams holds the stored streams that are open on this node. The zero value is empty.
type openStreams struct {
	mu  sync.Mutex
	ids map[StreamID]struct{} // mu guards it
}

func (o *openStreams) add(id StreamID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids == nil {
		o.ids = map[StreamID]struct{}{}
	}
	o.ids[id] = struct{}{}
}

func (o *openStreams) remove(id StreamID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.ids, id)
}

func (o *openStreams) names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]string, 0, len(o.ids))
	for id := range o.ids {
		list = append(list, id.text())
	}
	return list
}

// Renew records that the open streams of this node are in use, so that their stored positions
// outlive them by streamLifetime.
func (s *Streams) Renew(ctx context.Context) error {
	for names := range slices.Chunk(s.open.names(), positionsMax) {
		if err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.Streams.Renew(names) }); err != nil {
			return err
		}
	}
	return nil
}

// Sweep deletes streams that have not been used for long.
func (s *Streams) Sweep(ctx context.Context) error {
	for {
		more, err := store.Get(ctx, s.store.Update, func(tx *store.Tx) (bool, error) { return tx.Streams.Sweep(streamLifetime, sweepStreamsMax) })
		if err != nil || !more {
			return err
		}
	}
}

// write writes rows of streams, and reports for each whether its stream still exists.
func (s *Streams) write(ctx context.Context, list []store.StreamRow) ([]bool, error) {
	bounds := store.StreamBounds{Streams: streamsStoredMax, Bytes: streamsBytesMax, Rows: streamRowsKept, CheckEvery: streamCheckEvery, Checks: streamChecksKept}
	kept, err := store.Get(ctx, s.store.Update, func(tx *store.Tx) ([]bool, error) { return tx.Streams.Write(list, bounds) })
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if r.Opens && s.opened.count(r, bounds) {
			// Not in the transaction, which others wait for: it reads all streams of the
			// account. After a fault the next call deletes the rest.
			_ = s.evict(ctx, r.Device.Account, bounds)
		}
	}
	return kept, nil
}

// streamCounts counts the streams that accounts have opened since their bounds were
// checked. It belongs to the goroutine that writes streams.
type streamCounts map[ds.AccountID]struct{ streams, bytes int64 }

// count counts a stream, and reports whether the bounds of its account have to be checked now:
// after each 64th part of them, and for accounts that are not known.
func (u streamCounts) count(r store.StreamRow, bounds store.StreamBounds) bool {
	n, isKnown := u[r.Device.Account]
	n.streams++
	n.bytes += r.Size
	check := !isKnown || n.streams >= bounds.Streams/64 || n.bytes >= bounds.Bytes/64
	if check {
		n.streams, n.bytes = 0, 0
	}
	if !isKnown && len(u) >= countedAccountsMax {
		clear(u)
	}
	u[r.Device.Account] = n
	return check
}

// evict deletes streams of an account that exceeds its bounds, and some more, so that
// not every stream that opens needs this.
func (s *Streams) evict(ctx context.Context, account ds.AccountID, bounds store.StreamBounds) error {
	names, err := s.excess(ctx, account, bounds)
	if err != nil || len(names) == 0 {
		return err
	}
	bounds.Streams -= bounds.Streams / 16
	bounds.Bytes -= bounds.Bytes / 16
	if names, err = s.excess(ctx, account, bounds); err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error { return tx.Streams.Delete(names) })
}

func (s *Streams) excess(ctx context.Context, account ds.AccountID, bounds store.StreamBounds) ([]string, error) {
	return store.Get(ctx, s.store.Read, func(tx *store.Tx) ([]string, error) { return tx.Streams.Excess(account, bounds) })
}
