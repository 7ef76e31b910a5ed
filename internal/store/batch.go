package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"waxwing.im/waxwing/internal/ds"
)

// MemberKey and MessageKey are the keys of the data that a batch loads before its decisions.
type (
	MemberKey struct {
		Conversation ds.ConversationID
		Account      ds.AccountID
	}
	MessageKey struct {
		Conversation ds.ConversationID
		ID           ds.MessageID
	}
)

// Answer is the permanent answer for a message id: the position of its record.
type Answer struct {
	Pos, Seq, Epoch, CreatedMS int64
	Kind                       ds.Kind
}

// Intervals loads the stays of accounts in conversations, oldest first. The caller holds the
// conversations' heads, or reads for information only.
func (co Conversations) Intervals(keys []MemberKey) (map[MemberKey][]ds.Interval, error) {
	found := make(map[MemberKey][]ds.Interval, len(keys))
	if len(keys) == 0 {
		return found, nil
	}
	list := co.tx.table(1, len(keys), "log_id text", "account text")
	for _, k := range keys {
		list.add(string(ds.ConversationLog(k.Conversation)), string(k.Account))
	}
	err := co.tx.each(scanStays(found), `SELECT i.log_id, i.account, i.from_pos, COALESCE(i.until_pos, 0), i.role, COALESCE(i.service, '')
		FROM `+list.from+` CROSS JOIN intervals i WHERE i.log_id = k.log_id AND i.account = k.account ORDER BY i.from_pos`, list.args()...)
	return found, err
}

// Answers loads the existing answers of message ids. The caller holds the heads, or names them
// when it writes.
func (l Logs) Answers(keys []MessageKey) (map[MessageKey]Answer, error) {
	found := map[MessageKey]Answer{}
	if len(keys) == 0 {
		return found, nil
	}
	list := l.tx.table(1, len(keys), "log_id text", "message_id text")
	for _, k := range keys {
		list.add(string(ds.ConversationLog(k.Conversation)), string(k.ID))
	}
	err := l.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var id ds.MessageID
		var m Answer
		if err := scan(&log, &id, &m.Pos, &m.Seq, &m.Kind, &m.Epoch, &m.CreatedMS); err != nil {
			return err
		}
		found[MessageKey{log.Conversation(), id}] = m
		return nil
	}, `SELECT m.log_id, m.message_id, m.pos, m.seq, m.kind, m.epoch, m.created_ms
		FROM `+list.from+` CROSS JOIN message_ids m WHERE m.log_id = k.log_id AND m.message_id = k.message_id`, list.args()...)
	return found, err
}

// Append runs a batch: unlike Update it runs fn once, and the caller handles failures. ErrMoved
// means that the batch was decided on a head that has moved.
func (db *DB) Append(ctx context.Context, fn func(*Tx) error) error {
	hasWritten := false
	watched := func(tx *Tx) error {
		err := fn(tx)
		hasWritten = tx.hasWritten
		return err
	}
	err := db.run(ctx, db.engine.append, watched)
	if isMoved(err) {
		return ErrMoved
	}
	db.noteWrite(hasWritten, err)
	return err
}

// Batch holds the writes of one flush: rows are numbered and chained by the caller, who holds
// the heads.
type Batch struct {
	Created  []ds.Conversation
	Changed  []Change    // created heads are not repeated
	Records  []ds.Record // of conversations, in order
	Stays    []Stay      // in the order in which they begin and end
	Roles    []Stay      // stays that continue with another role
	Welcomes []Welcome
	// Recipients are the recipients of Welcomes, of this batch or earlier ones.
	Recipients []WelcomeRecipient
	Entered    []Entered
	Infos      []GroupInfo
	Events     []Event // for account logs, which are numbered here
	Details    []NewDetails
	Policies   []PolicyChange

	Reactions []Reaction // added and removed ones, in order
}

// Change is a head before and after a batch. It is written only if the stored head still equals
// Before: this detects decisions that were made without the lock on an old head.
type Change struct{ Before, After ds.Conversation }

// ErrMoved means that a head is not at the position that the batch was decided on; no part of
// the batch was written.
var ErrMoved = errors.New("a conversation has moved on")

// Stay is the begin of an interval or, if Until is set, its end.
type Stay struct {
	Conversation ds.ConversationID
	Account      ds.AccountID
	Interval     ds.Interval
	// AtMS is the time when the stay began or got its role, By the account that gave the role.
	AtMS int64
	By   ds.AccountID
}

// Welcome is one MLS Welcome, stored once for all its recipients.
type Welcome struct {
	ID           string
	Conversation ds.ConversationID
	Pos          int64 // of the commit it belongs to
	Body         []byte
	ExpiresMS    int64
}

// GroupInfo is the newest GroupInfo of a conversation.
type GroupInfo struct {
	Conversation ds.ConversationID
	Pos          int64 // of the record it belongs to
	Epoch        int64
	Body         []byte
}

// Event is a record for an account log before it has a position there.
type Event struct {
	Account   ds.AccountID
	Recipient ds.DeviceID // "": every device of the account
	Kind      ds.Kind
	Event     ds.DeviceEvent
}

// Write writes a batch. An already existing head, a group id that another conversation has, and
// any other refusal of the database fail the whole batch.
func (l Logs) Write(b Batch) error {
	l.tx.hasWritten = len(b.Created)+len(b.Changed) > 0
	if err := l.insertHeads(b.Created); err != nil {
		return err
	}
	if err := l.insertRecords(b.Records); err != nil {
		return err
	}
	if err := l.insertTags(b.Records); err != nil {
		return err
	}
	// Queued like all later statements up to the account logs, so that without events it is
	// sent with COMMIT; and before them, since their heads are locked after those of conversations.
	if err := l.moveHeads(b.Changed); err != nil {
		return err
	}
	if err := l.writeStays(b.Stays); err != nil {
		return err
	}
	if err := l.tx.Conversations.setRoles(b.Roles); err != nil {
		return err
	}
	for _, w := range b.Welcomes {
		if err := l.tx.later(`INSERT INTO welcomes (welcome_id, log_id, pos, body, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6)`,
			w.ID, string(ds.ConversationLog(w.Conversation)), w.Pos, storedBody(w.Body), l.tx.nowMS, w.ExpiresMS); err != nil {
			return err
		}
	}
	if err := l.tx.Welcomes.insertRecipients(b.Recipients); err != nil {
		return err
	}
	if err := l.tx.Devices.enter(b.Entered); err != nil {
		return err
	}
	if err := l.tx.Conversations.writeSettings(&b); err != nil {
		return err
	}
	if err := l.tx.Conversations.writeReactions(b.Reactions); err != nil {
		return err
	}
	return l.AppendEvents(b.Events)
}

func (l Logs) insertHeads(list []ds.Conversation) error {
	for _, c := range list {
		own, copied := groupColumns(&c)
		if err := l.tx.later(`INSERT INTO logs (log_id, pos, seq, hash, term, home, group_id, generation, epoch, members,
				record_senders, refuse_opaque, committer_account, committer_device, created_ms, latest_ms, policy, confirmation_tag, tag_epoch, last_ms, copy_group_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $9, $19, $20)`,
			string(ds.ConversationLog(c.ID)), c.Pos, c.Seq, c.Hash, c.Term, null(c.Home), own, c.Generation, c.Epoch, c.Members,
			flag(c.RecordSenders), flag(c.RefuseOpaque), null(c.Committer.Account), null(c.Committer.ID), c.CreatedMS, c.LatestMS,
			policyOrNull(c.Policy), bytesOrNull(c.ConfirmationTag), c.LastMS, copied); err != nil {
			return err
		}
	}
	return nil
}

// groupColumns returns the group id of a conversation for group_id, which is unique, if its
// home is this service, and for copy_group_id, which is not, if it is another one.
func groupColumns(c *ds.Conversation) (own, copied any) {
	if c.Home == "" {
		return bytesOrNull(c.GroupID), nil
	}
	return nil, bytesOrNull(c.GroupID)
}

// moveHeads updates heads, or returns ErrMoved if one has another version than before. The
// columns that every append changes are in one narrow statement; the others change only with
// commits and membership.
func (l Logs) moveHeads(list []Change) error {
	if l.tx.dialect.name == "postgres" {
		return l.moveHeadsPostgres(list)
	}
	for chunk := range slices.Chunk(list, batchSizes[len(batchSizes)-1]) {
		args := make([]any, 0, sizeFor(len(chunk))*10)
		for _, c := range chunk {
			args = append(args, string(ds.ConversationLog(c.After.ID)), c.Before.Pos, c.Before.Hash, c.After.Pos, c.After.Seq, c.After.Hash, c.After.LatestMS, c.After.LastMS,
				c.Before.Term, null(c.Before.Home))
		}
		from, args := sized(10, args)
		n, err := l.tx.exec(`UPDATE logs SET pos = n.column4, seq = n.column5, hash = n.column6, latest_ms = n.column7, last_ms = n.column8 FROM `+from+` AS n
			WHERE logs.log_id = n.column1 AND logs.pos = n.column2 AND logs.hash IS n.column3
				AND logs.term = n.column9 AND logs.home IS n.column10`, args...)
		if err != nil {
			return err
		}
		if n != int64(len(chunk)) {
			return ErrMoved
		}
	}
	return l.updateRest(list)
}

func (l Logs) moveHeadsPostgres(list []Change) error {
	if len(list) == 0 {
		return nil
	}
	n := len(list)
	logs, oldHomes, oldHashes, hashes := make([]string, n), make([]string, n), make([][]byte, n), make([][]byte, n)
	// Six columns, one after the other: an array of its own for each would cost allocations.
	numbers := make([]int64, 6*n)
	for i := range list {
		b, a := &list[i].Before, &list[i].After
		logs[i], oldHomes[i], oldHashes[i], hashes[i] = string(ds.ConversationLog(a.ID)), b.Home, b.Hash, a.Hash
		for column, number := range [...]int64{b.Pos, b.Term, a.Pos, a.Seq, a.LatestMS, a.LastMS} {
			numbers[column*n+i] = number
		}
	}
	if err := l.tx.later(failUnlessChanged(`UPDATE logs AS l SET pos = n.pos, seq = n.seq, hash = n.hash, latest_ms = n.latest, last_ms = n.last
			FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], ($5::bigint[])[1:$6::int], ($5::bigint[])[$6+1:2*$6],
				($5::bigint[])[2*$6+1:3*$6], ($5::bigint[])[3*$6+1:4*$6], ($5::bigint[])[4*$6+1:5*$6], ($5::bigint[])[5*$6+1:])
				AS n(log_id, old_home, old_hash, hash, old_pos, old_term, pos, seq, latest, last)
			WHERE l.log_id = n.log_id AND l.pos = n.old_pos AND l.hash IS NOT DISTINCT FROM n.old_hash
				AND l.term = n.old_term AND COALESCE(l.home, '') = n.old_home`, `$6`),
		logs, oldHomes, oldHashes, hashes, numbers, n); err != nil {
		return err
	}
	return l.updateRest(list)
}

// failUnlessChanged returns a statement of PostgreSQL that runs an update and fails with
// unchangedCode unless it has changed that many rows. A batch sends its updates with COMMIT, too
// late to check their results.
func failUnlessChanged(update, rows string) string {
	return `WITH changed AS (` + update + ` RETURNING 1) SELECT 1 / CASE WHEN count(*) = ` + rows + ` THEN 1 ELSE 0 END FROM changed`
}

const unchangedCode = "22012" // division by zero

// updateRest updates the other columns of those heads if they differ.
func (l Logs) updateRest(list []Change) error {
	for i := range list {
		a, b := &list[i].Before, &list[i].After
		if a.Term == b.Term && a.Home == b.Home && bytes.Equal(a.GroupID, b.GroupID) && a.Generation == b.Generation && a.Epoch == b.Epoch && a.Members == b.Members && a.Committer == b.Committer &&
			a.Policy == b.Policy && bytes.Equal(a.ConfirmationTag, b.ConfirmationTag) {
			continue
		}
		own, copied := groupColumns(b)
		if err := l.tx.later(`UPDATE logs SET group_id = $2, generation = $3, epoch = $4, members = $5, committer_account = $6, committer_device = $7,
				policy = $8, confirmation_tag = $9, tag_epoch = $4, term = $10, home = $11, copy_group_id = $12 WHERE log_id = $1`,
			string(ds.ConversationLog(b.ID)), own, b.Generation, b.Epoch, b.Members, null(b.Committer.Account), null(b.Committer.ID),
			policyOrNull(b.Policy), bytesOrNull(b.ConfirmationTag), b.Term, null(b.Home), copied); err != nil {
			return err
		}
	}
	return nil
}

// isMoved reports whether err is one of the forms in which the database reports ErrMoved: by
// the head, or earlier, by a record that already exists at the position of a new one.
func isMoved(err error) bool {
	return errors.Is(err, ErrMoved) || isPostgresCode(err, unchangedCode) || isTaken(err, "records_pkey", "records.log_id, records.pos")
}

// insertRecords inserts records and, for messages, the answers of their ids.
func (l Logs) insertRecords(list []ds.Record) error {
	if to, ok := l.tx.conn.(copier); ok && len(list) >= copyRowsMin {
		return l.tx.copyRecords(to, list)
	}
	for chunk := range slices.Chunk(list, batchSizes[len(batchSizes)-1]) {
		var rows struct{ records, ids argumentRow }
		rows.records.args = make([]any, 0, sizeFor(len(chunk))*recordWidth)
		rows.ids.args = make([]any, 0, sizeFor(len(chunk))*messageIDWidth)
		for i := range chunk {
			writeRecord(&rows.records, &chunk[i])
			if chunk[i].MessageID != "" {
				writeMessageID(&rows.ids, &chunk[i])
			}
		}
		if err := l.tx.insertRows(`records (`+recordColumns+`)`, recordWidth, rows.records.args); err != nil {
			return err
		}
		if err := l.tx.insertRows(`message_ids (`+messageIDColumns+`)`, messageIDWidth, rows.ids.args); err != nil {
			return err
		}
	}
	return nil
}

// insertTags inserts the confirmation tags of commits. They are in a table of their own, so
// that other records stay narrow.
func (l Logs) insertTags(list []ds.Record) error {
	for i := range list {
		r := &list[i]
		if len(r.ConfirmationTag) == 0 {
			continue
		}
		if err := l.tx.later(`INSERT INTO commit_tags (log_id, pos, tag) VALUES ($1, $2, $3)`, string(r.Log), r.Pos, r.ConfirmationTag); err != nil {
			return err
		}
	}
	return nil
}

// batchSizes are the row counts of SQLite's multi-row statements, so that each is prepared
// once. Unused rows are NULL, and ignored.
var batchSizes = [...]int{1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256}

// sizeFor returns the smallest size for that many rows.
func sizeFor(rows int) int {
	for _, size := range batchSizes {
		if size >= rows {
			return size
		}
	}
	return batchSizes[len(batchSizes)-1]
}

// sized returns a VALUES list of rows of width values, padded with NULL rows to the next
// prepared size, and its arguments. The first value of a row must not be NULL. There are at
// most 256 rows.
func sized(width int, args []any) (string, []any) {
	rows := len(args) / width
	size := sizeFor(rows)
	for range (size - rows) * width {
		args = append(args, nil)
	}
	return `(VALUES ` + anonymous(size, width) + `)`, args
}

// insertRows inserts rows by one statement: on PostgreSQL a few, since COPY inserts more.
func (tx *Tx) insertRows(into string, width int, args []any) error {
	if len(args) == 0 {
		return nil
	}
	if tx.dialect.name == "postgres" {
		return tx.later(`INSERT INTO `+into+` VALUES `+placeholders(len(args)/width, width), args...)
	}
	from, args := sized(width, args)
	return tx.later(`INSERT INTO `+into+` SELECT * FROM `+from+` WHERE column1 IS NOT NULL`, args...)
}

// writeStays writes stays in order, since an account may join and leave within one batch. Stays
// that begin are collected until one ends.
func (l Logs) writeStays(list []Stay) error {
	var begun []Stay
	for _, s := range list {
		if s.Interval.Until == 0 {
			begun = append(begun, s)
			continue
		}
		if err := l.beginStays(begun); err != nil {
			return err
		}
		begun = begun[:0]
		if err := l.endStay(s); err != nil {
			return err
		}
	}
	return l.beginStays(begun)
}

// endStay ends the current stay of an account, which must have one.
func (l Logs) endStay(s Stay) error {
	const update = `UPDATE intervals SET until_pos = $3 WHERE log_id = $1 AND account = $2 AND until_pos IS NULL`
	args := []any{string(ds.ConversationLog(s.Conversation)), string(s.Account), s.Interval.Until}
	if l.tx.dialect.name == "postgres" {
		return l.tx.later(failUnlessChanged(update, "1"), args...)
	}
	n, err := l.tx.exec(update, args...)
	if err == nil && n != 1 {
		err = fmt.Errorf("end of stay: %d rows", n)
	}
	return err
}

func (l Logs) beginStays(list []Stay) error {
	if len(list) == 0 {
		return nil
	}
	stays := l.tx.table(1, len(list), "log_id text", "account text", "from_pos bigint", "role text", "joined_ms bigint", "service text")
	for _, s := range list {
		stays.add(string(ds.ConversationLog(s.Conversation)), string(s.Account), s.Interval.From, string(s.Interval.Role), s.AtMS, s.Interval.Service)
	}
	return l.tx.later(`INSERT INTO intervals (log_id, account, from_pos, role, joined_ms, service)
		SELECT log_id, account, from_pos, role, joined_ms, NULLIF(service, '') FROM `+stays.from, stays.args()...)
}

// AppendEvents appends to account logs, which it creates as needed. It locks their heads in the
// order of their names, always after the conversations'.
func (l Logs) AppendEvents(events []Event) error {
	if len(events) == 0 {
		return nil
	}
	byLog := map[ds.LogID][]Event{}
	var logs []ds.LogID
	for _, e := range events {
		log := ds.AccountLog(e.Account)
		if byLog[log] == nil {
			logs = append(logs, log)
		}
		byLog[log] = append(byLog[log], e)
	}
	slices.Sort(logs)
	heads, times, err := l.moveAccountLogs(logs, byLog)
	if err != nil {
		return err
	}
	var list []ds.Record
	for _, log := range logs {
		first := heads[log] - int64(len(byLog[log])) + 1
		for i, e := range byLog[log] {
			body, err := json.Marshal(e.Event)
			if err != nil {
				return err
			}
			list = append(list, ds.Record{Log: log, Pos: first + int64(i), Kind: e.Kind, Term: 1, CreatedMS: times[log],
				Recipient: e.Recipient, Encoding: ds.JSON, Body: body})
		}
	}
	return l.insertRecords(list)
}

// moveAccountLogs reserves positions in account logs, which it creates as needed, and returns
// their new heads and the times of their new records, which are not before those of earlier
// ones. The rows are locked in the order given.
func (l Logs) moveAccountLogs(logs []ds.LogID, events map[ds.LogID][]Event) (heads, times map[ds.LogID]int64, err error) {
	heads, times = make(map[ds.LogID]int64, len(logs)), make(map[ds.LogID]int64, len(logs))
	list := l.tx.table(2, len(logs), "log_id text", "events bigint")
	for _, log := range logs {
		list.add(string(log), int64(len(events[log])))
	}
	err = l.tx.each(func(scan func(...any) error) error {
		var log ds.LogID
		var pos, atMS int64
		err := scan(&log, &pos, &atMS)
		heads[log], times[log] = pos, atMS
		return err
	}, `INSERT INTO logs (log_id, pos, seq, term, created_ms, latest_ms)
		SELECT log_id, events, 0, 1, CAST($1 AS BIGINT), CAST($1 AS BIGINT) FROM `+list.from+` WHERE true
		ON CONFLICT (log_id) DO UPDATE SET pos = logs.pos + excluded.pos,
			latest_ms = CASE WHEN excluded.latest_ms > logs.latest_ms THEN excluded.latest_ms ELSE logs.latest_ms END
		RETURNING log_id, pos, latest_ms`, list.args(l.tx.nowMS)...)
	return heads, times, err
}

// IsGroupInUse reports whether err is the database's refusal to bind two conversations to one
// MLS group.
func IsGroupInUse(err error) bool { return isTaken(err, "logs_group_id_key", "logs.group_id") }

// IsHeadTaken reports whether err is the database's refusal to create a log twice.
func IsHeadTaken(err error) bool { return isTaken(err, "logs_pkey", "logs.log_id") }

// isTaken reports whether err is the refusal of a duplicate key: by the name of the constraint on
// PostgreSQL, by the columns on SQLite.
func isTaken(err error, constraint, columns string) bool {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return p.Code == "23505" && p.ConstraintName == constraint
	}
	return err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed: "+columns)
}

// policyOrNull returns nil for the default rules, which keeps rows narrow.
func policyOrNull(p ds.Policy) any {
	if p == ds.DefaultPolicy() {
		return nil
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers and flags always marshal
	}
	return string(text)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func bytesOrNull(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}
