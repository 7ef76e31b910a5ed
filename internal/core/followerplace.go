package core

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

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
	readings, err := f.s.findReadings(ctx, wanted)
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

// PlaceID names a stored list of places. It is short enough for a cursor.
type PlaceID uint64

// placePrefix marks the entry of a stored list that names the one it builds upon.
const placePrefix = "p/"

// SavePlaces stores where a stream of the caller's stands, for a week, under a new name:
// the next pos that it wants of each log. Those of the list upon, if it is not 0, need not
// be named where they have not moved; upon is one that builds upon none. It is durable
// when SavePlaces returns.
func (s *Service) SavePlaces(ctx context.Context, who ds.Caller, upon PlaceID, next []ds.Cursor) (PlaceID, error) {
	position := store.StreamPosition{Device: who.AsDevice(), Next: next}
	if upon != 0 {
		position.Next = append([]ds.Cursor{{Log: ds.LogID(fmt.Sprintf("%s%x", placePrefix, uint64(upon)))}}, next...)
	}
	_, _ = rand.Read(position.ID[:8]) // never fails (crypto/rand)
	position.ID[0] |= 1               // never 0
	_, err := s.positions.ask(ctx, position)
	return PlaceID(binary.BigEndian.Uint64(position.ID[:])), err
}

// Places finds what SavePlaces stored for the same account, whole and in the order in
// which logs came. Refusals: invalid_request for a name that is unknown, too old or
// somebody else's.
func (s *Service) Places(ctx context.Context, who ds.Caller, id PlaceID) ([]ds.Cursor, error) {
	list, err := s.places(ctx, who, id)
	if err != nil || len(list) == 0 || !strings.HasPrefix(string(list[0].Log), placePrefix) {
		return list, err
	}
	upon, err := strconv.ParseUint(strings.TrimPrefix(string(list[0].Log), placePrefix), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("stored places: %w", err)
	}
	whole, err := s.places(ctx, who, PlaceID(upon))
	if err != nil {
		return nil, err
	}
	at := make(map[ds.LogID]int, len(whole))
	for i, c := range whole {
		at[c.Log] = i
	}
	for _, c := range list[1:] {
		if i, ok := at[c.Log]; ok {
			whole[i] = c
		} else {
			whole = append(whole, c)
		}
	}
	return whole, nil
}

func (s *Service) places(ctx context.Context, who ds.Caller, id PlaceID) ([]ds.Cursor, error) {
	var name StreamID
	binary.BigEndian.PutUint64(name[:], uint64(id))
	var list []ds.Cursor
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.StreamPosition(name, who.AsDevice(), streamLifetime)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, ds.Refuse(ds.InvalidRequest, "cursor: unknown, expired or of another account")
	}
	return list, err
}
