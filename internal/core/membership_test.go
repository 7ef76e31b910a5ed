package core

import (
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// TestAccountsElsewhere: a membership record says where the accounts live that do not live
// here, and so do their stays. What is said of others is left out.
func TestAccountsElsewhere(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "bob")
		asked := ds.MembershipChange{By: "ann", Add: []ds.AccountID{"bob", "eve", "zoe"}, At: map[ds.AccountID]ds.Binding{
			"bob": {Service: "did:web:b"}, "eve": {Service: "did:web:e"}, "dan": {Service: "did:web:d"}}}
		r := &logs.Request{Conversation: "c1", Needs: logs.Needs{Accounts: asked.Add}, Rule: ruleFunc(func(c *logs.Conversation, now time.Time) error {
			changeMembers(c, asked, now.UnixMilli())
			return nil
		})}
		if err := w.logs.Submit(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		list, err := w.store.RecordsAfter(t.Context(), "c/c1", 1, 10, 1<<20)
		if err != nil || len(list) != 1 || string(list[0].Body) != `{"by":"ann","add":["eve","zoe"],"at":{"eve":{"service":"did:web:e"}}}` {
			t.Fatalf("got %s, %v", list[0].Body, err)
		}
		if _, err := w.send("eve", "c1", "m1", "x"); err != nil {
			t.Errorf("its account may send: %v", err)
		}
		if err := w.apply(who("ann"), ChangeRole{ConversationID: "c1", Account: "eve", Role: ds.Admin}); err != nil {
			t.Error(err)
		}
		if err := w.apply(who("ann"), Remove{ConversationID: "c1", Accounts: []ds.AccountID{"eve"}}); err != nil {
			t.Error(err)
		}
		for account, want := range map[ds.AccountID]string{"ann": "", "bob": "", "zoe": "", "eve": "did:web:e"} {
			key := store.MemberKey{Conversation: "c1", Account: account}
			err := w.store.View(t.Context(), func(tx *store.Tx) error {
				stays, err := tx.Conversations.Intervals([]store.MemberKey{key})
				if err == nil && (len(stays[key]) != 1 || stays[key][0].Service != want) {
					t.Errorf("%s: %+v", account, stays[key])
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		w.checkChain("c1")
	})
}
