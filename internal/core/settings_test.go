package core

import (
	"context"
	"encoding/json"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

// settingsIn rebuilds the settings of a conversation from its log alone.
func (w *world) settingsIn(id ds.ConversationID) (policy ds.Policy, details ds.Details) {
	w.t.Helper()
	records, err := w.store.RecordsAfter(context.Background(), ds.ConversationLog(id), 0, 1000, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	policy = ds.DefaultPolicy()
	set := func(s ds.Settings, r *ds.Record, by ds.AccountID) {
		if s.Policy != nil {
			policy, details.PolicyMS, details.PolicyBy = *s.Policy, r.CreatedMS, by
		}
		if s.Title != nil {
			details.Title = *s.Title
		}
		if s.Description != nil {
			details.Description = *s.Description
		}
	}
	for i := range records {
		r := &records[i]
		var members ds.MembershipChange
		var change ds.SettingsChange
		switch r.Kind {
		case ds.Membership:
			if err = json.Unmarshal(r.Body, &members); members.Settings != nil {
				set(*members.Settings, r, members.By)
			}
		case ds.SettingsEvent:
			err = json.Unmarshal(r.Body, &change)
			set(change.Settings, r, change.By)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return policy, details
}

// TestLogHoldsSettings: after every operation that changes settings, and those that change
// other things, the log alone has the settings that are stored.
func TestLogHoldsSettings(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		yes, no, days, most := true, false, int64(0), int64(5)
		// one is a policy with one flag changed.
		one := func(set func(*PolicyChange)) PolicyChange {
			var change PolicyChange
			set(&change)
			return change
		}
		group := func(id string) Create {
			return Create{ConversationID: ds.ConversationID(id), Accounts: []ds.AccountID{"bob"}, GroupID: []byte(id)}
		}
		titled, described, both := group("titled"), group("described"), group("both")
		titled.Title, described.Description = "Title <&> \u2028é", "two\n\"lines\""
		both.Title, both.Description, both.GroupInfo, both.Suite = "T", "D", groupInfo("both", 0), "suite"
		settings := func(change PolicyChange) Op { return Settings{ConversationID: "both", Policy: change} }
		ops := []struct {
			id ds.ConversationID
			op Op
		}{
			{"unbound", Create{ConversationID: "unbound", Accounts: []ds.AccountID{"bob"}}},
			{"plain", group("plain")}, {"titled", titled}, {"described", described}, {"both", both}, {"both", both}, // a repeat
			{"unbound", Settings{ConversationID: "unbound", Policy: PolicyChange{AllowInvites: &no}}},
			{"both", settings(one(func(c *PolicyChange) { c.AllowExternalCommits = &no }))},
			{"both", settings(one(func(c *PolicyChange) { c.RequireInviteForJoin = &yes }))},
			{"both", settings(one(func(c *PolicyChange) { c.AllowRejoin = &no }))},
			{"both", settings(one(func(c *PolicyChange) { c.PreventRemovingLastAdmin = &no }))},
			{"both", settings(one(func(c *PolicyChange) { c.AllowInvites = &no }))},
			{"both", settings(one(func(c *PolicyChange) { c.AdminOnlyInvites = &no }))},
			{"both", settings(one(func(c *PolicyChange) { c.AllowMemberAdd = &yes }))},
			{"both", settings(one(func(c *PolicyChange) { c.AllowMemberRemove = &yes }))},
			{"both", settings(one(func(c *PolicyChange) { c.RequireAdminApproval = &yes }))},
			{"both", settings(PolicyChange{RejoinWindowDays: &days, MaxMembers: &most})},
			{"both", Bundle{ConversationID: "both", ID: "c1", Commit: commit("both", 0), Encoding: ds.Binary}},
			{"both", GroupInfoUpdate{ConversationID: "both", GroupInfo: groupInfo("both", 1)}},
			{"both", Invite{ConversationID: "both", Accounts: []ds.AccountID{"eve"}}},
			{"both", settings(PolicyChange{AllowExternalCommits: &yes, RequireInviteForJoin: &no, AllowRejoin: &yes, PreventRemovingLastAdmin: &yes, AllowInvites: &yes,
				AdminOnlyInvites: &yes, AllowMemberAdd: &no, AllowMemberRemove: &no, RequireAdminApproval: &no})},
		}
		for i, step := range ops {
			if err := w.apply(who("ann"), step.op); err != nil {
				t.Fatalf("operation %d: %v", i, err)
			}
			view, err := w.service.Convo(context.Background(), who("ann"), step.id)
			if err != nil {
				t.Fatal(err)
			}
			policy, details := w.settingsIn(step.id)
			details.Creator, details.Suite, details.SuiteNumber = view.Creator, view.Suite, view.SuiteNumber
			if policy != view.Policy || details != view.Details {
				t.Errorf("operation %d, %T: the log has %+v and %+v, stored are %+v and %+v", i, step.op, policy, details, view.Policy, view.Details)
			}
			w.checkChain(step.id)
		}
	})
}

// TestBodiesOfBefore: the bodies of records without the new fields are those of earlier
// versions, byte by byte, and theirs are read.
func TestBodiesOfBefore(t *testing.T) {
	for _, row := range []struct {
		body any
		want string
	}{
		{ds.MembershipChange{By: "ann", Add: []ds.AccountID{"bob", "eve"}}, `{"by":"ann","add":["bob","eve"]}`},
		{ds.MembershipChange{Remove: []ds.AccountID{"bob"}, At: map[ds.AccountID]ds.Binding{}}, `{"remove":["bob"]}`},
		{ds.SettingsChange{Fields: []string{"groupInfo"}}, `{"fields":["groupInfo"]}`},
	} {
		if text, err := json.Marshal(row.body); err != nil || string(text) != row.want {
			t.Errorf("got %s, %v, want %s", text, err, row.want)
		}
	}
	var change ds.SettingsChange
	if err := json.Unmarshal([]byte(`{"by":"ann","fields":["policy"]}`), &change); err != nil || change.By != "ann" || change.Settings != (ds.Settings{}) {
		t.Errorf("got %+v, %v", change, err)
	}
}
