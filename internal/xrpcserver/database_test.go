package xrpcserver

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of PostgreSQL; the store has that of SQLite
)

// database looks at all that a world has stored, past the store.
type database struct {
	t  testing.TB
	db *sql.DB
}

// onBothStored is onBoth for a test that looks at what is stored.
func onBothStored(t *testing.T, test func(t *testing.T, w *world, stored *database), change ...func(*setup)) {
	t.Helper()
	var url string
	change = append(change, func(s *setup) { url = s.store.URL })
	onBoth(t, func(t *testing.T, w *world) { test(t, w, openDatabase(t, url)) }, change...)
}

func openDatabase(t testing.TB, url string) *database {
	t.Helper()
	driver, name := "pgx", url
	if folder, isFile := strings.CutPrefix(url, "sqlite:"); isFile {
		driver, name = "sqlite", "file:"+folder+"/waxwing.db?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, name)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return &database{t, db}
}

// passing are the tables that every call may write to, whatever becomes of it.
var passing = []string{"nonces", "accounts"}

// contents is every table with a digest of its rows.
func (d *database) contents() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	for _, table := range d.tables() {
		rows := d.rows(table)
		all[table] = fmt.Sprintf("%d rows %.16x", len(rows), sha256.Sum256([]byte(strings.Join(rows, "\n"))))
	}
	return all
}

func (d *database) tables() (list []string) {
	d.t.Helper()
	rows, err := d.db.Query(`SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'`)
	if err != nil {
		rows, err = d.db.Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
	}
	must(d.t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		must(d.t, rows.Scan(&name))
		if !slices.Contains(passing, name) {
			list = append(list, name)
		}
	}
	must(d.t, rows.Err())
	if len(list) < 10 {
		d.t.Fatalf("only the tables %v", list)
	}
	return list
}

// rows is a table as text, sorted.
func (d *database) rows(table string) (list []string) {
	d.t.Helper()
	rows, err := d.db.Query("SELECT * FROM " + table)
	must(d.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	must(d.t, err)
	for rows.Next() {
		values, places := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		must(d.t, rows.Scan(places...))
		list = append(list, fmt.Sprintf("%v", values))
	}
	must(d.t, rows.Err())
	slices.Sort(list)
	return list
}

// unchanged fails the test where anything has been stored since before.
func (d *database) unchanged(what string, before map[string]string) {
	d.t.Helper()
	after := d.contents()
	for _, table := range slices.Sorted(maps.Keys(after)) {
		if after[table] != before[table] {
			d.t.Errorf("%s: %s had %s and has %s: %.600v", what, table, before[table], after[table], d.rows(table))
		}
	}
}
