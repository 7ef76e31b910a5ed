package core

import (
	"context"
	"math"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// HistoryQuery selects a page of a conversation's messages.
type HistoryQuery struct {
	SinceSeq int64 // the messages after this one
	Limit    int   // 1 to 100
	// Apps and Commits select only these. Both or neither selects every message, proposals
	// too: a member who misses one cannot process the commit that refers to it.
	Apps, Commits bool
	// FromEpoch and ToEpoch bound the epochs that commits begin; nil is no bound.
	FromEpoch, ToEpoch *int64
	// JoinEpoch omits messages sent before this epoch of the current group.
	JoinEpoch *int64
	// Bytes bounds the bodies of the page, which ends with the one that exceeds it. Messages
	// with a body longer than Body are reported as missing.
	Bytes, Body int
	// Room is called once, before a page of more than historyFreeBytes is read; its error is
	// returned.
	Room func() error
}

// History holds a page of messages, and its omissions.
type History struct {
	Records    []ds.Record // in the order of seq
	Seq        int64       // the conversation's last
	Missing    []int64     // requested seqs that are pruned or too long, up to 1 000 of them
	HasGaps    bool
	Suppressed int64 // messages omitted because of JoinEpoch
}

// History reads messages that the caller, a member, may see. A page has at least one message
// if one fits. It writes nothing. Refusals: forbidden, invalid_request.
func (s *Service) History(ctx context.Context, who ds.Caller, id ds.ConversationID, q HistoryQuery) (History, error) {
	page, err := q.page()
	if err != nil {
		return History{}, err
	}
	at, err := s.memberReading(ctx, who, id, q.SinceSeq+1)
	if err != nil {
		return History{}, err
	}
	log := ds.ConversationLog(id)
	h := History{Seq: at.Seq, HasGaps: q.SinceSeq+1 < at.EarliestSeq}
	for seq := q.SinceSeq + 1; seq < at.EarliestSeq && len(h.Missing) < historyGapsMax; seq++ {
		h.Missing = append(h.Missing, seq)
	}
	page.UntilSeq = at.Seq // the membership was checked there; later messages are not included
	if q.JoinEpoch != nil {
		first, err := s.joinSeq(ctx, id, *q.JoinEpoch, at.Seq)
		if err != nil {
			return History{}, err
		}
		after := max(q.SinceSeq, at.EarliestSeq-1)
		if h.Suppressed, err = s.countMessages(ctx, log, page, after, first); err != nil {
			return History{}, err
		}
		page.SinceSeq = max(page.SinceSeq, first-1)
	}
	full := page.Reach
	page.Bytes, page.Body = min(page.Bytes, historyFreeBytes), min(page.Body, historyFreeBytes)
	for isSmall := true; ; {
		list, err := s.store.History(ctx, log, page)
		if err != nil {
			return h, err
		}
		if isSmall && isLargePage(list) {
			isSmall, page.Reach = false, full
			if q.Room != nil {
				if err := q.Room(); err != nil {
					return h, err
				}
			}
			continue
		}
		for _, r := range list {
			if r.Left == 0 {
				h.Records = append(h.Records, r)
				continue
			}
			if h.HasGaps = true; len(h.Missing) < historyGapsMax {
				h.Missing = append(h.Missing, r.Seq)
			}
		}
		if len(list) < page.Count || len(h.Records) > 0 {
			return h, nil
		}
		page.SinceSeq = list[len(list)-1].Seq // all of them were too long
	}
}

// isLargePage reports whether a small page has omitted something.
func isLargePage(list []ds.Record) bool {
	bytes := 0
	for i := range list {
		if bytes += len(list[i].Body); bytes > historyFreeBytes || list[i].Left > 0 {
			return true
		}
	}
	return false
}

// page returns the query in the store's form.
func (q *HistoryQuery) page() (store.HistoryPage, error) {
	p := store.HistoryPage{SinceSeq: q.SinceSeq, Apps: q.Apps, Commits: q.Commits, ToEpoch: math.MaxInt64,
		Reach: store.Reach{Count: q.Limit, Bytes: q.Bytes, Body: q.Body}}
	if q.FromEpoch != nil {
		p.FromEpoch = *q.FromEpoch
	}
	if q.ToEpoch != nil {
		p.ToEpoch = *q.ToEpoch
	}
	switch {
	case q.Limit < 1 || q.Limit > historyCountMax:
		return p, ds.Refuse(ds.InvalidRequest, "limit must be 1 to %d", historyCountMax)
	case q.SinceSeq < 0 || q.SinceSeq == math.MaxInt64:
		return p, ds.Refuse(ds.InvalidRequest, "the seq is out of range")
	case p.FromEpoch > p.ToEpoch:
		return p, ds.Refuse(ds.InvalidRequest, "the epochs end before they begin")
	}
	return p, nil
}

// memberReading returns the data that a member needs to begin reading at a seq.
func (s *Service) memberReading(ctx context.Context, who ds.Caller, id ds.ConversationID, fromSeq int64) (store.Reading, error) {
	if !ds.IsValidID(string(id)) {
		return store.Reading{}, refuseNotMember
	}
	at, err := s.logs.Reading(ctx, store.Start{Device: who.AsDevice(), Conversation: id, FromSeq: fromSeq})
	if err == nil && (at.Stay.From == 0 || at.Stay.Until != 0) {
		err = refuseNotMember
	}
	return at, err
}

// joinSeq returns the seq of the first message that is not from before an epoch, or the one
// after the last if all are.
func (s *Service) joinSeq(ctx context.Context, id ds.ConversationID, epoch, seq int64) (int64, error) {
	first := int64(1)
	err := s.store.View(ctx, func(tx *store.Tx) error {
		head, err := tx.Logs.Head(id)
		if err != nil {
			return err
		}
		commit, begins, err := tx.Logs.FirstCommit(ds.ConversationLog(id), head.Generation, epoch)
		switch {
		case err != nil:
		case commit > 0 && begins == epoch:
			first = commit
		case commit == 0 && head.Epoch < epoch:
			first = seq + 1
		default: // the group was in that epoch or a later one when it came here
			first = 1
		}
		return err
	})
	return first, err
}

// countMessages counts the messages of a page's kind after one seq and before another. Seqs
// have no gaps and commits are few, so only commits are counted one by one; proposals count as
// application messages.
func (s *Service) countMessages(ctx context.Context, log ds.LogID, page store.HistoryPage, after, before int64) (int64, error) {
	all := before - 1 - after
	if all <= 0 {
		return 0, nil
	}
	var commits, wanted int64
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		if commits, err = tx.Logs.CommitsBetween(log, after, before, 0, math.MaxInt64); err == nil {
			wanted, err = tx.Logs.CommitsBetween(log, after, before, page.FromEpoch, page.ToEpoch)
		}
		return err
	})
	switch {
	case page.Commits && !page.Apps:
		return wanted, err
	case page.Apps && !page.Commits:
		return all - commits, err
	}
	return all - commits + wanted, err
}

// Stored returns a record with all its stored data, for an answer without a body; or known
// itself if the record is gone.
func (s *Service) Stored(ctx context.Context, known ds.Record) (ds.Record, error) {
	list, err := s.store.RecordsAfter(ctx, known.Log, known.Pos-1, 1, 1)
	if len(list) == 1 && list[0].Pos == known.Pos {
		known = list[0]
	}
	return known, err
}

// Head returns the head of a conversation, for a member. Refusals: forbidden.
func (s *Service) Head(ctx context.Context, who ds.Caller, id ds.ConversationID) (head ds.Conversation, err error) {
	err = s.viewAsMember(ctx, who, id, func(tx *store.Tx) (err error) {
		head, err = tx.Logs.Head(id)
		return err
	})
	return head, err
}

// MessagePositions returns the positions of messages of a conversation, for a member; unknown ids
// are omitted. Only the first 50 ids count. The records have no body. Refusals: forbidden.
func (s *Service) MessagePositions(ctx context.Context, who ds.Caller, id ds.ConversationID, messages []ds.MessageID) ([]ds.Record, error) {
	var list []ds.Record
	keys := make([]store.MessageKey, 0, placesMax)
	for _, message := range messages[:min(len(messages), placesMax)] {
		if ds.IsValidID(string(message)) {
			keys = append(keys, store.MessageKey{Conversation: id, ID: message})
		}
	}
	err := s.viewAsMember(ctx, who, id, func(tx *store.Tx) error {
		answers, err := tx.Logs.Answers(keys)
		for _, key := range keys {
			if answer, ok := answers[key]; ok {
				list = append(list, recordOf(id, key.ID, answer))
				delete(answers, key) // a repeated id is answered once
			}
		}
		return err
	})
	return list, err
}

// viewAsMember runs fn in a snapshot in which the caller is a member.
func (s *Service) viewAsMember(ctx context.Context, who ds.Caller, id ds.ConversationID, fn func(*store.Tx) error) error {
	if !ds.IsValidID(string(id)) {
		return refuseNotMember
	}
	key := store.MemberKey{Conversation: id, Account: who.Account}
	return s.store.View(ctx, func(tx *store.Tx) error {
		stays, err := tx.Conversations.Intervals([]store.MemberKey{key})
		if err != nil {
			return err
		}
		if list := stays[key]; len(list) == 0 || list[len(list)-1].Until != 0 {
			return refuseNotMember
		}
		return fn(tx)
	})
}

// ReadMark is the end of what a caller has read: a message, a seq, a pos or, with All, the end
// of the log. With none of these nothing is marked, only the membership is checked.
type ReadMark struct {
	MessageID ds.MessageID
	Seq       *int64
	Pos       *int64
	All       bool
}

// MarkRead records how far the caller has read; the mark never moves back and is durable when
// MarkRead returns. A pos beyond the conversation's end is ignored. Refusals: forbidden,
// not_found (no such message).
func (s *Service) MarkRead(ctx context.Context, who ds.Caller, id ds.ConversationID, mark ReadMark) error {
	at, err := s.memberReading(ctx, who, id, 1)
	if err != nil {
		return err
	}
	seq := int64(0)
	switch {
	case mark.MessageID != "":
		places, err := s.MessagePositions(ctx, who, id, []ds.MessageID{mark.MessageID})
		if err != nil {
			return err
		}
		if len(places) == 0 {
			return ds.Refuse(ds.NotFound, "no such message").Because(ds.NoMessage)
		}
		seq = places[0].Seq
	case mark.Seq != nil:
		seq = *mark.Seq
	case mark.Pos != nil && *mark.Pos <= at.Pos:
		seq, err = store.Get(ctx, s.store.Read, func(tx *store.Tx) (int64, error) { return tx.Logs.SeqAt(ds.ConversationLog(id), *mark.Pos) })
	case mark.All:
		seq = at.Seq
	}
	if err != nil || seq < 1 {
		return err
	}
	return s.logs.WriteCursor(ctx, who.AsDevice(), ds.ConversationLog(id), min(seq, at.Seq)+1)
}

// Now returns the time of the service's clock in milliseconds.
func (s *Service) Now() int64 { return s.now().UnixMilli() }
