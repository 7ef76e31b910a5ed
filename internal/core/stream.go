package core

import (
	"context"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// TakeStream counts the start of a stream that reads that many conversations. Refusals:
// rate_limited, limit_exceeded for more than the account may read at a time.
func (s *Service) TakeStream(session string, who ds.Caller, conversations int) error {
	if conversations > s.logs.FollowsLeft(who.Account) {
		return logs.RefuseFollows
	}
	return s.takeStream(session, who, conversations)
}

func (s *Service) takeStream(session string, who ds.Caller, conversations int) error {
	if r := s.limits.TakeN(who.Meter, limits.Subscribes, session, "", int64(max(1, conversations/streamShare))); r != nil {
		return r
	}
	if r := s.limits.TakeN(who.Meter, limits.Streams, string(who.Account), "", int64(max(1, conversations))); r != nil {
		return r
	}
	return nil
}

// Selection holds the conversations that a stream without a list reads.
type Selection struct {
	Conversations []ds.ConversationID // the most recently active ones, in the order of their ids
	More          bool                // there are others, which it does not read
}

// SelectConversations chooses the conversations of a stream of all the caller's, and counts
// its start. Strangers can make any account a member of many conversations: so it never
// refuses because of their number. Conversations beyond StreamConversationsMax, beyond the
// bound that the account's other streams leave or beyond its current limits are omitted, the
// least recently active first. Refusals: rate_limited.
func (s *Service) SelectConversations(ctx context.Context, session string, who ds.Caller) (Selection, error) {
	// It reads no more than its account has left: omitted conversations must cost nothing.
	left := min(s.limits.Left(limits.Streams, string(who.Account), ""), streamShare*min(s.limits.Left(limits.Subscribes, session, ""), logs.StreamConversationsMax))
	most := int(min(logs.StreamConversationsMax, max(int64(s.logs.FollowsLeft(who.Account)), streamConversationsMin), max(left, streamConversationsMin)))
	count, err := s.countConversations(ctx, who, max(most, logs.QueryFree)+1)
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
	list, err := s.activeConversations(ctx, who, n, count)
	if err != nil {
		return Selection{}, err
	}
	slices.Sort(list)
	return Selection{Conversations: list, More: count > len(list)}, nil
}

// RecentConversations lists the caller's most recently active conversations, at most
// ConversationsMax.
func (s *Service) RecentConversations(ctx context.Context, who ds.Caller) ([]ds.ConversationID, error) {
	count, err := s.countConversations(ctx, who, logs.QueryFree+1)
	if err != nil {
		return nil, err
	}
	list, err := s.activeConversations(ctx, who, ConversationsMax, count)
	slices.Sort(list)
	return list, err
}

// activeConversations finds the most recently active of the caller's conversations among
// those that it joined first and last, in proportion to most. count is the number of all of
// them, or at least QueryFree+1.
func (s *Service) activeConversations(ctx context.Context, who ds.Caller, most, count int) ([]ds.ConversationID, error) {
	turn, err := s.logs.TakeQuery(ctx, who.Account, min(count, candidatesPerPlace*most))
	if err != nil {
		return nil, err
	}
	defer turn.Release()
	bounds := store.ActiveBounds{Oldest: int64(candidatesPerPlace-1) * int64(most), Latest: int64(most)}
	return store.Get(ctx, s.store.Read, func(tx *store.Tx) ([]ds.ConversationID, error) {
		return tx.Conversations.Active(who.Account, most, bounds)
	})
}

func (s *Service) countConversations(ctx context.Context, who ds.Caller, most int) (int, error) {
	return store.Get(ctx, s.store.Read, func(tx *store.Tx) (int, error) { return tx.Conversations.Count(who.Account, most) })
}

// FormerConversations lists conversations that the caller has left or was removed from, the
// latest entered first, at most StreamConversationsMax: a resumed stream may have records left
// to read in them.
func (s *Service) FormerConversations(ctx context.Context, who ds.Caller) ([]ds.ConversationID, error) {
	return store.Get(ctx, s.store.Read, func(tx *store.Tx) ([]ds.ConversationID, error) {
		return tx.Conversations.Former(who.Account, logs.StreamConversationsMax)
	})
}
