package store

import (
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

// TestWelcomeRecipients: a Welcome waits for each of its recipients until it is confirmed,
// and a commit that brings devices into a group is done with their packages and additions.
func TestWelcomeRecipients(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			db := open(t, database)
			phone, tablet := ds.Device{Account: "bob", ID: "phone"}, ds.Device{Account: "bob", ID: "tablet"}
			db.must(t, func(tx *Tx) error {
				if err := publishIn(tx, []ds.KeyPackage{{Device: phone, Ref: "aa", Body: []byte("x")}, {Device: phone, Ref: "bb", Body: []byte("x")}, {Device: phone, Body: []byte("opaque")},
					{Device: phone, Ref: "cc", Body: []byte("x"), LastResort: true}}, []string{"aa", "bb", "opaque-1", "cc"}); err != nil {
					return err
				}
				_, err := tx.Devices.OpenAdditions(tablet, []ds.ConversationID{"c1", "c2"}, []string{"a1", "a2"})
				return err
			})
			to := func(welcome, account, device, ref string) WelcomeRecipient {
				return WelcomeRecipient{WelcomeID: welcome, Conversation: "c1", Account: ds.AccountID(account), Device: ds.DeviceID(device), KeyPackageRef: ref}
			}
			list := []WelcomeRecipient{to("w1", "bob", "phone", "aa"), to("w1", "cid", "", ""), to("w2", "bob", "", ""), to("w3", "bob", "", "")}
			expires := clock.now.UnixMilli() + 1000
			db.write(t, Batch{Created: []ds.Conversation{head("c1")},
				Welcomes: []Welcome{{ID: "w1", Conversation: "c1", Pos: 1, Body: []byte("one"), ExpiresMS: expires}, {ID: "w2", Conversation: "c1", Pos: 2, Body: []byte("two"), ExpiresMS: expires},
					{ID: "w3", Conversation: "c1", Pos: 3, Body: []byte("gone"), ExpiresMS: clock.now.UnixMilli()}},
				Recipients: append(list, list[0]), Entered: []Entered{{Conversation: "c1", By: "ann", Devices: []ds.Device{tablet, phone}, Packages: []string{"aa", "cc", "zz"}}}})
			db.must(t, func(tx *Tx) error {
				waiting, err := tx.Welcomes.Waiting("bob", "c1", 10)
				same(t, "waiting", waiting, []WelcomeRecipient{list[2], list[0]})
				if err != nil {
					return err
				}
				n, err := tx.Welcomes.Consume(list[:1], "because")
				same(t, "consumed", n, int64(1))
				if err != nil {
					return err
				}
				if n, err = tx.Welcomes.Consume(list[:1], ""); n != 0 || err != nil {
					t.Errorf("consumed again: %d, %v", n, err)
				}
				waiting, err = tx.Welcomes.Waiting("bob", "c1", 10)
				same(t, "still waiting", waiting, list[2:3])
				if err != nil {
					return err
				}
				var reason string
				if err := tx.row(`SELECT reason FROM welcome_recipients WHERE welcome_id = 'w1' AND account = 'bob'`).Scan(&reason); err != nil {
					return err
				}
				same(t, "reason", reason, "because")
				owners, err := tx.Packages.Owners([]string{"aa", "bb", "opaque-1", "zz"})
				same(t, "owners", owners, map[string]ds.Device{"aa": phone, "bb": phone})
				if err != nil {
					return err
				}
				publishers, err := tx.Packages.Publishers([]ds.AccountID{"ann", "bob"})
				same(t, "publishers", publishers, map[ds.AccountID]bool{"bob": true})
				if err != nil {
					return err
				}
				from := Pool{Account: "bob", Device: "phone", OnlyMLS: true}
				p, err := tx.Packages.Claim(from, "eve")
				same(t, "the one that was not used", p.Ref, "bb")
				if err != nil {
					return err
				}
				p, err = tx.Packages.Claim(from, "eve")
				same(t, "the last one", p.Ref, "cc")
				if err != nil {
					return err
				}
				left, err := tx.Devices.OpenAdditions(tablet, []ds.ConversationID{"c1", "c2"}, []string{"a3", "a4"})
				if len(left) != 1 || left[0].Conversation != "c2" {
					t.Errorf("additions that are left: %+v", left)
				}
				if err != nil {
					return err
				}
				return tx.Welcomes.Sweep()
			})
		})
	}
}
