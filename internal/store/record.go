package store

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
)

// The columns of a record and, if it is a message, of the answer of its id. The rows are
// written by writeRecord and writeMessageID.
const (
	recordColumns = `log_id, pos, seq, kind, generation, epoch, term, message_id, created_ms, hash, sender_account, sender_device, recipient, encoding, body`
	recordWidth   = 15

	messageIDColumns = `log_id, message_id, pos, seq, kind, epoch, created_ms`
	messageIDWidth   = 7
)

// rowWriter takes the values of a row, column by column: the arguments of a statement, or a
// row of COPY.
type rowWriter interface {
	null()
	text(string)
	int(int64)
	small(uint8) // a smallint on PostgreSQL
	bytes([]byte)
}

func writeRecord(w rowWriter, r *ds.Record) {
	w.text(string(r.Log))
	w.int(r.Pos)
	if r.Seq == 0 {
		w.null()
	} else {
		w.int(r.Seq)
	}
	w.small(uint8(r.Kind))
	w.int(r.Generation)
	w.int(r.Epoch)
	w.int(r.Term)
	writeOptional(w, string(r.MessageID))
	w.int(r.CreatedMS)
	if r.Hash == nil {
		w.null()
	} else {
		w.bytes(r.Hash)
	}
	writeOptional(w, string(r.Sender.Account))
	writeOptional(w, string(r.Sender.ID))
	writeOptional(w, string(r.Recipient))
	w.small(uint8(r.Encoding))
	w.bytes(storedBody(r.Body))
}

func writeMessageID(w rowWriter, r *ds.Record) {
	w.text(string(r.Log))
	w.text(string(r.MessageID))
	w.int(r.Pos)
	w.int(r.Seq)
	w.small(uint8(r.Kind))
	w.int(r.Epoch)
	w.int(r.CreatedMS)
}

// writeOptional writes the empty string as NULL.
func writeOptional(w rowWriter, s string) {
	if s == "" {
		w.null()
	} else {
		w.text(s)
	}
}

// argumentRow collects rows as arguments of a statement.
type argumentRow struct{ args []any }

func (a *argumentRow) null()          { a.args = append(a.args, nil) }
func (a *argumentRow) text(s string)  { a.args = append(a.args, s) }
func (a *argumentRow) int(n int64)    { a.args = append(a.args, n) }
func (a *argumentRow) small(n uint8)  { a.args = append(a.args, int64(n)) }
func (a *argumentRow) bytes(b []byte) { a.args = append(a.args, b) }

// bodyInlineMax bounds the bodies that a page contains. A larger one is read separately:
// PostgreSQL sends the whole result of a statement, however little of it is read.
const bodyInlineMax = 512 << 10

// tagColumn is the confirmation tag of a commit. Nodes of earlier versions write it into the
// head only, which has it until the next commit.
const tagColumn = `CASE WHEN kind = 3 THEN COALESCE((SELECT t.tag FROM commit_tags t WHERE t.log_id = records.log_id AND t.pos = records.pos),
		(SELECT l.confirmation_tag FROM logs l WHERE l.log_id = records.log_id AND l.generation = records.generation
			AND l.epoch = records.epoch AND l.tag_epoch = records.epoch)) END`

// pageColumns returns the columns of a page, with bodies up to the bound in argument number n.
func pageColumns(n int) string {
	return `pos, COALESCE(seq, 0), kind, generation, epoch, term, COALESCE(message_id, ''), created_ms, hash,
	COALESCE(sender_account, ''), COALESCE(sender_device, ''), COALESCE(recipient, ''), encoding, ` + bodyBytes + `,
	CASE WHEN ` + bodyBytes + ` <= ` + bound(n) + ` THEN body END, ` + tagColumn
}

// Reach bounds a page of records.
type Reach struct {
	Count int
	Bytes int // the page ends once the bodies exceed it in total
	Body  int // longer bodies are not loaded, see ds.Record.Left; 0 for no bound
}

// RecordsAfter reads a page of a log: the records after pos in order, at most count of them, up
// to the one with which their bodies exceed bytesMax in total.
func (l Logs) RecordsAfter(log ds.LogID, pos int64, count, bytesMax int) ([]ds.Record, error) {
	list, isLong, err := l.after(log, pos, Reach{Count: count, Bytes: bytesMax})
	if isLong && err == nil {
		err = l.readBody(&list[len(list)-1])
	}
	return list, err
}

func (l Logs) after(log ds.LogID, pos int64, reach Reach) ([]ds.Record, bool, error) {
	return l.page(log, reach, `pos > $2 ORDER BY pos LIMIT `+bound(3), pos, int64(reach.Count))
}

// RecordsAfter does the work of Logs.RecordsAfter in a transaction of its own.
func (db *DB) RecordsAfter(ctx context.Context, log ds.LogID, pos int64, count, bytesMax int) ([]ds.Record, error) {
	return db.RecordsWithin(ctx, log, pos, Reach{Count: count, Bytes: bytesMax})
}

// RecordsWithin reads a page of a log: the records after pos in order, within reach.
func (db *DB) RecordsWithin(ctx context.Context, log ds.LogID, pos int64, reach Reach) ([]ds.Record, error) {
	return db.page(ctx, func(tx *Tx) ([]ds.Record, bool, error) { return tx.Logs.after(log, pos, reach) })
}

// ReadBody reads the body of a record that was not loaded.
func (db *DB) ReadBody(ctx context.Context, r *ds.Record) error {
	err := db.Read(ctx, func(tx *Tx) error { return tx.Logs.readBody(r) })
	if err == nil {
		r.Left = 0
	}
	return err
}

// page runs one statement of Logs.page and, if it found a long body, one more.
func (db *DB) page(ctx context.Context, find func(*Tx) ([]ds.Record, bool, error)) (list []ds.Record, err error) {
	isLong := false
	err = db.Read(ctx, func(tx *Tx) error {
		list, isLong, err = find(tx)
		return err
	})
	if isLong && err == nil {
		err = db.Read(ctx, func(tx *Tx) error { return tx.Logs.readBody(&list[len(list)-1]) })
	}
	return list, err
}

// page reads records of a log for which a condition over the arguments from $2 holds, within
// reach. A record with a long body ends the page before it or, if no body precedes it, is the
// last; its body must then be read (isLong).
func (l Logs) page(log ds.LogID, reach Reach, where string, args ...any) (list []ds.Record, isLong bool, err error) {
	inline := bodyInlineMax
	if reach.Body > 0 {
		inline = min(inline, reach.Body)
	}
	args = append(append([]any{string(log)}, args...), int64(inline))
	rs, err := l.tx.query(`SELECT `+pageColumns(len(args))+` FROM records WHERE log_id = $1 AND `+where, args...)
	if err != nil {
		return nil, false, err
	}
	defer rs.Close()
	for total := 0; total <= reach.Bytes && rs.Next(); {
		var length int
		r := ds.Record{Log: log}
		if err := rs.Scan(&r.Pos, &r.Seq, &r.Kind, &r.Generation, &r.Epoch, &r.Term, &r.MessageID, &r.CreatedMS, &r.Hash,
			&r.Sender.Account, &r.Sender.ID, &r.Recipient, &r.Encoding, &length, bodyInto(&r.Body), &r.ConfirmationTag); err != nil {
			return nil, false, err
		}
		if reach.Body > 0 && length > reach.Body {
			r.Left = length
			list = append(list, r)
			continue
		}
		if isLong = length > inline; isLong && total > 0 {
			return list, false, rs.Err()
		}
		total += length
		if list = append(list, r); isLong {
			return list, true, rs.Err()
		}
	}
	return list, false, rs.Err()
}

// readBody reads the body that page left out.
func (l Logs) readBody(r *ds.Record) error {
	err := l.tx.row(`SELECT body FROM records WHERE log_id = $1 AND pos = $2`, string(r.Log), r.Pos).Scan(bodyInto(&r.Body))
	if notFound(err) == ErrNotFound {
		return ds.Unavailable(errors.New("a record was deleted while it was read"))
	}
	return err
}

// HistoryPage selects messages of a conversation.
type HistoryPage struct {
	SinceSeq, UntilSeq int64 // exclusive and inclusive
	Apps, Commits      bool  // only these, unless both are set
	FromEpoch, ToEpoch int64 // of commits
	Reach
}

// History reads messages in the order of seq.
func (db *DB) History(ctx context.Context, log ds.LogID, p HistoryPage) ([]ds.Record, error) {
	where := `seq > $2 AND seq <= $3`
	switch {
	case p.Commits && !p.Apps:
		where += ` AND kind = 3 AND epoch >= $4 AND epoch <= $5` // records_commits has only these
	case p.Apps && !p.Commits:
		where += ` AND kind = 1 AND CAST($4 AS BIGINT) <= CAST($5 AS BIGINT)`
	default:
		where += ` AND (kind <> 3 OR epoch >= $4 AND epoch <= $5)`
	}
	return db.page(ctx, func(tx *Tx) ([]ds.Record, bool, error) {
		return tx.Logs.page(log, p.Reach, where+` ORDER BY seq LIMIT `+bound(6), p.SinceSeq, p.UntilSeq, p.FromEpoch, p.ToEpoch, int64(p.Count))
	})
}

// FirstCommit returns the seq of the first commit of a generation that begins epoch or a later
// one, and the epoch that it begins; zero if there is none.
func (l Logs) FirstCommit(log ds.LogID, generation, epoch int64) (seq, begins int64, err error) {
	err = l.tx.row(`SELECT seq, epoch FROM records WHERE log_id = $1 AND kind = 3 AND seq IS NOT NULL AND generation = $2 AND epoch >= $3
		ORDER BY seq LIMIT 1`, string(log), generation, epoch).Scan(&seq, &begins)
	if notFound(err) == ErrNotFound {
		return 0, 0, nil
	}
	return seq, begins, err
}

// CommitsBetween counts the commits after one seq and before another that begin an epoch
// within the bounds.
func (l Logs) CommitsBetween(log ds.LogID, after, before, fromEpoch, toEpoch int64) (count int64, err error) {
	err = l.tx.row(`SELECT count(*) FROM records WHERE log_id = $1 AND kind = 3 AND seq > $2 AND seq < $3 AND epoch >= $4 AND epoch <= $5`,
		string(log), after, before, fromEpoch, toEpoch).Scan(&count)
	return count, err
}

// SeqAt returns the seq of the last message at or before pos, 0 if there is none.
func (l Logs) SeqAt(log ds.LogID, pos int64) (seq int64, err error) {
	err = l.tx.row(`SELECT seq FROM records WHERE log_id = $1 AND pos <= $2 AND seq IS NOT NULL ORDER BY pos DESC LIMIT 1`, string(log), pos).Scan(&seq)
	if notFound(err) == ErrNotFound {
		return 0, nil
	}
	return seq, err
}
