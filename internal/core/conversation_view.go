package core

import (
	"context"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Waiting selects the conversations of a list.
type Waiting = store.Waiting

// ConvosQuery selects a page of the caller's conversations, the latest joined first.
type ConvosQuery struct {
	Waiting Waiting
	Device  ds.DeviceID // for WaitingForDevice; "": any of the caller's
	After   ConvosPlace // the end of the previous page; zero starts
	Limit   int         // 0: the maximum, 1000
	Count   bool        // only the number of waiting conversations
}

// ConvosPlace is the end of a page of conversations.
type ConvosPlace struct {
	JoinedMS int64
	ID       ds.ConversationID
}

// The conversations that a list may select.
const (
	AnyConvo         = store.AnyConversation
	WaitingConvo     = store.WaitingForAccount // with a Welcome that no device of the caller has confirmed
	WaitingForDevice = store.WaitingForDevice  // with a Welcome for the device, or that it is waiting to be added to
)

// Convos lists conversations of the caller with their members. more reports whether there are
// others after the last; waiting is the number of all conversations with a Welcome that no
// device of the caller has confirmed. It costs the same few queries whatever the number of
// conversations.
func (s *Service) Convos(ctx context.Context, who ds.Caller, q ConvosQuery) (list []ds.View, more bool, waiting int64, err error) {
	limit := q.Limit
	if limit <= 0 || limit > ConversationsMax {
		limit = ConversationsMax
	}
	err = s.store.View(ctx, func(tx *store.Tx) error {
		var err error
		list, more = nil, false
		if waiting, err = tx.Conversations.CountWaiting(who.Account); err != nil || q.Count {
			return err
		}
		list, err = tx.Conversations.Views(store.ViewQuery{Account: who.Account, Waiting: q.Waiting, Device: q.Device,
			AfterMS: q.After.JoinedMS, After: q.After.ID, Count: int64(limit) + 1})
		if err != nil {
			return err
		}
		n := pageOf(list, limit)
		list, more = list[:n], n < len(list)
		return tx.Conversations.Participants(list)
	})
	return list, more, waiting, err
}

// pageOf returns the number of conversations of list that form one page: up to limit, and
// fewer if they have too many participants to list.
func pageOf(list []ds.View, limit int) int {
	var participants int64
	for i := range list {
		participants += list[i].Members
		if i == limit || i > 0 && participants > convosParticipantsMax {
			return i
		}
	}
	return len(list)
}

// Convo returns one conversation with its members, for a member. Refusals: forbidden.
func (s *Service) Convo(ctx context.Context, who ds.Caller, id ds.ConversationID) (ds.View, error) {
	if !ds.IsValidID(string(id)) {
		return ds.View{}, refuseNotMember
	}
	var list []ds.View
	err := s.store.View(ctx, func(tx *store.Tx) error {
		var err error
		if list, err = tx.Conversations.Views(store.ViewQuery{Account: who.Account, Only: id, Count: 1}); err != nil {
			return err
		}
		return tx.Conversations.Participants(list)
	})
	switch {
	case err != nil:
		return ds.View{}, err
	case len(list) == 0:
		return ds.View{}, refuseNotMember
	}
	return list[0], nil
}

// AdminStats returns the number of members of a conversation, for owner and admins. Refusals:
// forbidden.
func (s *Service) AdminStats(ctx context.Context, who ds.Caller, id ds.ConversationID) (members int64, err error) {
	view, err := s.Convo(ctx, who, id)
	switch {
	case err != nil:
		return 0, err
	case !view.Role.MayManage():
		return 0, refuseRights
	}
	return view.Members, nil
}
