package store

import "waxwing.im/waxwing/internal/ds"

// ActiveBounds bounds the conversations of an account that are considered: those that it joined
// first, and those that it joined last.
type ActiveBounds struct{ Oldest, Latest int64 }

// Active lists the conversations that account is in: among those within bounds,
// the most recently active, at most max of them.
func (co Conversations) Active(account ds.AccountID, max int, bounds ActiveBounds) ([]ds.ConversationID, error) {
	return co.conversationIDs(`SELECT l.log_id FROM (
			SELECT log_id FROM (SELECT log_id FROM intervals WHERE account = $1 AND until_pos IS NULL ORDER BY joined_ms, log_id LIMIT `+bound(2)+`) AS a
			UNION SELECT log_id FROM (SELECT log_id FROM intervals WHERE account = $1 AND until_pos IS NULL ORDER BY joined_ms DESC, log_id DESC LIMIT `+bound(3)+`) AS b) AS mine
		JOIN logs l ON l.log_id = mine.log_id
		ORDER BY CASE WHEN l.latest_ms > l.created_ms THEN l.latest_ms ELSE l.created_ms END DESC, l.log_id LIMIT `+bound(4),
		string(account), bounds.Oldest, bounds.Latest, int64(max))
}

// Count counts the conversations that account is in, up to max.
func (co Conversations) Count(account ds.AccountID, max int) (count int, err error) {
	err = co.tx.row(`SELECT COUNT(*) FROM (SELECT 1 FROM intervals WHERE account = $1 AND until_pos IS NULL LIMIT `+bound(2)+`) AS few`,
		string(account), int64(max)).Scan(&count)
	return count, err
}

// Former lists the conversations that account has left, the latest joined first,
// among at most max stays.
func (co Conversations) Former(account ds.AccountID, max int) ([]ds.ConversationID, error) {
	return co.conversationIDs(`SELECT DISTINCT f.log_id FROM (SELECT log_id FROM intervals WHERE account = $1 AND until_pos IS NOT NULL
			ORDER BY joined_ms DESC, log_id DESC LIMIT `+bound(2)+`) AS f
		WHERE NOT EXISTS (SELECT 1 FROM intervals i WHERE i.log_id = f.log_id AND i.account = $1 AND i.until_pos IS NULL)`, string(account), int64(max))
}

func (co Conversations) conversationIDs(sql string, args ...any) ([]ds.ConversationID, error) {
	var list []ds.ConversationID
	err := co.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		err := scan(&log)
		list = append(list, log.Conversation())
		return err
	}, sql, args...)
	return list, err
}

// IDs lists the conversations that account is in, at most max of them.
func (co Conversations) IDs(account ds.AccountID, max int) ([]ds.ConversationID, error) {
	return co.IDsAfter(account, "", max)
}

// IDsAfter lists at most max conversations after that one that account is in, by id.
func (co Conversations) IDsAfter(account ds.AccountID, after ds.ConversationID, max int) ([]ds.ConversationID, error) {
	return co.conversationIDs(`SELECT log_id FROM intervals WHERE account = $1 AND log_id > $2 AND until_pos IS NULL ORDER BY log_id LIMIT `+bound(3),
		string(account), string(ds.ConversationLog(after)), int64(max))
}
