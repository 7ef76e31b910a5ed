package store

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

// TestPlansByIndex: no statement of the AT Protocol door's, or over a list, reads a table from
// one end to the other. On PostgreSQL that would not show, where a scan is the last resort.
func TestPlansByIndex(t *testing.T) {
	var mu sync.Mutex
	statements := map[string]bool{}
	note := func(sql string, done bool) {
		mu.Lock()
		defer mu.Unlock()
		statements[sql] = true
	}
	for _, test := range []func(*testing.T, *DB){testDevices, testResetDevice, testDeleteDevice, testAdditions, testClaimAddition, testPool,
		testClaimFromPool, testFreePackages, testAcquainted, testViews, testSettings, testRecipientsSwept, testDIDDocuments,
		testBatch, testServices, testAccountLogs, testCursors, listStatements} {
		test(t, open(t, "sqlite", note))
	}
	db := open(t, "sqlite")
	tables := map[string]bool{}
	for _, name := range read(t, db, func(tx *Tx) (names []string, err error) {
		err = tx.each(func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			names = append(names, name)
			return err
		}, `SELECT name FROM sqlite_master WHERE type = 'table'`)
		return names, err
	}) {
		tables[name] = true
	}
	explained := 0
	for sql := range statements {
		verb, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
		if !slices.Contains([]string{"SELECT", "UPDATE", "DELETE", "INSERT"}, verb) || !parameter.MatchString(sql) { // without one it is these tests' own
			continue
		}
		explained++
		for _, step := range db.plan(t, sql) {
			if scanned := wholeTable.FindStringSubmatch(step); scanned != nil && tables[scanned[1]] {
				t.Errorf("%s\n%s", step, sql)
			}
		}
	}
	if explained < 40 {
		t.Errorf("only %d statements were seen", explained)
	}
}

// listStatements makes the statements about lists of sessions, accounts and positions.
func listStatements(t *testing.T, db *DB) {
	hashes := [][32]byte{{1}, {2}}
	db.must(t, func(tx *Tx) error {
		_, resumed := tx.Sessions.ByResume(hashes)
		_, rotated := tx.Sessions.Rotate([]Rotation{{Session: Session{Hash: hashes[0][:], ResumeHash: hashes[1][:]}}}, 1, 2)
		_, extended := tx.Sessions.Extend(hashes, 1, 2)
		_, consumed := tx.Sessions.ConsumeNonces([]Nonce{{Hash: hashes[0]}, {Hash: hashes[1]}})
		_, admitted := tx.Admission.Admit([]ds.AccountID{"ann", "bob"}, 1)
		_, read := tx.Logs.Readings([]Start{{Conversation: "c1"}, {Conversation: "c2"}})
		_, reacted := tx.Conversations.Reactions([]ReactionKey{{Conversation: "c1"}, {Conversation: "c2"}})
		_, listed := tx.Admission.List("a", "", 10)
		_, got := tx.Admission.Get("ann")
		_, detailed := tx.Admission.Details("ann")
		_, since := tx.Admission.ExpelledSince(1, 10)
		_, unfinished := tx.Admission.Unfinished("", 10)
		_, expelled := tx.Admission.Expelled([]ds.AccountID{"ann", "bob"})
		_, stays := tx.Conversations.IDsAfter("ann", "c", 10)
		_, packages := tx.Packages.RevokeSome("ann", 10)
		return errors.Join(resumed, rotated, extended, consumed, admitted, read, reacted, listed, got, detailed, since, unfinished, expelled, stays, packages,
			tx.Admission.FinishExpulsion("ann"), tx.Admission.Readmit("ann"),
			tx.Sessions.LimitPredecessors([]Successor{{hashes[0], hashes[1]}}, 1))
	})
}

var (
	parameter  = regexp.MustCompile(`\$(\d+)`)
	wholeTable = regexp.MustCompile(`^SCAN (\w+)`)
)

// plan returns SQLite's query plan of a statement.
func (db *DB) plan(t *testing.T, sql string) (steps []string) {
	t.Helper()
	count := strings.Count(sql, "?")
	for _, n := range parameter.FindAllStringSubmatch(sql, -1) {
		number, _ := strconv.Atoi(n[1])
		count = max(count, number)
	}
	db.must(t, func(tx *Tx) error {
		return tx.each(func(scan func(...any) error) error {
			var id, parent, unused int64
			var step string
			err := scan(&id, &parent, &unused, &step)
			steps = append(steps, step)
			return err
		}, "EXPLAIN QUERY PLAN "+sql, make([]any, count)...)
	})
	return steps
}
