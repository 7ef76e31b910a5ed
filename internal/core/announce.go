package core

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// Announce sends the members of a conversation an announcement that is in no log. Refusals:
// forbidden for non-members.
func (s *Service) Announce(ctx context.Context, who ds.Caller, id ds.ConversationID, a logs.Announcement) error {
	_, err := s.AnnounceAt(ctx, who, id, a)
	return err
}

// AnnounceAt does the work of Announce, and returns the completed announcement.
func (s *Service) AnnounceAt(ctx context.Context, who ds.Caller, id ds.ConversationID, a logs.Announcement) (logs.Announcement, error) {
	if !ds.IsValidID(string(id)) {
		return a, refuseNotMember
	}
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		a.Pos, err = tx.Conversations.Standing(who.Account, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return a, refuseNotMember
	}
	if err != nil {
		return a, err
	}
	a.Account, a.AtMS, a.Frames = who.Account, s.now().UnixMilli(), &logs.Frames{}
	s.logs.Announce(id, &a)
	return a, nil
}
