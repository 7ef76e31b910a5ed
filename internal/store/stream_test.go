package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// TestStreamPositions keeps positions and finds them for their own device, for as long
// as they live.
func TestStreamPositions(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			ann, eve := ds.Device{Account: "ann", ID: "phone"}, ds.Device{Account: "eve", ID: "phone"}
			next := []ds.Cursor{{Log: "c/é\"", Next: 1 << 60}, {Log: "a/ann", Next: 1}}
			var list []StreamPosition
			for i := range 20 {
				list = append(list, StreamPosition{ID: [16]byte{byte(i)}, Device: ann, Next: next})
			}
			db.must(t, func(tx *Tx) error { return tx.InsertStreamPositions(list) })
			find := func(id byte, device ds.Device) ([]ds.Cursor, error) {
				var got []ds.Cursor
				err := db.View(context.Background(), func(tx *Tx) (err error) {
					got, err = tx.StreamPosition([16]byte{id}, device, time.Hour)
					return err
				})
				return got, err
			}
			got, err := find(19, ann)
			same(t, "position", got, next)
			if err != nil {
				t.Error(err)
			}
			for name, err := range map[string]error{
				"of another account": func() error { _, err := find(19, eve); return err }(),
				"of another device":  func() error { _, err := find(19, ds.Device{Account: "ann", ID: "x"}); return err }(),
				"unknown":            func() error { _, err := find(20, ann); return err }(),
			} {
				if !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if err := db.Update(context.Background(), func(tx *Tx) error { return tx.InsertStreamPositions(list[:1]) }); err == nil {
				t.Error("a position was changed")
			}
			pass(time.Hour)
			if _, err := find(19, ann); !errors.Is(err, ErrNotFound) {
				t.Errorf("after its time: %v", err)
			}
			db.must(t, func(tx *Tx) error { return tx.InsertStreamPositions([]StreamPosition{{ID: [16]byte{99}, Device: ann}}) })
			db.must(t, func(tx *Tx) error { return tx.SweepStreamPositions(time.Hour) })
			var left int64
			db.must(t, func(tx *Tx) error { return tx.row(`SELECT COUNT(*) FROM stream_positions`).Scan(&left) })
			if left != 1 {
				t.Errorf("%d positions are left", left)
			}
		})
	}
}

func TestConversationIDs(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			var stays []Stay
			for i := range 5 {
				stays = append(stays, Stay{Conversation: ds.ConversationID(fmt.Sprint("c", i)), Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Plain}})
			}
			stays = append(stays, Stay{Conversation: "c2", Account: "ann", Interval: ds.Interval{Until: 3}}, Stay{Conversation: "other", Account: "eve", Interval: ds.Interval{From: 1, Role: ds.Plain}})
			db.write(t, Batch{Stays: stays, Roles: []Stay{{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Admin}}, {Conversation: "c3", Account: "ann", Interval: ds.Interval{From: 9, Role: ds.Admin}}}})
			db.must(t, func(tx *Tx) error {
				got, err := tx.ConversationIDs("ann", 10)
				same(t, "all", got, []ds.ConversationID{"c0", "c1", "c3", "c4"})
				if err != nil {
					return err
				}
				got, err = tx.ConversationIDs("ann", 2)
				same(t, "two", got, []ds.ConversationID{"c0", "c1"})
				if err != nil {
					return err
				}
				stays, err := tx.Intervals([]MemberKey{{"c1", "ann"}, {"c3", "ann"}})
				same(t, "roles", stays, map[MemberKey][]ds.Interval{
					{"c1", "ann"}: {{From: 1, Role: ds.Admin}}, {"c3", "ann"}: {{From: 1, Role: ds.Plain}}})
				return err
			})
		})
	}
}
