package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// welcomes holds the Welcomes of a page of an account log, by id; for those left in the store
// it has the size.
type welcomes struct {
	bodies map[string][]byte
	left   map[string]int64
}

// load reads the records of a page after those that one has read, from the tail cache if it
// has them, and reports whether the page was cut. A page larger than PageFree waits for its
// turn, and nothing is held meanwhile.
func (f *Follower) load(ctx context.Context, page *Page, one *follow) (found welcomes, cut bool, err error) {
	for limit := f.allowance(one); ; {
		need := int64(0)
		if one.isConversation() {
			cut, need, err = f.loadRecords(ctx, page, one.pos.Load(), limit)
		} else {
			found, cut, need, err = f.loadEvents(ctx, page, one.pos.Load(), limit)
		}
		if err != nil || need == 0 {
			return found, cut, err
		}
		page.Records, page.Frames = nil, nil
		if err := f.turn.take(ctx, need); err != nil {
			return found, false, err
		}
		limit = int(need)
	}
}

// allowance returns the maximum bytes of bodies on the next page: a reader that is behind gets
// a large page as long as there is room.
func (f *Follower) allowance(one *follow) int {
	if one.isBehind && f.turn.try(pageBytes) {
		return pageBytes
	}
	return PageFree
}

// loadRecords reads a page of a conversation with up to limit bytes of bodies, and a last one
// that may exceed it. need is the size of the first body if it alone exceeds limit.
func (f *Follower) loadRecords(ctx context.Context, page *Page, pos int64, limit int) (cut bool, need int64, err error) {
	list, frames, ok := f.engine.tails.after(page.Log, pos, pageRecords, limit)
	if !ok {
		count := pageRecords
		if limit <= PageFree {
			count = pageFreeRecords
		}
		if limit > PageFree {
			if err := f.turn.begin(ctx); err != nil {
				return false, 0, err
			}
		}
		if list, err = f.engine.store.RecordsWithin(ctx, page.Log, pos, store.Reach{Count: count, Bytes: limit, Body: limit}); err != nil {
			return false, 0, err
		}
		cut = len(list) > 0 // a long record ends the page early, whatever follows it
	}
	n, total := 0, 0
	for ; n < len(list) && total <= limit; n++ {
		r := &list[n]
		size := max(len(r.Body), r.Left)
		if f.BodyMax > 0 && size > f.BodyMax && r.Kind.IsMessage() {
			r.Body, r.Left = nil, size
			continue
		}
		if size > limit {
			if n == 0 {
				return false, int64(size), nil
			}
			break
		}
		total += size
	}
	cut = cut || n < len(list) || total > limit
	page.Records = list[:n:n]
	if frames != nil {
		page.Frames = frames[:n:n]
	}
	return cut, 0, nil
}

// noteGaps counts and logs what is missing on a page of a conversation that was read after pos,
// where the head says that there is more. Readers go on behind a gap: their clients see and
// report it, too.
func (e *Engine) noteGaps(page Page, pos int64) {
	seq, gaps := int64(0), 0
	if len(page.Records) == 0 {
		gaps = 1
	}
	for _, r := range page.Records {
		if r.Pos != pos+1 || r.Seq > 0 && seq > 0 && r.Seq != seq+1 {
			gaps++
		}
		if pos = r.Pos; r.Seq > 0 {
			seq = r.Seq
		}
	}
	if gaps > 0 {
		e.metrics.gaps.Add(float64(gaps))
		e.gapLogged.Do(func() {
			e.logger.Error("records of a conversation are missing; further gaps are only counted", "conversation", page.Log.Conversation(), "before", pos+1)
		})
	}
}

// loadEvents does the work of loadRecords for an account log and the Welcomes in its records.
func (f *Follower) loadEvents(ctx context.Context, page *Page, pos int64, limit int) (found welcomes, cut bool, need int64, err error) {
	err = f.engine.store.View(ctx, func(tx *store.Tx) error {
		cut, need = false, 0
		list, err := tx.Logs.RecordsAfter(page.Log, pos, pageFreeRecords, limit)
		if err != nil {
			return err
		}
		cut = len(list) > 0 // a long record ends the page early, whatever follows it
		sizes, err := tx.Welcomes.Sizes(welcomeIDs(list))
		if err != nil {
			return err
		}
		var n int
		if n, need, found.left = f.withinWelcomes(list, sizes, int64(limit)); need > 0 {
			return nil
		}
		page.Records = list[:n]
		found.bodies, err = tx.Welcomes.Bodies(slices.DeleteFunc(welcomeIDs(page.Records), func(id string) bool { return found.left[id] > 0 }))
		return err
	})
	return found, cut, need, err
}

// withinWelcomes returns how many of the records may be returned together, and the Welcomes
// left in the store. need is the size of the first Welcome if it alone exceeds limit.
func (f *Follower) withinWelcomes(records []ds.Record, sizes map[string]int64, limit int64) (n int, need int64, left map[string]int64) {
	total := int64(0)
	left = map[string]int64{}
	for i := range records {
		for _, id := range welcomeIDs(records[i : i+1]) {
			size := sizes[id]
			switch {
			case f.BodyMax > 0 && size > int64(f.BodyMax):
				left[id] = size
				continue
			case i == 0 && size > limit:
				return 0, size, left
			case i > 0 && total+size > limit:
				return i, 0, left
			}
			total += size
		}
	}
	return len(records), 0, left
}

func welcomeIDs(records []ds.Record) []string {
	var ids []string
	for _, r := range records {
		var e ds.DeviceEvent
		if r.Kind == ds.WelcomeEvent && json.Unmarshal(r.Body, &e) == nil {
			ids = append(ids, e.WelcomeID)
		}
	}
	return ids
}

// keepEvents decodes a page of an account log and keeps the records that the caller's device
// may see. Events of expired Welcomes are removed.
func (f *Follower) keepEvents(page *Page, found welcomes) error {
	kept := page.Records[:0]
	for _, r := range page.Records {
		if r.Recipient != "" && r.Recipient != f.who.Device {
			continue
		}
		var e ds.DeviceEvent
		if err := json.Unmarshal(r.Body, &e); err != nil {
			return fmt.Errorf("event %d: %w", r.Pos, err)
		}
		if r.Kind == ds.WelcomeEvent {
			e.Welcome, e.WelcomeLeft = found.bodies[e.WelcomeID], found.left[e.WelcomeID]
			if e.Welcome == nil && e.WelcomeLeft == 0 {
				continue
			}
		}
		kept, page.Events = append(kept, r), append(page.Events, e)
	}
	page.Records = kept
	return nil
}
