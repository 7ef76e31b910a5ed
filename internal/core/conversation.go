package core

import (
	"context"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// refuseMembers returns the refusal of more than most members.
func refuseMembers(most int64) *ds.Refusal {
	return ds.Refuse(ds.LimitExceeded, "the conversation has at most %d members", most).Because(ds.TooManyMembers)
}

// Members lists the members of the conversation: owner, admins, members, each by account. Only
// members may call it.
func (s *Service) Members(ctx context.Context, who ds.Caller, id ds.ConversationID) ([]ds.Member, error) {
	if !ds.IsValidID(string(id)) {
		return nil, refuseNotMember
	}
	list, err := store.Get(ctx, s.store.Read, func(tx *store.Tx) ([]ds.Member, error) { return tx.Conversations.Members(id) })
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(list, func(m ds.Member) bool { return m.Account == who.Account }) {
		return nil, refuseNotMember
	}
	return list, nil
}

func checkAccounts(list []ds.AccountID) error {
	if len(list) > accountsListed {
		return ds.Refuse(ds.LimitExceeded, "a list names at most %d accounts", accountsListed).Because(ds.TooManyMembers)
	}
	for _, account := range list {
		if !ds.IsValidAccount(string(account)) {
			return ds.Refuse(ds.InvalidRequest, "a user_id must be 1 to 512 bytes of UTF-8 without NUL")
		}
	}
	return nil
}

func distinct(list []ds.AccountID) []ds.AccountID {
	seen := map[ds.AccountID]bool{}
	return slices.DeleteFunc(list, func(a ds.AccountID) bool {
		double := seen[a]
		seen[a] = true
		return double
	})
}
