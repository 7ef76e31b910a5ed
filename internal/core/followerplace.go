package core

import (
	"context"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Place is where to begin to read a conversation, by pos.
type Place struct {
	Conversation ds.ConversationID
	After        int64 // behind that record, or AtHead or AtJoin
	// MayBeLost passes over the conversation if the caller is no member; otherwise that
	// refuses all.
	MayBeLost bool
}

// The places that need no pos.
const (
	AtHead int64 = -1 // only what is still to come
	AtJoin int64 = -2 // the record with which the caller's stay began, and what follows
)

// Begun is where a follow has begun.
type Begun struct {
	Pos     int64 // of the record before the first that will be read
	Head    int64 // of the last record there was
	IsLost  bool  // the caller is no member
	IsReset bool  // what followed the place is not there any more, so it began at the head
}

// FollowPlaces is FollowAll by pos. A former member, where those may read on, is refused
// unless its place is before the record that ended its stay.
func (f *Follower) FollowPlaces(ctx context.Context, places []Place) ([]Begun, error) {
	if len(places) == 0 {
		return nil, nil
	}
	all, wanted := make([]*follow, len(places)), make([]store.Start, len(places))
	for i, p := range places {
		all[i] = f.register(ds.ConversationLog(p.Conversation))
		// From the earliest message, to learn where that is.
		wanted[i] = store.Start{Device: f.who.AsDevice(), Conversation: p.Conversation, FromSeq: 1}
	}
	readings, err := f.s.readingsInTurn(ctx, f.who.Account, wanted)
	if err != nil {
		return nil, f.start(err, all...)
	}
	begun := make([]Begun, len(places))
	var follows []*follow
	for i, p := range places {
		begun[i], err = f.beginAt(all[i], readings[i], p.After)
		switch {
		case err == nil:
			follows = append(follows, all[i])
		case p.MayBeLost:
			begun[i] = Begun{IsLost: true}
			f.s.unfollow(all[i])
		default:
			return nil, f.start(err, all...)
		}
	}
	return begun, f.start(nil, follows...)
}

// beginAt is begin by pos. at was read from the earliest message.
func (f *Follower) beginAt(next *follow, at store.Reading, after int64) (Begun, error) {
	last := at.Stay
	if last.From == 0 || last.Until != 0 && !f.Former {
		return Begun{}, refuseNotMember
	}
	b := Begun{Pos: after, Head: at.Pos}
	switch {
	case after == AtHead:
		b.Pos = at.Pos
	case after == AtJoin:
		b.Pos = last.From - 1
	case after > at.Pos, at.EarliestSeq > 1 && after < at.Before:
		b = Begun{Pos: at.Pos, Head: at.Pos, IsReset: true}
	}
	next.home, next.asOf, next.goal, next.head = at.Home, at.Pos, at.Pos, at.Seq
	if last.Until != 0 {
		if b.Pos >= last.Until {
			return Begun{}, refuseNotMember
		}
		b.Pos, next.asOf = max(b.Pos, last.From-1), last.From
	}
	next.pos.Store(b.Pos)
	return b, nil
}
