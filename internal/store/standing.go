package store

import "waxwing.im/waxwing/internal/ds"

// Standing returns the pos of the head of a conversation, if account is a member; ErrNotFound
// if it is not, and for a conversation that does not exist.
func (co Conversations) Standing(account ds.AccountID, id ds.ConversationID) (pos int64, err error) {
	err = co.tx.row(`SELECT l.pos FROM logs l JOIN intervals i ON i.log_id = l.log_id
		WHERE l.log_id = $1 AND i.account = $2 AND i.until_pos IS NULL`, string(ds.ConversationLog(id)), string(account)).Scan(&pos)
	return pos, notFound(err)
}
