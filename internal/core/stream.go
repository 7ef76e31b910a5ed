package core

import (
	"context"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// TakeStream counts the beginning of a stream that reads the conversations of a list.
// Refusals: rate_limited, limit_exceeded for more than the account may read at a time.
func (s *Service) TakeStream(session string, who ds.Caller, conversations int) error {
	if s.follows.of(who.Account)+conversations > followsMax {
		return refuseFollows
	}
	return s.takeStream(session, who, conversations)
}

func (s *Service) takeStream(session string, who ds.Caller, conversations int) error {
	if r := s.limits.TakeN(limits.Subscribes, session, "", int64(max(1, conversations/streamShare))); r != nil {
		return r
	}
	if r := s.limits.TakeN(limits.Streams, string(who.Account), "", int64(max(1, conversations))); r != nil {
		return r
	}
	return nil
}

var refuseFollows = ds.Refuse(ds.LimitExceeded, "the account's streams read too many conversations at a time")

// Selection holds what a stream without a list reads.
type Selection struct {
	Conversations []ds.ConversationID // the most recently active ones, in the order of their ids
	More          bool                // there are others, which it does not read
}

// SelectConversations chooses what a stream of all the caller's conversations reads, and
// counts its beginning. Strangers can make anybody a member of many conversations: so it
// never refuses because of their number. What exceeds StreamConversationsMax, what the
// account's other streams leave of their bound or what its limits let begin now is left
// out, the least recently active first. Refusals: rate_limited.
func (s *Service) SelectConversations(ctx context.Context, session string, who ds.Caller) (Selection, error) {
	// It looks at no more than its account has left: what is left out is not worked for.
	left := min(s.limits.Left(limits.Streams, string(who.Account), ""), streamShare*min(s.limits.Left(limits.Subscribes, session, ""), StreamConversationsMax))
	most := int(min(StreamConversationsMax, max(int64(followsMax-s.follows.of(who.Account)), streamConversationsMin), max(left, streamConversationsMin)))
	count, err := s.countConversations(ctx, who, most+1)
	if err != nil {
		return Selection{}, err
	}
	n := min(count, most)
	for {
		err := s.takeStream(session, who, n)
		if err == nil {
			break
		}
		if n <= streamConversationsMin {
			return Selection{}, err
		}
		n = max(n/2, streamConversationsMin)
	}
	list, err := s.activeConversations(ctx, who, n)
	if err != nil {
		return Selection{}, err
	}
	slices.Sort(list)
	return Selection{Conversations: list, More: count > len(list)}, nil
}

// RecentConversations lists the caller's most recently active conversations, as many as a
// list has.
func (s *Service) RecentConversations(ctx context.Context, who ds.Caller) ([]ds.ConversationID, error) {
	list, err := s.activeConversations(ctx, who, ConversationsMax)
	slices.Sort(list)
	return list, err
}

// activeConversations finds the most recently active of the caller's conversations among
// those that it joined first and last, in proportion to most.
func (s *Service) activeConversations(ctx context.Context, who ds.Caller, most int) (list []ds.ConversationID, err error) {
	count, err := s.countConversations(ctx, who, beginTogether+1)
	if err != nil {
		return nil, err
	}
	turn, err := s.turnFor(ctx, who.Account, min(count, candidatesPerPlace*most))
	if err != nil {
		return nil, err
	}
	defer turn.Release()
	bounds := store.ActiveBounds{Oldest: int64(candidatesPerPlace-1) * int64(most), Latest: int64(most)}
	err = s.store.Read(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.ActiveConversations(who.Account, most, bounds)
		return err
	})
	return list, err
}

func (s *Service) countConversations(ctx context.Context, who ds.Caller, most int) (count int, err error) {
	err = s.store.Read(ctx, func(tx *store.Tx) (err error) {
		count, err = tx.CountConversations(who.Account, most)
		return err
	})
	return count, err
}

// turnFor waits until a query over so many conversations may begin, and returns what ends
// its turn. Long ones take turns, so that many streams that begin at a moment leave the
// store and the processors to others.
func (s *Service) turnFor(ctx context.Context, who ds.AccountID, conversations int) (*Turn, error) {
	if conversations <= beginTogether {
		return nil, nil
	}
	return s.turnOf(ctx, s.beginnings, who)
}

// turnOf waits for one of few turns to use the store and a processor for long.
func (s *Service) turnOf(ctx context.Context, t *turns, who ds.AccountID) (*Turn, error) {
	turn, err := t.take(ctx, who, 1, func() {})
	if err != nil {
		return nil, ds.Unavailable(err)
	}
	return turn, nil
}

// FormerConversations lists conversations that the caller has left or was removed from,
// the latest entered first, as many as a stream may read: those in which a resumed stream
// may have something to finish.
func (s *Service) FormerConversations(ctx context.Context, who ds.Caller) ([]ds.ConversationID, error) {
	var list []ds.ConversationID
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.FormerConversations(who.Account, StreamConversationsMax)
		return err
	})
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
	readings, err := f.s.readingsInTurn(ctx, f.who.Account, wanted)
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

// readingsInTurn is findReadings in a turn of its own where there are many.
func (s *Service) readingsInTurn(ctx context.Context, who ds.AccountID, starts []store.Start) ([]store.Reading, error) {
	turn, err := s.turnFor(ctx, who, len(starts))
	if err != nil {
		return nil, err
	}
	defer turn.Release()
	return s.findReadings(ctx, starts)
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
