package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// Members lists the members of a conversation: owner, admins, members, each by account.
func (co Conversations) Members(id ds.ConversationID) ([]ds.Member, error) {
	var list []ds.Member
	err := co.tx.each(func(scan func(...any) error) error {
		var m ds.Member
		err := scan(&m.Account, &m.Role)
		list = append(list, m)
		return err
	}, `SELECT account, role FROM intervals WHERE log_id = $1 AND until_pos IS NULL
		ORDER BY CASE role WHEN 'owner' THEN 0 WHEN 'admin' THEN 1 ELSE 2 END, account`, string(ds.ConversationLog(id)))
	return list, err
}

// ListPlace is the end of a page of an account's conversations: one of them, in the order in
// which they were created.
type ListPlace struct {
	CreatedMS int64
	ID        ds.ConversationID
}

// List lists the conversations that account is in after a place, oldest first, at most
// count of them, without their members.
func (co Conversations) List(account ds.AccountID, after ListPlace, count int) ([]ds.Summary, error) {
	var list []ds.Summary
	err := co.tx.each(func(scan func(...any) error) error {
		var s ds.Summary
		var earliest int64
		c, err := scanHead(func(dest ...any) error { return scan(append(dest, &s.Role, &earliest)...) })
		s.Conversation = c
		if c.Seq >= earliest {
			s.EarliestSeq = earliest
		}
		list = append(list, s)
		return err
	}, `SELECT `+headColumns+`, role, earliest_seq FROM (
			SELECT l.*, i.role FROM intervals i JOIN logs l ON l.log_id = i.log_id
			WHERE i.account = $1 AND i.until_pos IS NULL AND (l.created_ms > $2 OR l.created_ms = $2 AND l.log_id > $3)) AS mine
		ORDER BY created_ms, log_id LIMIT `+bound(4), string(account), after.CreatedMS, string(ds.ConversationLog(after.ID)), int64(count))
	return list, err
}

// MemberLists fills in the members of those conversations that have at most inline members.
func (co Conversations) MemberLists(list []ds.Summary, inline int64) error {
	index := map[ds.LogID]*ds.Summary{}
	var logs []string
	for i := range list {
		if s := &list[i]; s.Members <= inline {
			log := ds.ConversationLog(s.ID)
			index[log], logs = s, append(logs, string(log))
		}
	}
	if len(logs) == 0 {
		return nil
	}
	return co.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var member ds.AccountID
		if err := scan(&log, &member); err != nil {
			return err
		}
		index[log].MemberList = append(index[log].MemberList, member)
		return nil
	}, `SELECT log_id, account FROM intervals WHERE log_id `+co.tx.in(1)+` AND until_pos IS NULL ORDER BY log_id, account`, co.tx.setOf(logs))
}

// GroupInfo returns the newest GroupInfo that a commit of the conversation carried.
func (co Conversations) GroupInfo(id ds.ConversationID) ([]byte, error) {
	var body []byte
	err := co.tx.row(`SELECT group_info FROM conversation_details WHERE log_id = $1`, string(ds.ConversationLog(id))).Scan(bodyInto(&body))
	return body, notFound(err)
}

// setRoles changes the roles of stays, which their beginnings identify. The stay of a plain
// member keeps no trace of its earlier role.
func (co Conversations) setRoles(list []Stay) error {
	for _, s := range list {
		if s.Interval.Role == ds.Plain {
			s.AtMS, s.By = 0, ""
		}
		if err := co.tx.later(`UPDATE intervals SET role = $4, promoted_ms = $5, promoted_by = $6 WHERE log_id = $1 AND account = $2 AND from_pos = $3`,
			string(ds.ConversationLog(s.Conversation)), string(s.Account), s.Interval.From, string(s.Interval.Role), s.AtMS, string(s.By)); err != nil {
			return err
		}
	}
	return nil
}

// CountStays returns the number of the conversations, each named once, that account is in.
func (co Conversations) CountStays(account ds.AccountID, ids []ds.ConversationID) (int, error) {
	logs := make([]string, len(ids))
	for i, id := range ids {
		logs[i] = string(ds.ConversationLog(id))
	}
	var n int64
	err := co.tx.row(`SELECT COUNT(*) FROM intervals WHERE log_id `+co.tx.in(1)+` AND account = $2 AND until_pos IS NULL`,
		co.tx.setOf(logs), string(account)).Scan(&n)
	return int(n), err
}

// Acquainted lists, at most max, the accounts that share a conversation with account: among
// targets if there are any, and only in that conversation unless it is "". With neither it
// returns the account itself.
func (co Conversations) Acquainted(account ds.AccountID, targets []ds.AccountID, conversation ds.ConversationID, max int) ([]ds.AccountID, error) {
	if len(targets) == 0 && conversation == "" {
		return []ds.AccountID{account}, nil
	}
	log := ""
	if conversation != "" {
		log = string(ds.ConversationLog(conversation))
	}
	args, only := []any{string(account), log, int64(max)}, "o.account <> $1"
	if len(targets) > 0 {
		args, only = append(args, co.tx.setOf(texts(targets))), "o.account "+co.tx.in(4)
	}
	var list []ds.AccountID
	err := co.tx.each(func(scan func(...any) error) error {
		var other ds.AccountID
		err := scan(&other)
		list = append(list, other)
		return err
	}, `SELECT DISTINCT o.account FROM intervals m JOIN intervals o ON o.log_id = m.log_id AND o.until_pos IS NULL
		WHERE m.account = $1 AND m.until_pos IS NULL AND ($2 = '' OR m.log_id = $2) AND `+only+`
		ORDER BY o.account LIMIT `+bound(3), args...)
	return list, err
}
