package store

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

func TestReadings(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			var created []ds.Conversation
			for _, id := range []string{"c1", "c2", "c3", "c4"} {
				created = append(created, head(id))
			}
			created[1].Home = "did:web:home.example"
			db.write(t, Batch{Created: created, Stays: []Stay{
				{"c1", "ann", ds.Interval{From: 1, Role: ds.Owner}}, {"c2", "ann", ds.Interval{From: 1, Role: ds.Plain}},
				{"c3", "bob", ds.Interval{From: 1, Role: ds.Owner}}, {"c4", "ann", ds.Interval{From: 1, Role: ds.Plain}},
			}})
			moved := created[0]
			moved.Pos, moved.Seq, moved.Hash = 3, 3, []byte{9}
			db.write(t, Batch{Changed: []Change{{created[0], moved}}, Records: []ds.Record{message("c1", 1), message("c1", 2), message("c1", 3)}})
			// Ann left c2 and came back, and left c4 for good.
			db.write(t, Batch{Stays: []Stay{{"c2", "ann", ds.Interval{Until: 4}}, {"c4", "ann", ds.Interval{Until: 2}}}})
			db.write(t, Batch{Stays: []Stay{{"c2", "ann", ds.Interval{From: 6, Role: ds.Admin}}}})
			phone, tablet := ds.Device{Account: "ann", ID: "phone"}, ds.Device{Account: "ann", ID: "tablet"}
			db.must(t, func(tx *Tx) error {
				return tx.AdvanceCursors([]DeviceCursor{{Device: phone, Cursor: ds.Cursor{Log: "c/c1", Next: 3}}})
			})
			ids := []ds.ConversationID{"c1", "c2", "c3", "c4", "none"}
			db.must(t, func(tx *Tx) error {
				all, err := tx.Readings(phone, ids)
				want := map[ds.ConversationID]Reading{
					"c1": {Pos: 3, Seq: 3, EarliestSeq: 1, Stay: ds.Interval{From: 1, Role: ds.Owner}, Cursor: 3},
					"c2": {Home: "did:web:home.example", EarliestSeq: 1, Stay: ds.Interval{From: 6, Role: ds.Admin}, Cursor: 1},
					"c4": {EarliestSeq: 1, Stay: ds.Interval{From: 1, Until: 2, Role: ds.Plain}, Cursor: 1},
				}
				same(t, "all", all, want)
				for _, id := range ids {
					one, err := tx.Readings(phone, []ds.ConversationID{id})
					if err != nil {
						return err
					}
					alone := map[ds.ConversationID]Reading{}
					if r, ok := want[id]; ok {
						alone[id] = r
					}
					same(t, string(id), one, alone)
				}
				other, _ := tx.Readings(tablet, ids[:1])
				same(t, "another device's cursor", other["c1"].Cursor, int64(1))
				nothing, _ := tx.Readings(phone, nil)
				same(t, "none", len(nothing), 0)
				return err
			})
		})
	}
}

// TestLimitsAreBound: a bare argument behind LIMIT makes SQLite plan its statement
// again each time, which nothing but the time it takes would show.
func TestLimitsAreBound(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	bare := regexp.MustCompile(`LIMIT \$[0-9]`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := bare.Find(text); found != nil && !strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s: %s: write `LIMIT `+bound(n), which says why", file, found)
		}
	}
}
