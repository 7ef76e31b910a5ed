package core

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// refuseMembers says how many members the rules of a conversation allow.
func refuseMembers(most int64) *ds.Refusal {
	return ds.Refuse(ds.LimitExceeded, "the conversation has at most %d members", most).Because(ds.TooManyMembers)
}

// CreateRoom opens a conversation whose owner is the caller. Members need not
// exist; doubles and the caller count once. Refusals: invalid_request (also for an
// id that is taken), limit_exceeded, rate_limited.
func (s *Service) CreateRoom(ctx context.Context, who ds.Caller, id ds.ConversationID, members []ds.AccountID) error {
	if err := checkConversationID(id); err != nil {
		return err
	}
	if err := checkAccounts(members); err != nil {
		return err
	}
	all := distinct(append([]ds.AccountID{who.Account}, members...))
	if len(all) > membersMax {
		return refuseMembers(membersMax)
	}
	return s.create(ctx, who, id, all, limits.RoomCreates)
}

// CreateDM opens a conversation of two, owned by the caller. Without an id one is
// made up. Refusals: as CreateRoom, and rate_limited.
func (s *Service) CreateDM(ctx context.Context, who ds.Caller, peer ds.AccountID, id ds.ConversationID) (ds.ConversationID, error) {
	if strings.TrimSpace(string(peer)) == "" || !ds.IsValidAccount(string(peer)) {
		return "", ds.Refuse(ds.InvalidRequest, "peer_user_id must be 1 to 512 bytes of UTF-8 without NUL")
	}
	if peer == who.Account {
		return "", ds.Refuse(ds.InvalidRequest, "peer_user_id is the caller")
	}
	if id == "" {
		var random [12]byte
		rand.Read(random[:])
		id = ds.ConversationID("dm_" + base64.RawURLEncoding.EncodeToString(random[:]))
	}
	if !isDMID(id) {
		return "", ds.Refuse(ds.InvalidRequest, "invalid conv_id")
	}
	return id, s.create(ctx, who, id, []ds.AccountID{who.Account, peer}, limits.DMCreates)
}

// isDMID is the stricter alphabet of dms/create (gateway v1, section 8).
func isDMID(id ds.ConversationID) bool {
	for _, r := range string(id) {
		if r == utf8.RuneError || r != '_' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return ds.IsValidID(string(id))
}

// create opens a conversation under a limit per account. Attempts at names that are taken
// count too, unless it is the caller's own conversation.
func (s *Service) create(ctx context.Context, who ds.Caller, id ds.ConversationID, members []ds.AccountID, limit string) error {
	r := &request{conversation: id, who: who, bytes: nameBytes(members)}
	r.rule = func(c *conversation, nowMS int64) error {
		if c.isMember(who.Account) {
			return refuseExists
		}
		if r := s.chargeAccount(c, limit, who); r != nil {
			return r
		}
		if c.exists {
			return refuseExists
		}
		if r := s.chargeBytes(c, who, c.enteringBytes(members)); r != nil {
			return r
		}
		c.open(id, nowMS)
		c.head.RecordSenders = s.recordSenders
		c.changeMembers(who.Account, members, nil, nowMS)
		return nil
	}
	return s.submit(ctx, r)
}

// open makes the conversation exist within the batch. The membership record that
// follows is the first of its log.
func (c *conversation) open(id ds.ConversationID, nowMS int64) {
	c.exists, c.created, c.touched = true, true, true
	c.head = ds.Conversation{ID: id, Term: 1, CreatedMS: nowMS, Policy: ds.DefaultPolicy()}
	c.known, c.intervals, c.answers = nil, nil, nil
}

// Invite makes accounts members of the conversation; those that are already stay
// what they are. Refusals: invalid_request, forbidden, rate_limited, limit_exceeded.
func (s *Service) Invite(ctx context.Context, who ds.Caller, id ds.ConversationID, members []ds.AccountID) error {
	may := func(c *conversation) bool { return c.mayAdd(who.Account) }
	return s.manage(ctx, who, id, members, limits.Invites, may, func(c *conversation, nowMS int64) error {
		if err := c.hasRoom(members, nil); err != nil {
			return err
		}
		if r := s.chargeBytes(c, who, c.enteringBytes(members)); r != nil {
			return r
		}
		c.changeMembers(who.Account, members, nil, nowMS)
		return nil
	})
}

// Remove ends the membership of accounts; those that are no members are passed
// over. A list that names the owner removes nobody. Refusals: invalid_request,
// forbidden, rate_limited.
func (s *Service) Remove(ctx context.Context, who ds.Caller, id ds.ConversationID, members []ds.AccountID) error {
	may := func(c *conversation) bool {
		for _, account := range members {
			if !c.mayRemove(who.Account, account) {
				return false
			}
		}
		return len(members) > 0 || c.role(who.Account).MayManage()
	}
	return s.manage(ctx, who, id, members, limits.Removes, may, func(c *conversation, nowMS int64) error {
		c.changeMembers(who.Account, nil, members, nowMS)
		return nil
	})
}

// manage is what all changes of other people's membership have in common; change is
// called once the caller may make them.
func (s *Service) manage(ctx context.Context, who ds.Caller, id ds.ConversationID, members []ds.AccountID, limit string,
	may func(c *conversation) bool, change func(c *conversation, nowMS int64) error) error {
	if err := checkConversationID(id); err != nil {
		return err
	}
	if err := checkAccounts(members); err != nil {
		return err
	}
	r := &request{conversation: id, who: who, accounts: members, bytes: nameBytes(members)}
	r.rule = func(c *conversation, nowMS int64) error {
		if _, _, err := c.admit(who, ""); err != nil {
			return err
		}
		if r := s.charge(c, limit, who); r != nil {
			return r
		}
		if !may(c) {
			return refuseRights
		}
		if err := c.isHome(); err != nil {
			return err
		}
		return change(c, nowMS)
	}
	return s.submit(ctx, r)
}

// Leave ends the caller's own membership; what is delivered to it ends with the
// record that says so. The owner leaves as the last member, or names the member who
// is the owner from then on; nobody else may name one. Refusals: invalid_request,
// forbidden, rate_limited.
func (s *Service) Leave(ctx context.Context, who ds.Caller, id ds.ConversationID, newOwner ds.AccountID) error {
	if err := checkConversationID(id); err != nil {
		return err
	}
	r := &request{conversation: id, who: who}
	if newOwner != "" {
		r.accounts = []ds.AccountID{newOwner}
		if err := checkAccounts(r.accounts); err != nil {
			return err
		}
	}
	r.rule = func(c *conversation, nowMS int64) error { return s.decideLeave(c, who, newOwner, nowMS) }
	return s.submit(ctx, r)
}

// decideLeave is the rule of Leave. It changes c only when it accepts.
func (s *Service) decideLeave(c *conversation, who ds.Caller, newOwner ds.AccountID, nowMS int64) error {
	if _, _, err := c.admit(who, ""); err != nil {
		return err
	}
	if r := s.charge(c, limits.Removes, who); r != nil {
		return r
	}
	if err := c.mayLeave(who.Account, newOwner); err != nil {
		return err
	}
	if err := c.isHome(); err != nil {
		return err
	}
	if newOwner != "" {
		c.changeRole(who.Account, newOwner, ds.Owner, nowMS)
	}
	c.changeMembers(who.Account, nil, []ds.AccountID{who.Account}, nowMS)
	return nil
}

// mayLeave is who may leave how: a conversation with members has an owner.
func (c *conversation) mayLeave(account, newOwner ds.AccountID) error {
	isOwner := c.role(account) == ds.Owner
	switch {
	case newOwner == "" && isOwner && c.head.Members > 1:
		return ds.Refuse(ds.Forbidden, "the owner must name a new_owner")
	case newOwner == "":
		return nil
	case !isOwner:
		return refuseRights
	case newOwner == account || !c.isMember(newOwner):
		return ds.Refuse(ds.InvalidRequest, "new_owner is not another member")
	}
	return nil
}

// Members lists who is in the conversation: owner, admins, members, each by
// account. Only members may ask.
func (s *Service) Members(ctx context.Context, who ds.Caller, id ds.ConversationID) ([]ds.Member, error) {
	if !ds.IsValidID(string(id)) {
		return nil, refuseNotMember
	}
	var list []ds.Member
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		list, err = tx.Members(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(list, func(m ds.Member) bool { return m.Account == who.Account }) {
		return nil, refuseNotMember
	}
	return list, nil
}

// ListPlace is where a page of conversations ends; the zero value is before all of them.
type ListPlace = store.ListPlace

// Conversations lists what the caller is a member of behind a place, oldest first: up to
// limit of them, and no further one once there are too many members to list. more reports
// whether there are others. A page costs two statements whatever its size.
// Refusal: rate_limited, for the first of them looks at each stay of the account.
func (s *Service) Conversations(ctx context.Context, who ds.Caller, after ListPlace, limit int) (list []ds.Summary, more bool, err error) {
	if err := s.limits.Take(limits.Lists, string(who.Account)); err != nil {
		return nil, false, err
	}
	limit = max(1, min(limit, ConversationsMax))
	err = s.store.View(ctx, func(tx *store.Tx) error {
		found, err := tx.Conversations(who.Account, after, limit+1)
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
		return tx.MemberLists(list, listMembersInline)
	})
	return list, more, err
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
