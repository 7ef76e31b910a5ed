package logs

import (
	"context"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// The refusals of readers.
var (
	RefuseNotMember = ds.Refuse(ds.Forbidden, "not a member").Because(ds.NotMember)
	RefuseFollows   = ds.Refuse(ds.LimitExceeded, "the account's streams read too many conversations at a time")
)

// Start is a log to follow, and the position at which to begin.
type Start struct {
	Conversation ds.ConversationID // "" for the caller's account log
	From         Origin
	// MayBeLost skips the conversation if the caller is not a member; otherwise that refuses
	// all starts of the call.
	MayBeLost bool
	// MayBePruned begins with the earliest stored message if the origin is a seq that is
	// pruned.
	MayBePruned bool
}

// Origin is a position in a log. The zero value is the device's stored cursor.
type Origin struct {
	by originKind
	at int64
}

type originKind uint8

const (
	byCursor originKind = iota
	bySeq
	byPos
	byHead
	byJoin
)

// The origins that need no number.
var (
	AtHead = Origin{by: byHead} // only future records
	AtJoin = Origin{by: byJoin} // the record with which the caller's stay began, and later ones
)

// FromSeq returns the origin that begins with the message seq; 0 is the stored cursor.
func FromSeq(seq int64) Origin {
	if seq == 0 {
		return Origin{}
	}
	return Origin{bySeq, seq}
}

// AfterPos returns the origin after the record pos.
func AfterPos(pos int64) Origin { return Origin{byPos, pos} }

// isSeq reports whether the origin counts messages, as the stored cursor does.
func (o Origin) isSeq() bool { return o.by == byCursor || o.by == bySeq }

// Begun is the position at which a follow has begun.
type Begun struct {
	Pos     int64 // of the record before the first that will be read
	Seq     int64 // of the first message, where the origin was a seq or the cursor
	Head    int64 // pos of the last record there was
	IsLost  bool  // the caller is not a member
	IsReset bool  // the records after the pos are not stored, so it began at the head
}

// Follow begins to read logs, in one snapshot: all of them or, at the first refusal, none. A
// log that is already followed starts again at the new position. A former member, if those may
// read on, is refused unless its start is before the record that ended its stay. Refusals:
// forbidden, replay_window_exceeded, limit_exceeded.
func (f *Follower) Follow(ctx context.Context, starts ...Start) ([]Begun, error) {
	if err := f.checkStarts(starts); err != nil || len(starts) == 0 {
		return nil, err
	}
	all := make([]*follow, len(starts))
	for i, start := range starts {
		all[i] = f.register(start.log(f.who))
	}
	readings, err := f.readings(ctx, starts)
	if err != nil {
		return nil, f.start(err, all...)
	}
	begun, follows := make([]Begun, len(starts)), make([]*follow, 0, len(starts))
	for i, start := range starts {
		begun[i], err = f.begin(all[i], readings[i], start)
		switch {
		case err == nil:
			follows = append(follows, all[i])
		case start.MayBeLost && ds.CodeOf(err) == ds.Forbidden:
			begun[i] = Begun{IsLost: true}
			f.engine.unfollow(all[i])
		default:
			return nil, f.start(err, append(follows, all[i:]...)...)
		}
	}
	return begun, f.start(nil, follows...)
}

func (s Start) log(who ds.Caller) ds.LogID {
	if s.Conversation == "" {
		return ds.AccountLog(who.Account)
	}
	return ds.ConversationLog(s.Conversation)
}

// checkStarts refuses starts without MayBeLost if their conversation cannot exist or the
// account's bound leaves no room for them.
func (f *Follower) checkStarts(starts []Start) error {
	n := 0
	for _, start := range starts {
		if start.MayBeLost || start.Conversation == "" {
			continue
		}
		if n++; !ds.IsValidID(string(start.Conversation)) {
			return RefuseNotMember
		}
	}
	if n > 0 && n > f.engine.FollowsLeft(f.who.Account) {
		return RefuseFollows
	}
	return nil
}

// readings reads the data with which the follows of registered logs begin. Pending cursors are
// read before the snapshot: one that is flushed in between is then in both, not in neither.
func (f *Follower) readings(ctx context.Context, starts []Start) ([]store.Reading, error) {
	device := f.who.AsDevice()
	if len(starts) == 1 {
		pending := f.engine.cursors.pending(device, starts[0].log(f.who))
		if starts[0].Conversation == "" {
			at, err := f.deviceReading(ctx, pending)
			return []store.Reading{at}, err
		}
		at, err := f.engine.readings.ask(ctx, starts[0].wanted(device, pending))
		return []store.Reading{at}, err
	}
	pending := map[ds.LogID]int64{}
	for _, c := range f.engine.cursors.of(device) {
		pending[c.Log] = c.Next
	}
	list, conversations := make([]store.Reading, len(starts)), make([]store.Start, 0, len(starts))
	for i, start := range starts {
		if start.Conversation != "" {
			conversations = append(conversations, start.wanted(device, pending[start.log(f.who)]))
			continue
		}
		var err error
		if list[i], err = f.deviceReading(ctx, pending[start.log(f.who)]); err != nil {
			return nil, err
		}
	}
	found, err := f.engine.readingsInTurn(ctx, f.who.Account, conversations)
	if err != nil {
		return nil, err
	}
	for i, start := range starts {
		if start.Conversation != "" {
			list[i], found = found[0], found[1:]
		}
	}
	return list, nil
}

// wanted returns the start in the store's form. One by pos reads from the earliest message, to
// find its position.
func (s Start) wanted(device ds.Device, pending int64) store.Start {
	w := store.Start{Device: device, Conversation: s.Conversation, FromSeq: 1}
	if s.From.isSeq() {
		w.FromSeq, w.Pending = s.From.at, pending
	}
	return w
}

// deviceReading reads the head of the caller's account log, and its device's cursor in it.
func (f *Follower) deviceReading(ctx context.Context, pending int64) (at store.Reading, err error) {
	err = f.engine.store.Read(ctx, func(tx *store.Tx) (err error) {
		at.Pos, at.FromSeq, err = tx.Logs.DeviceReading(f.who.AsDevice())
		return err
	})
	at.FromSeq = max(at.FromSeq, pending)
	return at, err
}

// Reading returns where a device begins to read a conversation, and the last stay of its
// account. Concurrent calls share a query.
func (e *Engine) Reading(ctx context.Context, at store.Start) (store.Reading, error) {
	return e.readings.ask(ctx, at)
}

func (e *Engine) findReadings(ctx context.Context, starts []store.Start) ([]store.Reading, error) {
	return store.Get(ctx, e.store.Read, func(tx *store.Tx) ([]store.Reading, error) { return tx.Logs.Readings(starts) })
}

// readingsInTurn does the work of findReadings, in a turn of its own if there are many starts.
func (e *Engine) readingsInTurn(ctx context.Context, who ds.AccountID, starts []store.Start) ([]store.Reading, error) {
	turn, err := e.TakeQuery(ctx, who, len(starts))
	if err != nil {
		return nil, err
	}
	defer turn.Release()
	return e.findReadings(ctx, starts)
}

// begin sets the position of a follow, from the snapshot of the membership check.
func (f *Follower) begin(next *follow, at store.Reading, start Start) (Begun, error) {
	if start.Conversation == "" {
		return next.beginAccount(at, start.From), nil
	}
	last := at.Stay
	if last.From == 0 || last.Until != 0 && !f.Former {
		return Begun{}, RefuseNotMember
	}
	b, err := start.locate(at)
	if err != nil {
		return Begun{}, err
	}
	next.home, next.asOf, next.goal, next.head = at.Home, at.Pos, at.Pos, at.Seq
	if last.Until != 0 {
		// The stay is read like any other: it ends with the record of its end, which
		// is read before the follow has caught up.
		if b.Pos >= last.Until {
			return Begun{}, RefuseNotMember
		}
		b.Pos, next.asOf = max(b.Pos, last.From-1), last.From
	}
	next.pos.Store(b.Pos)
	next.seq.Store(max(b.Seq-1, 0))
	return b, nil
}

// locate finds the origin in the log of a conversation.
func (s Start) locate(at store.Reading) (Begun, error) {
	b := Begun{Pos: s.From.at, Head: at.Pos}
	switch {
	case s.From.isSeq() && at.FromSeq < at.EarliestSeq && !s.MayBePruned:
		return b, &ds.Refusal{Code: ds.ReplayWindowExceeded, Message: "requested history has been pruned",
			RequestedSeq: at.FromSeq, EarliestSeq: at.EarliestSeq, LatestSeq: at.Seq}
	case s.From.isSeq(): // beyond the head: live only
		b.Pos, b.Seq = at.Before, min(max(at.FromSeq, at.EarliestSeq), at.Seq+1)
	case s.From.by == byHead:
		b.Pos = at.Pos
	case s.From.by == byJoin:
		b.Pos = at.Stay.From - 1
	case b.Pos > at.Pos, at.EarliestSeq > 1 && b.Pos < at.Before:
		b.Pos, b.IsReset = at.Pos, true
	}
	return b, nil
}

// beginAccount starts a follow of an account log.
func (next *follow) beginAccount(at store.Reading, from Origin) Begun {
	pos := from.at
	switch from.by {
	case byHead, byJoin:
		pos = at.Pos
	case byCursor:
		pos = at.FromSeq - 1
	}
	pos = min(pos, at.Pos)
	next.pos.Store(pos)
	next.goal, next.head = at.Pos, at.Pos
	return Begun{Pos: pos, Head: at.Pos}
}
