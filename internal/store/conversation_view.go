package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// Waiting filters a list of an account's conversations by waiting Welcomes.
type Waiting int

// The filters.
const (
	// AnyConversation selects all conversations.
	AnyConversation Waiting = iota
	// WaitingForAccount selects those with a Welcome that no device of the account has
	// confirmed.
	WaitingForAccount
	// WaitingForDevice selects those with a Welcome that waits for the device or for any of the
	// account, and those that the device waits to be added to.
	WaitingForDevice
)

// ViewQuery selects a page of an account's conversations, latest joined first.
type ViewQuery struct {
	Account ds.AccountID
	Only    ds.ConversationID // only this one; "": all
	Waiting Waiting
	Device  ds.DeviceID // for WaitingForDevice; "": any of the account's
	// After is the last conversation of the previous page, as its place in that order; the zero
	// value starts.
	AfterMS int64
	After   ds.ConversationID
	Count   int64
}

// joinedColumn is the time when a stay i began. Stays of earlier versions do not contain it;
// the record that began them does.
const joinedColumn = `CASE WHEN i.joined_ms > 0 THEN i.joined_ms
	ELSE COALESCE((SELECT r.created_ms FROM records r WHERE r.log_id = i.log_id AND r.pos = i.from_pos), 0) END`

// waitingClause is the condition of a Waiting, for the stays i of account $1.
var waitingClause = map[Waiting]string{
	AnyConversation:   ``,
	WaitingForAccount: ` AND EXISTS (SELECT 1 FROM welcome_recipients w WHERE w.account = $1 AND w.log_id = i.log_id AND w.consumed_ms IS NULL)`,
	WaitingForDevice: ` AND (EXISTS (SELECT 1 FROM welcome_recipients w WHERE w.account = $1 AND w.log_id = i.log_id AND w.consumed_ms IS NULL
			AND (w.device = '' OR w.device = $5 OR $5 = ''))
		OR EXISTS (SELECT 1 FROM additions a WHERE a.account = $1 AND a.log_id = i.log_id AND a.status <> 'completed' AND (a.device = $5 OR $5 = '')))`,
}

// Views reads a page of the conversations that an account is in, without their participants.
func (co Conversations) Views(q ViewQuery) ([]ds.View, error) {
	args := []any{string(q.Account), q.AfterMS, string(ds.ConversationLog(q.After)), q.Count}
	clause := waitingClause[q.Waiting]
	if q.Waiting == WaitingForDevice {
		args = append(args, string(q.Device))
	}
	if q.Only != "" {
		clause, args = ` AND i.log_id = $5`, append(args[:4], string(ds.ConversationLog(q.Only)))
	}
	var list []ds.View
	err := co.tx.each(func(scan func(...any) error) error {
		var v ds.View
		var info []byte
		c, err := scanHead(func(dest ...any) error {
			return scan(append(dest, &v.Role, &v.JoinedMS, &v.Creator, &v.Suite, &v.Title, &v.Description, &v.PolicyMS, &v.PolicyBy, &info)...)
		})
		v.Conversation, v.SuiteNumber = c, suiteIn(info)
		list = append(list, v)
		return err
	}, `SELECT `+headColumns+`, role, joined, creator, suite, title, description, policy_ms, policy_by, info FROM (
			SELECT mine.*, COALESCE(d.creator, '') AS creator, COALESCE(d.suite, '') AS suite, COALESCE(d.title, '') AS title,
				COALESCE(d.description, '') AS description, COALESCE(d.policy_ms, 0) AS policy_ms, COALESCE(d.policy_by, '') AS policy_by, `+groupInfoStart+` AS info
			FROM (SELECT l.*, i.role, `+joinedColumn+` AS joined FROM intervals i JOIN logs l ON l.log_id = i.log_id
				WHERE i.account = $1 AND i.until_pos IS NULL`+clause+`) AS mine
			LEFT JOIN conversation_details d ON d.log_id = mine.log_id) AS seen
		WHERE CAST($2 AS BIGINT) = 0 OR joined < CAST($2 AS BIGINT) OR joined = CAST($2 AS BIGINT) AND log_id > $3
		ORDER BY joined DESC, log_id LIMIT `+bound(4), args...)
	return list, err
}

// suiteIn reads the cipher suite from the beginning of a GroupInfo, alone or in an MLSMessage
// (RFC 9420, sections 6 and 12.4.3): 0 if there is none.
func suiteIn(info []byte) int64 {
	isMessage := len(info) >= 8 && info[2] == 0 && info[3] == 4 && info[4] == 0 && info[5] == 1 // followed by the version of the context
	switch {
	case isMessage:
		return int64(info[6])<<8 | int64(info[7])
	case len(info) >= 4:
		return int64(info[2])<<8 | int64(info[3])
	}
	return 0
}

// Participants fills in the members of these conversations, in order of joining, with one
// query.
func (co Conversations) Participants(views []ds.View) error {
	if len(views) == 0 {
		return nil
	}
	logs, index := make([]string, len(views)), make(map[ds.LogID]*ds.View, len(views))
	for i := range views {
		log := ds.ConversationLog(views[i].ID)
		logs[i], index[log] = string(log), &views[i]
	}
	return co.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var p ds.Participant
		if err := scan(&log, &p.Account, &p.Role, &p.JoinedMS, &p.PromotedMS, &p.PromotedBy); err != nil {
			return err
		}
		v := index[log]
		if p.JoinedMS == 0 {
			p.JoinedMS = v.CreatedMS
		}
		v.Participants = append(v.Participants, p)
		return nil
	}, `SELECT i.log_id, i.account, i.role, `+joinedColumn+`, i.promoted_ms, i.promoted_by FROM intervals i
		WHERE i.log_id `+co.tx.in(1)+` AND i.until_pos IS NULL ORDER BY i.log_id, i.from_pos, i.account`, co.tx.setOf(logs))
}

// CountWaiting counts the conversations of WaitingForAccount.
func (co Conversations) CountWaiting(account ds.AccountID) (int64, error) {
	var n int64
	err := co.tx.row(`SELECT COUNT(*) FROM intervals i WHERE i.account = $1 AND i.until_pos IS NULL`+waitingClause[WaitingForAccount], string(account)).Scan(&n)
	return n, err
}

// PresentStays loads the stay of each current member of conversations. The caller holds the
// heads, or names them when it writes.
func (co Conversations) PresentStays(ids []ds.ConversationID) (map[MemberKey]ds.Interval, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found := map[MemberKey]ds.Interval{}
	by := "" // PostgreSQL finds the index by its statistics
	if co.tx.dialect.name == "sqlite" {
		by = " INDEXED BY intervals_now"
	}
	err := co.tx.each(func(scan func(...any) error) error {
		var log, account string
		var i ds.Interval
		err := scan(&log, &account, &i.From, &i.Role, &i.Service)
		found[MemberKey{ds.LogID(log).Conversation(), ds.AccountID(account)}] = i
		return err
	}, `SELECT log_id, account, from_pos, role, COALESCE(service, '') FROM intervals`+by+`
		WHERE log_id `+co.tx.in(1)+` AND until_pos IS NULL`, co.tx.setOf(conversationLogs(ids)))
	return found, err
}

// HasStaysAfter reports whether accounts are in a conversation or were after a record.
func (co Conversations) HasStaysAfter(id ds.ConversationID, pos int64) (bool, error) {
	var n int64
	err := co.tx.row(`SELECT COUNT(*) FROM (SELECT 1 FROM intervals WHERE log_id = $1 AND (until_pos IS NULL OR until_pos > $2) LIMIT 1) AS i`,
		string(ds.ConversationLog(id)), pos).Scan(&n)
	return n > 0, err
}

// scanStays reads rows of intervals into found.
func scanStays(found map[MemberKey][]ds.Interval) func(scan func(...any) error) error {
	return func(scan func(...any) error) error {
		var log, account string
		var i ds.Interval
		if err := scan(&log, &account, &i.From, &i.Until, &i.Role, &i.Service); err != nil {
			return err
		}
		key := MemberKey{ds.LogID(log).Conversation(), ds.AccountID(account)}
		found[key] = append(found[key], i)
		return nil
	}
}
