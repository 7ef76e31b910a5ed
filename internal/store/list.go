package store

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"waxwing.im/waxwing/internal/ds"
)

// in returns the condition that a column is in a list of texts that is passed as one argument,
// number n, made by setOf: one statement text whatever the length of the list.
func (tx *Tx) in(n int) string {
	if tx.dialect.name == "postgres" {
		return fmt.Sprintf("= ANY($%d::text[])", n)
	}
	return fmt.Sprintf("IN (SELECT value FROM json_each($%d))", n)
}

func (tx *Tx) setOf(list []string) any {
	if tx.dialect.name == "postgres" {
		return list
	}
	return asJSON(list)
}

// table is a table expression named k over rows from memory, for statements about lists: an
// array for each column on PostgreSQL, and on SQLite one JSON text, since joining lists by their
// index is quadratic there. The text of the statement does not depend on the number of rows, but
// one row is passed as plain arguments: PostgreSQL would plan a statement over arrays again for
// each call, which may take many times its execution.
type table struct {
	from    string // for FROM
	isOne   bool   // there is one row
	columns []tableColumn
	rows    []byte // JSON, on SQLite
}

// tableColumn holds the values of a column in the slice of its type, unless they are in JSON.
type tableColumn struct {
	kind    string
	texts   []string
	numbers []int64
	bytes   [][]byte
}

// table returns a table of so many rows, which are still to be added, with these columns: each a
// name and one of the types text, bigint and bytea. Its arguments are numbered from first, and
// are the last of their statement.
func (tx *Tx) table(first, rows int, columns ...string) *table {
	t := &table{columns: make([]tableColumn, len(columns)), isOne: rows == 1}
	isPostgres := tx.dialect.name == "postgres"
	from, names := make([]byte, 0, 512), make([]byte, 0, 256)
	for i, column := range columns {
		name, kind, _ := strings.Cut(column, " ")
		t.columns[i].kind = kind
		switch {
		case t.isOne && isPostgres:
			from = append(append(strconv.AppendInt(append(from, ", CAST($"...), int64(first+i), 10), " AS "...), kind...)
			from = append(append(from, ") AS "...), name...)
		case t.isOne:
			from = append(append(strconv.AppendInt(append(from, ", $"...), int64(first+i), 10), " AS "...), name...)
		case isPostgres:
			from = append(append(strconv.AppendInt(append(from, ", $"...), int64(first+i), 10), "::"...), kind...)
			from, names = append(from, "[]"...), append(append(names, ", "...), name...)
		case kind == "bytea":
			from = append(append(strconv.AppendInt(append(from, ", unhex(value->>"...), int64(i), 10), ") AS "...), name...)
		default:
			from = append(append(strconv.AppendInt(append(from, ", value->>"...), int64(i), 10), " AS "...), name...)
		}
	}
	switch {
	case t.isOne:
		t.from = "(SELECT " + string(from[2:]) + ") AS k"
	case isPostgres:
		t.from = "unnest(" + string(from[2:]) + ") AS k(" + string(names[2:]) + ")"
	default:
		t.from = "(SELECT " + string(from[2:]) + " FROM json_each($" + strconv.Itoa(first) + ")) AS k"
		t.rows = append(make([]byte, 0, rows*len(columns)*32), '[')
		return t
	}
	for i := range t.columns {
		t.columns[i].reserve(rows)
	}
	return t
}

func (c *tableColumn) reserve(rows int) {
	switch c.kind {
	case "text":
		c.texts = make([]string, 0, rows)
	case "bigint":
		c.numbers = make([]int64, 0, rows)
	case "bytea":
		c.bytes = make([][]byte, 0, rows)
	}
}

// add adds a row: a string, an int64 or a []byte for each column, as its type is.
func (t *table) add(values ...any) {
	if t.rows == nil {
		for i, value := range values {
			c := &t.columns[i]
			switch value := value.(type) {
			case string:
				c.texts = append(c.texts, value)
			case int64:
				c.numbers = append(c.numbers, value)
			case []byte:
				c.bytes = append(c.bytes, value)
			default:
				panic(fmt.Sprintf("column %d of a list has a %T", i, value))
			}
		}
		return
	}
	for i, value := range values {
		t.rows = append(t.rows, separator(t.rows, i)...)
		switch value := value.(type) {
		case string:
			t.rows = appendJSON(t.rows, value)
		case int64:
			t.rows = strconv.AppendInt(t.rows, value, 10)
		case []byte:
			if value == nil {
				t.rows = append(t.rows, "null"...) // as PostgreSQL has it
			} else {
				t.rows = append(hex.AppendEncode(append(t.rows, '"'), value), '"')
			}
		default:
			panic(fmt.Sprintf("column %d of a list has a %T", i, value))
		}
	}
	t.rows = append(t.rows, ']')
}

func separator(rows []byte, column int) string {
	switch {
	case column > 0:
		return ","
	case len(rows) > 1:
		return ",["
	}
	return "["
}

// args returns the table's arguments, after those of the statement before them.
func (t *table) args(before ...any) []any {
	if t.rows != nil {
		return append(before, string(append(t.rows, ']')))
	}
	for i := range t.columns {
		before = append(before, t.columns[i].arg(t.isOne))
	}
	return before
}

// arg returns all values of a column, or the only one.
func (c *tableColumn) arg(isOne bool) any {
	switch {
	case isOne && c.kind == "text":
		return c.texts[0]
	case isOne && c.kind == "bigint":
		return c.numbers[0]
	case isOne:
		return c.bytes[0]
	case c.kind == "text":
		return c.texts
	case c.kind == "bigint":
		return c.numbers
	}
	return c.bytes
}

// appendJSON appends a text as JSON.
func appendJSON(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // strings always marshal
			}
			return append(to, text...)
		}
	}
	return append(append(append(to, '"'), s...), '"')
}

func asJSON[T any](list []T) string {
	text, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(text)
}

// bound returns argument number n for use after LIMIT. SQLite inspects the value of a bare one
// when it plans a statement, and so plans again each time it is bound, which costs many times
// the reading of a short page; it does not look into a cast.
func bound(n int) string { return fmt.Sprintf("CAST($%d AS BIGINT)", n) }

func texts[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

func conversationLogs(ids []ds.ConversationID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(ds.ConversationLog(id))
	}
	return out
}
