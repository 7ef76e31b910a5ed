package core

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

func TestDecideLeave(t *testing.T) {
	alone := func(c *logs.Conversation) {
		desert(c)
		c.Head.Members = 1
		c.SetStays("ann", []ds.Interval{{From: 1, Role: ds.Owner}})
	}
	admin := func(c *logs.Conversation) { c.Stays("bob")[0].Role = ds.Admin }
	unknown := func(c *logs.Conversation) { c.Exists = false; desert(c) }
	away := func(c *logs.Conversation) { c.Head.Home = "did:web:elsewhere" }
	rows := []struct {
		name, who, newOwner string
		change              func(*logs.Conversation)
		spent               bool
		wantCode            ds.Code
		wantAway            bool
		wantRecords         string
	}{
		{name: "a member", who: "bob", wantRecords: "membership"},
		{name: "an admin", who: "bob", change: admin, wantRecords: "membership"},
		{name: "the owner, as the last", who: "ann", change: alone, wantRecords: "membership"},
		{name: "the owner, with a successor", who: "ann", newOwner: "bob", wantRecords: "roles membership"},
		{name: "the owner, with an admin as successor", who: "ann", newOwner: "bob", change: admin, wantRecords: "roles membership"},
		{name: "the owner, without", who: "ann", wantCode: ds.Forbidden},
		{name: "the owner, in favour of itself", who: "ann", newOwner: "ann", wantCode: ds.InvalidRequest},
		{name: "the owner, in favour of a stranger", who: "ann", newOwner: "sue", wantCode: ds.InvalidRequest},
		{name: "the owner, in favour of who left", who: "ann", newOwner: "eve", wantCode: ds.InvalidRequest},
		{name: "the last, in favour of a stranger", who: "ann", newOwner: "bob", change: alone, wantCode: ds.InvalidRequest},
		{name: "a member names an owner", who: "bob", newOwner: "ann", wantCode: ds.Forbidden},
		{name: "an admin names an owner", who: "bob", newOwner: "bob", change: admin, wantCode: ds.Forbidden},
		{name: "a stranger", who: "sue", wantCode: ds.Forbidden},
		{name: "who left already", who: "eve", newOwner: "bob", wantCode: ds.Forbidden},
		{name: "unknown conversation", who: "ann", change: unknown, wantCode: ds.Forbidden},
		{name: "membership before rate", who: "sue", spent: true, wantCode: ds.Forbidden},
		{name: "rate before role", who: "ann", spent: true, wantCode: ds.RateLimited},
		{name: "role before home", who: "ann", change: away, wantCode: ds.Forbidden},
		{name: "home", who: "bob", change: away, wantAway: true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := decider(nil)
			if row.spent {
				s = decider(limits.Rates{limits.Removes: {Count: 1, Period: time.Hour}})
				s.limits.TakeN(nil, limits.Removes, row.who, "c1", 1)
			}
			c := table(row.change)
			before := c.Head
			_, err := s.try(c, who(row.who), Leave{ConversationID: "c1", NewOwner: ds.AccountID(row.newOwner)}, 1)
			if ds.CodeOf(err) != row.wantCode || ds.IsUnavailable(err) != row.wantAway {
				t.Fatalf("got %v", err)
			}
			records := ""
			for _, r := range c.Out.Records {
				if records != "" {
					records += " "
				}
				records += r.Kind.String()
			}
			if records != row.wantRecords {
				t.Errorf("records %q, want %q", records, row.wantRecords)
			}
			if err != nil {
				if c.Head.Pos != before.Pos || c.Head.Members != before.Members || len(c.Out.Roles) > 0 {
					t.Errorf("a refusal changed the conversation: %+v", c.Head)
				}
				return
			}
			if c.IsMember(ds.AccountID(row.who)) || c.Head.Members != before.Members-1 {
				t.Errorf("still there: %+v", c.Head)
			}
			if row.newOwner != "" && c.Role(ds.AccountID(row.newOwner)) != ds.Owner {
				t.Errorf("the new owner is %q", c.Role(ds.AccountID(row.newOwner)))
			}
		})
	}
}

// TestLeaveIsStored leaves on real databases: the role is one that the next request
// and the list of members see, and delivery stops with the record that says so.
func TestLeaveIsStored(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		w.room("c1", "ann", "bob", "eve")
		f := w.logs.NewFollower(who("ann"))
		defer f.Close()
		if err := followFrom(ctx, f, "c1", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Next(ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.apply(who("ann"), Leave{ConversationID: "c1"}); ds.CodeOf(err) != ds.Forbidden {
			t.Fatal(err)
		}
		if err := w.apply(who("ann"), Leave{ConversationID: "c1", NewOwner: "bob"}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.send("bob", "c1", "secret", "after"); err != nil {
			t.Fatal(err)
		}
		var seen []ds.Record
		for {
			page, err := f.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, page.Records...)
			if page.Ended != nil {
				break
			}
		}
		if n := len(seen); n < 2 || seen[n-1].Kind != ds.Membership || seen[n-2].Kind != ds.Roles {
			t.Fatalf("ann is shown %v", seen)
		}
		var change ds.RoleChange
		if err := json.Unmarshal(seen[len(seen)-2].Body, &change); err != nil || change != (ds.RoleChange{By: "ann", Account: "bob", Role: ds.Owner}) {
			t.Errorf("got %+v, %v", change, err)
		}
		members, err := w.service.Members(ctx, who("eve"), "c1")
		if err != nil || len(members) != 2 || members[0] != (ds.Member{Account: "bob", Role: ds.Owner}) {
			t.Errorf("got %v, %v", members, err)
		}
		// The new owner is one: it may remove, and must not be removed.
		if err := w.apply(who("bob"), Remove{ConversationID: "c1", Accounts: []ds.AccountID{"eve"}}); err != nil {
			t.Error(err)
		}
		if err := w.apply(who("bob"), Leave{ConversationID: "c1"}); err != nil {
			t.Error(err)
		}
		if err := w.apply(who("bob"), Leave{ConversationID: "c1"}); ds.CodeOf(err) != ds.Forbidden {
			t.Error(err)
		}
	})
}
