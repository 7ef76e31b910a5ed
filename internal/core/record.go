package core

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// Whole is a record or Welcome that a page left in the store, with the turn to hold it.
type Whole struct {
	*logs.Turn
	Record  ds.Record
	Home    string // of the conversation; "" is this service
	Welcome []byte // in place of the record
}

// Record reads one message of a conversation for members, and with mayBeFormer for former
// members within their last stay, as they may follow it. An unknown conversation is refused
// like one that the caller is not a member of. Refusals: forbidden, not_found,
// replay_window_exceeded, rate_limited.
func (s *Service) Record(ctx context.Context, who ds.Caller, id ds.ConversationID, seq int64, mayBeFormer bool, cut func()) (*Whole, error) {
	if !ds.IsValidID(string(id)) {
		return nil, refuseNotMember
	}
	if err := s.limits.TakeOwn(who.Meter, limits.RecordReads, string(who.Account)); err != nil {
		return nil, err
	}
	at, err := s.logs.Reading(ctx, store.Start{Device: who.AsDevice(), Conversation: id, FromSeq: seq})
	switch {
	case err != nil:
		return nil, err
	case at.Stay.From == 0 || at.Stay.Until != 0 && !mayBeFormer:
		return nil, refuseNotMember
	case seq < at.EarliestSeq:
		return nil, &ds.Refusal{Code: ds.ReplayWindowExceeded, Message: "requested history has been pruned",
			RequestedSeq: seq, EarliestSeq: at.EarliestSeq, LatestSeq: at.Seq}
	}
	list, err := s.store.RecordsWithin(ctx, ds.ConversationLog(id), at.Before, store.Reach{Count: 8, Bytes: logs.PageFree, Body: logs.PageFree})
	if err != nil {
		return nil, err
	}
	for i := range list { // there are control records between messages
		if r := &list[i]; r.Seq == seq && (at.Stay.Until == 0 || at.Stay.From <= r.Pos && r.Pos <= at.Stay.Until) {
			return s.whole(ctx, who, r, at.Home, cut)
		}
	}
	return nil, ds.Refuse(ds.NotFound, "no such record")
}

func (s *Service) whole(ctx context.Context, who ds.Caller, r *ds.Record, home string, cut func()) (*Whole, error) {
	turn, err := s.logs.TakeTurn(ctx, who.Account, logs.TurnFactor*int64(max(r.Left, len(r.Body))), cut)
	if err != nil {
		return nil, err
	}
	if r.Left > 0 {
		if err := s.store.ReadBody(ctx, r); err != nil {
			turn.Release()
			return nil, err
		}
	}
	return &Whole{Turn: turn, Record: *r, Home: home}, nil
}

// Welcome reads one Welcome for one of its recipient devices. Refusals: not_found, also for a
// Welcome for others; rate_limited.
func (s *Service) Welcome(ctx context.Context, who ds.Caller, id string, cut func()) (*Whole, error) {
	if err := s.limits.TakeOwn(who.Meter, limits.RecordReads, string(who.Account)); err != nil {
		return nil, err
	}
	size, err := store.Get(ctx, s.store.Read, func(tx *store.Tx) (int64, error) { return tx.Welcomes.SizeFor(id, who.AsDevice()) })
	if errors.Is(err, store.ErrNotFound) {
		return nil, ds.Refuse(ds.NotFound, "no such welcome")
	}
	if err != nil {
		return nil, err
	}
	turn, err := s.logs.TakeTurn(ctx, who.Account, logs.TurnFactor*size, cut)
	if err != nil {
		return nil, err
	}
	bodies, err := store.Get(ctx, s.store.Read, func(tx *store.Tx) (map[string][]byte, error) { return tx.Welcomes.Bodies([]string{id}) })
	if err == nil && bodies[id] == nil {
		err = ds.Refuse(ds.NotFound, "no such welcome")
	}
	if err != nil {
		turn.Release()
		return nil, err
	}
	return &Whole{Turn: turn, Welcome: bodies[id]}, nil
}
