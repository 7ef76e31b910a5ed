package xrpcserver

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
)

// forms returns the events of a record for each generation, in short, and checks them against
// its lexicons.
func (w *world) forms(events []sharedEvent) (unknown, a, b string) {
	w.t.Helper()
	sets := [][]lexicons.Set{{lexicons.A, lexicons.B}, {lexicons.A}, {lexicons.B}}
	var out [3][]string
	for i := range events {
		e := &events[i]
		for g, is := range e.known {
			if !is {
				continue
			}
			event, seq, err := xrpc.DecodeFrame(e.frame.AppendAt(nil, 7, "a cursor"))
			must(w.t, err)
			text := appendJSON(nil, e, 7, []byte("a cursor"))
			same, err := xrpc.EventJSON(event, 7)
			must(w.t, err)
			var x, y any
			must(w.t, json.Unmarshal(text, &x))
			must(w.t, json.Unmarshal(same, &y))
			first, _ := json.Marshal(x)
			second, _ := json.Marshal(y)
			if string(first) != string(second) || seq != 7 || !strings.Contains(string(first), `"cursor":"a cursor"`) {
				w.t.Errorf("the forms of an event differ: %s and %s", first, second)
			}
			for _, set := range sets[g] {
				if err := lexicons.Validate(set, xrpc.SubscribeEvents, "message", text); err != nil {
					w.t.Errorf("%s: %v", text, err)
				}
			}
			out[g] = append(out[g], w.word(event))
		}
	}
	return strings.Join(out[0], ", "), strings.Join(out[1], ", "), strings.Join(out[2], ", ")
}

func TestEventsOfRecords(t *testing.T) {
	w := newWorld(t)
	ann, ben := ds.AccountID(w.did("ann")), ds.AccountID(w.did("ben"))
	tests := []struct {
		name          string
		kind          ds.Kind
		body          any
		unknown, a, b string
	}{
		{"a message", ds.App, nil, "app m1 3", "app m1 3", "app m1 3"},
		{"a proposal", ds.Proposal, nil, "app m1 3", "app m1 3", "app m1 3"},
		{"a commit", ds.Commit, nil, "commit m1 3", "commit m1 3, epoch 2", "commit m1 3"},
		{"two come in", ds.Membership, ds.MembershipChange{By: ann, Add: []ds.AccountID{ann, ben}}, "",
			"joined ann, joined ben", "change joined ann, change joined ben"},
		{"one leaves", ds.Membership, ds.MembershipChange{By: ben, Remove: []ds.AccountID{ben}}, "", "left ben", "change left ben"},
		{"one is removed", ds.Membership, ds.MembershipChange{By: ann, Remove: []ds.AccountID{ben}}, "", "removed ben ann", "change removed ben"},
		{"one is expelled", ds.Membership, ds.MembershipChange{Remove: []ds.AccountID{ben}}, "", "left ben", "change left ben"},
		{"who has no DID", ds.Membership, ds.MembershipChange{By: ann, Add: []ds.AccountID{"ben", "did:x:a b", "did:x:"}}, "", "", ""},
		{"a role", ds.Roles, ds.RoleChange{By: ann, Account: ben, Role: ds.Admin}, "", "updated [roles]", ""},
		{"settings", ds.SettingsEvent, ds.SettingsChange{By: ann, Fields: []string{"policy"}}, "", "updated [policy]", ""},
		{"a reaction", ds.ReactionEvent, ds.Reaction{Account: ben, MessageID: "m1", Reaction: "+"}, "reaction add ben + m1", "reaction add ben + m1", "reaction add ben + m1"},
		{"a reaction goes", ds.ReactionEvent, ds.Reaction{Account: ben, MessageID: "m1", Reaction: "+", Removed: true},
			"reaction remove ben + m1", "reaction remove ben + m1", "reaction remove ben + m1"},
		{"a GroupInfo is wanted", ds.RequestEvent, ds.Request{By: ben, Wants: ds.WantsGroupInfo}, "info a current GroupInfo is wanted groupInfoRefreshRequested ben",
			"info a current GroupInfo is wanted groupInfoRefreshRequested ben", "wanted groupInfo ben"},
		{"readdition", ds.RequestEvent, ds.Request{By: ben, Wants: ds.WantsReaddition}, "info a member wants to be added again readditionRequested ben",
			"info a member wants to be added again readditionRequested ben", "wanted readdition ben"},
		{"a device", ds.DeviceAddition, ds.Addition{ID: "add1", Device: ds.Device{Account: ben, ID: "d1"}, Name: "phone"}, "device ben#d1 add1", "device ben#d1 add1", "device ben#d1 add1"},
		{"a kind of later", 99, ds.Request{}, "", "", ""},
		{"no body", ds.ReactionEvent, "?", "", "", ""},
	}
	for _, test := range tests {
		r := &ds.Record{Kind: test.kind, Pos: 5, Epoch: 2, CreatedMS: 1_800_000_001_999, Body: []byte("sealed")}
		if test.body != nil {
			r.Body, _ = json.Marshal(test.body)
		} else {
			r.Seq, r.MessageID = 3, "m1"
		}
		unknown, a, b := w.forms(w.server.subscriptions.eventsOf("c1", r))
		if unknown != test.unknown || a != test.a || b != test.b {
			t.Errorf("%s: got\n%q\n%q\n%q, want\n%q\n%q\n%q", test.name, unknown, a, b, test.unknown, test.a, test.b)
		}
	}
}

// TestTreeChangedIsNeverLost: a reader that reads a commit late, or while the database is
// unavailable, is sent the tag of the commit.
func TestTreeChangedIsNeverLost(t *testing.T) {
	const at, leaving, away = 0, 1, 2
	var database atomic.Int32
	var back chan struct{}
	hook := func(sql string, done bool) { // the database goes away behind a COMMIT
		switch {
		case sql == "COMMIT" && done:
			database.CompareAndSwap(leaving, away)
		case !done && database.Load() == away:
			<-back
		}
	}
	onBoth(t, func(t *testing.T, w *world) {
		back = make(chan struct{})
		w.speaks("ben", xrpc.GenerationB)
		ann := w.phone("ann").start()
		must(t, w.apply(w.as("ann"), core.Invite{ConversationID: ds.ConversationID(ann.id), Accounts: w.accounts("ben")}))
		commit := func(tag string) {
			pending := ann.commit(mls.CommitOptions{})
			_, err := w.core.Apply(context.Background(), w.as("ann"), core.Bundle{ConversationID: ds.ConversationID(ann.id),
				ID: ds.MessageID("commit " + tag), ByAccount: true, Encoding: ds.Binary, Commit: pending.Message(), ConfirmationTag: []byte(tag)})
			must(t, err)
			ann.g = pending.Group()
		}
		ben := w.subscribe("ben", "", ann.id)
		commit("one")
		ben.next() // the commit itself
		cursor := ben.cursor
		ben.expect("tree 1 one")
		commit("two")
		ben.next()
		ben.expect("tree 2 two")
		again := w.subscribe("ben", cursor, ann.id)
		again.expect("tree 1 one")
		again.next()
		again.expect("tree 2 two")

		defer close(back)
		defer database.Store(at)
		database.Store(leaving)
		commit("three")
		for _, reader := range []*subscriber{ben, again} {
			reader.next()
			reader.expect("tree 3 three")
		}
	}, func(s *setup) { s.store.Hook = store.Watch(hook) })
}

func TestEventsOfAnnouncements(t *testing.T) {
	w := newWorld(t)
	ann := ds.AccountID(w.did("ann"))
	for _, test := range []struct {
		a             logs.Announcement
		unknown, A, B string
	}{
		{logs.Announcement{Kind: logs.Typing, IsTyping: true}, "typing ann true", "typing ann true", "typing ann true"},
		{logs.Announcement{Kind: logs.Read, MessageID: "m1"}, "", "read ann m1", ""},
		{logs.Announcement{Kind: logs.Read}, "", "read ann", ""},
		{logs.Announcement{Kind: logs.Ephemeral, Body: []byte("hush")}, "ephemeral hush", "ephemeral hush", "ephemeral hush"},
	} {
		test.a.Account, test.a.AtMS = ann, 1_800_000_001_999
		unknown, a, b := w.forms(w.server.subscriptions.eventOfAnnouncement("c1", &test.a))
		if unknown != test.unknown || a != test.A || b != test.B {
			t.Errorf("got %q, %q, %q, want %q, %q, %q", unknown, a, b, test.unknown, test.A, test.B)
		}
	}
}

// What a message shows of its time is no finer than two seconds, and of its sender nothing.
func TestEventsTellNoSender(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.core.RecordSenders = true })
	w.room("c1", "ann", "ben")
	ben := w.subscribe("ben", "", "c1")
	w.say("ann", "c1", "m1")
	m := ben.next().(*xrpc.MessageEvent)
	if ms := m.Message.CreatedAt.UnixMilli(); ms%2000 != 0 {
		t.Errorf("the message shows the time %d", ms)
	}
	text, err := xrpc.EventJSON(m, 1)
	must(t, err)
	if strings.Contains(string(text), w.did("ann")) {
		t.Errorf("the event names the sender: %s", text)
	}
}

func TestIsDID(t *testing.T) {
	for text, want := range map[ds.AccountID]bool{"did:plc:abc": true, "did:web:a.example%3A80": true, "did:key:zQ3": true, "ann": false, "": false,
		"did:": false, "did:web": false, "did:web:": false, "did:web:a:": false, "did:WEB:a": false, "did:web:a b": false, "did:web:a#b": false, "did:web:a%": false} {
		if isDID(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
