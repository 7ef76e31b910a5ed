package core

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

const (
	// streamLifetime is how long a stream can be resumed from a position.
	streamLifetime = 7 * 24 * time.Hour
	// StreamConversationsMax bounds what one stream follows.
	StreamConversationsMax = 4096
	// streamShare is how many conversations of a stream count as one subscription:
	// they are begun together.
	streamShare = 16
)

// StreamID names a stored position of a stream. It is random.
type StreamID = [16]byte

// SaveStream stores what a stream of the caller's device wants next of each log, for
// a week, under a new name. It is durable when SaveStream returns.
func (s *Service) SaveStream(ctx context.Context, who ds.Caller, next []ds.Cursor) (StreamID, error) {
	position := store.StreamPosition{Device: who.AsDevice(), Next: next}
	_, _ = rand.Read(position.ID[:]) // never fails (crypto/rand)
	_, err := s.positions.ask(ctx, position)
	return position.ID, err
}

func (s *Service) writePositions(ctx context.Context, list []store.StreamPosition) ([]struct{}, error) {
	err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.InsertStreamPositions(list) })
	return make([]struct{}, len(list)), err
}

// Stream finds what SaveStream stored for the same device. Refusals: invalid_request
// for a name that is unknown, too old or somebody else's.
func (s *Service) Stream(ctx context.Context, who ds.Caller, id StreamID) ([]ds.Cursor, error) {
	var next []ds.Cursor
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		next, err = tx.StreamPosition(id, who.AsDevice(), streamLifetime)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, ds.Refuse(ds.InvalidRequest, "Last-Event-ID: unknown, expired or of another device")
	}
	return next, err
}

// TakeStream counts the beginning of a stream of that many conversations as
// subscriptions of a session.
func (s *Service) TakeStream(session string, conversations int) error {
	if r := s.limits.take(LimitSubscribes, session, "", int64(max(1, conversations/streamShare))); r != nil {
		return r
	}
	return nil
}

// ConversationIDs lists what the caller is a member of. Refusals: limit_exceeded for
// more than a stream may follow.
func (s *Service) ConversationIDs(ctx context.Context, who ds.Caller) ([]ds.ConversationID, error) {
	var list []ds.ConversationID
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.ConversationIDs(who.Account, StreamConversationsMax+1)
		return err
	})
	if err == nil && len(list) > StreamConversationsMax {
		return nil, ds.Refuse(ds.LimitExceeded, "a stream follows at most %d conversations", StreamConversationsMax)
	}
	return list, err
}

// StreamStart is where a stream begins to read a conversation.
type StreamStart struct {
	Conversation ds.ConversationID
	FromSeq      int64 // 0: the device's stored cursor
	// MayBeLost passes over the conversation if the caller is no member; otherwise that
	// refuses the whole stream.
	MayBeLost bool
	// MayBePruned begins with the earliest message there is if FromSeq is gone.
	MayBePruned bool
}

// FollowAll is Follow for many conversations, in one snapshot: all of them or, at the
// first refusal, none. It returns the seq that each begins with, 0 for those that it
// passed over.
func (f *Follower) FollowAll(ctx context.Context, starts []StreamStart) ([]int64, error) {
	all, wanted := make([]*follow, len(starts)), make([]store.Start, len(starts))
	for i, start := range starts {
		all[i] = f.register(ds.ConversationLog(start.Conversation))
	}
	pending := map[ds.LogID]int64{}
	for _, c := range f.s.cursors.of(f.who.AsDevice()) {
		pending[c.Log] = c.Next // before the snapshot, as in Follow
	}
	for i, start := range starts {
		wanted[i] = store.Start{Device: f.who.AsDevice(), Conversation: start.Conversation,
			FromSeq: start.FromSeq, Pending: pending[all[i].log]}
	}
	var readings []store.Reading
	err := f.s.store.Read(ctx, func(tx *store.Tx) (err error) {
		readings, err = tx.Readings(wanted)
		return err
	})
	if err != nil {
		return nil, f.start(err, all...)
	}
	var follows, passed []*follow
	from := make([]int64, len(starts))
	for i, start := range starts {
		next, at := all[i], readings[i]
		err := f.begin(next, at)
		if ds.CodeOf(err) == ds.Forbidden && start.MayBeLost {
			passed = append(passed, next)
			continue
		}
		if ds.CodeOf(err) == ds.ReplayWindowExceeded && start.MayBePruned {
			at.FromSeq = at.EarliestSeq // Before is there already
			err = f.begin(next, at)
		}
		if err != nil {
			return nil, f.start(err, all...)
		}
		follows, from[i] = append(follows, next), next.seq.Load()+1
	}
	for _, next := range passed {
		f.s.unfollow(next)
	}
	return from, f.start(nil, follows...)
}

// The places at which FollowDeviceFrom may begin besides a pos.
const (
	FromCursor int64 = 0  // the device's stored cursor
	FromHead   int64 = -1 // only what is still to come
)

// FollowDeviceFrom is FollowDevice from a pos on, and returns the pos that it begins
// with.
func (f *Follower) FollowDeviceFrom(ctx context.Context, from int64) (int64, error) {
	next := f.register(ds.AccountLog(f.who.Account))
	pending := f.s.cursors.pending(f.who.AsDevice(), next.log)
	head, stored, err := f.deviceReading(ctx)
	begin := from
	switch from {
	case FromHead:
		begin = head + 1
	case FromCursor:
		begin = max(stored, pending)
	}
	next.pos.Store(min(begin-1, head))
	next.goal, next.head = head, head
	begun := next.pos.Load() + 1 // before Next can move it
	return begun, f.start(err, next)
}
