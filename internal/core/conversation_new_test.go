package core

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// TestCreateGroupOnTwoNodes has accounts of two nodes create one conversation at once,
// and another one with the same group: there is one creator, and to everybody else it is
// taken.
func TestCreateGroupOnTwoNodes(t *testing.T) {
	url := pgtest.URL(t)
	nodes := []*world{newWorld(t, url), newWorld(t, url)}
	ctx := context.Background()
	for round := range 6 {
		lower := hex.EncodeToString(fmt.Appendf(nil, "group-zo-%d", round)) // has letters, so there is another spelling
		upper := fmt.Sprintf("%X", fmt.Appendf(nil, "group-zo-%d", round))
		var wait sync.WaitGroup
		var made, taken atomic.Int64
		for i := range 8 {
			id := ds.ConversationID(lower)
			if i >= 4 {
				id = ds.ConversationID(upper)
			}
			wait.Go(func() {
				created, err := nodes[i%2].service.Apply(ctx, who(fmt.Sprint("did:ex:p", i)), Create{ConversationID: id, GroupID: []byte(fmt.Sprintf("group-zo-%d", round)), Suite: "S"})
				switch {
				case err == nil && created.IsNew:
					made.Add(1)
				case reasonOf(err) == ds.Taken:
					taken.Add(1)
				default:
					t.Errorf("created %v, %v", created, err)
				}
			})
		}
		wait.Wait()
		if made.Load() != 1 || taken.Load() != 7 {
			t.Errorf("round %d: %d made it, to %d it was taken", round, made.Load(), taken.Load())
		}
	}
}

// TestLeaveOnTwoNodes has the members of a conversation leave, and admins demote each
// other, on two nodes at once: whoever is left has one owner.
func TestLeaveOnTwoNodes(t *testing.T) {
	url := pgtest.URL(t)
	nodes := []*world{newWorld(t, url), newWorld(t, url)}
	ctx := context.Background()
	people := []ds.AccountID{"ann", "bob", "cid", "dan"}
	for round := range 6 {
		id := ds.ConversationID(hex.EncodeToString(fmt.Appendf(nil, "g%d", round)))
		if _, err := nodes[0].service.Apply(ctx, who("ann"), Create{ConversationID: id, GroupID: fmt.Appendf(nil, "g%d", round), Accounts: append(people, "eve")}); err != nil {
			t.Fatal(err)
		}
		for _, account := range []ds.AccountID{"bob", "cid"} {
			if err := nodes[1].apply(who("ann"), ChangeRole{ConversationID: id, Account: account, Role: ds.Admin}); err != nil {
				t.Fatal(err)
			}
		}
		var wait sync.WaitGroup
		for i, account := range people {
			wait.Go(func() {
				s := nodes[(i+round)%2].service
				if i%2 == 0 {
					if _, err := s.Apply(ctx, who(string(account)), Leave{ConversationID: id, PassOn: true}); err != nil {
						t.Error(err)
					}
					return
				}
				if _, err := s.Apply(ctx, who("bob"), ChangeRole{ConversationID: id, Account: people[(i+1)%4], Role: ds.Admin, Take: true}); err != nil && ds.CodeOf(err) == "" {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		view, err := nodes[1].service.Convo(ctx, who("eve"), id)
		if err != nil {
			t.Fatal(err)
		}
		owners := 0
		for _, p := range view.Participants {
			if p.Role == ds.Owner {
				owners++
			}
		}
		if owners != 1 || len(view.Participants) != 3 || view.Members != 3 {
			t.Errorf("round %d: %+v", round, view.Participants)
		}
	}
}
