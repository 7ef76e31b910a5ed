package store

import (
	"encoding/json"

	"waxwing.im/waxwing/internal/ds"
)

const headColumns = `last_ms, log_id, pos, seq, hash, term, COALESCE(home, ''), COALESCE(group_id, copy_group_id), generation, epoch, members,
	created_ms, latest_ms, record_senders, refuse_opaque, COALESCE(committer_account, ''), COALESCE(committer_device, ''),
	COALESCE(policy, ''), CASE WHEN tag_epoch = epoch THEN confirmation_tag END`

func scanHead(scan func(...any) error) (ds.Conversation, error) {
	var (
		log             string
		c               ds.Conversation
		senders, opaque int64
		policy          string
	)
	err := scan(&c.LastMS, &log, &c.Pos, &c.Seq, &c.Hash, &c.Term, &c.Home, &c.GroupID, &c.Generation, &c.Epoch, &c.Members,
		&c.CreatedMS, &c.LatestMS, &senders, &opaque, &c.Committer.Account, &c.Committer.ID, &policy, &c.ConfirmationTag)
	if c.Policy = ds.DefaultPolicy(); policy != "" && err == nil {
		err = json.Unmarshal([]byte(policy), &c.Policy)
	}
	c.ID = ds.LogID(log).Conversation()
	c.RecordSenders, c.RefuseOpaque = senders != 0, opaque != 0
	return c, err
}

// LockHeads locks the heads of conversations, in the order of their ids, and returns those it
// got. Without wait it skips heads that another transaction holds; with wait it waits for them
// and, in a batch, fails after 250 ms. Everything else that a decision needs is read in a later
// statement: under READ COMMITTED this one would see its neighbours as they were before the
// lock.
func (l Logs) LockHeads(ids []ds.ConversationID, wait bool) ([]ds.Conversation, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var lock string
	if l.tx.dialect.name == "postgres" {
		lock = " ORDER BY log_id FOR NO KEY UPDATE"
		if !wait {
			lock += " SKIP LOCKED"
		}
	}
	heads := make([]ds.Conversation, 0, len(ids))
	err := l.tx.each(func(scan func(...any) error) error {
		c, err := scanHead(scan)
		heads = append(heads, c)
		return err
	}, `SELECT `+headColumns+` FROM logs WHERE log_id `+l.tx.in(1)+lock, l.tx.setOf(conversationLogs(ids)))
	return heads, err
}

// HeldHeads returns those of ids that exist: it distinguishes heads that LockHeads skipped
// because another transaction holds them from missing ones.
func (l Logs) HeldHeads(ids []ds.ConversationID) ([]ds.ConversationID, error) {
	var held []ds.ConversationID
	err := l.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		err := scan(&log)
		held = append(held, log.Conversation())
		return err
	}, `SELECT log_id FROM logs WHERE log_id `+l.tx.in(1), l.tx.setOf(conversationLogs(ids)))
	return held, err
}

// HeadVersions returns the versions of the heads of those conversations that exist.
func (l Logs) HeadVersions(ids []ds.ConversationID) (map[ds.ConversationID]ds.HeadVersion, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	heads := make(map[ds.ConversationID]ds.HeadVersion, len(ids))
	err := l.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var v ds.HeadVersion
		err := scan(&log, &v.Pos, &v.Hash, &v.Term, &v.Home)
		heads[log.Conversation()] = v
		return err
	}, `SELECT log_id, pos, hash, term, COALESCE(home, '') FROM logs WHERE log_id `+l.tx.in(1), l.tx.setOf(conversationLogs(ids)))
	return heads, err
}

// Head returns the head of a conversation, or ErrNotFound.
func (l Logs) Head(id ds.ConversationID) (ds.Conversation, error) {
	var c ds.Conversation
	rs, err := l.tx.query(`SELECT `+headColumns+` FROM logs WHERE log_id = $1`, string(ds.ConversationLog(id)))
	if err != nil {
		return c, err
	}
	defer rs.Close()
	if !rs.Next() {
		if err := rs.Err(); err != nil {
			return c, err
		}
		return c, ErrNotFound
	}
	if c, err = scanHead(rs.Scan); err != nil {
		return c, err
	}
	rs.Close()
	return c, rs.Err()
}

// scanPosition reads rows of a log and its pos into heads.
func scanPosition(heads map[ds.LogID]int64) func(scan func(...any) error) error {
	return func(scan func(...any) error) error {
		var log ds.LogID
		var pos int64
		err := scan(&log, &pos)
		heads[log] = pos
		return err
	}
}

// HeadPositions returns pos of those logs that exist.
func (l Logs) HeadPositions(logs []ds.LogID) (map[ds.LogID]int64, error) {
	heads := make(map[ds.LogID]int64, len(logs))
	err := l.tx.each(scanPosition(heads), `SELECT log_id, pos FROM logs WHERE log_id `+l.tx.in(1), l.tx.setOf(texts(logs)))
	return heads, err
}
