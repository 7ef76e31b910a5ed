package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// viewIDs lists conversations and who is in them, "c1(ann,bob)".
func viewIDs(list []ds.View) string {
	var out []string
	for _, v := range list {
		var people []string
		for _, p := range v.Participants {
			people = append(people, string(p.Account))
		}
		out = append(out, fmt.Sprintf("%s(%s)", v.ID, strings.Join(people, ",")))
	}
	return strings.Join(out, " ")
}

func testViews(t *testing.T, db *DB) {
	stay := func(id, account string, from int64, atMS int64) Stay {
		return Stay{Conversation: ds.ConversationID(id), Account: ds.AccountID(account), Interval: ds.Interval{From: from, Role: ds.Plain}, AtMS: atMS}
	}
	var created []ds.Conversation
	for i, id := range []string{"c1", "c2", "c3", "c4", "old"} {
		c := head(id)
		c.Members, c.CreatedMS = 2, int64(50+i)
		created = append(created, c)
	}
	created[1].Policy.MaxMembers, created[1].ConfirmationTag = 7, []byte("tag")
	began := message("old", 1)
	began.CreatedMS = 15
	gone := stay("c4", "ann", 1, 90)
	gone.Interval.Until = 3
	db.write(t, Batch{Created: created, Records: []ds.Record{began},
		Stays: []Stay{stay("c1", "ann", 2, 20), stay("c1", "zoe", 1, 10), stay("c2", "ann", 1, 30), stay("c2", "bob", 1, 30), stay("c3", "ann", 1, 20),
			stay("c4", "ann", 1, 90), gone, stay("old", "ann", 1, 0), stay("c3", "bob", 4, 40)},
		Details: []NewDetails{{Conversation: "c2", Creator: "bob", Suite: "S", Title: "Tea", Description: "at five"}},
		Recipients: []WelcomeRecipient{{WelcomeID: "w1", Conversation: "c1", Account: "ann", Device: "phone", KeyPackageRef: "aa"},
			{WelcomeID: "w1", Conversation: "c1", Account: "ann", Device: "phone", KeyPackageRef: "aa"}, // named twice
			{WelcomeID: "w2", Conversation: "c2", Account: "ann"}, {WelcomeID: "w3", Conversation: "c3", Account: "bob"},
			{WelcomeID: "w4", Conversation: "c4", Account: "ann"}}})
	pages := func(q ViewQuery) string {
		t.Helper()
		var list []ds.View
		db.must(t, func(tx *Tx) error {
			var err error
			if list, err = tx.Conversations.Views(q); err != nil {
				return err
			}
			return tx.Conversations.Participants(list)
		})
		return viewIDs(list)
	}
	for _, test := range []struct {
		name string
		q    ViewQuery
		want string
	}{
		{"latest joined first", ViewQuery{Account: "ann", Count: 10}, "c2(ann,bob) c1(zoe,ann) c3(ann,bob) old(ann)"},
		{"a page", ViewQuery{Account: "ann", Count: 2}, "c2(ann,bob) c1(zoe,ann)"},
		{"the page after", ViewQuery{Account: "ann", AfterMS: 20, After: "c1", Count: 2}, "c3(ann,bob) old(ann)"},
		{"after the last", ViewQuery{Account: "ann", AfterMS: 15, After: "old", Count: 2}, ""},
		{"one", ViewQuery{Account: "ann", Only: "c3", Count: 1}, "c3(ann,bob)"},
		{"one that was left", ViewQuery{Account: "ann", Only: "c4", Count: 1}, ""},
		{"one of others", ViewQuery{Account: "zoe", Only: "c2", Count: 1}, ""},
		{"waiting", ViewQuery{Account: "ann", Waiting: WaitingForAccount, Count: 10}, "c2(ann,bob) c1(zoe,ann)"},
		{"waiting for the device", ViewQuery{Account: "ann", Waiting: WaitingForDevice, Device: "phone", Count: 10}, "c2(ann,bob) c1(zoe,ann)"},
		{"waiting for another", ViewQuery{Account: "ann", Waiting: WaitingForDevice, Device: "tablet", Count: 10}, "c2(ann,bob)"},
		{"waiting for any", ViewQuery{Account: "ann", Waiting: WaitingForDevice, Count: 10}, "c2(ann,bob) c1(zoe,ann)"},
	} {
		if got := pages(test.q); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	db.must(t, func(tx *Tx) error {
		list, err := tx.Conversations.Views(ViewQuery{Account: "ann", Only: "c2", Count: 1})
		if err != nil {
			return err
		}
		v := list[0]
		same(t, "details", v.Details, ds.Details{Creator: "bob", Suite: "S", Title: "Tea", Description: "at five"})
		same(t, "head", []any{v.Policy.MaxMembers, string(v.ConfirmationTag), v.Role, v.JoinedMS}, []any{int64(7), "tag", ds.Plain, int64(30)})
		old, err := tx.Conversations.Views(ViewQuery{Account: "ann", Only: "old", Count: 1})
		if err != nil {
			return err
		}
		same(t, "joined with a record that says when", old[0].JoinedMS, int64(15))
		n, err := tx.Conversations.CountWaiting("ann")
		same(t, "waiting", n, int64(2))
		return err
	})
	// Roles come and go with who gave them.
	role := func(role ds.Role) {
		s := stay("c1", "ann", 2, 77)
		s.Interval.Role, s.By = role, "zoe"
		db.write(t, Batch{Roles: []Stay{s}})
	}
	for _, want := range []ds.Participant{
		{Member: ds.Member{Account: "ann", Role: ds.Moderator}, JoinedMS: 20, PromotedMS: 77, PromotedBy: "zoe"},
		{Member: ds.Member{Account: "ann", Role: ds.Plain}, JoinedMS: 20},
	} {
		role(want.Role)
		db.must(t, func(tx *Tx) error {
			list, err := tx.Conversations.Views(ViewQuery{Account: "ann", Only: "c1", Count: 1})
			if err != nil {
				return err
			}
			err = tx.Conversations.Participants(list)
			same(t, "participant", list[0].Participants[1], want)
			return err
		})
	}
	db.must(t, func(tx *Tx) error {
		all, err := tx.Conversations.PresentStays([]ds.ConversationID{"c1", "c4"})
		same(t, "stays", all, map[MemberKey]ds.Interval{{Conversation: "c1", Account: "ann"}: {From: 2, Role: ds.Plain},
			{Conversation: "c1", Account: "zoe"}: {From: 1, Role: ds.Plain}})
		if err != nil {
			return err
		}
		for _, row := range []struct {
			id   ds.ConversationID
			pos  int64
			want bool
		}{{"c1", 9, true}, {"c4", 2, true}, {"c4", 3, false}, {"none", 0, false}} {
			is, err := tx.Conversations.HasStaysAfter(row.id, row.pos)
			if same(t, fmt.Sprint("stays after ", row.id, row.pos), is, row.want); err != nil {
				return err
			}
		}
		return nil
	})
}

func testSettings(t *testing.T, db *DB) {
	db.write(t, Batch{Created: []ds.Conversation{head("c1"), head("c2")},
		Details: []NewDetails{{Conversation: "c1", Creator: "ann", Suite: "S"}}, Policies: []PolicyChange{{"c1", "bob", 9}, {"c2", "bob", 8}},
		Infos: []GroupInfo{{Conversation: "c1", Pos: 1, Epoch: 4, Body: []byte("\x00\x01\x00\x02four")}},
		Stays: []Stay{{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: 1, Role: ds.Owner}}}})
	db.write(t, Batch{Infos: []GroupInfo{{Conversation: "c1", Pos: 2, Epoch: 5, Body: []byte("\x00\x01\x00\x04\x00\x01\x00\x03five")}}})
	db.must(t, func(tx *Tx) error {
		epochs, err := tx.Conversations.GroupInfoEpochs([]ds.ConversationID{"c1", "c2", "none"})
		if err != nil {
			return err
		}
		same(t, "epochs", epochs, map[ds.ConversationID]int64{"c1": 5})
		info, err := tx.Conversations.GroupInfo("c1")
		if err != nil {
			return err
		}
		same(t, "info", string(info[8:]), "five")
		list, err := tx.Conversations.Views(ViewQuery{Account: "ann", Only: "c1", Count: 1})
		if err != nil {
			return err
		}
		same(t, "details", list[0].Details, ds.Details{Creator: "ann", Suite: "S", SuiteNumber: 3, PolicyMS: 9, PolicyBy: "bob"})
		return nil
	})
}

// testTagOfFormerEpoch: a node of an earlier version moves the epoch and knows of no tag.
// What it leaves says nothing of the new epoch.
func testTagOfFormerEpoch(t *testing.T, db *DB) {
	before := head("c1")
	before.ConfirmationTag = []byte("tag")
	db.write(t, Batch{Created: []ds.Conversation{before}})
	tag := func() string {
		return string(read(t, db, func(tx *Tx) ([]byte, error) {
			c, err := tx.Logs.Head("c1")
			if err != nil {
				return nil, err
			}
			return c.ConfirmationTag, err
		}))
	}
	same(t, "tag", tag(), "tag")
	db.must(t, func(tx *Tx) error {
		_, err := tx.exec(`UPDATE logs SET pos = pos + 1, epoch = epoch + 1 WHERE log_id = 'c/c1'`)
		return err
	})
	same(t, "tag of the epoch before", tag(), "")
	now := read(t, db, func(tx *Tx) (ds.Conversation, error) { return tx.Logs.Head("c1") })
	after := now
	after.Pos, after.ConfirmationTag = now.Pos+1, []byte("tag") // the same bytes, of this epoch
	db.write(t, Batch{Changed: []Change{{Before: now, After: after}}})
	same(t, "tag that was said again", tag(), "tag")
}

// testTagsOfCommits has the tag of each commit with its record, whatever the epoch now.
// Where only the head has it, as nodes of earlier versions leave it, it is that of the
// commit that opened the epoch.
func testTagsOfCommits(t *testing.T, db *DB) {
	c := head("c1")
	c.Pos, c.Seq, c.Generation, c.Epoch, c.ConfirmationTag = 4, 4, 1, 3, []byte("of the head")
	record := func(pos, epoch int64, kind ds.Kind, tag []byte) ds.Record {
		r := message("c1", pos)
		r.Kind, r.Epoch, r.ConfirmationTag = kind, epoch, tag
		return r
	}
	db.write(t, Batch{Created: []ds.Conversation{c}, Records: []ds.Record{record(1, 1, ds.Commit, []byte("one")), record(2, 2, ds.Commit, nil),
		record(3, 3, ds.Commit, nil), record(4, 3, ds.App, nil)}})
	tags := func(list []ds.Record) (tags []string) {
		for _, r := range list {
			tags = append(tags, string(r.ConfirmationTag))
		}
		return tags
	}
	list, err := db.RecordsAfter(context.Background(), "c/c1", 0, 10, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "tags", tags(list), []string{"one", "", "of the head", ""})
}

// testRecipientsSwept has the recipients of a Welcome go with it.
func testRecipientsSwept(t *testing.T, db *DB) {
	soon := clock.now.Add(time.Minute).UnixMilli()
	db.write(t, Batch{Welcomes: []Welcome{{ID: "w1", Conversation: "c1", Pos: 1, Body: []byte("w"), ExpiresMS: soon}, {ID: "w2", Conversation: "c1", Pos: 1, Body: []byte("w"), ExpiresMS: soon + time.Hour.Milliseconds()}},
		Recipients: []WelcomeRecipient{{WelcomeID: "w1", Conversation: "c1", Account: "ann"}, {WelcomeID: "w2", Conversation: "c1", Account: "ann"}}})
	pass(2 * time.Minute)
	db.must(t, func(tx *Tx) error { return tx.Welcomes.Sweep() })
	db.must(t, func(tx *Tx) error {
		var n int64
		err := tx.row(`SELECT COUNT(*) FROM welcome_recipients`).Scan(&n)
		same(t, "recipients", n, int64(1))
		return err
	})
}
