package core

import (
	"context"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// ListPlace is the end of a page of conversations; the zero value precedes all of them.
type ListPlace = store.ListPlace

// Conversations lists the conversations that the caller is a member of after a place, oldest
// first: up to limit, and fewer if they have too many members to list. more reports whether
// there are others. A page costs two statements whatever its size. Refusal: rate_limited,
// because the first statement reads each stay of the account.
func (s *Service) Conversations(ctx context.Context, who ds.Caller, after ListPlace, limit int) (list []ds.Summary, more bool, err error) {
	if err := s.limits.TakeOwn(who.Meter, limits.Lists, string(who.Account)); err != nil {
		return nil, false, err
	}
	limit = max(1, min(limit, ConversationsMax))
	err = s.store.View(ctx, func(tx *store.Tx) error {
		found, err := tx.Conversations.List(who.Account, after, limit+1)
		if err != nil {
			return err
		}
		n, members := 0, int64(0)
		for n < min(len(found), limit) {
			if m := found[n].Members; m <= listMembersInline {
				members += m
			}
			if n > 0 && members > listMembersMax {
				break
			}
			n++
		}
		list, more = found[:n], n < len(found)
		return tx.Conversations.MemberLists(list, listMembersInline)
	})
	return list, more, err
}
