package store

import (
	"context"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

// testHome moves a conversation to another home and back. Its group id is unique among the
// conversations whose home is this service, and among them alone.
func testHome(t *testing.T, db *DB) {
	const elsewhere = "did:web:elsewhere"
	own, copied := head("own"), head("copied")
	own.GroupID, copied.GroupID, copied.Home = []byte("g"), []byte("g"), elsewhere
	db.write(t, Batch{Created: []ds.Conversation{own, copied}})
	stored := func(id ds.ConversationID) ds.Conversation {
		t.Helper()
		return read(t, db, func(tx *Tx) (ds.Conversation, error) { return tx.Logs.Head(id) })
	}
	columns := func(id string, wantOwn, wantCopied string) {
		t.Helper()
		var own, copied []byte
		db.must(t, func(tx *Tx) error {
			return tx.row(`SELECT group_id, copy_group_id FROM logs WHERE log_id = $1`, "c/"+id).Scan(&own, &copied)
		})
		same(t, "groups of "+id, []string{string(own), string(copied)}, []string{wantOwn, wantCopied})
	}
	columns("own", "g", "")
	columns("copied", "", "g")
	same(t, "a copy", stored("copied").GroupID, []byte("g"))
	move := func(before ds.Conversation, term int64, home, group string) error {
		after := before
		after.Pos, after.Hash, after.Term, after.Home, after.GroupID = before.Pos+1, []byte{byte(before.Pos + 1)}, term, home, []byte(group)
		return db.Append(context.Background(), func(tx *Tx) error { return tx.Logs.Write(Batch{Changed: []Change{{before, after}}}) })
	}
	rows := []struct {
		name        string
		id          ds.ConversationID
		change      func(before *ds.Conversation)
		term        int64
		home, group string
		isRefused   func(error) bool
	}{
		{"of another term", "own", func(c *ds.Conversation) { c.Term = 7 }, 8, "", "g", isMoved},
		{"of another home", "own", func(c *ds.Conversation) { c.Home = elsewhere }, 2, "", "g", isMoved},
		{"of a home that was", "copied", func(c *ds.Conversation) { c.Home = "" }, 2, elsewhere, "g", isMoved},
		{"comes here, its group is bound here", "copied", nil, 2, "", "g", IsGroupInUse},
		{"goes", "own", nil, 2, elsewhere, "g", nil},
		{"comes here", "copied", nil, 2, "", "g", nil},
		{"another term alone", "copied", nil, 3, "", "g", nil},
		{"another home alone", "own", nil, 2, "did:web:third", "g", nil},
		{"another group at another home", "own", nil, 2, "did:web:third", "g2", nil},
	}
	for _, row := range rows {
		before := stored(row.id)
		if row.change != nil {
			row.change(&before)
		}
		err := move(before, row.term, row.home, row.group)
		switch after := stored(row.id); {
		case row.isRefused != nil:
			if !row.isRefused(err) {
				t.Errorf("%s: %v", row.name, err)
			}
			if row.change == nil && !after.Version().IsEqual(before.Version()) {
				t.Errorf("%s: it is written in part: %+v", row.name, after)
			}
		case err != nil:
			t.Errorf("%s: %v", row.name, err)
		default:
			same(t, row.name, []any{after.Term, after.Home, string(after.GroupID)}, []any{row.term, row.home, row.group})
		}
	}
	columns("own", "", "g2")
	columns("copied", "g", "")
	versions := read(t, db, func(tx *Tx) (map[ds.ConversationID]ds.HeadVersion, error) {
		return tx.Logs.HeadVersions([]ds.ConversationID{"own", "copied", "none"})
	})
	ownHead, copiedHead := stored("own"), stored("copied")
	same(t, "versions", versions, map[ds.ConversationID]ds.HeadVersion{"own": ownHead.Version(), "copied": copiedHead.Version()})
}

// testServices writes stays of accounts that live elsewhere and reads them back.
func testServices(t *testing.T, db *DB) {
	stay := func(account ds.AccountID, from, until int64, role ds.Role, service string) Stay {
		return Stay{Conversation: "c1", Account: account, Interval: ds.Interval{From: from, Until: until, Role: role, Service: service}}
	}
	db.write(t, Batch{Created: []ds.Conversation{head("c1")}, Stays: []Stay{stay("ann", 1, 0, ds.Owner, ""), stay("bob", 1, 0, ds.Plain, "did:web:b"),
		stay("eve", 1, 0, ds.Plain, "did:web:e"), stay("eve", 1, 2, ds.Plain, "did:web:e"), stay("eve", 3, 0, ds.Plain, "")}})
	db.write(t, Batch{Roles: []Stay{stay("bob", 1, 0, ds.Admin, "did:web:b")}})
	key := func(account ds.AccountID) MemberKey { return MemberKey{Conversation: "c1", Account: account} }
	db.must(t, func(tx *Tx) error {
		all, err := tx.Conversations.Intervals([]MemberKey{key("ann"), key("bob"), key("eve")})
		if err != nil {
			return err
		}
		same(t, "stays", all, map[MemberKey][]ds.Interval{key("ann"): {{From: 1, Role: ds.Owner}}, key("bob"): {{From: 1, Role: ds.Admin, Service: "did:web:b"}},
			key("eve"): {{From: 1, Until: 2, Role: ds.Plain, Service: "did:web:e"}, {From: 3, Role: ds.Plain}}})
		present, err := tx.Conversations.PresentStays([]ds.ConversationID{"c1"})
		same(t, "present stays", present, map[MemberKey]ds.Interval{key("ann"): {From: 1, Role: ds.Owner},
			key("bob"): {From: 1, Role: ds.Admin, Service: "did:web:b"}, key("eve"): {From: 3, Role: ds.Plain}})
		return err
	})
}
